/* What a mux's streams carry: bytes and ends, from their sockets into frames and back. */
#include "relay/mux_private.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static void set_ready(struct mux_stream *stream, bool is_ready)
{
    if (stream->is_ready == is_ready)
        return;
    stream->is_ready = is_ready;
    if (is_ready)
        TAILQ_INSERT_TAIL(&stream->carrier->ready, stream, entry);
    else
        TAILQ_REMOVE(&stream->carrier->ready, stream, entry);
}

/* Whether it has its turn among those with bytes for their sockets. */
static void set_held(struct mux_stream *stream, bool is_held)
{
    if (stream->is_held == is_held)
        return;
    stream->is_held = is_held;
    if (is_held)
        TAILQ_INSERT_TAIL(&stream->carrier->mux->held, stream, turn);
    else
        TAILQ_REMOVE(&stream->carrier->mux->held, stream, turn);
}

static void drop_queue(struct mux_stream *stream)
{
    stream->carrier->mux->waiting -= stream->queue.count;
    byte_queue_clear(&stream->queue);
    set_held(stream, false);
}

void mux_stream_drop(struct mux_stream *stream)
{
    set_ready(stream, false);
    drop_queue(stream);
}

/* The socket takes nothing more. What it gave before that is passed on first. */
static void note_break(struct mux_stream *stream)
{
    stream->broke = stream->can_read = true;
    stream->can_write = false;
    drop_queue(stream);
    mux_stream_line_up(stream);
}

static void pass_end_on(struct mux_stream *stream)
{
    if (!stream->end_came || stream->end_passed_on || stream->broke || stream->queue.count ||
        stream->is_connecting)
        return;
    if (shutdown(stream->socket, SHUT_WR) < 0) {
        note_break(stream);
        return;
    }
    stream->end_passed_on = true;
    mux_stream_end_one_way(stream);
}

/* How much of the bytes the socket has taken, within the rate; less than 0: it has broken
 * off. */
static ssize_t give(struct mux_stream *stream, const void *bytes, size_t count)
{
    ssize_t sent;

    count = mux_allowed(stream->carrier->mux, count);
    if (!count || !stream->can_write)
        return 0;
    sent = send(stream->socket, bytes, count, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR))
        sent = 0;
    if (sent < 0) {
        note_break(stream);
        return sent;
    }
    stream->can_write = (size_t)sent == count;
    mux_use_up(stream->carrier->mux, (size_t)sent);
    stream->bytes_to_socket += (size_t)sent;
    stream->carrier->mux->bytes_to_sockets += (size_t)sent;
    if (sent)
        mux_stream_moved(stream);
    return sent;
}

void mux_stream_deliver(struct mux_stream *stream)
{
    size_t count;
    const void *bytes = byte_queue_look(&stream->queue, &count);
    ssize_t sent = give(stream, bytes, count);

    if (sent < 0)
        return;
    set_held(stream, false);
    byte_queue_drop(&stream->queue, (size_t)sent);
    stream->carrier->mux->waiting -= (size_t)sent;
    set_held(stream, stream->queue.count && stream->can_write);     /* after the others */
    if (sent && mux_stream_has_session(stream))
        webmux_took(&stream->carrier->webmux, stream->session, (size_t)sent,
                    stream->queue.count == 0);
    pass_end_on(stream);
}

static void keep(struct mux_stream *stream, const uint8_t *bytes, size_t count)
{
    size_t before = stream->queue.count;
    int err = byte_queue_put(&stream->queue, bytes, count);

    stream->carrier->mux->waiting += stream->queue.count - before;
    set_held(stream, stream->can_write);
    if (err)
        mux_stream_break(stream, "no memory");
}

void mux_stream_take(struct mux_stream *stream, const uint8_t *bytes, size_t count)
{
    ssize_t sent = 0;

    if (!stream->broke && !stream->is_connecting && !stream->queue.count &&
        TAILQ_EMPTY(&stream->carrier->mux->held))
        sent = give(stream, bytes, count);
    if (stream->broke || stream->is_over)
        return;
    if (sent)
        webmux_took(&stream->carrier->webmux, stream->session, (size_t)sent, (size_t)sent == count);
    if ((size_t)sent < count)
        keep(stream, bytes + sent, count - (size_t)sent);
}

void mux_stream_take_end(struct mux_stream *stream)
{
    stream->end_came = true;
    pass_end_on(stream);
}

static void take_end_of_socket(struct mux_stream *stream)
{
    stream->socket_ended = true;
    webmux_end(&stream->carrier->webmux, stream->session);
    mux_stream_end_one_way(stream);
}

/* Its end needs no credit. */
static bool has_nothing_but_its_end(const struct mux_stream *stream)
{
    char byte;

    return stream->hung_up && !stream->socket_ended && !stream->is_connecting &&
           recv(stream->socket, &byte, sizeof byte, MSG_PEEK) == 0;
}

void mux_stream_line_up(struct mux_stream *stream)
{
    bool may_send = mux_stream_has_session(stream) &&
                    webmux_may_send(&stream->carrier->webmux, stream->session) != 0;

    if (stream->broke && !may_send)     /* who knows when there would be credit again */
        mux_stream_break(stream, stream->carrier->mux->handler->socket_broke);
    else if (!may_send && has_nothing_but_its_end(stream))
        take_end_of_socket(stream);
    else
        set_ready(stream, may_send && stream->can_read && !stream->socket_ended);
}

void mux_stream_advance(struct mux_stream *stream)
{
    set_held(stream, stream->queue.count && stream->can_write);
    pass_end_on(stream);
    if (!stream->is_over)
        mux_stream_line_up(stream);
}

/* What is received, but no frame can be made of, is the end or a failure. */
static void take_failure(struct mux_stream *stream, ssize_t received)
{
    if (received < 0 && errno == EINTR)
        return;
    if (received == 0 && !stream->broke)
        take_end_of_socket(stream);
    else if (received < 0 && errno == EAGAIN && !stream->broke)
        stream->can_read = false;
    else
        mux_stream_break(stream, stream->carrier->mux->handler->socket_broke);
}

static size_t make_frame(struct mux_stream *stream, uint8_t *room, size_t count)
{
    size_t padding = webmux_padding(count);

    mux_use_up(stream->carrier->mux, count);
    webmux_send(&stream->carrier->webmux, stream->session, count, room);
    memset(room + WEBMUX_SHORT_BYTES + count, 0, padding);
    stream->bytes_from_socket += count;
    stream->carrier->mux->bytes_from_sockets += count;
    mux_stream_moved(stream);
    return WEBMUX_SHORT_BYTES + count + padding;
}

size_t mux_stream_fill(struct mux_stream *stream, uint8_t *room, size_t room_bytes)
{
    size_t count = webmux_may_send(&stream->carrier->webmux, stream->session);
    size_t fits = room_bytes - WEBMUX_SHORT_BYTES - webmux_padding(1);
    size_t used = 0;
    ssize_t received;

    if (count > fits)
        count = fits;
    set_ready(stream, false);
    if (!count) {
        mux_stream_line_up(stream);
        return 0;
    }
    count = mux_allowed(stream->carrier->mux, count);
    received = recv(stream->socket, room + WEBMUX_SHORT_BYTES, count, 0);
    if (received > 0) {
        stream->can_read = (size_t)received == count || stream->hung_up || stream->broke ||
                           stream->was_urgent;
        used = make_frame(stream, room, (size_t)received);
    } else {
        take_failure(stream, received);
    }
    if (!stream->is_over)
        mux_stream_line_up(stream);     /* and its next turn comes after the others' */
    return used;
}
