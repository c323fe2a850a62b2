/* transport: what goes to the proxy over the network, by libcurl: calls by HTTP, and the connections
 * that attach to tunnels. Both go through the proxies of the environment (http_proxy,
 * https_proxy, all_proxy, no_proxy), where there are such, and take the address that answers
 * first of a name that has several. */
#ifndef CLIENTS_TRANSPORT_H
#define CLIENTS_TRANSPORT_H

#include "clients/library.h"

#include <stddef.h>
#include <stdint.h>

enum { TRANSPORT_ANSWER_BYTES_MAX = 1 << 20 };

struct transport_answer {
    char *bytes;                        /* a NUL follows them; the caller's to free */
    size_t count;
};

/* Posts XML to the proxy's URL, and receives what comes back with the status 200. */
enum tristero_status transport_post(const struct tristero_proxy *proxy, const char *xml,
                                    size_t count, struct transport_answer *answer,
                                    struct tristero_error *error);

/* Connects to a host, which is without brackets. *socket gets the connection,
 * non-blocking and closed on exec, the caller's. what: the tunnel, for errors. */
enum tristero_status transport_connect(const struct tristero_proxy *proxy, const char *host,
                                       uint16_t port, const char *what, int *socket,
                                       struct tristero_error *error);

#endif
