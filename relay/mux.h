/* mux: one side of the connections that carry many streams by WebMUX, and the
 * sockets that those streams are relayed to. The proxy has one for each tunnel, whose
 * streams are clients; the client library has one, whose streams are connections to
 * the service.
 *
 *     epoll --> sources --> carriers, which read and write frames
 *                       \-> streams, whose bytes go into frames and come from them
 *
 * Belongs to one thread, which calls mux_turn again and again. Everything happens in
 * there, the handler's functions too. Rules of relaying as in doc/protocol.md, for each
 * stream: what its socket does not take waits in a queue, which the credit that the
 * other end has bounds; what the connection does not take is not read in the first
 * place. */
#ifndef RELAY_MUX_H
#define RELAY_MUX_H

#include "relay/byte_queue.h"
#include "relay/rate.h"
#include "relay/waker.h"
#include "relay/webmux.h"

#include <sys/epoll.h>
#include <sys/queue.h>

struct mux;
struct mux_carrier;
struct mux_stream;

/* Something that epoll tells about. */
struct mux_source {
    void (*ready)(struct mux_source *source, uint32_t events);
};

/* What a side does about what comes. */
struct mux_handler {
    /* The other end has opened a stream: returns a socket for it, connected or about to
     * be, the mux's from then on; or a negative errno. -EAGAIN: it can't be had yet, and is
     * asked for again in a moment. NULL: they are opened here. */
    int (*connect)(struct mux *mux, struct mux_stream *stream);

    /* The socket for it is connected, or was when it broke off. Not of those opened here. */
    void (*connected)(struct mux *mux, const struct mux_stream *stream);

    /* A stream has ended, why; its socket is closed already. Also if it never had one, or
     * if that was never connected. */
    void (*stream_ended)(struct mux *mux, const struct mux_stream *stream, const char *why);

    /* A carrier is over, why; its streams have ended. */
    void (*carrier_ended)(struct mux *mux, const struct mux_carrier *carrier, const char *why);

    /* Why streams end whose sockets break, and those that the other end resets. */
    const char *socket_broke, *session_reset;
};

struct mux_limits {
    int64_t linger_ms;                  /* of a stream: as duplex_limits */
    int64_t idle_ms;                    /* the same; 0: no limit */
    int64_t bytes_per_s;                /* of all streams, both ways; 0: no limit */
    size_t window_bytes;                /* of each stream at first, for webmux_init */
    size_t growth_bytes;                /* by which windows may grow, all together */
    size_t waiting_bytes;               /* for slow sockets; then the fullest stream is reset, which
                                         * takes more than all windows: bytes of sessions that are over */
};

TAILQ_HEAD(mux_carriers, mux_carrier);
TAILQ_HEAD(mux_streams, mux_stream);

struct mux {
    const struct mux_handler *handler;
    struct mux_limits limits;
    int epoll;
    struct rate rate;
    struct webmux_growth growth;
    struct mux_carriers carriers;       /* that live; */
    struct mux_carriers over;           /* that don't, until the turn ends */
    struct mux_streams ended;           /* the same, of streams */
    struct mux_streams held;            /* whose sockets would take bytes, the next one first */
    size_t carriers_count, streams_count;
    size_t waiting;                     /* bytes in all queues */
    unsigned long carriers_in_all, streams_in_all;
    uint64_t bytes_from_sockets, bytes_to_sockets;  /* of the streams */
    int64_t now_ms;                     /* of this turn */
    int64_t look_ms;                    /* when to look next at how long streams have been silent */
    bool has_more;                      /* to do, without waiting for anything */
    bool reads_sockets_first;           /* of what the rate allows, or else writes to them */
};

/* 0 or a negative errno. */
int mux_init(struct mux *mux, const struct mux_handler *handler, const struct mux_limits *limits);

/* Resets everything, and tells the handler; mux_close, after that, or by itself, frees it. */
void mux_stop(struct mux *mux);
void mux_close(struct mux *mux);

