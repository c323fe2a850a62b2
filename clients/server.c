/* A server of many clients: keeps a tunnel up, and relays each client to a socket. */
#include "clients/library.h"

#include "clients/attacher.h"
#include "relay/mux.h"
#include "relay/socket.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    GROWTH_BYTES = 64 << 20,            /* of windows, for all clients */
    WAITING_BYTES = 256 << 20,          /* for a slow service */
    LINGER_MS = 3600 * 1000,            /* the proxy's decides; this one is for a proxy without any */
    KEEPALIVE_MS = 12000,               /* a proxy that is gone is noticed within a minute */
    LOOK_MS = 500                       /* how old statistics get */
};

static_assert((int)TRISTERO_CONNECTIONS_MAX == (int)WEBMUX_CARRIERS_MAX, "what a proxy takes");

struct tristero_server {
    struct mux mux;                     /* the first: handlers get it */
    struct mux_source wake_source;
    int wake;                           /* an eventfd: stop, or look at the attacher */
    atomic_bool is_stopping;
    struct tristero_service service;
    struct attacher *attacher;
    char *first_address, *address;
    bool has_moved;                     /* to another address, and this is not told yet */
    int64_t looked_ms;
    pthread_mutex_t lock;
    struct tristero_statistics statistics;      /* guarded by lock */
};

static void tell(struct tristero_server *server, struct tristero_event *event)
{
    if (!server->service.event)
        return;
    event->address = server->address;
    server->service.event(server->service.context, event);
}

/* --- what the mux asks and tells */

static int set_up_socket(int socket)
{
    int flags = fcntl(socket, F_GETFL);
    int domain = 0;
    socklen_t length = sizeof domain;

    if (flags < 0 || fcntl(socket, F_SETFL, flags | O_NONBLOCK) < 0 ||
        getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &length) < 0)
        return -errno;
    return domain == AF_UNIX ? 0 : socket_prepare_to_relay(socket, SOCKET_KEEPALIVE_MS);
}

static int on_connect(struct mux *mux, struct mux_stream *stream)
{
    struct tristero_server *server = (struct tristero_server *)mux;
    int socket = server->service.connect(server->service.context);
    int err = socket < 0 ? socket : set_up_socket(socket);

    (void)stream;
    if (err && socket >= 0)
        close(socket);
    return err ? err : socket;
}

static void on_connected(struct mux *mux, const struct mux_stream *stream)
{
    struct tristero_server *server = (struct tristero_server *)mux;
    struct tristero_event event = { .kind = TRISTERO_CLIENT_CAME, .text = "",
                                    .client = stream->number };

    pthread_mutex_lock(&server->lock);
    server->statistics.clients++;
    server->statistics.clients_in_all++;
    pthread_mutex_unlock(&server->lock);
    tell(server, &event);
}

static void on_stream_ended(struct mux *mux, const struct mux_stream *stream, const char *why)
{
    struct tristero_server *server = (struct tristero_server *)mux;
    struct tristero_event event = {
        .kind = stream->was_connected ? TRISTERO_CLIENT_LEFT : TRISTERO_CLIENT_REFUSED,
        .text = why,
        .client = stream->number,
        .bytes_from_client = stream->bytes_to_socket,
        .bytes_to_client = stream->bytes_from_socket,
    };

    pthread_mutex_lock(&server->lock);
    if (stream->was_connected)
        server->statistics.clients--;
    else
        server->statistics.refused++;
    pthread_mutex_unlock(&server->lock);
    tell(server, &event);
}

static void on_carrier_ended(struct mux *mux, const struct mux_carrier *carrier, const char *why)
{
    struct tristero_server *server = (struct tristero_server *)mux;
    struct tristero_event event = { .kind = TRISTERO_LOST, .text = why };

    if (atomic_load(&server->is_stopping))
        return;
    if (carrier->was_heard)
        event.wait_ms = attacher_lost(server->attacher);
    else                                /* a proxy that takes it has a word at once */
        event.wait_ms = attacher_turned_away(server->attacher, mux->carriers_count == 0);
    pthread_mutex_lock(&server->lock);
    server->statistics.times_lost++;
    pthread_mutex_unlock(&server->lock);
    tell(server, &event);
}

