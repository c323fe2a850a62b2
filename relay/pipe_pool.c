#include "relay/pipe_pool.h"

#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <unistd.h>

/* A few are kept at rest for the next who comes; more are closed. */
enum { RESTING_MAX = 8 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct pipe_ends resting[RESTING_MAX];   /* guarded by lock */
static size_t resting_count;                    /* guarded by lock */
static size_t made_count;                       /* guarded by lock: in use and at rest */

static void close_ends(const struct pipe_ends *pipe)
{
    close(pipe->in);
    close(pipe->out);
}

/* A small pipe would be worse than a buffer: it is all of it or nothing. */
static bool pipe_make(struct pipe_ends *pipe)
{
    int ends[2];

    if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0)
        return false;
    *pipe = (struct pipe_ends){ .in = ends[1], .out = ends[0] };
    if (fcntl(pipe->in, F_SETPIPE_SZ, PIPE_BYTES) >= PIPE_BYTES)
        return true;
    close_ends(pipe);
    return false;
}

static void count_one_less(void)
{
    pthread_mutex_lock(&lock);
    made_count--;
    pthread_mutex_unlock(&lock);
}

bool pipe_pool_take(struct pipe_ends *pipe)
{
    bool has_one = false;
    bool may_make = false;

    pthread_mutex_lock(&lock);
    if (resting_count) {
        *pipe = resting[--resting_count];
        has_one = true;
    } else if (made_count < PIPES_MAX) {
        made_count++;
        may_make = true;
    }
    pthread_mutex_unlock(&lock);
    if (has_one || (may_make && pipe_make(pipe)))
        return true;
    if (may_make)
        count_one_less();
    pipe->in = pipe->out = -1;
    return false;
}

void pipe_pool_give(struct pipe_ends *pipe, bool is_empty)
{
    struct pipe_ends given = *pipe;
    bool is_kept = false;

    if (given.in < 0)
        return;
    pipe->in = pipe->out = -1;
    pthread_mutex_lock(&lock);
    if (is_empty && resting_count < RESTING_MAX) {
        resting[resting_count++] = given;
        is_kept = true;
    }
    pthread_mutex_unlock(&lock);
    if (is_kept)
        return;
    close_ends(&given);
    count_one_less();
}

void pipe_pool_close_resting(void)
{
    pthread_mutex_lock(&lock);
    while (resting_count) {
        close_ends(&resting[--resting_count]);
        made_count--;
    }
    pthread_mutex_unlock(&lock);
}
