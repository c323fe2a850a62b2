/* The life of one client of a tunnel. */
#include "relay/ssh_stream.h"

#include "relay/log.h"
#include "relay/socket.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

enum { STUCK_MS = 5000 };

struct forward *stream_forward(const struct stream *stream)
{
    return stream->forward;
}

struct stream *stream_next(const struct stream *stream)
{
    return TAILQ_NEXT(stream, entry);
}

void stream_moved(struct stream *stream)
{
    stream->moved_ms = stream->lingers_since_ms = clock_ms();
    stream->found_no_silence = false;
}

void stream_begin_silence(struct stream *stream)
{
    const struct relay_settings *settings = stream->forward->tunnel->settings;
    struct carrier *carrier = stream->carrier;

    stream_moved(stream);
    carrier->time_ms = clock_earlier(carrier->time_ms, stream->moved_ms + settings->linger_ms);
    if (settings->idle_timeout_ms)
        carrier->time_ms = clock_earlier(carrier->time_ms,
                                         stream->moved_ms + settings->idle_timeout_ms);
}

void stream_call(struct stream *stream)
{
    stream->is_called = true;
    if (stream->is_active)
        return;
    stream->is_active = true;
    TAILQ_INSERT_TAIL(&stream->carrier->active, stream, active);
    stream->carrier->active_count++;
}

static void leave_active(struct stream *stream)
{
    if (!stream->is_active)
        return;
    stream->is_active = false;
    TAILQ_REMOVE(&stream->carrier->active, stream, active);
    stream->carrier->active_count--;
}

static void on_eof(ssh_session session, ssh_channel channel, void *context)
{
    struct stream *stream = context;

    (void)session;
    (void)channel;
    stream->server_ended = true;
    stream_call(stream);
}

static void on_close(ssh_session session, ssh_channel channel, void *context)
{
    struct stream *stream = context;

    (void)session;
    (void)channel;
    stream->server_closed = true;
    stream_call(stream);
}

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

/* The client's part is over. */
static void leave_client(struct stream *stream, void (*close_socket)(int))
{
    if (stream->client < 0)
        return;
    close_socket(stream->client);
    stream->client = -1;
    tunnel_give_descriptor(stream->forward->tunnel);
    stream_discard(stream);
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
    stream_prepare_close(stream);
    if (!carrier_close_channel(stream->channel) && !stream->server_closed)
        carrier_fail(stream->carrier, "the server has gone");
}

