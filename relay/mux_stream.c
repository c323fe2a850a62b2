/* The life of a mux's streams: how they come to their sockets, and how they end. */
#include "relay/mux_private.h"

#include "relay/socket.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum { CONNECT_AGAIN_MS = 20 };

void mux_stream_moved(struct mux_stream *stream)
{
    stream->moved_ms = stream->lingers_since_ms = stream->carrier->mux->now_ms;
}

/* Time has to be looked at no later than that. */
static void look_by(struct mux_stream *stream, int64_t time_ms)
{
    stream->carrier->mux->look_ms = clock_earlier(stream->carrier->mux->look_ms, time_ms);
}

/* Its part is over: its socket is closed, in one way or the other. */
static void leave(struct mux_stream *stream, void (*close_socket)(int), const char *why)
{
    struct mux *mux = stream->carrier->mux;

    if (stream->socket >= 0) {
        mux_forget(mux, stream->socket);    /* another process may have it, too */
        close_socket(stream->socket);
    }
    stream->socket = -1;
    stream->is_over = true;
    mux_stream_drop(stream);
    mux->streams_count--;
    if (mux_stream_has_session(stream))
        stream->carrier->by_session[stream->session] = NULL;
    TAILQ_REMOVE(&stream->carrier->streams, stream, sibling);
    TAILQ_INSERT_TAIL(&mux->ended, stream, entry);
    mux->handler->stream_ended(mux, stream, why);
}

void mux_stream_break(struct mux_stream *stream, const char *why)
{
    if (stream->is_over)
        return;
    if (mux_stream_has_session(stream))
        webmux_reset(&stream->carrier->webmux, stream->session);
    leave(stream, socket_reset, why);
}

void mux_stream_end_one_way(struct mux_stream *stream)
{
    mux_stream_moved(stream);
    look_by(stream, stream->moved_ms + stream->carrier->mux->limits.linger_ms);
    if (stream->socket_ended && stream->end_passed_on)
        leave(stream, socket_close, "finished");
}

void mux_stream_confirmed(struct mux_stream *stream)
{
    stream->is_confirmed = true;
    mux_stream_moved(stream);
}

static bool has_bytes(const struct mux_stream *stream)
{
    char byte;

    return recv(stream->socket, &byte, sizeof byte, MSG_PEEK) > 0;
}

/* The service has answered. Or a client has broken off before it was accepted, whose
 * socket looks the same. Who has sent something before that was there. */
static void finish_connecting(struct mux_stream *stream)
{
    int err = 0;
    socklen_t length = sizeof err;

    if (getsockopt(stream->socket, SOL_SOCKET, SO_ERROR, &err, &length) < 0)
        err = errno;
    if (err && !has_bytes(stream)) {
        mux_stream_break(stream, strerrordesc_np(err));
        return;
    }
    stream->is_connecting = false;
    stream->broke = err != 0;
    if (stream->carrier->webmux.opens)
        return;
    stream->was_connected = true;
    stream->carrier->mux->handler->connected(stream->carrier->mux, stream);
    mux_stream_confirmed(stream);
    webmux_confirm(&stream->carrier->webmux, stream->session);
}

