/* What a stream carries, each way.
 *
 * What the channel does not take at once stays with the client, and what the client
 * does not take stays in the channel's buffer, whose window libssh then does not open
 * again: so each direction is bounded, and nobody waits for a slow one. */
#include "relay/ssh_stream.h"

#include "relay/buffer_pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* libssh opens a window to WINDOW_BYTES when less than WINDOW_LIMIT is left, not counting
 * what it holds, and takes what comes beyond it; a server that sends so much more is not
 * one to go on with. */
enum {
    WINDOW_BYTES = 1280000,
    WINDOW_LIMIT = WINDOW_BYTES / 2,
    CHANNEL_BYTES_MAX = 2 * 1024 * 1024,
    TURNS_A_SECOND = 400,               /* into which a tunnel's rate is divided, ... */
    TURN_BYTES_MIN = 1024               /* ... or fewer, and so much may pass in each */
};

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* How much may pass in one turn now, of so much. */
static size_t allowed(const struct stream *stream, size_t bytes)
{
    const struct rate *rate = &stream->forward->rate;
    size_t share = (size_t)rate->bytes_per_s / TURNS_A_SECOND;

    if (!rate->bytes_per_s)
        return bytes;
    if (share < TURN_BYTES_MIN)
        share = TURN_BYTES_MIN;
    return least(bytes, least(share, (size_t)rate->allowance));
}

static void spend(struct stream *stream, size_t bytes)
{
    if (stream->forward->rate.bytes_per_s)
        stream->forward->rate.allowance -= (int64_t)bytes;
    stream->has_moved = true;
    stream_moved(stream);
}

/* What is left of length bytes after the first taken. */
static bool leave_over(struct leftover *leftover, const char *bytes, size_t taken, size_t length)
{
    if (taken == length)
        return true;
    leftover->bytes = malloc(length - taken);
    if (!leftover->bytes)
        return false;
    memcpy(leftover->bytes, bytes + taken, length - taken);
    leftover->start = 0;
    leftover->count = length - taken;
    return true;
}

static void took(struct leftover *leftover, size_t taken)
{
    leftover->start += taken;
    leftover->count -= taken;
    if (leftover->count)
        return;
    free(leftover->bytes);
    leftover->bytes = NULL;
}

/* --- from the server to the client */

/* How many the client took. */
static size_t send_to_client(struct stream *stream, const char *bytes, size_t length)
{
    ssize_t sent = TEMP_FAILURE_RETRY(send(stream->client, bytes, length, MSG_NOSIGNAL));

    if (sent < 0 && errno != EAGAIN)
        stream->client_broke = true;
    if (sent < (ssize_t)length)
        stream->client_is_full = true;
    if (sent <= 0)
        return 0;
    spend(stream, (size_t)sent);
    stream->bytes_from_server += (size_t)sent;
    return (size_t)sent;
}

/* What waits for the client, of the channel and of what was left over. */
static void count_waiting(struct stream *stream)
{
    size_t waiting = stream->buffered + stream->to_client.count;

    stream->carrier->waiting += waiting - stream->waiting;
    stream->waiting = waiting;
}

/* Of what comes after the close, for nobody. On standard error, where no server sends
 * anything in such a channel, all. */
static size_t take_late(struct stream *stream, size_t length)
{
    size_t taken = least(length, stream->may_take_late);

    stream->may_take_late -= taken;
    stream->buffered = length - taken;
    count_waiting(stream);
    if (stream->buffered > WINDOW_LIMIT)
        carrier_fail(stream->carrier, "the server sent more than its window allows");
    return taken;
}

/* What it does not take, or may not yet, waits in the channel for the stream's turns, and is
 * offered again with what comes next. */
