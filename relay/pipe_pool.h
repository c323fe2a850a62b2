/* pipe_pool: the pipes that bulk passes through, from socket to socket without
 * being copied (splice), shared by all relaying threads of the process.
 *
 * A pipe is large and costs two descriptors, and the kernel gives a user who is
 * not root only some; so a relay borrows one while bytes are in it, and copies
 * when none is to be had. Thread-safe. */
#ifndef RELAY_PIPE_POOL_H
#define RELAY_PIPE_POOL_H

#include <stdbool.h>

enum {
    PIPE_BYTES = 1024 * 1024,
    PIPES_MAX = 32                      /* in use and at rest, with two descriptors each */
};

struct pipe_ends {
    int in, out;                        /* non-blocking; -1 when there is no pipe */
};

/* An empty pipe, or false when there is none. */
bool pipe_pool_take(struct pipe_ends *pipe);

/* Gives a pipe back; with bytes left in it, it is closed instead. */
void pipe_pool_give(struct pipe_ends *pipe, bool is_empty);

/* Closes the pipes at rest. */
void pipe_pool_close_resting(void);

#endif
