/* duplex: relays bytes between two connected sockets until both directions
 * have ended, by the rules of relaying in doc/protocol.md: exact bytes, ends
 * that travel one direction at a time, resets that stay resets, and memory
 * bounded whatever the peers do. */
#ifndef RELAY_DUPLEX_H
#define RELAY_DUPLEX_H

#include "relay/waker.h"

#include <stdint.h>

struct duplex_limits {
    int64_t linger_ms;                  /* one direction ended, the other silent for so long */
    int64_t idle_ms;                    /* no byte for so long; 0: no limit */
    int64_t until_ms;                   /* of clock_ms: no longer than that; INT64_MAX: no limit */
    int64_t bytes_per_s;                /* of both directions together; 0: no limit */
};

enum duplex_end {
    DUPLEX_FINISHED,                    /* both directions ended, all bytes delivered */
    DUPLEX_RESET,                       /* one side broke the connection */
    DUPLEX_LINGERED,                    /* linger_ms passed */
    DUPLEX_IDLE,                        /* idle_ms passed */
    DUPLEX_EXPIRED,                     /* until_ms came */
    DUPLEX_STOPPED,                     /* the waker was asked */
    DUPLEX_FAILED                       /* out of memory, or a call failed that should not */
};

struct duplex_result {
    enum duplex_end end;
    uint64_t bytes_from_a;
    uint64_t bytes_from_b;
};

/* Runs on the calling thread, which owns both sockets; both must have gone
 * through socket_prepare_to_relay, and the thread must block or the process
 * ignore SIGPIPE. waker may be NULL. Closes neither: after
 * DUPLEX_FINISHED the caller calls socket_close on both, after anything else
 * socket_reset, since the transfer was cut. */
struct duplex_result duplex_run(int a, int b, const struct duplex_limits *limits,
                                struct waker *waker);

/* "finished", "reset by a peer", ... for the log. */
const char *duplex_end_text(enum duplex_end end);

#endif