void stream_break(struct stream *stream, const char *why)
{
    if (stream->client >= 0)
        console_print(stream->carrier, "client %lu closed: %s", stream->number, why);
    leave_client(stream, socket_reset);
    close_channel(stream);
    stream_call(stream);
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

/* To whether the channel may be opened, which may have come already. */
static void take_answer(struct stream *stream, int answer)
{
    if (answer == SSH_AGAIN)
        return;
    if (answer == SSH_OK) {
        stream->state = STREAM_OPEN;
        if (stream->client < 0)
            close_channel(stream);
        else
            stream_begin_silence(stream);
        return;
    }
    stream_break(stream, "the server refused it");
    stream->state = STREAM_CLOSING;
    stream->server_closed = true;
}

int stream_open(struct carrier *carrier, struct forward *forward, int client,
                const struct net_address *peer)
{
    struct stream *stream = calloc(1, sizeof *stream);

    if (!stream || forward_watch(forward, client, stream) < 0 ||
        !(stream->channel = ssh_channel_new(carrier->entrant.session))) {
        free(stream);
        socket_reset(client);
        tunnel_give_descriptor(forward->tunnel);
        return -ENOMEM;
    }
    stream->carrier = carrier;
    stream->forward = forward;
    stream->number = ++carrier->clients;
    stream->client = client;
    stream->callbacks = (struct ssh_channel_callbacks_struct){
        .userdata = stream,
        .channel_data_function = stream_on_data,
        .channel_eof_function = on_eof,
        .channel_close_function = on_close,
    };
    ssh_callbacks_init(&stream->callbacks);
    TAILQ_INSERT_TAIL(&carrier->streams, stream, entry);
    forward->streams++;
    stream_begin_silence(stream);
    stream_call(stream);
    console_print(carrier, "client %lu connected", stream->number);
    if (ssh_set_channel_callbacks(stream->channel, &stream->callbacks) == SSH_OK)
        take_answer(stream, ask_to_open(stream, peer));
    else
        carrier_fail(carrier, "no memory");
    return 0;
}

void stream_free(struct stream *stream)
{
    struct carrier *carrier = stream->carrier;

    leave_client(stream, socket_reset);
    leave_active(stream);
    TAILQ_REMOVE(&carrier->streams, stream, entry);
    stream->forward->streams--;
    carrier->waiting -= stream->waiting;
    ssh_remove_channel_callbacks(stream->channel, &stream->callbacks);
    ssh_channel_free(stream->channel);
    free(stream);
}

static void look_at_opening(struct stream *stream)
{
    if (stream->asked_at != stream->carrier->counter.in_bytes)
        take_answer(stream, ask_to_open(stream, NULL));
}

static bool is_half_open(const struct stream *stream)
{
    return stream->client >= 0 && stream->client_ended != stream->end_passed_on;
}

/* As duplex has it: bytes that wait for a slow reader, or are on their way to one, are no
 * silence. */
static bool is_silent(const struct stream *stream)
{
    int unsent = 0, unread = 0;

    if (stream->buffered || stream->to_client.bytes || stream->to_server.bytes)
        return false;
    if (ioctl(stream->client, SIOCOUTQ, &unsent) == 0 && unsent)
        return false;
    if (stream->client_ended && !carrier_has_delivered(stream->carrier, stream->sent_at_end))
        return false;
    return stream->client_ended || ioctl(stream->client, FIONREAD, &unread) < 0 || !unread;
}

/* Whether there was silence for the linger time, which is over. If not, or if it may not
 * have been silence all the time, it begins anew. */
static bool was_silent(struct stream *stream, int64_t now_ms)
{
    bool silent = is_silent(stream);

    if (silent && !stream->found_no_silence)
        return true;
    stream->found_no_silence = !silent;
    stream->lingers_since_ms = now_ms;
    return false;
}

/* NULL, or why it has to end now. */
static const char *look_at_time(struct stream *stream, int64_t *look_ms)
{
    const struct relay_settings *settings = stream->forward->tunnel->settings;
    int64_t now_ms = clock_ms();
    int64_t idle_ms, linger_ms;

    if (stream_waits_for_rate(stream))
        stream_moved(stream);           /* it would have */
    idle_ms = settings->idle_timeout_ms ? stream->moved_ms + settings->idle_timeout_ms : INT64_MAX;
    linger_ms = stream->lingers_since_ms + settings->linger_ms;
    if (stream->state == STREAM_OPENING && now_ms >= linger_ms)
        return "the server did not answer in time";
    if (stream->state == STREAM_OPENING)
        *look_ms = clock_earlier(*look_ms, linger_ms);
    if (stream->state != STREAM_OPEN)
        return NULL;
    if (now_ms >= idle_ms)
        return "idle for too long";
    *look_ms = clock_earlier(*look_ms, idle_ms);
    if (!is_half_open(stream))
        return NULL;
    if (now_ms >= linger_ms && was_silent(stream, now_ms))
        return "one side ended, the other was silent for too long";
    *look_ms = clock_earlier(*look_ms, stream->lingers_since_ms + settings->linger_ms);
    return NULL;
}

/* What has come about, from the bytes to the ends. */
static void advance(struct stream *stream)
{
    if (stream->state == STREAM_OPENING)
        look_at_opening(stream);
    stream_move(stream);
    if (stream->client < 0)
        return;
    if (stream->client_broke) {
        stream_break(stream, "it broke off");
        return;
    }
    if (stream->server_ended && !stream->end_passed_on && !stream->buffered &&
        !stream->to_client.bytes) {
        stream->end_passed_on = true;
        stream_begin_silence(stream);
        if (shutdown(stream->client, SHUT_WR) < 0) {
            stream_break(stream, "it broke off");
            return;
        }
    }
    if (stream->server_closed && !stream->server_ended)
        stream_break(stream, "the server broke off");
    else if (stream->end_passed_on && (stream->server_closed ||
                                       (stream->client_ended && !stream->to_server.bytes)))
        finish(stream);
}

static void go_behind_others(struct stream *stream)
{
    struct streams *active = &stream->carrier->active;

    TAILQ_REMOVE(active, stream, active);
    TAILQ_INSERT_TAIL(active, stream, active);
}

/* One turn, in which it may be freed. Whether there has to be another look at once: its
 * forward's last stream was freed, for which the forward may have waited. */
static bool take_turn(struct stream *stream)
{
    struct forward *forward = stream->forward;

    stream->is_called = false;
    advance(stream);
    if (stream->client < 0 && stream->server_closed) {
        close_channel(stream);
        stream_free(stream);
        return !forward->streams;
    }
    if (stream->has_moved)
        go_behind_others(stream);
    stream->has_moved = false;
    if (!stream->is_called && stream->state != STREAM_OPENING && !stream_has_more(stream))
        leave_active(stream);
    return false;
}

/* Without a client, a stream waits for the server alone, which may take its time. */
static void look_at_times(struct carrier *carrier)
{
    int64_t time_ms = INT64_MAX;
    struct stream *stream;

    for (stream = TAILQ_FIRST(&carrier->streams); stream; stream = TAILQ_NEXT(stream, entry)) {
        const char *why = stream->client < 0 ? NULL : look_at_time(stream, &time_ms);

        if (why)
            stream_break(stream, why);
    }
    carrier->time_ms = time_ms;
}

int64_t streams_look(struct carrier *carrier, int64_t now_ms)
{
    int64_t look_ms = INT64_MAX;
    struct stream *stream, *next;
    size_t turns;

    if (now_ms >= carrier->time_ms)
        look_at_times(carrier);
    turns = carrier->active_count;
    for (stream = TAILQ_FIRST(&carrier->active); stream && turns && !carrier->failure; turns--) {
        next = TAILQ_NEXT(stream, active);
        if (take_turn(stream))
            look_ms = 0;
        stream = next;
    }
    return clock_earlier(look_ms, carrier->time_ms);
}

bool streams_may_move(const struct carrier *carrier)
{
    const struct stream *stream;

    for (stream = TAILQ_FIRST(&carrier->active); stream; stream = TAILQ_NEXT(stream, active))
        if (stream->is_called || stream_may_move(stream))
            return true;
    return false;
}

bool streams_have_client(const struct carrier *carrier)
{
    const struct stream *stream;

    for (stream = TAILQ_FIRST(&carrier->streams); stream; stream = TAILQ_NEXT(stream, entry))
        if (stream->client >= 0)
            return true;
    return false;
}

size_t streams_waiting(const struct carrier *carrier)
{
    const struct stream *stream;
    size_t waiting = 0;

    for (stream = TAILQ_FIRST(&carrier->streams); stream; stream = TAILQ_NEXT(stream, entry))
        if (stream->client >= 0)
            waiting += stream->waiting;
    return waiting;
}

/* Bytes count as taken once the client's system has them. */
static bool is_stuck(struct stream *stream, int64_t now_ms)
{
    uint64_t taken = stream->bytes_from_server;
    int unsent = 0;

    if (ioctl(stream->client, SIOCOUTQ, &unsent) == 0)
        taken -= (uint64_t)unsent;
    if (!stream->client_is_full || taken != stream->taken || !stream->taken_ms) {
        stream->taken = taken;
        stream->taken_ms = now_ms;
    }
    return now_ms - stream->taken_ms >= STUCK_MS;
}

struct stream *streams_stuck(struct carrier *carrier, int64_t now_ms)
{
    struct stream *fullest = NULL;
    struct stream *stream;

    for (stream = TAILQ_FIRST(&carrier->streams); stream; stream = TAILQ_NEXT(stream, entry))
        if (stream->client >= 0 && is_stuck(stream, now_ms) &&
            (!fullest || stream->waiting > fullest->waiting))
            fullest = stream;
    return fullest;
}