int stream_on_data(ssh_session session, ssh_channel channel, void *bytes, uint32_t length,
                   int is_stderr, void *context)
{
    struct stream *stream = context;
    size_t taken = 0;

    (void)session;
    (void)channel;
    if (!is_stderr && stream->state == STREAM_CLOSING)
        return (int)take_late(stream, length);
    if (is_stderr || stream->client < 0)
        return (int)length;             /* for nobody */
    if (!stream->client_is_full && !stream->client_broke && !stream->waiting)
        taken = send_to_client(stream, bytes, allowed(stream, length));
    stream->buffered = length - taken;
    count_waiting(stream);
    if (stream->buffered > CHANNEL_BYTES_MAX)
        carrier_fail(stream->carrier, "the server sent more than its window allows");
    if (stream->buffered)
        stream_call(stream);
    return (int)taken;
}

/* Takes all that the channel holds: with each read libssh opens the window again,
 * whatever it still holds. */
static bool take_all(struct stream *stream)
{
    size_t count = stream->buffered;
    char *bytes = malloc(count);
    int got = -1;

    if (bytes)
        got = ssh_channel_read_nonblocking(stream->channel, bytes, (uint32_t)count, 0);
    if (got != (int)count) {
        carrier_fail(stream->carrier, bytes ? "libssh lost what a channel held" : "no memory");
        free(bytes);
        return false;
    }
    stream->buffered = 0;
    stream->to_client = (struct leftover){ .bytes = bytes, .count = count };
    count_waiting(stream);
    return true;
}

/* Who has closed a channel says nothing more of it, and there are servers that end the
 * whole connection of who does. libssh does: it opens the window again when what comes
 * late leaves little of it. So the window is opened as far as it goes before, and then no
 * more is taken out of the channel than
 *
 *     window + what the channel holds = WINDOW_BYTES - what was taken >= WINDOW_LIMIT
 *
 * allows, below which libssh would open it. What the channel holds goes with it.
 *
 * libssh opens a window for a read of more than it has room for; on standard error, where
 * it holds nothing, it reads nothing. While keys are exchanged anew it keeps both messages
 * back, in their order. */
void stream_prepare_close(struct stream *stream)
{
    char none;

    if (stream->server_ended || stream->server_closed)
        return;                         /* nothing comes any more */
    stream->may_take_late = WINDOW_LIMIT;
    if (ssh_channel_read_timeout(stream->channel, &none, WINDOW_BYTES, true, 0) == SSH_ERROR &&
        !stream->server_closed)
        carrier_fail(stream->carrier, "the server has gone");
}

static bool has_to_deliver(const struct stream *stream)
{
    return stream->waiting && stream->client >= 0 && !stream->client_is_full &&
           !stream->client_broke;
}

static bool may_deliver(const struct stream *stream)
{
    return has_to_deliver(stream) && allowed(stream, stream->waiting) > 0;
}

static void deliver_to_client(struct stream *stream)
{
    struct leftover *leftover = &stream->to_client;

    if (!may_deliver(stream) || (!leftover->bytes && !take_all(stream)))
        return;
    took(leftover, send_to_client(stream, leftover->bytes + leftover->start,
                                  allowed(stream, leftover->count)));
    count_waiting(stream);
}

/* --- from the client to the server */

static size_t window(const struct stream *stream)
{
    return ssh_channel_window_size(stream->channel);
}

static bool has_to_read(const struct stream *stream)
{
    return stream->can_read && stream->state == STREAM_OPEN && !stream->client_ended &&
           !stream->client_broke && !stream->server_closed;
}

static bool server_takes_more(const struct stream *stream)
{
    return !stream->to_server.bytes && window(stream) > 0;
}

static bool may_read(const struct stream *stream)
{
    return has_to_read(stream) && server_takes_more(stream) &&
           carrier_may_write(stream->carrier) && allowed(stream, window(stream)) > 0;
}

