/* The connections of a mux. */
#include "relay/mux_private.h"

#include "relay/buffer_pool.h"
#include "relay/socket.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum {
    WRITES_A_TURN = 8,                  /* then others have their turn */
    FRAME_ROOM_MIN = 2048               /* with less of it left, what there is goes first */
};

static void ready(struct mux_source *source, uint32_t events)
{
    struct mux_carrier *carrier = (struct mux_carrier *)source;

    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        carrier->can_read = true;
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        carrier->hung_up = true;
    if (events & EPOLLOUT)
        carrier->can_write = true;
}

int mux_add_carrier(struct mux *mux, int socket, bool opens, struct mux_carrier **out)
{
    struct mux_carrier *carrier = calloc(1, sizeof *carrier);
    int err = carrier ? 0 : -ENOMEM;

    if (!err)
        err = mux_watch(mux, socket, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, &carrier->source);
    if (err) {
        free(carrier);
        socket_reset(socket);
        return err;
    }
    carrier->source.ready = ready;
    carrier->mux = mux;
    carrier->number = ++mux->carriers_in_all;
    carrier->socket = socket;
    carrier->can_read = carrier->can_write = true;
    TAILQ_INIT(&carrier->streams);
    TAILQ_INIT(&carrier->ready);
    webmux_init(&carrier->webmux, opens, mux->limits.window_bytes, &mux->growth);
    TAILQ_INSERT_TAIL(&mux->carriers, carrier, entry);
    mux->carriers_count++;
    mux->has_more = true;
    *out = carrier;
    return 0;
}

bool mux_carrier_is_ending(struct mux_carrier *carrier)
{
    struct pollfd end = { .fd = carrier->socket, .events = POLLRDHUP };

    if (!carrier->hung_up)
        carrier->hung_up = poll(&end, 1, 0) > 0;
    return carrier->hung_up;
}

void mux_carrier_fail(struct mux_carrier *carrier, const char *why)
{
    struct mux *mux = carrier->mux;
    struct mux_stream *stream;

    if (carrier->failure)
        return;
    carrier->failure = why;
    TAILQ_REMOVE(&mux->carriers, carrier, entry);
    TAILQ_INSERT_TAIL(&mux->over, carrier, entry);
    mux->carriers_count--;
    while ((stream = TAILQ_FIRST(&carrier->streams)))
        mux_stream_break(stream, "the connection that carried it was lost");
    webmux_end_all(&carrier->webmux);
    mux->handler->carrier_ended(mux, carrier, why);
    mux_forget(mux, carrier->socket);   /* another process may have it, too */
    socket_close(carrier->socket);
    carrier->socket = -1;
    buffer_pool_give(carrier->out);
    carrier->out = NULL;
}

void mux_carrier_free(struct mux_carrier *carrier)
{
    free(carrier);
}

static void line_up(struct mux_carrier *carrier, uint8_t session)
{
    for (unsigned id = 0; id < WEBMUX_IDS; id++) {
        if (carrier->by_session[id] && (session == 0 || session == id))
            mux_stream_line_up(carrier->by_session[id]);
    }
}

static void handle(struct mux_carrier *carrier, const struct webmux_event *event)
{
    struct mux_stream *stream = carrier->by_session[event->session];

    switch (event->kind) {
    case WEBMUX_OPENED:
        mux_stream_opened(carrier, event->session);
        return;
    case WEBMUX_CREDIT:
        line_up(carrier, event->session);
        return;
    case WEBMUX_ERROR:
        mux_carrier_fail(carrier, event->error);
        return;
    default:
        break;
    }
    if (!stream)                        /* it has ended here, and not there yet */
        return;
    if (event->kind == WEBMUX_CONFIRMED)
        mux_stream_confirmed(stream);
    else if (event->kind == WEBMUX_DATA)
        mux_stream_take(stream, event->bytes, event->count);
    else if (event->kind == WEBMUX_ENDED)
        mux_stream_take_end(stream);
    else if (event->kind == WEBMUX_RESET)
        mux_stream_break(stream, stream->is_connecting ? "the client left before it was connected"
                                                       : carrier->mux->handler->session_reset);
}

