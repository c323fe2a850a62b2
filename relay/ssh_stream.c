/* One client of a tunnel, whose bytes are a channel of the carrier.
 *
 * What the channel does not take at once stays with the client, and what the client
 * does not take stays in the channel's buffer, whose window libssh then does not open
 * again: so each direction is bounded, and nobody waits for a slow one. */
#include "relay/ssh_carrier.h"

#include "relay/buffer_pool.h"
#include "relay/log.h"
#include "relay/socket.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

/* libssh opens a window to 1,280,000 bytes when half of it is used up, and takes
 * what comes beyond it; a server that sends so much more is not one to go on with. */
enum { CHANNEL_BYTES_MAX = 2 * 1024 * 1024 };

enum stream_state {
    STREAM_OPENING,                     /* the server has not answered yet */
    STREAM_OPEN,
    STREAM_CLOSING                      /* until the server closes the channel, too */
};

/* Bytes that one side has given and the other did not take. */
struct leftover {
    char *bytes;                        /* NULL: none */
    size_t start, count;
};

struct stream {
    TAILQ_ENTRY(stream) entry;
    struct carrier *carrier;
    struct forward *forward;
    unsigned long number;               /* its name */
    int client;                         /* -1: closed */
    ssh_channel channel;
    struct ssh_channel_callbacks_struct callbacks;
    enum stream_state state;
    uint64_t asked_at;                  /* bytes heard when the opening was last looked at */

    struct leftover to_server, to_client;
    size_t buffered;                    /* in the channel, for the client */
    bool client_is_full;                /* it took less than there was; poll will tell */
    bool client_ended, client_broke;
    bool hung_up;                       /* poll has said that the client is through, both ways */
    bool server_ended, server_closed;
    bool end_passed_on;                 /* to the client */

    uint64_t bytes_from_server, bytes_from_client;
    int64_t moved_ms;                   /* when something last passed */
    int64_t lingers_since_ms;           /* the same, or when a look last found no silence */
};

struct forward *stream_forward(const struct stream *stream)
{
    return stream->forward;
}

struct stream *stream_next(const struct stream *stream)
{
    return TAILQ_NEXT(stream, entry);
}

static void moved(struct stream *stream)
{
    stream->moved_ms = stream->lingers_since_ms = clock_ms();
}

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
    moved(stream);
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

static void set_buffered(struct stream *stream, size_t bytes)
{
    stream->carrier->buffered += bytes - stream->buffered;
    stream->buffered = bytes;
}

/* What it does not take is offered again with what comes next; only new bytes are
 * offered once some wait. */
static int on_data(ssh_session session, ssh_channel channel, void *bytes, uint32_t length,
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
    set_buffered(stream, length - taken);
    if (stream->buffered > CHANNEL_BYTES_MAX)
        carrier_fail(stream->carrier, "the server sent more than its window allows");
    return (int)taken;
}

static void on_eof(ssh_session session, ssh_channel channel, void *context)
{
    struct stream *stream = context;

    (void)session;
    (void)channel;
    stream->server_ended = true;
}

static void on_close(ssh_session session, ssh_channel channel, void *context)
{
    struct stream *stream = context;

    (void)session;
    (void)channel;
    stream->server_closed = true;
}

/* Takes bytes out of the channel, which then asks for more. How many, or 0. */
static size_t take_from_channel(struct stream *stream, size_t most)
{
    char *room = carrier_room(stream->carrier);
    int count;

    if (!room)
        return 0;
    count = ssh_channel_read_nonblocking(stream->channel, room,
                                         (uint32_t)least(least(most, stream->buffered),
                                                         BUFFER_BYTES), 0);
    if (count <= 0) {
        carrier_fail(stream->carrier, "libssh lost what a channel held");
        return 0;
    }
    set_buffered(stream, stream->buffered - (size_t)count);
    return (size_t)count;
}

