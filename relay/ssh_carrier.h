/* ssh_carrier: what the files share that make up a carrier: the connection of a
 * server that has logged in, its tunnels, their streams. All of it belongs to the
 * carrier's thread, but what the service's lock guards and what is atomic.
 *
 * libssh calls back while it handles packets, which it also does while it writes:
 * callbacks note down what happened and free nothing. */
#ifndef RELAY_SSH_CARRIER_H
#define RELAY_SSH_CARRIER_H

#include "relay/rate.h"
#include "relay/ssh_private.h"
#include "relay/tunnel.h"

#include <poll.h>

struct forward;
struct stream;

enum {
    SSH_BIND_BYTES = 256,               /* an address as a request names it, and a NUL */
    CONSOLE_LINE_BYTES = 400,
    CONSOLE_REFUSALS = 8                /* that are told later with their reasons */
};

TAILQ_HEAD(forwards, forward);
TAILQ_HEAD(streams, stream);

/* The session that people see, if they asked for one. */
struct console {
    ssh_channel channel;                /* NULL: nobody asked */
    struct ssh_channel_callbacks_struct callbacks;
    bool is_shown;                      /* a shell was asked for: lines are printed */
    bool has_terminal;                  /* whose lines end with CR LF */
    bool is_over;                       /* it has been closed, by either side */
    bool is_interrupted;                /* Ctrl-C was pressed */
    bool is_explained;                  /* what the address is, and how to end */
    struct {
        int port;
        const char *why;
    } refused[CONSOLE_REFUSALS];        /* before it was shown: ssh asks for forwards first */
    unsigned refused_count;             /* also of those for which there is no place */
    int64_t shown_ms;                   /* since when it has been; 0: not yet */
    int64_t leave_ms;                   /* when its user has to have gone; 0: it may stay */
    char *unsent;                       /* lines that it has not taken yet; NULL: none */
    size_t unsent_count;
    unsigned long left_out;             /* lines for which there was no room */
    bool has_written;                   /* for carrier_write */
};

struct carrier {
    TAILQ_ENTRY(carrier) entry;         /* guarded by the service's lock */
    struct ssh_service *service;
    struct ssh_entrant entrant;
    pthread_t thread;
    void *stack;
    struct waker waker;
    atomic_bool draining;
    atomic_bool has_tunnel, makes_room; /* for others, since it has none */

    struct relay_settings settings;     /* at its start */
    struct ssh_limits limits;           /* the same */
    struct ssh_server_callbacks_struct server_callbacks;
    struct forwards forwards;
    struct streams streams;
    struct streams active;              /* of them: those that have something to do */
    size_t active_count;
    int64_t time_ms;                    /* when the time of one may be over, at the earliest */
    size_t waiting;                     /* bytes for clients that are slow, or have gone */
    bool is_held_up;                    /* that is too much: nothing more is read */
    int64_t stuck_look_ms;              /* when to look again for whom it is too much */
    struct console console;
    unsigned long clients;              /* that have come, in all: their names */
    const char *failure;                /* why it has to end; NULL: it goes on */
    bool server_has_left;               /* no more will come than what is there to be read */
    char host[URI_HOST_BYTES];          /* by which the server called the proxy */

    struct ssh_counter_struct counter;  /* bytes of the connection, by libssh */
    struct ssh_counter_struct payload;  /* bytes in packets that libssh has sent, not kept back */
    uint64_t kept_back;                 /* bytes that it took and did not send, or 0 */
    uint64_t kept_back_at;              /* payload sent when it was asked to */
    int64_t exchange_ms;                /* since when keys are exchanged anew; 0: they are not */
    uint64_t exchange_heard;            /* bytes received then */
    uint64_t exchange_packets;          /* packets received then */
    uint64_t proven_packets;            /* received when last something was surely not kept back */
    uint64_t heard_bytes;               /* of them, received at the last look */
    int64_t heard_ms;                   /* when some were received last */
    int64_t ping_ms;                    /* when the next question is due, if it is silent */
    bool is_pinged;                     /* one is unanswered */
    uint64_t heard_at_flush;            /* received when all that was written had last been sent */
    int64_t opened_ms;

    struct pollfd *polled;              /* its own, and two of each forward */
    size_t polled_room;
    char *room;                         /* BUFFER_BYTES, borrowed while something moves; or NULL */
    struct log_budget log_budget;       /* for what is refused */
};

/* --- ssh_carrier */

/* Starts a thread for it, which owns the entrant's session, also when this fails. */
int carrier_start(struct ssh_service *service, struct ssh_entrant *entrant);

/* With the service's lock held: no new clients; it ends when those here have gone. */
void carrier_drain(struct carrier *carrier);

/* With the service's lock held: it ends now. */
void carrier_ask_to_end(struct carrier *carrier);

/* The same, if it has no tunnel, and was not asked before: whether that is so. */
bool carrier_make_room(struct carrier *carrier);

/* Joins its thread, which has ended, and frees it. */
void carrier_bury(struct carrier *carrier);

/* It has to end: the first reason counts. */
void carrier_fail(struct carrier *carrier, const char *why);

/* A buffer for bytes that pass; NULL: there is no memory, and the carrier has failed. */
char *carrier_room(struct carrier *carrier);

/* Whether clients that come now are to wait for the server's next connection: this one
 * is at its end, which may still lie behind bytes that were not read. */
bool carrier_is_ending(struct carrier *carrier);

/* Whether more may be written: all that was has been sent. */
bool carrier_may_write(const struct carrier *carrier);

