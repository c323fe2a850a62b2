/* The sockets of a mux's streams. */
#include "relay/mux_private.h"

#include "relay/socket.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum { CONNECT_AGAIN_MS = 20 };

static struct mux *mux_of(const struct mux_stream *stream)
{
    return stream->carrier->mux;
}

static struct webmux *webmux_of(const struct mux_stream *stream)
{
    return &stream->carrier->webmux;
}

/* Once its session is over, all that is left of it may be bytes for a slow socket; the
 * session may be another stream's then. */
static bool has_session(const struct mux_stream *stream)
{
    return stream->carrier->by_session[stream->session] == stream;
}

static void moved(struct mux_stream *stream)
{
    stream->moved_ms = stream->lingers_since_ms = mux_of(stream)->now_ms;
}

/* Time has to be looked at no later than that. */
static void look_by(struct mux_stream *stream, int64_t time_ms)
{
    mux_of(stream)->look_ms = clock_earlier(mux_of(stream)->look_ms, time_ms);
}

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
        TAILQ_INSERT_TAIL(&mux_of(stream)->held, stream, turn);
    else
        TAILQ_REMOVE(&mux_of(stream)->held, stream, turn);
}

static void drop_queue(struct mux_stream *stream)
{
    mux_of(stream)->waiting -= stream->queue.count;
    byte_queue_clear(&stream->queue);
    set_held(stream, false);
}

/* Its part is over: its socket is closed, in one way or the other. */
static void leave(struct mux_stream *stream, void (*close_socket)(int), const char *why)
{
    struct mux *mux = mux_of(stream);

    set_ready(stream, false);
    if (stream->socket >= 0) {
        mux_forget(mux, stream->socket);    /* another process may have it, too */
        close_socket(stream->socket);
    }
    stream->socket = -1;
    stream->is_over = true;
    drop_queue(stream);
    mux->streams_count--;
    if (has_session(stream))
        stream->carrier->by_session[stream->session] = NULL;
    TAILQ_REMOVE(&stream->carrier->streams, stream, sibling);
    TAILQ_INSERT_TAIL(&mux->ended, stream, entry);
    mux->handler->stream_ended(mux, stream, why);
}

void mux_stream_break(struct mux_stream *stream, const char *why)
{
    if (stream->is_over)
        return;
    if (has_session(stream))
        webmux_reset(webmux_of(stream), stream->session);
    leave(stream, socket_reset, why);
}

static void finish_if_over(struct mux_stream *stream)
{
    if (!stream->is_over && stream->socket_ended && stream->end_passed_on)
        leave(stream, socket_close, "finished");
}

/* The socket takes nothing more. What it gave before that is passed on first. */
static void note_break(struct mux_stream *stream)
{
    stream->broke = stream->can_read = true;
    stream->can_write = false;
    drop_queue(stream);
    mux_stream_may_send(stream);
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
    moved(stream);
    look_by(stream, stream->moved_ms + mux_of(stream)->limits.linger_ms);
    finish_if_over(stream);
}

/* How much of the bytes the socket has taken, within the rate; less than 0: it has broken
 * off. */
static ssize_t give(struct mux_stream *stream, const void *bytes, size_t count)
{
    ssize_t sent;

    count = mux_allowed(mux_of(stream), count);
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
    mux_use_up(mux_of(stream), (size_t)sent);
    stream->bytes_to_socket += (size_t)sent;
    mux_of(stream)->bytes_to_sockets += (size_t)sent;
    if (sent)
        moved(stream);
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
    mux_of(stream)->waiting -= (size_t)sent;
    set_held(stream, stream->queue.count && stream->can_write);     /* after the others */
    if (sent && has_session(stream))
        webmux_took(webmux_of(stream), stream->session, (size_t)sent, stream->queue.count == 0);
    pass_end_on(stream);
}

static void keep(struct mux_stream *stream, const uint8_t *bytes, size_t count)
{
    size_t before = stream->queue.count;
    int err = byte_queue_put(&stream->queue, bytes, count);

    mux_of(stream)->waiting += stream->queue.count - before;
    set_held(stream, stream->can_write);
    if (err)
        mux_stream_break(stream, "no memory");
}

void mux_stream_take(struct mux_stream *stream, const uint8_t *bytes, size_t count)
{
    ssize_t sent = 0;

    if (!stream->broke && !stream->is_connecting && !stream->queue.count &&
        TAILQ_EMPTY(&mux_of(stream)->held))
        sent = give(stream, bytes, count);
    if (stream->broke || stream->is_over)
        return;
    if (sent)
        webmux_took(webmux_of(stream), stream->session, (size_t)sent, (size_t)sent == count);
    if ((size_t)sent < count)
        keep(stream, bytes + sent, count - (size_t)sent);
}

