#include "clients/json_line.h"

#include "clients/command.h"

#include <stdlib.h>

int json_line_print(json_t *object)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    int status = STATUS_FAILED;

    if (text)
        status = print_line("%s", text);
    else
        complain("can't make the JSON: out of memory");
    free(text);
    json_decref(object);
    return status;
}