/* Has a source told about a descriptor, told other things, or told no more: 0 or a
 * negative errno. Closing it is not enough for the last: epoll knows it for as long as
 * any process has it, such as one that was forked. */
int mux_watch(struct mux *mux, int fd, uint32_t events, struct mux_source *source);
int mux_watch_again(struct mux *mux, int fd, uint32_t events, struct mux_source *source);
int mux_forget(struct mux *mux, int fd);

/* Waits for something to do, until deadline_ms of clock_ms at the latest, and does it.
 * 0, or as waker_poll. */
int mux_turn(struct mux *mux, struct waker *waker, int64_t deadline_ms);

struct mux_carrier {
    struct mux_source source;
    TAILQ_ENTRY(mux_carrier) entry;
    struct mux *mux;
    unsigned long number;               /* its name */
    int socket;
    bool can_read, can_write;           /* as far as is known */
    bool was_heard;                     /* anything has come */
    bool hung_up;                       /* it is known that the other end sends no more */
    const char *failure;                /* why it is over, or NULL */
    char *out;                          /* what is to be written, from the pool, or NULL */
    size_t out_start, out_count;
    struct webmux webmux;
    struct mux_stream *by_session[WEBMUX_IDS];  /* the newest of each */
    struct mux_streams streams;         /* all of them */
    struct mux_streams ready;           /* whose sockets have bytes, the next one first */
    int64_t asked_ms;                   /* since when openings are unanswered; 0: none is */
};

/* Takes a connected, non-blocking socket over. opens: this end opens the sessions. 0,
 * or a negative errno, and then the socket is reset. */
int mux_add_carrier(struct mux *mux, int socket, bool opens, struct mux_carrier **carrier);

/* Ends it with this turn. */
void mux_carrier_fail(struct mux_carrier *carrier, const char *why);

/* Whether the other ends have all that was to be sent. Nothing wakes a turn when they do. */
bool mux_has_sent_all(const struct mux *mux);

/* The one with the fewest streams that has room for one, and is not known to be at its end,
 * or NULL. One that has not answered for a while comes last. */
struct mux_carrier *mux_choose_carrier(struct mux *mux);

/* Whether it is at its end, which may still lie behind bytes that were not read: then it is
 * known from now on. */
bool mux_carrier_is_ending(struct mux_carrier *carrier);

struct mux_stream {
    struct mux_source source;
    TAILQ_ENTRY(mux_stream) entry;      /* in ready, or ended */
    TAILQ_ENTRY(mux_stream) sibling;    /* in its carrier's streams */
    TAILQ_ENTRY(mux_stream) turn;       /* in held */
    struct mux_carrier *carrier;
    unsigned long number;               /* its name */
    uint8_t session;                    /* another's, once it is over and was opened again */
    int socket;                         /* -1: there is none yet, or any more */
    bool is_over;
    bool is_connecting;                 /* or waits for a socket */
    bool was_connected;                 /* and the handler was told */
    bool can_read, can_write;           /* as far as is known */
    bool hung_up, broke;                /* epoll has said so of the socket */
    bool was_urgent;                    /* the same: reading stops short at such bytes */
    bool is_ready, is_held;             /* in those lists */
    bool is_confirmed;                  /* by the end that did not open it */
    bool socket_ended;                  /* all that it gave is in frames, and its end too */
    bool end_came, end_passed_on;       /* from the other end, to the socket */
    struct byte_queue queue;            /* for the socket */
    uint64_t bytes_from_socket, bytes_to_socket;
    int64_t moved_ms;                   /* when something last passed */
    int64_t lingers_since_ms;           /* the same, or when a look last found no silence */
};

/* Opens a session for a connected socket, which is taken over. 0, or a negative errno,
 * and then the socket is reset. */
int mux_add_stream(struct mux_carrier *carrier, int socket);

#endif