/* How many the channel took: fewer only while keys are exchanged anew. */
static size_t write_to_channel(struct stream *stream, const char *bytes, size_t length)
{
    int written = carrier_write(stream->carrier, stream->channel, &stream->has_written,
                                bytes, length);

    if (written >= 0)
        return (size_t)written;
    if (!stream->server_closed)
        carrier_fail(stream->carrier, "the server has gone");
    return length;                      /* for nobody */
}

static void pass_end_to_server(struct stream *stream)
{
    stream->client_ended = true;
    stream->sent_at_end = stream->carrier->counter.out_bytes;   /* all that had been written */
    stream_begin_silence(stream);
    /* SSH_AGAIN: it will be sent. */
    if (ssh_channel_send_eof(stream->channel) == SSH_ERROR && !stream->server_closed)
        carrier_fail(stream->carrier, "the server has gone");
}

static void read_from_client(struct stream *stream)
{
    char *room = may_read(stream) ? carrier_room(stream->carrier) : NULL;
    size_t most;
    ssize_t got;

    if (!room)
        return;
    most = least(allowed(stream, window(stream)), BUFFER_BYTES);
    got = TEMP_FAILURE_RETRY(recv(stream->client, room, most, 0));
    stream->can_read = got == (ssize_t)most || (got > 0 && stream->reads_on);
    if (got == 0)
        pass_end_to_server(stream);
    if (got < 0 && errno != EAGAIN)
        stream->client_broke = true;
    if (got <= 0)
        return;
    spend(stream, (size_t)got);
    stream->bytes_from_client += (size_t)got;
    if (!leave_over(&stream->to_server, room, write_to_channel(stream, room, (size_t)got),
                    (size_t)got))
        carrier_fail(stream->carrier, "no memory for what the server did not take");
}

static bool may_deliver_to_server(const struct stream *stream)
{
    return stream->state == STREAM_OPEN && stream->to_server.bytes &&
           carrier_may_write(stream->carrier);
}

static void deliver_to_server(struct stream *stream)
{
    struct leftover *leftover = &stream->to_server;

    if (may_deliver_to_server(stream))
        took(leftover, write_to_channel(stream, leftover->bytes + leftover->start,
                                        leftover->count));
}

void stream_discard(struct stream *stream)
{
    free(stream->to_client.bytes);
    stream->to_client = (struct leftover){ 0 };
    if (stream->buffered && take_all(stream))
        free(stream->to_client.bytes);
    free(stream->to_server.bytes);
    stream->to_client = stream->to_server = (struct leftover){ 0 };
    count_waiting(stream);
}

/* --- both */

/* What the first way leaves of the allowance may be nothing. */
void stream_move(struct stream *stream)
{
    bool reads_first = stream->reads_first;

    deliver_to_server(stream);
    if (reads_first)
        read_from_client(stream);
    deliver_to_client(stream);
    if (!reads_first)
        read_from_client(stream);
    if (stream->has_moved)
        stream->reads_first = !reads_first;
}

bool stream_has_more(const struct stream *stream)
{
    return stream->to_server.bytes || has_to_deliver(stream) || has_to_read(stream);
}

/* What is left over for the server is not taken while keys are exchanged. */
bool stream_may_move(const struct stream *stream)
{
    return may_deliver(stream) || may_read(stream) ||
           (may_deliver_to_server(stream) && !stream->carrier->exchange_ms && window(stream));
}

bool stream_waits_for_rate(const struct stream *stream)
{
    return stream->forward->rate.bytes_per_s &&
           (has_to_deliver(stream) || (has_to_read(stream) && server_takes_more(stream)));
}

void stream_ready(struct stream *stream, uint32_t events)
{
    if (events & EPOLLOUT)
        stream->client_is_full = false;
    if (events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        stream->can_read = true;
    if (events & (EPOLLPRI | EPOLLRDHUP | EPOLLHUP))
        stream->reads_on = true;
    if (events & EPOLLERR) {
        while (may_read(stream))        /* there may be bytes that came before the reset */
            read_from_client(stream);
        stream->client_broke = true;
    }
    stream_call(stream);
}
