/* webmux: one end of a WebMUX connection. What comes becomes events, what is to be
 * sent becomes bytes, and credit is kept both ways.
 *
 * Pure: bytes in and out, no socket, no clock, no memory of its own. The proxy's end
 * opens the sessions, the client library's takes them. Belongs to one thread. The
 * protocol and its profile are in doc/protocol.md. */
#ifndef RELAY_WEBMUX_H
#define RELAY_WEBMUX_H

#include "relay/webmux_frame.h"

enum {
    WEBMUX_SESSIONS = 127,              /* at once: ids 3, 5, ... 255 */
    WEBMUX_IDS = 256,
    WEBMUX_CARRIERS_MAX = 16,           /* of one tunnel, at the proxy */
    WEBMUX_FIRST_CREDIT = 16384,        /* of each direction, until an end says otherwise */
    WEBMUX_WINDOW = 1 << 20,            /* the most that an end says */
    WEBMUX_WINDOW_MAX = 16 << 20,       /* what a window grows to */
    WEBMUX_OWED_BYTES_MAX = 8192        /* of all that can be owed at once */
};

/* By how much windows have grown in all, of all connections that share it. */
struct webmux_growth {
    size_t bytes, bytes_max;
};

struct webmux_session {
    int64_t credit;                     /* bytes that we may send; may be below 0 */
    int64_t their_credit;               /* bytes that they may send */
    uint64_t number;                    /* as which of all it was opened here */
    uint64_t over_at;                   /* webmux.opened when it was over here, or asked about */
    size_t window;                      /* what their credit comes back to */
    size_t taken;                       /* by the reader, and not yet given back */
    size_t grant;                       /* credit that is owed */
    uint32_t mss;                       /* of what we send, by their wish; 0: none */
    uint8_t owes;
    bool is_open;                       /* neither reset nor ended both ways */
    bool is_confirmed;                  /* by the end that did not open it */
    bool we_ended, they_ended;
    bool was_reset;                     /* here: what still comes of it is late */
    bool may_come;                      /* opens: more of it, since they may not know that it is over */
    bool was_asked;                     /* whether they know */
};

struct webmux {
    bool opens;                         /* this end opens the sessions */
    bool owes_greeting;
    size_t window;                      /* of sessions, as this end says */
    struct webmux_growth *growth;
    struct webmux_session sessions[WEBMUX_IDS];
    size_t open_count;
    uint8_t owing[WEBMUX_IDS];          /* ids that owe something */
    size_t owing_count;
    uint8_t resting[WEBMUX_SESSIONS];   /* ids that are free, the one that is so longest first */
    size_t resting_count;
    uint64_t opened;                    /* sessions in all */
    uint64_t answered;                  /* the newest of them that they have answered */
    int64_t first_credit;               /* of sessions, as they said */
    uint32_t mss;                       /* for all sessions, by their wish; 0: none */

    /* The frame that is being received. */
    uint8_t partial[WEBMUX_HEADER_BYTES_MAX];
    size_t partial_count;
    bool in_frame;
    bool drops_payload;
    bool ends_session;                  /* once its payload is through */
    uint8_t session;
    uint32_t payload_left;
    size_t padding_left;
};

/* The windows of so many sessions, so that all together have so many bytes, or little more. */
size_t webmux_window(size_t bytes, size_t sessions);

/* mux is all zero. window: what they may send of each session before any of it is taken,
 * WEBMUX_FIRST_CREDIT at least. growth must last as long as mux does. */
void webmux_init(struct webmux *mux, bool opens, size_t window, struct webmux_growth *growth);

/* Takes back what its windows have grown by. */
void webmux_end_all(struct webmux *mux);

enum webmux_event_kind {
    WEBMUX_NOTHING,                     /* all bytes are used up */
    WEBMUX_OPENED,                      /* by them */
    WEBMUX_CONFIRMED,                   /* they have taken what was opened here */
    WEBMUX_DATA,
    WEBMUX_ENDED,                       /* they send no more of it */
    WEBMUX_RESET,                       /* the session is over */
    WEBMUX_CREDIT,                      /* there is some again; session 0: of any */
    WEBMUX_ERROR                        /* the connection is over */
};

struct webmux_event {
    enum webmux_event_kind kind;
    uint8_t session;
    const uint8_t *bytes;               /* DATA: they are part of what was received */
    size_t count;
    const char *error;                  /* ERROR: what they did */
};

/* Takes of what was received as much as makes one event: how many bytes. To be called
 * again until the event is NOTHING or ERROR. */
size_t webmux_receive(struct webmux *mux, const uint8_t *bytes, size_t count,
                      struct webmux_event *event);

/* Whether a session can be opened. */
bool webmux_has_room(const struct webmux *mux);

/* Opens a session: its id, or 0 when there is no room. */
uint8_t webmux_open(struct webmux *mux);

/* Takes a session that they have opened. */
void webmux_confirm(struct webmux *mux, uint8_t session);

/* We send no more of it; it is broken off. Neither does anything to one that is over. */
void webmux_end(struct webmux *mux, uint8_t session);
void webmux_reset(struct webmux *mux, uint8_t session);

/* The reader here has taken so many bytes: they get credit for as many. has_all: of
 * what they sent it has left nothing, so that their window may grow. */
void webmux_took(struct webmux *mux, uint8_t session, size_t count, bool has_all);

/* How many bytes of a session may be sent now in one frame, once what is owed has been
 * written. */
size_t webmux_may_send(const struct webmux *mux, uint8_t session);

/* Begins a frame of so many bytes, which are to follow its header, and after those
 * webmux_padding(count) zeros. */
void webmux_send(struct webmux *mux, uint8_t session, size_t count,
                 uint8_t header[WEBMUX_SHORT_BYTES]);

static inline size_t webmux_padding(size_t count)
{
    return (4 - count % 4) % 4;
}

/* Whether frames are owed: of openings, ends, resets and credit. Writes them, where
 * there is room for WEBMUX_OWED_BYTES_MAX; returns how many bytes. */
bool webmux_owes(const struct webmux *mux);
size_t webmux_write_owed(struct webmux *mux, uint8_t *bytes);

/* Sessions that are open. */
static inline size_t webmux_count(const struct webmux *mux)
{
    return mux->open_count;
}

#endif
