/* socket: the few things that every socket here gets.
 *
 * All sockets are non-blocking and closed on exec. Functions return a
 * descriptor or 0, or a negative errno. Any thread. */
#ifndef RELAY_SOCKET_H
#define RELAY_SOCKET_H

#include "relay/net_address.h"

#include <stdint.h>

enum {
    SOCKET_KEEPALIVE_MS = 60000,        /* as good as any for a relayed connection */
    SOCKET_KEEPALIVE_MAX_S = 32767      /* the kernel's */
};

/* Listens on address; port 0 takes a free one. */
int socket_listen(const struct net_address *address, int backlog);

/* Sets up a connection to be relayed: no delay for small writes, no pacing where there is
 * no network, a dead peer noticed, and, until socket_close, whatever ends this process
 * shows to the peer as a reset and never as a proper end. A peer is probed after
 * keepalive_ms of silence, in whole seconds, and is gone after five times as long with
 * bytes or probes unanswered. */
int socket_prepare_to_relay(int socket, int64_t keepalive_ms);

/* Sets up a connection that is no stream of its own, but carries some: as above,
 * but that what was written is still delivered when it is closed. */
int socket_prepare_carrier(int socket, int64_t keepalive_ms);

/* Has a listener's connections, from the moment that they are accepted, shown to their
 * peers as reset when this process ends. */
int socket_arm_reset(int listener);

/* Closes a connection whose stream ended as it should: what was written is
 * still delivered, then the end. -1 is ignored. */
void socket_close(int socket);

/* Closes so that the peer sees a reset. -1 is ignored. */
void socket_reset(int socket);

#endif