static void take_frames(struct mux_carrier *carrier, const uint8_t *bytes, size_t count)
{
    struct webmux_event event;

    do {
        size_t used = webmux_receive(&carrier->webmux, bytes, count, &event);

        bytes += used;
        count -= used;
        handle(carrier, &event);
    } while (event.kind != WEBMUX_NOTHING && !carrier->failure);
}

/* Reads a buffer's worth. */
static void read_frames(struct mux_carrier *carrier)
{
    char *buffer = buffer_pool_take();
    ssize_t received;

    if (!buffer) {
        mux_carrier_fail(carrier, "no memory");
        return;
    }
    received = recv(carrier->socket, buffer, BUFFER_BYTES, 0);
    if (received > 0) {
        carrier->can_read = (size_t)received == BUFFER_BYTES || carrier->hung_up;
        carrier->was_heard = true;
        carrier->asked_ms = 0;
        take_frames(carrier, (const uint8_t *)buffer, (size_t)received);
    } else if (received == 0) {
        mux_carrier_fail(carrier, "the other end has closed it");
    } else if (errno == EAGAIN) {
        carrier->can_read = false;
    } else if (errno != EINTR) {
        mux_carrier_fail(carrier, "it broke off");
    }
    buffer_pool_give(buffer);
}

/* Puts together what is to be written next: what is owed, and a frame of each stream
 * in turn. */
static void fill(struct mux_carrier *carrier)
{
    struct mux_stream *stream;
    size_t room;

    carrier->out = buffer_pool_take();
    if (!carrier->out) {
        mux_carrier_fail(carrier, "no memory");
        return;
    }
    carrier->out_start = 0;
    carrier->out_count = webmux_write_owed(&carrier->webmux, (uint8_t *)carrier->out);
    while ((room = BUFFER_BYTES - carrier->out_count) >= FRAME_ROOM_MIN &&
           (stream = TAILQ_FIRST(&carrier->ready)) && mux_allowed(carrier->mux, 1))
        carrier->out_count += mux_stream_fill(stream, (uint8_t *)carrier->out + carrier->out_count,
                                              room);
    /* The ends that have come up with it, while they fit. */
    if (BUFFER_BYTES - carrier->out_count >= WEBMUX_OWED_BYTES_MAX)
        carrier->out_count += webmux_write_owed(&carrier->webmux,
                                                (uint8_t *)carrier->out + carrier->out_count);
}

/* Whether there is nothing left of what was to be written. */
static bool drain(struct mux_carrier *carrier)
{
    while (carrier->out_count && carrier->can_write) {
        ssize_t sent = send(carrier->socket, carrier->out + carrier->out_start, carrier->out_count,
                            MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN) {
            mux_carrier_fail(carrier, "it broke off");
            return false;
        }
        if (sent < 0) {
            carrier->can_write = false;
            break;
        }
        carrier->out_start += (size_t)sent;
        carrier->out_count -= (size_t)sent;
    }
    if (carrier->out_count)
        return false;
    buffer_pool_give(carrier->out);
    carrier->out = NULL;
    return true;
}

static bool has_something_to_write(const struct mux_carrier *carrier)
{
    return webmux_owes(&carrier->webmux) ||
           (!TAILQ_EMPTY(&carrier->ready) && mux_allowed(carrier->mux, 1));
}

bool mux_carrier_has_sent_all(const struct mux_carrier *carrier)
{
    int unsent = 0;

    return !carrier->out_count && !has_something_to_write(carrier) &&
           (ioctl(carrier->socket, SIOCOUTQ, &unsent) < 0 || !unsent);
}

static void write_frames(struct mux_carrier *carrier)
{
    for (int i = 0; i < WRITES_A_TURN && !carrier->failure && drain(carrier); i++) {
        if (!has_something_to_write(carrier))
            break;
        fill(carrier);
    }
}

void mux_carrier_move(struct mux_carrier *carrier)
{
    struct mux *mux = carrier->mux;

    if (mux->reads_sockets_first)
        write_frames(carrier);
    if (carrier->can_read && !carrier->failure)
        read_frames(carrier);
    if (!mux->reads_sockets_first)
        write_frames(carrier);
    if (carrier->failure)
        return;
    mux->has_more |= carrier->can_read;
    mux->has_more |= carrier->can_write && (carrier->out_count || has_something_to_write(carrier));
}
