/* faults: the errors that callers get, each with its code. doc/protocol.md
 * lists them for the callers. */
#ifndef RPC_FAULTS_H
#define RPC_FAULTS_H

#include <xmlrpc-c/base.h>

enum fault {
    FAULT_MALFORMED_URI,
    FAULT_UNKNOWN_TUNNEL,
    FAULT_UNKNOWN_BACKEND,
    FAULT_LIMIT_REACHED,
    FAULT_NO_PORT_PAIR,
    FAULT_SHUTTING_DOWN,
    FAULT_WRONG_PARAMETERS,
    FAULT_OUT_OF_RESOURCES,
    FAULT_NOT_A_CALL,
    FAULT_UNKNOWN_METHOD
};

int fault_code(enum fault fault);

/* Sets env's fault: its code, and its name followed by the detail, as in
 * `unknown backend: got "smtp", this proxy has tcp`. */
void fault_set(xmlrpc_env *env, enum fault fault, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