static void ready(struct mux_source *source, uint32_t events)
{
    struct mux_stream *stream = (struct mux_stream *)source;

    if (stream->is_over)                /* in this turn */
        return;
    if (stream->is_connecting && events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
        finish_connecting(stream);
    if (stream->is_over || stream->is_connecting)
        return;
    stream->hung_up |= (events & (EPOLLRDHUP | EPOLLHUP)) != 0;
    stream->was_urgent |= (events & EPOLLPRI) != 0;
    stream->broke |= (events & EPOLLERR) != 0;
    stream->can_read |= (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    stream->can_write |= (events & EPOLLOUT) != 0 && !stream->broke;
    mux_stream_advance(stream);
}

/* A connected socket, or one that is about to be, becomes the stream's, or is reset. */
static int use_socket(struct mux_stream *stream, int socket)
{
    struct mux *mux = stream->carrier->mux;
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int err = mux_watch(mux, socket, EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                        &stream->source);

    if (err) {
        socket_reset(socket);
        return err;
    }
    stream->source.ready = ready;
    stream->socket = socket;
    stream->is_connecting = getpeername(socket, (struct sockaddr *)&peer, &length) < 0;
    stream->can_read = stream->can_write = !stream->is_connecting;
    return 0;
}

static void join(struct mux_stream *stream)
{
    struct mux *mux = stream->carrier->mux;

    stream->carrier->by_session[stream->session] = stream;
    TAILQ_INSERT_TAIL(&stream->carrier->streams, stream, sibling);
    mux->streams_count++;
    mux_stream_moved(stream);
    look_by(stream, mux->now_ms + mux->limits.linger_ms);
    if (mux->limits.idle_ms)
        look_by(stream, mux->now_ms + mux->limits.idle_ms);
}

static struct mux_stream *stream_new(struct mux_carrier *carrier, uint8_t session)
{
    struct mux_stream *stream = calloc(1, sizeof *stream);

    if (!stream)
        return NULL;
    stream->carrier = carrier;
    stream->session = session;
    stream->socket = -1;
    stream->number = ++carrier->mux->streams_in_all;
    return stream;
}

int mux_add_stream(struct mux_carrier *carrier, int socket)
{
    uint8_t session = webmux_open(&carrier->webmux);
    struct mux_stream *stream = session ? stream_new(carrier, session) : NULL;
    int err = session ? -ENOMEM : -EAGAIN;

    if (!stream)
        socket_reset(socket);
    else
        err = use_socket(stream, socket);
    if (err) {
        webmux_reset(&carrier->webmux, session);
        free(stream);
        return err;
    }
    join(stream);
    if (!carrier->asked_ms)
        carrier->asked_ms = carrier->mux->now_ms;
    carrier->mux->has_more = true;
    return 0;
}

static void get_socket(struct mux_stream *stream)
{
    struct mux *mux = stream->carrier->mux;
    int socket = mux->handler->connect(mux, stream);
    int err = socket < 0 ? socket : use_socket(stream, socket);

    if (err == -EAGAIN)
        look_by(stream, mux->now_ms + CONNECT_AGAIN_MS);
    else if (err)
        mux_stream_break(stream, strerrordesc_np(-err));
    else if (!stream->is_connecting)
        finish_connecting(stream);
}

void mux_stream_opened(struct mux_carrier *carrier, uint8_t session)
{
    struct mux_stream *stream = stream_new(carrier, session);

    if (!stream) {
        webmux_reset(&carrier->webmux, session);
        return;
    }
    stream->is_connecting = true;
    join(stream);
    get_socket(stream);
}

static bool is_half_open(const struct mux_stream *stream)
{
    return stream->socket_ended != stream->end_passed_on;
}

/* As duplex has it: bytes that wait for a slow reader are no silence. */
static bool is_silent(const struct mux_stream *stream)
{
    int unsent = 0, unread = 0;

    if (stream->queue.count || (ioctl(stream->socket, SIOCOUTQ, &unsent) == 0 && unsent))
        return false;
    return stream->socket_ended || ioctl(stream->socket, FIONREAD, &unread) < 0 || !unread;
}

/* By the rate alone. */
static bool is_held_back(const struct mux_stream *stream)
{
    return stream->is_held || (stream->is_ready && !mux_allowed(stream->carrier->mux, 1));
}

/* NULL, or why it has been silent for too long. */
static const char *look_at_silence(struct mux_stream *stream, int64_t *look_ms)
{
    const struct mux_limits *limits = &stream->carrier->mux->limits;
    int64_t now_ms = stream->carrier->mux->now_ms;
    int64_t idle_ms;

    if (is_held_back(stream))
        mux_stream_moved(stream);
    idle_ms = limits->idle_ms ? stream->moved_ms + limits->idle_ms : INT64_MAX;
    if (now_ms >= idle_ms)
        return "idle for too long";
    *look_ms = clock_earlier(*look_ms, idle_ms);
    if (stream->is_confirmed && !is_half_open(stream))
        return NULL;
    if (now_ms >= stream->lingers_since_ms + limits->linger_ms) {
        if (!stream->is_confirmed)
            return "no answer in time";
        if (is_silent(stream))
            return "one side ended, the other was silent for too long";
        stream->lingers_since_ms = now_ms;
    }
    *look_ms = clock_earlier(*look_ms, stream->lingers_since_ms + limits->linger_ms);
    return NULL;
}

void mux_stream_look(struct mux_stream *stream, int64_t *look_ms)
{
    const char *why;

    if (stream->socket < 0)
        get_socket(stream);
    why = stream->is_over ? NULL : look_at_silence(stream, look_ms);
    if (why)
        mux_stream_break(stream, why);
}
