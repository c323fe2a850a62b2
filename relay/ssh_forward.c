/* A tunnel that a carrier holds, and the port where its clients connect. */
#include "relay/ssh_carrier.h"

#include "relay/log.h"
#include "relay/refusals.h"
#include "relay/socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum {
    ACCEPT_PAUSE_MS = 100,
    ACCEPTS_A_TURN = 16,
    EVENTS_A_TURN = 128
};

/* Why a tunnel closes, for the log. */
static const char lifetime_is_over[] = "its lifetime is over";
static const char taken_back[] = "its server has taken it back";

/* The proxy has one address for clients, however a server calls it. What names
 * another, or this machine alone where clients come from elsewhere, is not granted. */
static bool is_own_address(const struct carrier *carrier, const char *bind)
{
    static const char *const any[] = { "", "*", "localhost", "0.0.0.0", "::" };
    char own[NET_ADDRESS_TEXT_BYTES];

    for (size_t i = 0; i < sizeof any / sizeof any[0]; i++)
        if (strcasecmp(bind, any[i]) == 0)
            return true;
    net_address_format_host(&carrier->settings.listen, own);
    return strcasecmp(bind, own) == 0 || strcasecmp(bind, carrier->host) == 0;
}

static const char *why_not_opened(int err)
{
    switch (-err) {
    case EDQUOT:
        refusals_count(LIMIT_MAX_TUNNELS);
        return "max-tunnels: this proxy has as many tunnels open as it allows";
    case EUSERS:
        refusals_count(LIMIT_TUNNELS_PER_USER);
        return "tunnels-per-user: this user has as many tunnels open as one may";
    case ETOOMANYREFS:
        refusals_count(LIMIT_TUNNELS_PER_ADDRESS);
        return "tunnels-per-address: this address has as many tunnels open as one may";
    case EADDRNOTAVAIL:
        return "every port pair is in use";
    case ESHUTDOWN:
        return "the proxy is shutting down";
    default:
        return "the proxy has no more descriptors or memory";
    }
}

static const char *hold_or_open(struct carrier *carrier, uint16_t port, struct tunnel **tunnel)
{
    const struct ssh_entrant *entrant = &carrier->entrant;
    struct tunnel_opener opener = { .address = entrant->peer, .user = entrant->user };
    bool has_token = carried_is_token(entrant->owner);
    int err;

    if (has_token && !TAILQ_EMPTY(&carrier->forwards))
        return "a token is good for one tunnel";
    err = carried_hold(carrier->service->relay, entrant->owner, port, tunnel);
    if (!err)
        return NULL;
    if (has_token)
        return err == -EBUSY ? "another connection has this token's tunnel"
                             : "this token has no tunnel at that port";
    if (port)
        return err == -EBUSY ? "another connection of the same owner has that port"
                             : "a port of one's own choice is only had back, by whom it was "
                               "lost to a short while ago; ask for port 0";
    if (!ssh_service_may_open(carrier->service, &entrant->peer)) {
        refusals_count(LIMIT_OPENS_PER_MINUTE);
        return "opens-per-minute: this address has opened too many tunnels";
    }
    err = carried_open_held(carrier->service->relay, &backend_ssh, carrier->host, &opener,
                            entrant->owner, tunnel);
    return err ? why_not_opened(err) : NULL;
}

const char *forward_open(struct carrier *carrier, const char *bind, uint16_t port,
                         struct forward **out)
{
    struct forward *forward;
    struct tunnel *tunnel;
    const char *refusal;

    if (atomic_load(&carrier->draining))
        return "the proxy is shutting down";
    if (strlen(bind) >= SSH_BIND_BYTES || !is_own_address(carrier, bind))
        return "the address is not the proxy's";
    forward = calloc(1, sizeof *forward);
    if (!forward)
        return why_not_opened(-ENOMEM);
    refusal = hold_or_open(carrier, port, &tunnel);
    if (refusal) {
        free(forward);
        return refusal;
    }
    forward->tunnel = tunnel;
    forward->epoll = -1;
    snprintf(forward->bind, sizeof forward->bind, "%s", bind);
    forward->port = (uint16_t)(tunnel->pair.server_port + 1);
    rate_init(&forward->rate, tunnel->settings->bytes_per_s, clock_ms());
    TAILQ_INSERT_TAIL(&carrier->forwards, forward, entry);
    log_write(LOG_INFO, "tunnel %lu has its server, by ssh", (unsigned long)tunnel->id);
    *out = forward;
    return NULL;
}

struct forward *forward_find(struct carrier *carrier, const char *bind, uint16_t port)
{
    struct forward *forward;

    for (forward = TAILQ_FIRST(&carrier->forwards); forward; forward = TAILQ_NEXT(forward, entry))
        if (forward->port == port && !forward->is_cancelled && strcmp(forward->bind, bind) == 0)
            return forward;
    return NULL;
}

void forward_cancel(struct forward *forward)
{
    forward->is_cancelled = true;
    tunnel_close_listener(&forward->tunnel->pair.client_listener);
}

void forwards_stop_listening(struct carrier *carrier)
{
    struct forward *forward;

    for (forward = TAILQ_FIRST(&carrier->forwards); forward; forward = TAILQ_NEXT(forward, entry))
        if (forward->tunnel)
            tunnel_close_listener(&forward->tunnel->pair.client_listener);
}

bool forward_accepts(const struct carrier *carrier, const struct forward *forward)
{
    return forward->tunnel && !forward->is_cancelled && !carrier->server_has_left &&
           !atomic_load(&carrier->draining) &&
           forward->streams < forward->tunnel->settings->streams_per_tunnel &&
           clock_ms() >= forward->accept_again_ms;
}

