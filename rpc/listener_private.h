/* listener_private: what the two files of the listener share. The listener's thread
 * alone, but where it says otherwise. */
#ifndef RPC_LISTENER_PRIVATE_H
#define RPC_LISTENER_PRIVATE_H

#include "relay/log_budget.h"
#include "relay/tally.h"
#include "rpc/connection.h"
#include "rpc/listener.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

TAILQ_HEAD(connections, connection);

/* Everything belongs to the listener's thread but handed_over, and what the lock
 * guards. */
struct listener {
    pthread_t thread;
    int socket;
    int epoll;
    int news;                           /* eventfd: written when the lock's things changed */
    struct connections waiting;         /* for their request; the oldest first */
    struct connections draining;        /* the oldest first */
    size_t count;                       /* in both lists */
    struct listener_limits limits;      /* that hold in this round */
    struct log_budget log_budget;       /* for refusals */
    struct log_budget pause_budget;
    atomic_size_t handed_over;          /* taken by ready, not done yet */
    int64_t accept_again_ms;
    bool is_paused;                     /* the port is not watched until then */
    void (*ready)(const struct ready_request *request, void *context);
    void *context;
    pthread_mutex_t lock;
    struct listener_limits next_limits; /* guarded by lock: for the next round */
    bool stopping;                      /* guarded by lock */
    struct tally addresses;             /* guarded by lock: of all connections */
    char bytes[HTTP_REQUEST_BYTES];     /* what was looked at last */
};

/* The address of whoever had it counted has one connection less. Any thread. */
void listener_uncount(struct listener *listener, struct tally_entry *counted);

/* Forgets the connection and closes it. */
void listener_drop(struct listener *listener, struct connection *connection);

/* Whether that is the proxy whose word counts. */
bool listener_trusts(const struct listener *listener, const struct net_address *peer);

/* Has the thread look at whom when there are events. 0 or a negative errno. */
int listener_watch(struct listener *listener, int descriptor, uint32_t events, void *whom);

/* --- listener_accept */

/* Accepts those that wait, as far as there is room. May close other connections. */
void listener_accept(struct listener *listener);

/* Goes on after a pause; in how many milliseconds to look again, INT32_MAX where there
 * is none. */
int64_t listener_accept_again(struct listener *listener, int64_t now_ms);

#endif