static const struct mux_handler handler = {
    .connect = on_connect,
    .connected = on_connected,
    .stream_ended = on_stream_ended,
    .carrier_ended = on_carrier_ended,
    .socket_broke = "the service broke off",
    .session_reset = "the client broke off, or the proxy cut it off",
};

/* --- statistics */

/* The greatest of its connections', which is what clients may have to wait. */
static unsigned rtt_us(const struct mux *mux)
{
    const struct mux_carrier *carrier;
    unsigned greatest_us = 0;

    for (carrier = TAILQ_FIRST(&mux->carriers); carrier; carrier = TAILQ_NEXT(carrier, entry)) {
        struct tcp_info info;
        socklen_t length = sizeof info;

        if (getsockopt(carrier->socket, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 &&
            info.tcpi_rtt > greatest_us)
            greatest_us = info.tcpi_rtt;
    }
    return greatest_us;
}

static void look(struct tristero_server *server)
{
    const struct mux *mux = &server->mux;
    unsigned rtt = rtt_us(mux);

    pthread_mutex_lock(&server->lock);
    server->statistics.connections = (unsigned)mux->carriers_count;
    server->statistics.bytes_from_clients = mux->bytes_to_sockets;
    server->statistics.bytes_to_clients = mux->bytes_from_sockets;
    server->statistics.rtt_us = rtt;
    pthread_mutex_unlock(&server->lock);
    server->looked_ms = mux->now_ms;
}

void tristero_server_look(const struct tristero_server *server,
                          struct tristero_statistics *statistics)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&server->lock;

    pthread_mutex_lock(lock);
    *statistics = server->statistics;
    pthread_mutex_unlock(lock);
}

/* --- attaching */

static enum tristero_status add_connection(struct tristero_server *server, int socket,
                                           struct tristero_error *error)
{
    struct mux_carrier *carrier;
    int err = socket_prepare_carrier(socket, KEEPALIVE_MS);

    if (err)
        socket_reset(socket);
    else
        err = mux_add_carrier(&server->mux, socket, false, &carrier);
    return err ? error_set_os(error, TRISTERO_NO_RESOURCES, -err,
                              "can't use a connection to the proxy") : TRISTERO_OK;
}

/* Who is turned away may learn so as soon as it connects. */
static int note_failure(struct tristero_server *server, const struct tristero_error *error)
{
    if (error->os_error == ECONNRESET)
        return attacher_turned_away(server->attacher, server->mux.carriers_count == 0);
    return attacher_failed(server->attacher);
}

static void take_failure(struct tristero_server *server, const struct tristero_error *error)
{
    struct tristero_event event = { .kind = TRISTERO_RETRYING, .text = error->text,
                                    .wait_ms = note_failure(server, error) };

    tell(server, &event);
}

static void take_attached(struct tristero_server *server, int socket)
{
    struct tristero_event event = { .kind = TRISTERO_ATTACHED, .text = "" };
    struct tristero_error error;

    if (add_connection(server, socket, &error)) {
        take_failure(server, &error);
        return;
    }
    if (server->has_moved)
        event.kind = TRISTERO_MOVED;
    server->has_moved = false;
    tell(server, &event);
}

/* A new tunnel counts even if it was not attached to. */
static void take_address(struct tristero_server *server, char *client_uri)
{
    if (!client_uri)
        return;
    free(server->address);
    server->address = client_uri;
    server->has_moved = true;
}

static bool lacks_connections(const struct tristero_server *server)
{
    return server->mux.carriers_count < (size_t)server->service.connections;
}

static void look_at_attacher(struct tristero_server *server)
{
    struct tristero_error error;
    struct attached attached;
    enum attacher_result result = attacher_take(server->attacher, &attached, &error);

    if (result != ATTACHER_BUSY)
        take_address(server, attached.client_uri);
    if (result == ATTACHER_ATTACHED)
        take_attached(server, attached.socket);
    else if (result == ATTACHER_FAILED)
        take_failure(server, &error);
    if (lacks_connections(server))
        attacher_start(server->attacher, server->mux.now_ms);
}

