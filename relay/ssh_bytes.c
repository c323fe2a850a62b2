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

/* libssh opens a window to 1,280,000 bytes when less than half of that is left, not
 * counting what it holds, and takes what comes beyond it; a server that sends so much
 * more is not one to go on with. */
enum { CHANNEL_BYTES_MAX = 2 * 1024 * 1024 };

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* How much may pass now, of so much. */
static size_t allowed(const struct stream *stream, size_t bytes)
{
    const struct rate *rate = &stream->forward->rate;

    return rate->bytes_per_s ? least(bytes, (size_t)rate->allowance) : bytes;
}

static void spend(struct stream *stream, size_t bytes)
{
    if (stream->forward->rate.bytes_per_s)
        stream->forward->rate.allowance -= (int64_t)bytes;
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

/* What it does not take is offered again with what comes next; only new bytes are
 * offered once some wait. */
int stream_on_data(ssh_session session, ssh_channel channel, void *bytes, uint32_t length,
                   int is_stderr, void *context)
{
    struct stream *stream = context;
    size_t taken = 0;

    (void)session;
    (void)channel;
    if (is_stderr || stream->client < 0)
        return (int)length;             /* for nobody */
    if (!stream->client_is_full && !stream->client_broke && !stream->to_client.bytes)
        taken = send_to_client(stream, bytes, allowed(stream, length));
    stream->buffered = length - taken;
    count_waiting(stream);
    if (stream->buffered > CHANNEL_BYTES_MAX)
        carrier_fail(stream->carrier, "the server sent more than its window allows");
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

void stream_deliver_to_client(struct stream *stream)
{
    struct leftover *leftover = &stream->to_client;

    while (!stream->client_is_full && !stream->client_broke && stream->client >= 0) {
        size_t most = allowed(stream, BUFFER_BYTES);

        if (!most || (!leftover->bytes && (!stream->buffered || !take_all(stream))))
            return;
        took(leftover, send_to_client(stream, leftover->bytes + leftover->start,
                                      least(most, leftover->count)));
        count_waiting(stream);
    }
}

/* --- from the client to the server */

static size_t window(const struct stream *stream)
{
    return ssh_channel_window_size(stream->channel);
}

static bool wants_bytes(const struct stream *stream)
{
    return stream->state == STREAM_OPEN && !stream->client_ended && !stream->client_broke &&
           !stream->server_closed && !stream->to_server.bytes &&
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
    stream_moved(stream);
    /* SSH_AGAIN: it will be sent. */
    if (ssh_channel_send_eof(stream->channel) == SSH_ERROR && !stream->server_closed)
        carrier_fail(stream->carrier, "the server has gone");
}

/* Reads once. Whether there may be more. */
static bool read_from_client(struct stream *stream)
{
    char *room = carrier_room(stream->carrier);
    size_t most;
    ssize_t got;

    if (!room)
        return false;
    most = least(allowed(stream, window(stream)), BUFFER_BYTES);
    got = TEMP_FAILURE_RETRY(recv(stream->client, room, most, 0));
    if (got == 0)
        pass_end_to_server(stream);
    if (got < 0 && errno != EAGAIN)
        stream->client_broke = true;
    if (got <= 0)
        return false;
    spend(stream, (size_t)got);
    stream->bytes_from_client += (size_t)got;
    if (!leave_over(&stream->to_server, room, write_to_channel(stream, room, (size_t)got),
                    (size_t)got))
        carrier_fail(stream->carrier, "no memory for what the server did not take");
    return (size_t)got == most;
}

void stream_deliver_to_server(struct stream *stream)
{
    struct leftover *leftover = &stream->to_server;

    if (leftover->bytes && carrier_may_write(stream->carrier))
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

struct pollfd stream_interest(const struct stream *stream)
{
    struct pollfd polled = { .fd = stream->client };

    if (wants_bytes(stream))
        polled.events |= POLLIN;
    if (stream->client_is_full)
        polled.events |= POLLOUT;
    if (!polled.events && stream->hung_up)
        polled.fd = -1;
    return polled;
}

void stream_move(struct stream *stream, short events)
{
    if (events & POLLOUT)
        stream->client_is_full = false;
    if (events & POLLHUP)
        stream->hung_up = true;
    if ((events & (POLLIN | POLLERR)) && wants_bytes(stream)) {
        /* With a reset there may be bytes that came before it. */
        while (read_from_client(stream) && (events & POLLERR) && wants_bytes(stream))
            ;
        /* Next time the others are first. */
        TAILQ_REMOVE(&stream->carrier->streams, stream, entry);
        TAILQ_INSERT_TAIL(&stream->carrier->streams, stream, entry);
    }
    if (events & POLLERR)
        stream->client_broke = true;
}
