/* flow: one direction of a relay. What is read from one socket is written to
 * the other.
 *
 * Small messages are copied through a buffer, which takes the fewest calls. A
 * flow whose reads fill a buffer is bulk, and goes through a pipe instead, which
 * moves pages and copies nothing. Buffer and pipe are borrowed while bytes are
 * in flight. Belongs to one thread, as both its sockets do. */
#ifndef RELAY_FLOW_H
#define RELAY_FLOW_H

#include "relay/pipe_pool.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct flow {
    int from, to;
    char *buffer;                       /* from its pool, or NULL */
    struct pipe_ends pipe;              /* from its pool, or none */
    size_t start;                       /* of the bytes in the buffer */
    size_t pending;                     /* bytes in the buffer or the pipe, never in both */
    bool is_bulk;                       /* worth a pipe */
    bool hung_up;                       /* poll has said that from is through, both ways */
    bool ended;                         /* all of from's bytes are with to, and its end too */
    uint64_t bytes;                     /* delivered to the other socket */
    int64_t *allowance;                 /* bytes that may still be read, now; NULL: any */
};

void flow_init(struct flow *flow, int from, int to);

/* Gives back what was borrowed; bytes in flight are lost. */
void flow_release(struct flow *flow);

/* Moves what can be moved without waiting, up to a turn's worth. Reads only if
 * may_read, so that no call is made for what poll has just denied. 0, or a
 * negative errno of a socket that is no good any more. */
int flow_move(struct flow *flow, bool may_read);

/* Whether it can go on when from has bytes: nothing is pending, and it may read. */
bool flow_wants_bytes(const struct flow *flow);

/* Whether all that came has been delivered: nothing is pending here, nor in the
 * other socket's send buffer, for a reader that is slow. */
bool flow_is_silent(const struct flow *flow);

#endif
