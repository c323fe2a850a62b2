#include "relay/flow.h"

#include "relay/buffer_pool.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* After so many reads in one go the other direction has its turn. */
enum { READS_A_TURN = 16 };

void flow_init(struct flow *flow, int from, int to)
{
    *flow = (struct flow){ .from = from, .to = to, .pipe = { -1, -1 } };
}

void flow_release(struct flow *flow)
{
    buffer_pool_give(flow->buffer);
    flow->buffer = NULL;
    pipe_pool_give(&flow->pipe, flow->pending == 0);
    flow->start = flow->pending = 0;
}

static int flow_pass_end_on(struct flow *flow)
{
    if (shutdown(flow->to, SHUT_WR) < 0)
        return -errno;
    flow->ended = true;
    return 0;
}

/* How much may be read at once, of so much room. */
static size_t allowed(const struct flow *flow, size_t room)
{
    return flow->allowance && *flow->allowance < (int64_t)room ? (size_t)*flow->allowance : room;
}

static ssize_t read_into_buffer(struct flow *flow)
{
    if (!flow->buffer)
        flow->buffer = buffer_pool_take();
    if (!flow->buffer) {
        errno = ENOMEM;
        return -1;
    }
    flow->start = 0;
    return recv(flow->from, flow->buffer, allowed(flow, BUFFER_BYTES), 0);
}

static ssize_t read_into_pipe(struct flow *flow)
{
    return splice(flow->from, NULL, flow->pipe.in, NULL, allowed(flow, PIPE_BYTES),
                  SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
}

/* Whether to read into a pipe, with nothing pending. One that is not to be read into
 * is given back: where there is one, what is pending is in it. */
static bool reads_into_pipe(struct flow *flow)
{
    if (!flow->is_bulk)
        pipe_pool_give(&flow->pipe, true);
    return flow->is_bulk && (flow->pipe.in >= 0 || pipe_pool_take(&flow->pipe));
}

/* Reads once, with nothing pending. How much came: more than a buffer holds, or
 * exactly that, means that there may be more. 0: nothing, or the end, which has
 * then been passed on. */
static ssize_t flow_fill(struct flow *flow)
{
    ssize_t received;

    do
        received = reads_into_pipe(flow) ? read_into_pipe(flow) : read_into_buffer(flow);
    while (received < 0 && errno == EINTR);
    if (received > 0) {
        flow->pending = (size_t)received;
        flow->is_bulk = received >= BUFFER_BYTES;
        if (flow->allowance)
            *flow->allowance -= received;
        return received;
    }
    if (received == 0)
        return flow_pass_end_on(flow);
    return errno == EAGAIN ? 0 : -errno;
}

static ssize_t write_once(struct flow *flow)
{
    if (flow->pipe.in >= 0)
        return splice(flow->pipe.out, NULL, flow->to, NULL, flow->pending,
                      SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    return send(flow->to, flow->buffer + flow->start, flow->pending, MSG_NOSIGNAL);
}

/* 0 when nothing is pending any more, -EAGAIN when the other socket takes no
 * more now. */
static int flow_drain(struct flow *flow)
{
    while (flow->pending) {
        ssize_t sent = write_once(flow);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return -errno;
        flow->start += (size_t)sent;
        flow->pending -= (size_t)sent;
        flow->bytes += (size_t)sent;
    }
    return 0;
}

int flow_move(struct flow *flow, bool may_read)
{
    int err = flow_drain(flow);

    for (int reads = 0; !err && may_read && flow_wants_bytes(flow) && reads < READS_A_TURN; reads++) {
        ssize_t received = flow_fill(flow);

        if (received <= 0) {
            err = (int)received;
            break;
        }
        err = flow_drain(flow);
        may_read = received >= BUFFER_BYTES;    /* or else it has all been read */
    }
    if (!flow->pending)
        flow_release(flow);
    return err == -EAGAIN ? 0 : err;
}

bool flow_wants_bytes(const struct flow *flow)
{
    return !flow->ended && !flow->pending && (!flow->allowance || *flow->allowance > 0);
}

bool flow_is_silent(const struct flow *flow)
{
    int unsent = 0;

    if (flow->pending)
        return false;
    return ioctl(flow->to, SIOCOUTQ, &unsent) < 0 || unsent == 0;
}