/* It is there as long as clients are, and counted as one of them. */
static int open_epoll(struct forward *forward)
{
    int err = 0;

    if (forward->epoll >= 0)
        return 0;
    if (!tunnel_take_descriptor(forward->tunnel))
        return -EMFILE;
    forward->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (forward->epoll < 0) {
        err = -errno;
        tunnel_give_descriptor(forward->tunnel);
    }
    return err;
}

static void close_epoll(struct forward *forward)
{
    if (forward->epoll < 0)
        return;
    close(forward->epoll);
    forward->epoll = -1;
    tunnel_give_descriptor(forward->tunnel);
}

int forward_watch(struct forward *forward, int client, struct stream *stream)
{
    struct epoll_event event = {
        .events = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = stream };

    return epoll_ctl(forward->epoll, EPOLL_CTL_ADD, client, &event) < 0 ? -errno : 0;
}

void forward_hear_clients(struct carrier *carrier, struct forward *forward)
{
    struct epoll_event events[EVENTS_A_TURN];
    int count = waker_epoll(NULL, forward->epoll, events, EVENTS_A_TURN, 0);

    if (count < 0)
        carrier_fail(carrier, "no memory");
    for (int i = 0; i < count; i++)
        stream_ready(events[i].data.ptr, events[i].events);
}

void forward_accept(struct carrier *carrier, struct forward *forward)
{
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        struct net_address peer;
        int client;

        if (!forward_accepts(carrier, forward) || carrier_is_ending(carrier))
            return;
        client = open_epoll(forward);
        if (!client)
            client = tunnel_accept_client(forward->tunnel, &peer);
        if (client == -EAGAIN)
            return;
        if (client < 0 || stream_open(carrier, forward, client, &peer) < 0)
            forward->accept_again_ms = clock_ms() + ACCEPT_PAUSE_MS;
    }
}

/* What becomes of the streams that have not been closed by the server. */
static void leave_streams(struct carrier *carrier, const struct forward *forward,
                          void (*leave)(struct stream *))
{
    struct stream *stream, *next;

    for (stream = TAILQ_FIRST(&carrier->streams); stream; stream = next) {
        next = stream_next(stream);
        if (stream_forward(stream) == forward)
            leave(stream);
    }
}

static void expire(struct stream *stream)
{
    stream_break(stream, lifetime_is_over);
}

/* Closes the tunnel. The forward stays until the server has closed its channels, too,
 * since libssh takes what comes in them. */
static void close_tunnel(struct carrier *carrier, struct forward *forward, const char *why)
{
    if (forward->streams)
        leave_streams(carrier, forward, expire);
    close_epoll(forward);
    carried_close(carrier->service->relay, forward->tunnel, why);
    forward->tunnel = NULL;
    forward->is_cancelled = true;
}

static void end_one(struct carrier *carrier, struct forward *forward)
{
    leave_streams(carrier, forward, stream_free);
    close_epoll(forward);
    if (forward->tunnel && forward->is_cancelled)
        carried_close(carrier->service->relay, forward->tunnel, taken_back);
    else if (forward->tunnel)
        carried_let_go(carrier->service->relay, forward->tunnel);
    TAILQ_REMOVE(&carrier->forwards, forward, entry);
    free(forward);
}

void forwards_end(struct carrier *carrier)
{
    struct forward *forward;

    while ((forward = TAILQ_FIRST(&carrier->forwards)))
        end_one(carrier, forward);
}

/* NULL, or why its tunnel is over. */
static const char *look(struct forward *forward, int64_t now_ms, int64_t *look_ms)
{
    int64_t until_ms = tunnel_until_ms(forward->tunnel);

    if (now_ms >= until_ms)
        return lifetime_is_over;
    if (forward->is_cancelled && !forward->streams)
        return taken_back;
    if (!forward->streams)
        close_epoll(forward);           /* others may need what it is counted for */
    rate_grow(&forward->rate, now_ms);
    *look_ms = clock_earlier(*look_ms, until_ms);
    if (forward->accept_again_ms > now_ms)
        *look_ms = clock_earlier(*look_ms, forward->accept_again_ms);
    return NULL;
}

int64_t forwards_look(struct carrier *carrier, int64_t now_ms)
{
    struct forward *forward, *next;
    int64_t look_ms = INT64_MAX;

    for (forward = TAILQ_FIRST(&carrier->forwards); forward; forward = next) {
        const char *why = forward->tunnel ? look(forward, now_ms, &look_ms) : NULL;

        next = TAILQ_NEXT(forward, entry);
        if (why)
            close_tunnel(carrier, forward, why);
        if (!forward->tunnel && !forward->streams) {
            TAILQ_REMOVE(&carrier->forwards, forward, entry);
            free(forward);
        }
    }
    return look_ms;
}

int64_t forwards_next_ms(const struct carrier *carrier)
{
    const struct forward *forward;
    int64_t next_ms = INT64_MAX;

    for (forward = TAILQ_FIRST(&carrier->forwards); forward; forward = TAILQ_NEXT(forward, entry))
        if (forward->tunnel)            /* or it does not grow any more */
            next_ms = clock_earlier(next_ms, rate_next_ms(&forward->rate));
    return next_ms;
}

bool forwards_have_tunnel(const struct carrier *carrier)
{
    const struct forward *forward;

    for (forward = TAILQ_FIRST(&carrier->forwards); forward; forward = TAILQ_NEXT(forward, entry))
        if (forward->tunnel)
            return true;
    return false;
}

void forward_address(const struct forward *forward, char text[URI_TEXT_BYTES])
{
    struct tunnel_uri uri;

    tunnel_client_uri(forward->tunnel, &uri);
    tunnel_uri_format(&uri, text);
}
