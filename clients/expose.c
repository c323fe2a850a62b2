/* tristero-tunnel expose: keeps tunnels open in front of a service, and relays
 * each one's client to it. A thread for each of --tunnels. */
#include "clients/command.h"

#include "relay/duplex.h"
#include "relay/socket.h"
#include "relay/uri.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BACKOFF_FIRST_MS = 1000,
    BACKOFF_LAST_MS = 30000,
    CONNECT_TIMEOUT_MS = 10000,         /* to the service */
    /* The proxy's linger time decides; this one is for a proxy without any. */
    LINGER_MS = 3600 * 1000
};

/* One call at a time: the library below waits by select(2), which knows no
 * descriptor beyond 1023, and a call needs a few for itself. */
static pthread_mutex_t calling = PTHREAD_MUTEX_INITIALIZER;

struct service {
    char host[URI_HOST_BYTES];
    uint16_t port;
    char uri[URI_TEXT_BYTES];           /* for people: tcp://127.0.0.1:8080 */
};

struct exposer {
    pthread_t thread;
    struct tristero_proxy *proxy;
    const struct arguments *arguments;
    const struct service *service;
    int status;                         /* the exit status that it asks for */
};

/* How a tunnel went. */
enum outcome {
    SERVED,                             /* a client came, and all was relayed */
    CUT,                                /* a client came, and the transfer was broken off */
    NEVER_USED,                         /* the tunnel ended without a client */
    NOT_OPENED,
    NOT_PRINTED                         /* standard output is closed: nobody learns the address */
};

/* A connection from the tunnel that is the thread's to close. */
struct tunnel_end {
    char *server_uri;
    char *client_uri;
    int socket;
};

/* Ends the process. Its connections are armed to reset, so the proxy sees at
 * once that its tunnels are over. */
static void end_process(int signal_number)
{
    (void)signal_number;
    _exit(STATUS_OK);
}

static int service_parse(const char *text, struct service *service)
{
    char uri_text[URI_TEXT_BYTES + 16];
    bool has_host = strchr(text, ':') != NULL;
    struct tunnel_uri uri;

    snprintf(uri_text, sizeof uri_text, "tcp://%s%s", has_host ? "" : "127.0.0.1:", text);
    if (strchr(text, '/') || tunnel_uri_parse(uri_text, strlen(uri_text), &uri, NULL) < 0)
        return -EINVAL;
    memcpy(service->host, uri.host, sizeof service->host);
    service->port = uri.port;
    tunnel_uri_format(&uri, service->uri);
    return 0;
}

