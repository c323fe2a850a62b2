#include "clients/json_line.h"

#include "clients/command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int json_line_print(json_t *object, enum outlet_rank rank)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    int err = text ? outlet_print(OUTLET_OUTPUT, rank, "%s\n", text) : -ENOMEM;

    if (err)
        complain("can't write JSON to standard output: %s", strerrordesc_np(-err));
    free(text);
    json_decref(object);
    return err ? STATUS_FAILED : STATUS_OK;
}
