#include "rpc/xml_guard.h"

#include <stdbool.h>
#include <string.h>

static bool contains(const char *xml, size_t length, const char *text)
{
    return memmem(xml, length, text, strlen(text)) != NULL;
}

const char *xml_guard_look(const char *xml, size_t length)
{
    /* UTF-16, in which what follows would look different, can't do without. */
    if (memchr(xml, '\0', length))
        return "expected XML in UTF-8, got a zero byte";
    if (contains(xml, length, "<!DOCTYPE"))
        return "expected no document type declaration";
    if (contains(xml, length, "<i8") || contains(xml, length, "<ex:i8"))
        return "expected no value of type i8";
    return NULL;
}
