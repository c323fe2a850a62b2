/* methods: the XML-RPC methods of the proxy, and the call of one by name.
 *
 * The library's own registry always lists system.shutdown, which has no place
 * here, and does not check parameters against signatures; so the table of
 * methods is this project's, and parsing and writing XML is the library's. */
#ifndef RPC_METHODS_H
#define RPC_METHODS_H

#include "relay/net_address.h"
#include "relay/relay.h"

#include <stdbool.h>
#include <xmlrpc-c/base.h>

struct address_table;

/* Where a call came from, and what it is about. Lives as long as the call. */
struct rpc_call {
    struct relay *relay;
    struct address_table *opens;        /* a token: an openTunnel that the caller may ask for */
    size_t opens_per_minute;            /* 0: any number, and opens may be NULL */
    struct net_address caller;
    const char *user;                   /* whose call it is; "": nobody is asked */
    const char *host;                   /* for the URIs in the answer */
    bool in_multicall;
};

enum { METHOD_SIGNATURES_MAX = 2 };

struct method {
    const char *name;
    /* The types of a result and its parameters, a letter each: s string,
     * A array, S struct. Parameters have been checked against them when
     * the method runs. */
    const char *signatures[METHOD_SIGNATURES_MAX];
    const char *help;
    xmlrpc_value *(*run)(xmlrpc_env *env, xmlrpc_value *parameters, struct rpc_call *call);
};

/* The tables, each ended by an entry without a name. */
extern const struct method tunnel_methods[];
extern const struct method system_methods[];

/* NULL if there is none of that name. */
const struct method *method_find(const char *name);

/* Calls fn for each method, in the order of the tables. */
void method_for_each(void (*fn)(const struct method *method, void *context), void *context);

/* The type that a letter of a signature stands for, as XML-RPC names it. */
const char *method_type_name(char letter);

/* Runs the method of that name. The result is the caller's to release; NULL
 * with a fault in env. */
xmlrpc_value *method_call(xmlrpc_env *env, const char *name, xmlrpc_value *parameters,
                          struct rpc_call *call);

/* Answers one call: XML in, XML out; faults are answers too. NULL, with a fault
 * in env, only when memory ran out. The block is the caller's to free. */
xmlrpc_mem_block *method_answer(xmlrpc_env *env, const char *xml, size_t length,
                                struct rpc_call *call);

#endif