/* Whether the server's machine has so many of the bytes that the connection has carried. */
bool carrier_has_delivered(const struct carrier *carrier, uint64_t bytes);

/* Sends an end and a close, or has them sent. false: the session is no good. */
bool carrier_close_channel(ssh_channel channel);

/* --- ssh_liveness */

/* The server has just been heard. */
void liveness_begin(struct carrier *carrier, int64_t now_ms);

/* Asks a silent server whether it is there, and ends the carrier of a dead one. When
 * it has to be looked at again. */
int64_t liveness_look(struct carrier *carrier, int64_t now_ms);

/* --- ssh_exchange */

/* As ssh_channel_write. *has_written is the channel's own, and false before the first. */
int carrier_write(struct carrier *carrier, ssh_channel channel, bool *has_written,
                  const void *bytes, size_t length);

/* Ends the carrier of a server that keeps an exchange of keys from ending, once this turn
 * has written what it does. When it has to be looked at again. */
int64_t exchange_look(struct carrier *carrier, int64_t now_ms);

/* --- ssh_first_write */

/* As ssh_channel_write, or -EMSGSIZE: the server's packets have room for nothing. */
int ssh_first_write(ssh_channel channel, const void *bytes, size_t length);

/* --- ssh_forward: a tunnel that the carrier holds */

struct forward {
    TAILQ_ENTRY(forward) entry;
    struct tunnel *tunnel;              /* NULL: over; its last streams are being closed */
    char bind[SSH_BIND_BYTES];          /* to the letter, as the request had it */
    uint16_t port;                      /* where clients connect */
    size_t streams;
    int epoll;                          /* watches the clients of the streams; -1: there are none */
    bool is_announced;                  /* on the console */
    bool is_cancelled;                  /* no new clients; ends with the last stream */
    struct rate rate;
    int64_t accept_again_ms;            /* while it lies ahead, nobody is accepted */
};

/* What a request to forward asks for. NULL, or why it is refused. On success
 * *forward is in the carrier's list. */
const char *forward_open(struct carrier *carrier, const char *bind, uint16_t port,
                         struct forward **forward);

/* NULL: there is none such. */
struct forward *forward_find(struct carrier *carrier, const char *bind, uint16_t port);

/* Stops listening; streams go on. */
void forward_cancel(struct forward *forward);

/* No more clients for any: they are not even to wait. */
void forwards_stop_listening(struct carrier *carrier);

/* Whether clients may be accepted now, as far as is known without a look. */
bool forward_accepts(const struct carrier *carrier, const struct forward *forward);

/* Accepts those that wait, as far as they may come. */
void forward_accept(struct carrier *carrier, struct forward *forward);

/* Has a client's socket watched for its stream, until it is closed. */
int forward_watch(struct forward *forward, int client, struct stream *stream);

/* Has each stream note what has happened at its client's socket. */
void forward_hear_clients(struct carrier *carrier, struct forward *forward);

/* Ends all, with the connection: frees their streams, and lets their tunnels go. */
void forwards_end(struct carrier *carrier);

/* Ends what is over, and lets allowances grow. When it has to be looked at again. */
int64_t forwards_look(struct carrier *carrier, int64_t now_ms);

/* When the next allowance that is used up grows. */
int64_t forwards_next_ms(const struct carrier *carrier);

/* Whether the carrier holds a tunnel. */
bool forwards_have_tunnel(const struct carrier *carrier);

/* "tcp://proxy:8463" */
void forward_address(const struct forward *forward, char text[URI_TEXT_BYTES]);

/* --- ssh_stream: one client */

/* Takes the client's socket over, also when it fails. */
int stream_open(struct carrier *carrier, struct forward *forward, int client,
                const struct net_address *peer);

/* Notes what epoll has said of the client's socket. */
void stream_ready(struct stream *stream, uint32_t events);

/* Ends it at once, with a reset to the client; it is freed in time by streams_look. */
void stream_break(struct stream *stream, const char *why);

/* Frees it, its session being about to end; a client that is there is reset. */
void stream_free(struct stream *stream);

struct forward *stream_forward(const struct stream *stream);
struct stream *stream_next(const struct stream *stream);

/* Does what clients, packets of the server and time have made possible. Each stream has one
 * turn, and those that moved bytes go behind the others. When to look again. */
int64_t streams_look(struct carrier *carrier, int64_t now_ms);

/* Whether a stream has something to do that it could do now: what is written after its turn
 * may have made that possible. */
bool streams_may_move(const struct carrier *carrier);

/* Whether some client is there still. */
bool streams_have_client(const struct carrier *carrier);

/* Bytes that wait for clients that are there. */
size_t streams_waiting(const struct carrier *carrier);

/* Of the clients that have taken nothing for some seconds of such looks, the one for whom
 * most waits; NULL: each has taken something. */
struct stream *streams_stuck(struct carrier *carrier, int64_t now_ms);

/* --- ssh_console */

/* For ssh_server_callbacks: makes the channel of a session, of which there is one. */
ssh_channel console_on_session(ssh_session session, void *carrier);

/* That a forward was refused, now or once somebody looks on. */
void console_refused(struct carrier *carrier, int port, const char *why);

/* A line to who looks on, if somebody does. */
void console_print(struct carrier *carrier, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Sends lines that wait, as far as they are taken now. */
void console_send(struct carrier *carrier);

/* Throws them away. */
void console_free(struct carrier *carrier);

/* Tells addresses that have not been told, or how to ask for a tunnel where nobody
 * has, and ends the session after that, or after Ctrl-C. When it has to be looked
 * at again. */
int64_t console_look(struct carrier *carrier, int64_t now_ms);

#endif
