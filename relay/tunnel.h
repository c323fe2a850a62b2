/* tunnel: one tunnel, from its opening to its close.
 *
 * A tunnel belongs to its thread, or to that of the carrier that holds it: only that
 * thread touches its sockets and its state. Others find it in the relay's table and may
 * read what is fixed at opening (its URIs), or ask its waker to make it end. */
#ifndef RELAY_TUNNEL_H
#define RELAY_TUNNEL_H

#include "relay/net_address.h"
#include "relay/port_pool.h"
#include "relay/relay.h"
#include "relay/uri.h"
#include "relay/waker.h"

#include <stdatomic.h>
#include <stdint.h>

struct tunnel_backend;

struct tunnel {
    /* Fixed before the thread starts. */
    uint64_t id;                        /* its name in the log */
    const struct tunnel_backend *backend;
    const struct relay_settings *settings;      /* those at its opening; never change */
    struct net_address opener;
    const char *host;                   /* of its URIs; whoever made the tunnel owns it */
    const char *owner;                  /* the same; "", but of carried tunnels: see carried.h */
    uint16_t server_port;               /* of its server URI */
    int64_t opened_ms;

    bool is_held;                       /* guarded by the relay's lock, as the next two: */
    bool was_held;                      /* carried.h */
    int64_t waits_until_ms;             /* while nobody holds it */

    atomic_size_t *descriptors;         /* that are counted, of all tunnels: the relay's */
    atomic_bool is_draining;            /* no new clients: the relay is shutting down */
    unsigned long turned_away;          /* at the server port: the thread's */
    struct waker waker;                 /* asked by the relay when the tunnel has to end */
    struct port_pair pair;              /* the listeners are the thread's */
};

/* The URIs of its two ends. Any thread that may read the tunnel. */
void tunnel_server_uri(const struct tunnel *tunnel, struct tunnel_uri *uri);
void tunnel_client_uri(const struct tunnel *tunnel, struct tunnel_uri *uri);

/* Closes the ports of one that its backend has served, and logs why it ended. */
void tunnel_end(struct tunnel *tunnel, const char *why);

/* When its lifetime is over, by clock_ms; INT64_MAX: it has none. */
int64_t tunnel_until_ms(const struct tunnel *tunnel);

/* Accepts one connection of a listener of the tunnel, ready to be relayed. Returns
 * the socket; -EAGAIN when none waits (or the one that did has gone); another
 * errno when the system has no descriptor or memory left for it. */
int tunnel_accept(const struct tunnel *tunnel, int listener, struct net_address *peer);

/* Whether a connection from there may attach, as --attach-from says; and the end of one
 * that may not. */
bool tunnel_admits(const struct tunnel *tunnel, const struct net_address *peer);
void tunnel_turn_away(struct tunnel *tunnel, int socket, const struct net_address *peer);

/* Counts a descriptor of a tunnel that may have many clients, besides those of its ports:
 * false, if all such tunnels together have the most that there may be, which is
 * settings.descriptors. */
bool descriptors_take(atomic_size_t *taken, size_t most);
void descriptors_give(atomic_size_t *taken);
bool tunnel_take_descriptor(struct tunnel *tunnel);
void tunnel_give_descriptor(struct tunnel *tunnel);

/* Accepts one client of such a tunnel, counted. As tunnel_accept; -EMFILE also when
 * there are too many. */
int tunnel_accept_client(struct tunnel *tunnel, struct net_address *peer);

static inline bool tunnel_is_draining(struct tunnel *tunnel)
{
    return atomic_load(&tunnel->is_draining);
}

/* Stops listening on one of the pair's ports. */
void tunnel_close_listener(int *listener);

#endif
