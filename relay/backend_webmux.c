/* The webmux backend: the server connects to the server port as often as it likes,
 * and any number of clients connect to the client port; each becomes a stream of the
 * connection that has the fewest. The tunnel outlives those connections. */
#include "relay/backend.h"

#include "relay/log.h"
#include "relay/mux.h"
#include "relay/socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    ACCEPTS_A_TURN = 32,
    ACCEPT_PAUSE_MS = 100,              /* with no descriptor left to accept with */
    LAST_BYTES_PAUSE_MS = 20,           /* between looks at whether they have arrived */
    KEEPALIVE_MS = 12000,               /* a server that is gone is noticed within a minute */
    WAITING_BYTES = 64 << 20,           /* for slow clients of a tunnel, all together */
    GROWTH_BYTES = WAITING_BYTES / 2    /* of their windows; as much is for what those have at first */
};

/* A client that came while no server was attached. */
struct waiter {
    struct mux_source source;
    TAILQ_ENTRY(waiter) entry;
    int socket;
    int64_t until_ms;
    bool has_gone;
};

/* One of the two listeners. */
struct door {
    struct mux_source source;
    struct hub *hub;
    int *listener;                      /* in the tunnel's port pair */
    bool is_watched;
};

struct hub {
    struct mux mux;                     /* the first: handlers get it */
    struct tunnel *tunnel;
    struct door servers, clients;
    TAILQ_HEAD(waiters, waiter) waiters;
    size_t waiters_count;
    bool was_attached;
    int64_t waits_until_ms;             /* for a server, while none is attached */
    int64_t accept_again_ms;            /* while it lies ahead, nobody is accepted */
    bool refused_one;                   /* of the server's connections, since one ended */
};

static unsigned long id_of(const struct hub *hub)
{
    return (unsigned long)hub->tunnel->id;
}

/* One for a client who is there: its server has not left before that one came. */
static struct mux_carrier *choose_carrier(struct hub *hub)
{
    struct mux_carrier *carrier;

    do {
        carrier = mux_choose_carrier(&hub->mux);
    } while (carrier && mux_carrier_is_ending(carrier));
    return carrier;
}

/* --- clients that wait */

static void waiter_ready(struct mux_source *source, uint32_t events)
{
    struct waiter *waiter = (struct waiter *)source;

    (void)events;                       /* it is watched for nothing but its end */
    waiter->has_gone = true;
}

/* Returns the socket, which is the caller's again. */
static int waiter_free(struct hub *hub, struct waiter *waiter)
{
    int socket = waiter->socket;

    mux_forget(&hub->mux, socket);
    TAILQ_REMOVE(&hub->waiters, waiter, entry);
    hub->waiters_count--;
    free(waiter);
    return socket;
}

static int client_waits(struct hub *hub, int socket)
{
    struct waiter *waiter = calloc(1, sizeof *waiter);
    int err = waiter ? mux_watch(&hub->mux, socket, 0, &waiter->source) : -ENOMEM;

    if (err) {
        free(waiter);
        socket_reset(socket);
        return err;
    }
    waiter->source.ready = waiter_ready;
    waiter->socket = socket;
    waiter->until_ms = hub->mux.now_ms + hub->tunnel->settings->attach_timeout_ms;
    TAILQ_INSERT_TAIL(&hub->waiters, waiter, entry);
    hub->waiters_count++;
    return 0;
}

static void leave_waiter(struct hub *hub, struct waiter *waiter)
{
    socket_reset(waiter_free(hub, waiter));
    tunnel_give_descriptor(hub->tunnel);
}

/* Those that have waited in vain for a server go, and the others become streams as soon as
 * there is a place. */
static void look_at_waiters(struct hub *hub)
{
    struct waiter *waiter, *next;

    for (waiter = TAILQ_FIRST(&hub->waiters); waiter; waiter = next) {
        struct mux_carrier *carrier = choose_carrier(hub);

        next = TAILQ_NEXT(waiter, entry);
        if (waiter->has_gone ||
            (!hub->mux.carriers_count && hub->mux.now_ms >= waiter->until_ms)) {
            leave_waiter(hub, waiter);
        } else if (carrier) {
            int socket = waiter_free(hub, waiter);

            if (mux_add_stream(carrier, socket) < 0)
                tunnel_give_descriptor(hub->tunnel);
        }
    }
}

/* --- accepting */

/* One more would be one too many, or would have to wait though servers are there. */
static bool has_room_for_client(struct hub *hub)
{
    size_t clients = hub->mux.streams_count + hub->waiters_count;

    if (clients >= hub->tunnel->settings->streams_per_tunnel || tunnel_is_draining(hub->tunnel))
        return false;
    return !hub->mux.carriers_count || mux_choose_carrier(&hub->mux);
}