static void on_wake(struct mux_source *source, uint32_t events)
{
    struct tristero_server *server =
        (struct tristero_server *)((char *)source - offsetof(struct tristero_server, wake_source));
    eventfd_t count;

    (void)events;
    eventfd_read(server->wake, &count);
}

static void wake(void *context)
{
    eventfd_write(((struct tristero_server *)context)->wake, 1);
}

/* --- its life */

static enum tristero_status attach_all(struct tristero_server *server,
                                       struct tristero_error *error)
{
    enum tristero_status status = TRISTERO_OK;

    for (int i = 0; i < server->service.connections && !status; i++) {
        int socket = -1;

        status = attacher_attach(server->attacher, &socket, error);
        if (!status)
            status = add_connection(server, socket, error);
    }
    return status;
}

static enum tristero_status set_up(struct tristero_server *server, struct tristero_proxy *proxy,
                                   struct tristero_error *error)
{
    const size_t sessions = (size_t)server->service.connections * WEBMUX_SESSIONS;
    const struct mux_limits limits = {
        .linger_ms = LINGER_MS,
        .window_bytes = webmux_window(WAITING_BYTES - GROWTH_BYTES, sessions),
        .growth_bytes = GROWTH_BYTES,
        .waiting_bytes = WAITING_BYTES,
    };
    enum tristero_status status;
    int err;

    server->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    err = server->wake < 0 ? -errno : mux_init(&server->mux, &handler, &limits);
    server->wake_source.ready = on_wake;
    if (!err)
        err = mux_watch(&server->mux, server->wake, EPOLLIN, &server->wake_source);
    if (err)
        return error_set_os(error, TRISTERO_NO_RESOURCES, -err, "can't serve");
    status = attacher_new(proxy, wake, server, &server->attacher, error);
    if (!status)
        status = attacher_open(server->attacher, &server->address, error);
    if (!status && !(server->first_address = strdup(server->address)))
        status = error_set(error, TRISTERO_NO_RESOURCES, "out of memory");
    return status ? status : attach_all(server, error);
}

enum tristero_status tristero_server_new(struct tristero_proxy *proxy,
                                         const struct tristero_service *service,
                                         struct tristero_server **out,
                                         struct tristero_error *error)
{
    struct tristero_server *server;
    enum tristero_status status;

    if (!service->connect || service->connections < 0 || service->connections > TRISTERO_CONNECTIONS_MAX)
        return error_set(error, TRISTERO_INVALID,
                         "a service needs a function connect, and 1 to %d connections",
                         TRISTERO_CONNECTIONS_MAX);
    server = calloc(1, sizeof *server);
    if (!server)
        return error_set(error, TRISTERO_NO_RESOURCES, "out of memory");
    pthread_mutex_init(&server->lock, NULL);
    server->mux.epoll = server->wake = -1;
    server->service = *service;
    server->service.connections += service->connections == 0;
    status = set_up(server, proxy, error);
    if (status)
        tristero_server_free(server);
    else
        *out = server;
    return status;
}

const char *tristero_server_address(const struct tristero_server *server)
{
    return server->first_address;
}

void tristero_server_run(struct tristero_server *server)
{
    struct mux *mux = &server->mux;

    look(server);
    while (!atomic_load(&server->is_stopping)) {
        int64_t until_ms = mux->now_ms + LOOK_MS;

        if (lacks_connections(server))
            until_ms = clock_earlier(until_ms, attacher_next_ms(server->attacher));
        mux_turn(mux, NULL, until_ms);
        look_at_attacher(server);
        if (mux->now_ms >= server->looked_ms + LOOK_MS)
            look(server);
    }
    mux_stop(mux);
    look(server);
}

void tristero_server_stop(struct tristero_server *server)
{
    atomic_store(&server->is_stopping, true);
    wake(server);
}

void tristero_server_free(struct tristero_server *server)
{
    if (!server)
        return;
    atomic_store(&server->is_stopping, true);
    attacher_free(server->attacher);
    if (server->mux.epoll >= 0)
        mux_close(&server->mux);
    if (server->wake >= 0)
        close(server->wake);
    free(server->first_address);
    free(server->address);
    pthread_mutex_destroy(&server->lock);
    free(server);
}

int tristero_stream_pair(int *mine)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    *mine = ends[0];
    return ends[1];
}
