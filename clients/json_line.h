/* json_line: one JSON object on a line of standard output, for programs. */
#ifndef CLIENTS_JSON_LINE_H
#define CLIENTS_JSON_LINE_H

#include "clients/outlet.h"

#include <jansson.h>

/* Takes the object, which may be NULL for want of memory. An exit status, having said
 * why it failed. Any thread. */
int json_line_print(json_t *object, enum outlet_rank rank);

#endif