/* As the relaying wants its sockets. */
static int prepare(int socket)
{
    int flags = fcntl(socket, F_GETFL);

    if (flags < 0 || fcntl(socket, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    return socket_prepare_to_relay(socket, SOCKET_KEEPALIVE_MS);
}

static enum tristero_status call_for_tunnel(struct exposer *exposer, struct tunnel_end *end,
                                            struct tristero_error *error)
{
    enum tristero_status status;

    pthread_mutex_lock(&calling);
    status = tristero_open(exposer->proxy, NULL, &end->server_uri, error);
    if (!status)
        status = tristero_address(exposer->proxy, end->server_uri, &end->client_uri, error);
    pthread_mutex_unlock(&calling);
    return status;
}

/* Opens, attaches and prints. */
static enum outcome tunnel_open(struct exposer *exposer, struct tunnel_end *end)
{
    struct tristero_error error;

    if (call_for_tunnel(exposer, end, &error) ||
        tristero_attach(exposer->proxy, end->server_uri, &end->socket, &error)) {
        complain("%s", error.text);
        return NOT_OPENED;
    }
    if (prepare(end->socket) < 0) {
        complain("%s ended before it was used", end->client_uri);
        return NEVER_USED;
    }
    return print_line("%s", end->client_uri) ? NOT_PRINTED : SERVED;
}

/* Waits for the client's first bytes, or its end of stream. */
static bool wait_for_client(int tunnel)
{
    struct pollfd polled = { .fd = tunnel, .events = POLLIN };
    char byte;

    return waker_poll(NULL, &polled, 1, INT64_MAX) > 0 && recv(tunnel, &byte, 1, MSG_PEEK) >= 0;
}

static int service_connect(const struct service *service)
{
    int socket = socket_connect(service->host, service->port, CONNECT_TIMEOUT_MS);
    int err = socket < 0 ? socket : socket_prepare_to_relay(socket, SOCKET_KEEPALIVE_MS);

    if (!err)
        return socket;
    if (socket >= 0)
        socket_reset(socket);
    complain("can't reach the service at %s: %s", service->uri,
             err == -ENOENT ? "there is no such host" : strerrordesc_np(-err));
    return err;
}

/* Relays an attached tunnel to the service. Closes the tunnel. The client is
 * there already, unless the service is one that speaks first. */
static enum outcome serve_client(const struct exposer *exposer, struct tunnel_end *end)
{
    struct duplex_limits limits = { .linger_ms = LINGER_MS, .until_ms = INT64_MAX };
    bool has_client = !exposer->arguments->server_first;
    void (*close_socket)(int) = socket_reset;
    int socket = service_connect(exposer->service);
    struct duplex_result result;

    if (socket < 0)
        return has_client ? CUT : NEVER_USED;
    result = duplex_run(end->socket, socket, &limits, NULL);
    if (result.end == DUPLEX_FINISHED)
        close_socket = socket_close;
    close_socket(end->socket);
    end->socket = -1;
    close_socket(socket);
    complain("%s %s: %llu bytes from the client, %llu to it", end->client_uri,
             duplex_end_text(result.end), (unsigned long long)result.bytes_from_a,
             (unsigned long long)result.bytes_from_b);
    if (result.end == DUPLEX_FINISHED)
        return SERVED;
    return has_client || result.bytes_from_a ? CUT : NEVER_USED;
}

/* The life of one tunnel. */
static enum outcome expose_one(struct exposer *exposer)
{
    struct tunnel_end end = { .socket = -1 };
    enum outcome outcome = tunnel_open(exposer, &end);

    if (outcome == SERVED && !exposer->arguments->server_first && !wait_for_client(end.socket)) {
        complain("%s ended before a client came", end.client_uri);
        outcome = NEVER_USED;
    }
    if (outcome == SERVED && !exposer->arguments->server_first)
        complain("%s: a client is there", end.client_uri);
    if (outcome == SERVED)
        outcome = serve_client(exposer, &end);
    socket_reset(end.socket);
    free(end.server_uri);
    free(end.client_uri);
    return outcome;
}

/* Between half the time and all of it, so that many agents of a proxy that was
 * restarted don't come all at once. */
static void sleep_with_jitter(int64_t time_ms)
{
    uint32_t random = 0;
    struct timespec wait;

    if (getrandom(&random, sizeof random, GRND_NONBLOCK) < 0)
        random = (uint32_t)clock_ms();
    time_ms = time_ms / 2 + random % (time_ms / 2);
    wait = (struct timespec){ .tv_sec = time_ms / 1000, .tv_nsec = time_ms % 1000 * 1000000 };
    nanosleep(&wait, NULL);
}

/* One tunnel after the other. A first tunnel that can't be had is the end, since
 * the start could not be as asked. */
static void *exposer_thread(void *argument)
{
    struct exposer *exposer = argument;
    int64_t backoff_ms = BACKOFF_FIRST_MS;
    bool is_first = true;

    for (;; is_first = false) {
        int64_t began_ms = clock_ms();
        enum outcome outcome = expose_one(exposer);

        exposer->status = outcome == SERVED ? STATUS_OK : STATUS_FAILED;
        if (outcome == NOT_PRINTED || (outcome == NOT_OPENED && is_first))
            _exit(STATUS_FAILED);       /* the other threads go on until then */
        if (exposer->arguments->once)
            return NULL;
        if (outcome == SERVED || outcome == CUT) {
            backoff_ms = BACKOFF_FIRST_MS;
            continue;
        }
        if (clock_ms() - began_ms > BACKOFF_LAST_MS)
            backoff_ms = BACKOFF_FIRST_MS;  /* it has been well meanwhile */
        sleep_with_jitter(backoff_ms);
        backoff_ms = backoff_ms * 2 < BACKOFF_LAST_MS ? backoff_ms * 2 : BACKOFF_LAST_MS;
    }
}

int expose_command(struct tristero_proxy *proxy, const struct arguments *arguments)
{
    struct exposer *exposers;
    struct service service;
    int status = STATUS_OK;

    if (service_parse(arguments->operand, &service) < 0) {
        complain("expose: got \"%s\", expected PORT, HOST:PORT or [IPv6]:PORT", arguments->operand);
        return STATUS_USAGE;
    }
    exposers = calloc(arguments->tunnels, sizeof *exposers);
    if (!exposers) {
        complain("out of memory");
        return STATUS_FAILED;
    }
    signal(SIGINT, end_process);
    signal(SIGTERM, end_process);
    for (unsigned i = 0; i < arguments->tunnels; i++) {
        exposers[i] = (struct exposer){ .proxy = proxy, .arguments = arguments,
                                        .service = &service };
        if (pthread_create(&exposers[i].thread, NULL, exposer_thread, &exposers[i])) {
            complain("no thread for tunnel %u of %u", i + 1, arguments->tunnels);
            _exit(STATUS_FAILED);
        }
    }
    for (unsigned i = 0; i < arguments->tunnels; i++) {
        pthread_join(exposers[i].thread, NULL);
        if (exposers[i].status)
            status = exposers[i].status;
    }
    free(exposers);
    return status;
}