static void pause_accepting(struct hub *hub)
{
    if (hub->accept_again_ms == 0)      /* told once */
        log_write(LOG_WARNING, "tunnel %lu can't accept yet: too few descriptors or memory",
                  id_of(hub));
    hub->accept_again_ms = hub->mux.now_ms + ACCEPT_PAUSE_MS;
}

static int take_client(struct hub *hub, int socket)
{
    struct mux_carrier *carrier = choose_carrier(hub);
    int err = carrier ? mux_add_stream(carrier, socket) : client_waits(hub, socket);

    if (err)
        tunnel_give_descriptor(hub->tunnel);
    return err;
}

static void clients_ready(struct mux_source *source, uint32_t events)
{
    struct hub *hub = ((struct door *)source)->hub;

    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN && has_room_for_client(hub); i++) {
        struct net_address peer;
        int socket = tunnel_accept_client(hub->tunnel, &peer);

        if (socket == -EAGAIN)
            return;
        if (socket < 0 || take_client(hub, socket) < 0) {
            pause_accepting(hub);
            return;
        }
    }
}

static int64_t keepalive_ms(const struct tunnel *tunnel)
{
    return clock_earlier(tunnel->settings->keepalive_ms, KEEPALIVE_MS);
}

static void refuse_carrier(struct hub *hub, int socket, const char *why)
{
    socket_reset(socket);
    if (!hub->refused_one)              /* it may go on trying */
        log_write(LOG_WARNING, "tunnel %lu can't take a connection of its server: %s", id_of(hub),
                  why);
    hub->refused_one = true;
}

/* The socket is the mux's from here on, or reset. */
static int add_carrier(struct hub *hub, int socket, struct mux_carrier **carrier)
{
    int err = socket_prepare_carrier(socket, keepalive_ms(hub->tunnel));

    if (err)
        socket_reset(socket);
    else
        err = mux_add_carrier(&hub->mux, socket, true, carrier);
    return err;
}

static void take_server(struct hub *hub, int socket, const struct net_address *peer)
{
    char text[NET_ADDRESS_TEXT_BYTES];
    struct mux_carrier *carrier;
    int err;

    if (hub->mux.carriers_count >= WEBMUX_CARRIERS_MAX) {
        refuse_carrier(hub, socket, "it has as many as it may");
        return;
    }
    if (!tunnel_take_descriptor(hub->tunnel)) {
        refuse_carrier(hub, socket, "there are too many connections of such tunnels");
        return;
    }
    err = add_carrier(hub, socket, &carrier);
    if (err) {
        tunnel_give_descriptor(hub->tunnel);
        log_write(LOG_WARNING, "tunnel %lu can't take a connection of its server: %s", id_of(hub),
                  strerrordesc_np(-err));
        return;
    }
    hub->was_attached = true;
    hub->waits_until_ms = INT64_MAX;
    log_write(LOG_INFO, "tunnel %lu has connection %lu of its server, %s", id_of(hub),
              carrier->number, log_address(peer, text));
}

static void servers_ready(struct mux_source *source, uint32_t events)
{
    struct hub *hub = ((struct door *)source)->hub;
    struct net_address peer;
    int socket = tunnel_accept(hub->tunnel, *hub->servers.listener, &peer);

    (void)events;
    if (socket == -EAGAIN)
        return;
    if (socket < 0)
        pause_accepting(hub);
    else if (tunnel_admits(hub->tunnel, &peer))
        take_server(hub, socket, &peer);
    else
        tunnel_turn_away(hub->tunnel, socket, &peer);
}

/* Those who may not come in stay in the listener's queue, and it is not told about. */
static int watch_door(struct hub *hub, struct door *door, bool watch)
{
    if (door->is_watched == watch || *door->listener < 0)
        return 0;
    door->is_watched = watch;
    return mux_watch_again(&hub->mux, *door->listener, watch ? EPOLLIN : 0, &door->source);
}

/* Once the proxy shuts down, clients are refused at once. */
static int watch_doors(struct hub *hub)
{
    bool is_accepting = hub->mux.now_ms >= hub->accept_again_ms;
    int err = watch_door(hub, &hub->servers, is_accepting);

    if (tunnel_is_draining(hub->tunnel))
        tunnel_close_listener(&hub->tunnel->pair.client_listener);
    return err ? err : watch_door(hub, &hub->clients, is_accepting && has_room_for_client(hub));
}

/* --- the tunnel */

static void stream_ended(struct mux *mux, const struct mux_stream *stream, const char *why)
{
    struct hub *hub = (struct hub *)mux;

    tunnel_give_descriptor(hub->tunnel);
    log_write(LOG_DEBUG, "tunnel %lu: client %lu has gone after %llu bytes from the server, %llu "
              "to it: %s", id_of(hub), stream->number, (unsigned long long)stream->bytes_to_socket,
              (unsigned long long)stream->bytes_from_socket, why);
}

