#include "rpc/xml_guard.h"

#include <string.h>

const char *xml_guard_look(const char *xml, size_t length)
{
    static const char declaration[] = "<!DOCTYPE";

    /* UTF-16, in which a declaration would look different, can't do without. */
    if (memchr(xml, '\0', length))
        return "expected XML in UTF-8, got a zero byte";
    if (memmem(xml, length, declaration, sizeof declaration - 1))
        return "expected no document type declaration";
    return NULL;
}
