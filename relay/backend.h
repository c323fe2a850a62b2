/* backend: one way for a server to attach. A backend turns the server's
 * connection into streams, one for each client.
 *
 * To add one: a file with a struct tunnel_backend in it, and its line in the
 * table in relay.c. */
#ifndef RELAY_BACKEND_H
#define RELAY_BACKEND_H

#include "relay/tunnel.h"

struct tunnel_backend {
    const char *scheme;                 /* of its URIs, and its name in openTunnel */

    /* NULL where tunnels have no thread of their own, but are carried: see carried.h.
     * Runs on the tunnel's thread for as long as the tunnel lives. Returns when
     * it has ended, why for the log; closes what it accepted. Stops when the
     * tunnel's waker is asked. */
    const char *(*serve)(struct tunnel *tunnel);

    /* Looks at tunnel_is_draining when its waker is nudged. */
    bool drains;

    /* Its tunnels have a third descriptor, which is counted with those of their clients and
     * of their server's connections: at the start of the daemon, two are made sure of. */
    bool has_epoll;
};

extern const struct tunnel_backend backend_tcp, backend_ssh, backend_webmux;

#endif