static void deliver_to_client(struct stream *stream)
{
    while (!stream->client_is_full && !stream->client_broke && stream->client >= 0) {
        size_t most = allowed(stream, BUFFER_BYTES);
        size_t count;

        if (most && stream->to_client.bytes) {
            took(&stream->to_client,
                 send_to_client(stream, stream->to_client.bytes + stream->to_client.start,
                                least(most, stream->to_client.count)));
        } else if (most && stream->buffered && (count = take_from_channel(stream, most))) {
            char *room = stream->carrier->room;

            if (!leave_over(&stream->to_client, room, send_to_client(stream, room, count), count))
                carrier_fail(stream->carrier, "no memory for what a slow client did not take");
        } else {
            return;
        }
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
    int written = ssh_channel_write(stream->channel, bytes, (uint32_t)length);

    if (written >= 0)
        return (size_t)written;
    if (!stream->server_closed)
        carrier_fail(stream->carrier, "the server has gone");
    return length;                      /* for nobody */
}

static void pass_end_to_server(struct stream *stream)
{
    stream->client_ended = true;
    moved(stream);
    if (ssh_channel_send_eof(stream->channel) != SSH_OK && !stream->server_closed)
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

static void deliver_to_server(struct stream *stream)
{
    struct leftover *leftover = &stream->to_server;

    if (leftover->bytes && carrier_may_write(stream->carrier))
        took(leftover, write_to_channel(stream, leftover->bytes + leftover->start,
                                        leftover->count));
}

/* --- its life */

/* Whose address it is, is the server's to know only if the operator says so. */
static int ask_to_open(struct stream *stream, const struct net_address *peer)
{
    const struct forward *forward = stream->forward;
    char host[NET_ADDRESS_TEXT_BYTES] = "127.0.0.1";
    uint16_t port = 0;

    if (peer && stream->carrier->limits.reveal_clients) {
        net_address_format_host(peer, host);
        port = net_address_port(peer);
    }
    stream->asked_at = stream->carrier->counter.in_bytes;
    return ssh_channel_open_reverse_forward(stream->channel, forward->bind, forward->port, host,
                                            port);
}

static void discard(struct stream *stream)
{
    while (stream->buffered && take_from_channel(stream, BUFFER_BYTES))
        ;
    free(stream->to_client.bytes);
    free(stream->to_server.bytes);
    stream->to_client = stream->to_server = (struct leftover){ 0 };
}

/* The client's part is over. */
static void leave_client(struct stream *stream, void (*close_socket)(int))
{
    if (stream->client < 0)
        return;
    close_socket(stream->client);
    stream->client = -1;
    discard(stream);
    log_write(LOG_DEBUG, "tunnel %lu: client %lu has gone after %llu bytes from the server, %llu to it",
              (unsigned long)stream->forward->tunnel->id, stream->number,
              (unsigned long long)stream->bytes_from_server,
              (unsigned long long)stream->bytes_from_client);
}

static void close_channel(struct stream *stream)
{
    if (stream->state != STREAM_OPEN)
        return;                         /* one that opens is closed once it is open */
    stream->state = STREAM_CLOSING;
    moved(stream);                      /* the server has time to answer from now on */
    if (!stream->server_closed && ssh_channel_close(stream->channel) != SSH_OK)
        carrier_fail(stream->carrier, "the server has gone");
}

void stream_break(struct stream *stream, const char *why)
{
    if (stream->client >= 0)
        console_print(stream->carrier, "client %lu closed: %s", stream->number, why);
    leave_client(stream, socket_reset);
    close_channel(stream);
}

static void finish(struct stream *stream)
{
    if (stream->client >= 0)
        console_print(stream->carrier, "client %lu closed, %llu bytes to it, %llu from it",
                      stream->number, (unsigned long long)stream->bytes_from_server,
                      (unsigned long long)stream->bytes_from_client);
    leave_client(stream, socket_close);
    close_channel(stream);
}

int stream_open(struct carrier *carrier, struct forward *forward, int client,
                const struct net_address *peer)
{
    struct stream *stream = calloc(1, sizeof *stream);

    if (!stream || !(stream->channel = ssh_channel_new(carrier->entrant.session))) {
        free(stream);
        socket_reset(client);
        return -ENOMEM;
    }
    stream->carrier = carrier;
    stream->forward = forward;
    stream->number = ++carrier->clients;
    stream->client = client;
    stream->callbacks = (struct ssh_channel_callbacks_struct){
        .userdata = stream,
        .channel_data_function = on_data,
        .channel_eof_function = on_eof,
        .channel_close_function = on_close,
    };
    ssh_callbacks_init(&stream->callbacks);
    moved(stream);
    TAILQ_INSERT_TAIL(&carrier->streams, stream, entry);
    carrier->streams_count++;
    forward->streams++;
    atomic_fetch_add(&carrier->service->streams, 1);
    console_print(carrier, "client %lu connected", stream->number);
    if (ssh_set_channel_callbacks(stream->channel, &stream->callbacks) != SSH_OK ||
        ask_to_open(stream, peer) == SSH_ERROR)
        carrier_fail(carrier, "a channel could not be asked for");
    return 0;
}

void stream_free(struct stream *stream)
{
    struct carrier *carrier = stream->carrier;

    leave_client(stream, socket_reset);
    TAILQ_REMOVE(&carrier->streams, stream, entry);
    carrier->streams_count--;
    stream->forward->streams--;
    atomic_fetch_sub(&carrier->service->streams, 1);
    ssh_remove_channel_callbacks(stream->channel, &stream->callbacks);
    ssh_channel_free(stream->channel);
    free(stream);
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

/* Whether the answer has come. */
static void look_at_opening(struct stream *stream)
{
    if (stream->asked_at == stream->carrier->counter.in_bytes)
        return;
    switch (ask_to_open(stream, NULL)) {
    case SSH_OK:
        stream->state = STREAM_OPEN;
        if (stream->client < 0)
            close_channel(stream);
        break;
    case SSH_AGAIN:
        break;
    default:
        stream_break(stream, "the server refused it");
        stream->state = STREAM_CLOSING;
        stream->server_closed = true;
    }
}

static bool is_half_open(const struct stream *stream)
{
    return stream->client >= 0 && stream->client_ended != stream->end_passed_on;
}

/* As duplex has it: bytes that wait for a slow reader are no silence. */
static bool is_silent(const struct stream *stream)
{
    int unsent = 0, unread = 0;

    if (stream->buffered || stream->to_client.bytes || stream->to_server.bytes)
        return false;
    if (ioctl(stream->client, SIOCOUTQ, &unsent) == 0 && unsent)
        return false;
    return stream->client_ended || ioctl(stream->client, FIONREAD, &unread) < 0 || !unread;
}

/* NULL, or why it has to end now. */
static const char *look_at_time(struct stream *stream, int64_t *look_ms)
{
    const struct relay_settings *settings = stream->forward->tunnel->settings;
    int64_t now_ms = clock_ms();
    int64_t idle_ms = settings->idle_timeout_ms ? stream->moved_ms + settings->idle_timeout_ms
                                                : INT64_MAX;
    int64_t linger_ms = stream->lingers_since_ms + settings->linger_ms;

    if (stream->state == STREAM_OPENING || stream->state == STREAM_CLOSING) {
        if (now_ms >= linger_ms)
            carrier_fail(stream->carrier, "the server did not answer in time");
        *look_ms = clock_earlier(*look_ms, linger_ms);
        return NULL;
    }
    if (now_ms >= idle_ms)
        return "idle for too long";
    *look_ms = clock_earlier(*look_ms, idle_ms);
    if (!is_half_open(stream))
        return NULL;
    if (now_ms >= linger_ms && is_silent(stream))
        return "one side ended, the other was silent for too long";
    if (now_ms >= linger_ms)
        stream->lingers_since_ms = now_ms;
    *look_ms = clock_earlier(*look_ms, stream->lingers_since_ms + settings->linger_ms);
    return NULL;
}

/* What has come about, from the bytes to the ends. */
static void advance(struct stream *stream)
{
    if (stream->state == STREAM_OPENING)
        look_at_opening(stream);
    if (stream->state == STREAM_OPEN)
        deliver_to_server(stream);
    if (stream->client >= 0)
        deliver_to_client(stream);
    if (stream->client < 0)
        return;
    if (stream->client_broke) {
        stream_break(stream, "it broke off");
        return;
    }
    if (stream->server_ended && !stream->end_passed_on && !stream->buffered &&
        !stream->to_client.bytes) {
        stream->end_passed_on = true;
        moved(stream);
        if (shutdown(stream->client, SHUT_WR) < 0)
            stream->client_broke = true;
    }
    if (stream->server_closed && !stream->server_ended)
        stream_break(stream, "the server broke off");
    else if (stream->end_passed_on && (stream->server_closed ||
                                       (stream->client_ended && !stream->to_server.bytes)))
        finish(stream);
}

bool stream_look(struct stream *stream, int64_t *look_ms)
{
    const char *why;

    advance(stream);
    if (stream->client < 0 && stream->server_closed) {
        close_channel(stream);
        stream_free(stream);
        return false;
    }
    why = look_at_time(stream, look_ms);
    if (why)
        stream_break(stream, why);
    return true;
}

struct stream *streams_fullest(struct carrier *carrier)
{
    struct stream *fullest = TAILQ_FIRST(&carrier->streams);
    struct stream *stream;

    TAILQ_FOREACH(stream, &carrier->streams, entry)
        if (stream->buffered > fullest->buffered)
            fullest = stream;
    return fullest;
}