void mux_stream_take_end(struct mux_stream *stream)
{
    stream->end_came = true;
    pass_end_on(stream);
}

void mux_stream_confirmed(struct mux_stream *stream)
{
    stream->is_confirmed = true;
    moved(stream);
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
    if (webmux_of(stream)->opens)
        return;
    stream->was_connected = true;
    mux_of(stream)->handler->connected(mux_of(stream), stream);
    mux_stream_confirmed(stream);
    webmux_confirm(webmux_of(stream), stream->session);
}

static void take_end_of_socket(struct mux_stream *stream)
{
    stream->socket_ended = true;
    webmux_end(webmux_of(stream), stream->session);
    moved(stream);
    look_by(stream, stream->moved_ms + mux_of(stream)->limits.linger_ms);
    finish_if_over(stream);
}

/* Its end needs no credit. */
static bool has_nothing_but_its_end(const struct mux_stream *stream)
{
    char byte;

    return stream->hung_up && !stream->socket_ended && !stream->is_connecting &&
           recv(stream->socket, &byte, sizeof byte, MSG_PEEK) == 0;
}

void mux_stream_may_send(struct mux_stream *stream)
{
    bool may_send = has_session(stream) &&
                    webmux_may_send(webmux_of(stream), stream->session) != 0;

    if (stream->broke && !may_send)     /* who knows when there would be credit again */
        mux_stream_break(stream, "it broke off");
    else if (!may_send && has_nothing_but_its_end(stream))
        take_end_of_socket(stream);
    else
        set_ready(stream, may_send && stream->can_read && !stream->socket_ended);
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
    set_held(stream, stream->queue.count && stream->can_write);
    pass_end_on(stream);
    if (!stream->is_over)
        mux_stream_may_send(stream);
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
        mux_stream_break(stream, "it broke off");
}

static size_t make_frame(struct mux_stream *stream, uint8_t *room, size_t count)
{
    size_t padding = webmux_padding(count);

    mux_use_up(mux_of(stream), count);
    webmux_send(webmux_of(stream), stream->session, count, room);
    memset(room + WEBMUX_SHORT_BYTES + count, 0, padding);
    stream->bytes_from_socket += count;
    mux_of(stream)->bytes_from_sockets += count;
    moved(stream);
    return WEBMUX_SHORT_BYTES + count + padding;
}

size_t mux_stream_fill(struct mux_stream *stream, uint8_t *room, size_t room_bytes)
{
    size_t count = webmux_may_send(webmux_of(stream), stream->session);
    size_t fits = room_bytes - WEBMUX_SHORT_BYTES - webmux_padding(1);
    size_t used = 0;
    ssize_t received;

    if (count > fits)
        count = fits;
    set_ready(stream, false);
    if (!count) {
        mux_stream_may_send(stream);
        return 0;
    }
    count = mux_allowed(mux_of(stream), count);
    received = recv(stream->socket, room + WEBMUX_SHORT_BYTES, count, 0);
    if (received > 0) {
        stream->can_read = (size_t)received == count || stream->hung_up || stream->broke ||
                           stream->was_urgent;
        used = make_frame(stream, room, (size_t)received);
    } else {
        take_failure(stream, received);
    }
    if (!stream->is_over)
        mux_stream_may_send(stream);    /* and its next turn comes after the others' */
    return used;
}

/* A connected socket, or one that is about to be, becomes the stream's, or is reset. */
static int use_socket(struct mux_stream *stream, int socket)
{
    struct mux *mux = mux_of(stream);
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
    struct mux *mux = mux_of(stream);

    stream->carrier->by_session[stream->session] = stream;
    TAILQ_INSERT_TAIL(&stream->carrier->streams, stream, sibling);
    mux->streams_count++;
    moved(stream);
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
    struct mux *mux = mux_of(stream);
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
    return stream->is_held || (stream->is_ready && !mux_allowed(mux_of(stream), 1));
}

/* NULL, or why it has been silent for too long. */
static const char *look_at_silence(struct mux_stream *stream, int64_t *look_ms)
{
    const struct mux_limits *limits = &mux_of(stream)->limits;
    int64_t now_ms = mux_of(stream)->now_ms;
    int64_t idle_ms;

    if (is_held_back(stream))
        moved(stream);
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