static void carrier_ended(struct mux *mux, const struct mux_carrier *carrier, const char *why)
{
    struct hub *hub = (struct hub *)mux;

    tunnel_give_descriptor(hub->tunnel);
    hub->refused_one = false;
    if (!mux->carriers_count)
        hub->waits_until_ms = mux->now_ms + hub->tunnel->settings->reserve_ms;
    log_write(LOG_INFO, "tunnel %lu lost connection %lu of its server: %s%s", id_of(hub),
              carrier->number, why, mux->carriers_count ? "" : "; it waits for another");
}

static const struct mux_handler handler = {
    .stream_ended = stream_ended,
    .carrier_ended = carrier_ended,
    .socket_broke = "the client broke off",
    .session_reset = "the server reset it",
};

static int64_t deadline(const struct hub *hub)
{
    const struct waiter *first = TAILQ_FIRST(&hub->waiters);
    int64_t until_ms = clock_earlier(tunnel_until_ms(hub->tunnel), hub->waits_until_ms);

    if (first && !hub->mux.carriers_count)
        until_ms = clock_earlier(until_ms, first->until_ms);
    if (hub->mux.now_ms < hub->accept_again_ms)
        until_ms = clock_earlier(until_ms, hub->accept_again_ms);
    if (tunnel_is_draining(hub->tunnel) && !hub->mux.streams_count)
        until_ms = clock_earlier(until_ms, hub->mux.now_ms + LAST_BYTES_PAUSE_MS);
    return until_ms;
}

/* NULL, or why the tunnel is over. */
static const char *why_over(const struct hub *hub)
{
    if (hub->mux.now_ms >= tunnel_until_ms(hub->tunnel))
        return "its lifetime is over";
    if (hub->mux.now_ms >= hub->waits_until_ms)
        return hub->was_attached ? "its server did not come back in time"
                                 : "no server attached in time";
    if (tunnel_is_draining(hub->tunnel) && !hub->mux.streams_count &&
        mux_has_sent_all(&hub->mux))
        return "the proxy is shutting down";
    return NULL;
}

static const char *run(struct hub *hub)
{
    const char *why = NULL;

    while (!why) {
        int err = mux_turn(&hub->mux, &hub->tunnel->waker, deadline(hub));

        if (err == -ECANCELED)
            return "stopped";
        look_at_waiters(hub);
        if (!err || err == -EAGAIN)
            err = watch_doors(hub);
        if (err)
            return "failed for lack of memory";
        why = why_over(hub);
    }
    return why;
}

static int open_door(struct hub *hub, struct door *door, int *listener,
                     void (*ready)(struct mux_source *, uint32_t))
{
    *door = (struct door){ .source = { ready }, .hub = hub, .listener = listener,
                           .is_watched = true };
    return mux_watch(&hub->mux, *listener, EPOLLIN, &door->source);
}

static const char *webmux_serve(struct tunnel *tunnel)
{
    const struct relay_settings *settings = tunnel->settings;
    struct mux_limits limits = {
        .linger_ms = settings->linger_ms,
        .idle_ms = settings->idle_timeout_ms,
        .bytes_per_s = settings->bytes_per_s,
        .window_bytes = webmux_window(WAITING_BYTES - GROWTH_BYTES, settings->streams_per_tunnel),
        .growth_bytes = GROWTH_BYTES,
        .waiting_bytes = WAITING_BYTES,
    };
    struct hub hub = { .tunnel = tunnel,
                       .waits_until_ms = tunnel->opened_ms + settings->attach_timeout_ms };
    const char *why = "failed for lack of descriptors";

    TAILQ_INIT(&hub.waiters);
    if (mux_init(&hub.mux, &handler, &limits) < 0)
        return why;
    if (open_door(&hub, &hub.servers, &tunnel->pair.server_listener, servers_ready) == 0 &&
        open_door(&hub, &hub.clients, &tunnel->pair.client_listener, clients_ready) == 0)
        why = run(&hub);
    while (TAILQ_FIRST(&hub.waiters))
        leave_waiter(&hub, TAILQ_FIRST(&hub.waiters));
    mux_close(&hub.mux);
    log_write(LOG_INFO, "tunnel %lu had %lu clients, %llu bytes from its server, %llu to it",
              id_of(&hub), hub.mux.streams_in_all, (unsigned long long)hub.mux.bytes_to_sockets,
              (unsigned long long)hub.mux.bytes_from_sockets);
    return why;
}

const struct tunnel_backend backend_webmux = {
    .scheme = "webmux",
    .serve = webmux_serve,
    .drains = true,
    .has_epoll = true,
};
