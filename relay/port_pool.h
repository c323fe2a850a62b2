/* port_pool: the adjacent port pairs of one range.
 *
 * A pair that comes back goes to the end of the queue, so that who comes late to a
 * dead tunnel finds nobody. Of the pairs that have rested for PORT_POOL_REST_MS, or
 * were never used, one is handed out by chance: nobody can tell which port comes
 * next. When none has, it is the one that rested longest. Thread-safe; taking and
 * giving take the same time however many pairs there are. */
#ifndef RELAY_PORT_POOL_H
#define RELAY_PORT_POOL_H

#include "relay/net_address.h"

#include <stddef.h>
#include <stdint.h>

enum { PORT_POOL_REST_MS = 120000 };   /* twice what Linux keeps a closed connection */

struct port_pool;

struct port_pair {
    size_t index;                       /* from 0, in the order of the ports */
    uint16_t server_port;               /* the client port is the next one */
    int server_listener;                /* the taker's to close, or -1 */
    int client_listener;
};

/* The pairs from port_low to port_high, listening on the host of address. An
 * odd last port stays unused. 0, or -EINVAL for a range without a pair, or
 * -ENOMEM. */
int port_pool_new(const struct net_address *address, uint16_t port_low, uint16_t port_high,
                  struct port_pool **pool);
void port_pool_free(struct port_pool *pool);

/* Takes a rested pair, and listens on both its ports; many clients may wait there. Pairs
 * with a port that another program holds are passed over and go to the end of the queue.
 * 0; -EADDRNOTAVAIL when no pair is to be had; or another errno when the system gives no
 * socket. */
int port_pool_take(struct port_pool *pool, struct port_pair *pair);

/* Gives a pair back; all its sockets have been closed. */
void port_pool_give(struct port_pool *pool, const struct port_pair *pair);

size_t port_pool_size(const struct port_pool *pool);
size_t port_pool_resting(struct port_pool *pool);

/* Which pair has this server port: its index, or -1. */
ptrdiff_t port_pool_index(const struct port_pool *pool, uint16_t server_port);

#endif
