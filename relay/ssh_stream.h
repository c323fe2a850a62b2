/* ssh_stream: one client of a tunnel, whose bytes are a channel of the carrier;
 * what ssh_stream.c, its life, and ssh_bytes.c, what it carries, share. */
#ifndef RELAY_SSH_STREAM_H
#define RELAY_SSH_STREAM_H

#include "relay/ssh_carrier.h"

enum stream_state {
    STREAM_OPENING,                     /* the server has not answered yet */
    STREAM_OPEN,
    STREAM_CLOSING                      /* until the server closes the channel, too */
};

/* Bytes that one side has given and the other did not take. */
struct leftover {
    char *bytes;                        /* NULL: none */
    size_t start, count;
};

struct stream {
    TAILQ_ENTRY(stream) entry;
    TAILQ_ENTRY(stream) active;
    bool is_active;                     /* in the carrier's list of such */
    bool is_called;                     /* something has happened since its last turn */
    struct carrier *carrier;
    struct forward *forward;
    unsigned long number;               /* its name */
    int client;                         /* -1: closed */
    ssh_channel channel;
    struct ssh_channel_callbacks_struct callbacks;
    enum stream_state state;
    bool has_written;                   /* for carrier_write */
    uint64_t asked_at;                  /* bytes heard when the opening was last looked at */

    struct leftover to_server, to_client;
    size_t buffered;                    /* in the channel, for the client, or for nobody */
    size_t may_take_late;               /* for nobody, once the channel is closed */
    size_t waiting;                     /* for the client in all, as the carrier counts it */
    bool client_is_full;                /* it took less than there was; epoll will tell */
    bool can_read;                      /* there may be bytes of the client, or its end */
    bool reads_on;                      /* after a short read, too: an end or urgent bytes came */
    bool client_ended, client_broke;
    bool has_moved;                     /* bytes, since its last turn */
    bool reads_first;                   /* in its next turn */
    bool server_ended, server_closed;
    bool end_passed_on;                 /* to the client */

    uint64_t bytes_from_server, bytes_from_client;
    uint64_t sent_at_end;               /* over the connection, when the client had ended */
    uint64_t taken;                     /* of the former: what its system had at the last look, */
    int64_t taken_ms;                   /* and since when; 0: nobody has looked */
    int64_t moved_ms;                   /* when something last passed */
    int64_t lingers_since_ms;           /* the same, or since when its silence is measured anew */
    bool found_no_silence;              /* the look that did so; bytes may have passed until the next */
};

/* Something has passed just now. */
void stream_moved(struct stream *stream);

/* The same, and silence may be too long from now on. */
void stream_begin_silence(struct stream *stream);

/* Something has happened: it is to have a turn. */
void stream_call(struct stream *stream);

/* --- ssh_bytes */

/* For ssh_channel_callbacks, the context being the stream: takes what the client
 * does, and leaves the rest in the channel. */
int stream_on_data(ssh_session session, ssh_channel channel, void *bytes, uint32_t length,
                   int is_stderr, void *context);

/* Moves what may be moved now, each way: of what the rate allows, a share. */
void stream_move(struct stream *stream);

/* Whether there is more to move; and whether it may be moved now. */
bool stream_has_more(const struct stream *stream);
bool stream_may_move(const struct stream *stream);

/* Whether there are bytes that wait, or may wait, for their share of the rate alone. */
bool stream_waits_for_rate(const struct stream *stream);

/* Has libssh say nothing more of the channel once it is closed, which follows at once;
 * the state is STREAM_CLOSING. */
void stream_prepare_close(struct stream *stream);

/* Throws away what is left over. */
void stream_discard(struct stream *stream);

#endif
