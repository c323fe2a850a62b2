#include "rpc/faults.h"

#include <stdarg.h>
#include <stdio.h>

/* The negative codes are those that xmlrpc-c and many other servers use. */
static const struct {
    int code;
    const char *name;
} faults[] = {
    [FAULT_MALFORMED_URI]    = { 1, "malformed URI" },
    [FAULT_UNKNOWN_TUNNEL]   = { 2, "unknown tunnel" },
    [FAULT_UNKNOWN_BACKEND]  = { 3, "unknown backend" },
    [FAULT_LIMIT_REACHED]    = { 4, "limit reached" },
    [FAULT_NO_PORT_PAIR]     = { 5, "no free port pair" },
    [FAULT_SHUTTING_DOWN]    = { 6, "shutting down" },
    [FAULT_WRONG_PARAMETERS] = { 7, "wrong parameters" },
    [FAULT_OUT_OF_RESOURCES] = { 8, "out of resources" },
    [FAULT_NOT_A_CALL]       = { XMLRPC_PARSE_ERROR, "not an XML-RPC call" },
    [FAULT_UNKNOWN_METHOD]   = { XMLRPC_NO_SUCH_METHOD_ERROR, "unknown method" },
};

int fault_code(enum fault fault)
{
    return faults[fault].code;
}

void fault_set(xmlrpc_env *env, enum fault fault, const char *format, ...)
{
    char detail[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(detail, sizeof detail, format, arguments);
    va_end(arguments);
    xmlrpc_env_set_fault_formatted(env, faults[fault].code, "%s: %s", faults[fault].name, detail);
}
