/* relay_private: what the files of the relay share: relay.c, whose tunnels have a
 * thread each, carried.c, whose tunnels pass from one carrier's thread to the next, and
 * reservation.c, which counts both. */
#ifndef RELAY_RELAY_PRIVATE_H
#define RELAY_RELAY_PRIVATE_H

#include "relay/port_pool.h"
#include "relay/relay.h"
#include "relay/tally.h"
#include "relay/tunnel.h"

#include <pthread.h>
#include <stdatomic.h>

/* A thread can't give its own stack back: who ends after it does. */
struct ended_thread {
    void *stack;                        /* NULL: none */
    pthread_t thread;
};

/* Settings that tunnels share, and that never change: a change makes others. */
struct shared_settings {
    struct relay_settings values;
    size_t tunnels;                     /* guarded by the relay's lock: opened with them */
};

struct relay {
    struct port_pool *pool;

    pthread_mutex_t lock;
    pthread_cond_t emptied;             /* alive became 0 */
    struct shared_settings *settings;   /* guarded by lock: for the next tunnel */
    struct tunnel **table;              /* guarded by lock: by index of the port pair, or NULL */
    size_t alive;                       /* guarded by lock: in the table, or about to be */
    struct tally addresses, users;      /* guarded by lock: that have opened those alive */
    uint64_t last_id;                   /* guarded by lock */
    bool refusing;                      /* guarded by lock: no new tunnels */
    bool ending;                        /* guarded by lock: nor may those in the making begin */
    struct ended_thread ended;          /* guarded by lock: the last that has ended, to be joined */
    size_t crowd;                       /* guarded by lock: most alive since there were none */
    atomic_size_t descriptors;          /* of all tunnels that have many clients */
    struct relay_ssh ssh;               /* guarded by lock: port 0: there is none */
    struct waker *expirer;              /* guarded by lock: of the thread that calls carried_expire */
};

/* What a tunnel counts for as long as it is alive. */
struct reservation {
    uint64_t id;
    struct shared_settings *settings;
    struct tally_entry *address, *user; /* NULL: there are no users */
    bool has_descriptor;                /* counted, as backend.h has it */
};

/* A copy for tunnels to share, which the last of them frees; NULL: no memory. */
struct shared_settings *shared_settings_new(const struct relay_settings *values);

/* Counts a tunnel that is about to be, and gives it its id and settings. 0 or a negative
 * errno. */
int reserve(struct relay *relay, const struct tunnel_backend *backend,
            const struct tunnel_opener *opener, struct reservation *reservation);

/* Counts it no more. */
void unreserve(struct relay *relay, const struct reservation *reservation);

/* What tunnels have shared goes with the last of them: a proxy without tunnels is as small
 * as on its first day. crowd: how many there were at once. */
void release_pools(size_t crowd);

/* What a tunnel's thread starts with, and owns; a carried tunnel has none, and
 * whoever holds it owns it. */
struct tunnel_start {
    struct relay *relay;
    void *stack;                        /* of its thread */
    struct reservation reservation;
    struct tunnel tunnel;
    char texts[];                       /* the tunnel's host and owner */
};

/* A tunnel with its port pair, counted but not yet known to anyone. owner: "" for
 * one that has a thread. */
int tunnel_new(struct relay *relay, const struct tunnel_backend *backend, const char *host,
               const struct tunnel_opener *opener, const char *owner, struct tunnel_start **out);

/* -ESHUTDOWN: relay_end_all has been through the table already. */
int enter_table(struct relay *relay, struct tunnel *tunnel);

/* From here on nobody else can reach the tunnel. */
void leave_table(struct relay *relay, struct tunnel *tunnel);

/* Closes its listeners, gives the pair back, stops counting it. */
void tunnel_free(struct tunnel_start *start);

#endif
