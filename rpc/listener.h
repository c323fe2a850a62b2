/* listener: accepts HTTP connections, and waits on one thread until a whole
 * request has arrived on each.
 *
 * Requests are looked at where they are, in the socket's receive buffer, and
 * left there: who takes a ready connection reads the request as if nobody had
 * touched it, and never has to wait for it. So a slow, dripping or silent
 * client costs a descriptor for a while and holds up nobody. What the guard
 * refuses is answered here. */
#ifndef RPC_LISTENER_H
#define RPC_LISTENER_H

#include "relay/net_address.h"
#include "rpc/http_guard.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

struct listener;
struct tally_entry;

struct listener_limits {
    size_t connections;                 /* at once; then the longest-waiting makes room */
    size_t connections_per_address;     /* at once */
    int64_t request_timeout_ms;         /* for a whole request to arrive */
    size_t request_bytes;               /* of a body; HTTP_BODY_BYTES at most */
    bool has_trusted_proxy;             /* whose word counts for whom it has heard; it may */
    struct net_address trusted_proxy;   /* have any number of connections */
};

/* A connection with a request ready to be read. */
struct ready_request {
    int socket;                         /* non-blocking */
    struct net_address peer;            /* or whom the trusted proxy has heard */
    struct tally_entry *counted;        /* for listener_done */
    struct http_request request;
    char user[USERS_NAME_BYTES];        /* for the gate to fill: whose call it is, or "" */
};

/* Listens on address; *bound gets what it really listens on. ready is called
 * on the listener's thread for each complete request; it takes the socket over
 * and must not block, and listener_done tells when the socket is closed; *listener
 * is set before the first call. 0 or a negative errno. */
int listener_start(const struct net_address *address, const struct listener_limits *limits,
                   void (*ready)(const struct ready_request *request, void *context),
                   void *context, struct listener **listener, struct net_address *bound);

/* For connections that come, and requests that arrive, from now on. Any thread. */
void listener_change_limits(struct listener *listener, const struct listener_limits *limits);

/* The connection of a request that was handed to ready has been closed. Any thread. */
void listener_done(struct listener *listener, const struct ready_request *ready);

/* Closes the port and all connections that wait, and ends the thread. */
void listener_stop(struct listener *listener);

#endif
