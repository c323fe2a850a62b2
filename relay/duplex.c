#include "relay/duplex.h"

#include "relay/buffer_pool.h"

#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>

/* After so many buffers in one go the other direction has its turn. */
enum { BUFFERS_A_TURN = 16 };

/* One direction: what is read from one socket is written to the other. */
struct flow {
    int from, to;
    char *buffer;                       /* from the pool, held while bytes are in it */
    size_t start, end;                  /* the bytes in the buffer */
    uint64_t bytes;                     /* delivered to the other socket */
    bool ended;                         /* all of from's bytes are with to, and its end too */
};

static void flow_let_buffer_go(struct flow *flow)
{
    buffer_pool_give(flow->buffer);
    flow->buffer = NULL;
    flow->start = flow->end = 0;
}

static int flow_pass_end_on(struct flow *flow)
{
    if (shutdown(flow->to, SHUT_WR) < 0)
        return -errno;
    flow->ended = true;
    return 0;
}

/* Into the empty buffer. 1: there is something in it; 0: nothing came, or the
 * end did, which has no bytes before it to wait for. */
static int flow_fill(struct flow *flow)
{
    ssize_t received;

    if (!flow->buffer)
        flow->buffer = buffer_pool_take();
    if (!flow->buffer)
        return -ENOMEM;
    do
        received = recv(flow->from, flow->buffer, BUFFER_BYTES, 0);
    while (received < 0 && errno == EINTR);
    if (received > 0) {
        flow->end = (size_t)received;
        return 1;
    }
    if (received < 0)
        received = errno == EAGAIN ? 0 : -errno;
    else
        received = flow_pass_end_on(flow);
    flow_let_buffer_go(flow);
    return (int)received;
}

/* 1: the buffer is empty, and gone; 0: the other socket takes no more now. */
static int flow_drain(struct flow *flow)
{
    while (flow->start < flow->end) {
        ssize_t sent = send(flow->to, flow->buffer + flow->start, flow->end - flow->start,
                            MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR)
                continue;
            return errno == EAGAIN ? 0 : -errno;
        }
        flow->start += (size_t)sent;
        flow->bytes += (size_t)sent;
    }
    flow_let_buffer_go(flow);
    return 1;
}

static bool flow_has_bytes(const struct flow *flow)
{
    return flow->start < flow->end;
}

/* Moves what can be moved without waiting. 0 or a negative errno. */
static int flow_move(struct flow *flow)
{
    for (int turn = 0; turn < BUFFERS_A_TURN && !flow->ended; turn++) {
        int moved = flow_has_bytes(flow) ? 1 : flow_fill(flow);

        if (moved > 0)
            moved = flow_drain(flow);
        if (moved <= 0)
            return moved;
    }
    return 0;
}

/* What to wait for on a socket that in reads from and out writes to. Resets are
 * told without asking. */
static struct pollfd interest(const struct flow *in, const struct flow *out)
{
    struct pollfd polled = { .fd = in->from };

    if (!in->ended && !flow_has_bytes(in))
        polled.events |= POLLIN;
    if (flow_has_bytes(out))
        polled.events |= POLLOUT;
    return polled;
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static enum duplex_end end_of_error(int err)
{
    switch (-err) {
    case ECONNRESET: case EPIPE: case ETIMEDOUT: case EHOSTUNREACH: case ENETUNREACH:
    case ENOTCONN: case ECONNABORTED: case ENETDOWN: case EHOSTDOWN: case EPROTO:
        return DUPLEX_RESET;
    default:
        return DUPLEX_FAILED;
    }
}

struct duplex {
    struct flow from_a, from_b;
    const struct duplex_limits *limits;
    int64_t moved_last_ms;              /* when a byte or an end last passed */
};

static bool half_closed(const struct duplex *duplex)
{
    return duplex->from_a.ended != duplex->from_b.ended;
}

static int64_t deadline(const struct duplex *duplex)
{
    int64_t deadline_ms = INT64_MAX;

    if (duplex->limits->idle_ms)
        deadline_ms = duplex->moved_last_ms + duplex->limits->idle_ms;
    if (half_closed(duplex))
        deadline_ms = earlier(deadline_ms, duplex->moved_last_ms + duplex->limits->linger_ms);
    return deadline_ms;
}

static enum duplex_end timed_out(const struct duplex *duplex)
{
    if (half_closed(duplex) && deadline(duplex) == duplex->moved_last_ms + duplex->limits->linger_ms)
        return DUPLEX_LINGERED;
    return DUPLEX_IDLE;
}

static uint64_t progress(const struct duplex *duplex)
{
    return duplex->from_a.bytes + duplex->from_b.bytes + duplex->from_a.ended +
           duplex->from_b.ended;
}

static int move_both(struct duplex *duplex)
{
    uint64_t before = progress(duplex);
    int err = flow_move(&duplex->from_a);

    if (!err)
        err = flow_move(&duplex->from_b);
    if (progress(duplex) != before)
        duplex->moved_last_ms = clock_ms();
    return err;
}

/* Moves, waits, moves ... until there is a reason to stop. */
static enum duplex_end duplex_relay(struct duplex *duplex, struct waker *waker)
{
    for (;;) {
        struct pollfd polled[2];
        int ready = move_both(duplex);

        if (ready < 0)
            return end_of_error(ready);
        if (duplex->from_a.ended && duplex->from_b.ended)
            return DUPLEX_FINISHED;
        polled[0] = interest(&duplex->from_a, &duplex->from_b);
        polled[1] = interest(&duplex->from_b, &duplex->from_a);
        ready = waker_poll(waker, polled, 2, deadline(duplex));
        if (ready == -ECANCELED)
            return DUPLEX_STOPPED;
        if (ready < 0)
            return DUPLEX_FAILED;
        if (ready == 0)
            return timed_out(duplex);
        if ((polled[0].revents | polled[1].revents) & POLLERR) {
            move_both(duplex);          /* what came before the reset */
            return DUPLEX_RESET;
        }
    }
}

struct duplex_result duplex_run(int a, int b, const struct duplex_limits *limits,
                                struct waker *waker)
{
    struct duplex duplex = {
        .from_a = { .from = a, .to = b },
        .from_b = { .from = b, .to = a },
        .limits = limits,
        .moved_last_ms = clock_ms(),
    };
    struct duplex_result result;

    result.end = duplex_relay(&duplex, waker);
    flow_let_buffer_go(&duplex.from_a);
    flow_let_buffer_go(&duplex.from_b);
    result.bytes_from_a = duplex.from_a.bytes;
    result.bytes_from_b = duplex.from_b.bytes;
    return result;
}

const char *duplex_end_text(enum duplex_end end)
{
    switch (end) {
    case DUPLEX_FINISHED: return "finished";
    case DUPLEX_RESET:    return "reset by a peer";
    case DUPLEX_LINGERED: return "one side ended, the other was silent for too long";
    case DUPLEX_IDLE:     return "idle for too long";
    case DUPLEX_STOPPED:  return "stopped";
    case DUPLEX_FAILED:   return "failed for lack of memory or descriptors";
    }
    return "?";
}
