/* tristero-tunnel expose --backend tcp: a tunnel for each client. A thread for each of
 * --tunnels opens one after the other, and relays each one's client to the service. */
#include "clients/backoff.h"
#include "clients/outlet.h"
#include "clients/report.h"

#include "relay/duplex.h"
#include "relay/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    CONNECT_TIMEOUT_MS = 10000,         /* to the service */
    /* The proxy's linger time decides; this one is for a proxy without any. */
    LINGER_MS = 3600 * 1000
};

struct exposer {
    pthread_t thread;
    struct exposure *exposure;
    atomic_ulong *clients;              /* that ever came to the exposure */
    struct backoff backoff;
    int status;                         /* the exit status that it asks for */
};

/* How a tunnel went. */
enum outcome {
    SERVED,                             /* a client came, and all was relayed */
    CUT,                                /* a client came, and the transfer was broken off */
    NEVER_USED,                         /* the tunnel ended without a client */
    NOT_SERVED,                         /* it was given up, as the service can't be reached */
    NOT_OPENED
};

/* A connection from the tunnel that is the thread's to close. */
struct tunnel_end {
    char *server_uri;
    char *client_uri;
    int socket;
    unsigned long client;               /* its number, once it is known that there is one */
    char why[512];                      /* it was not opened, or not used */
};

/* As the relaying wants its sockets. */
static int prepare(int socket)
{
    int flags = fcntl(socket, F_GETFL);

    if (flags < 0 || fcntl(socket, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    return socket_prepare_to_relay(socket, SOCKET_KEEPALIVE_MS);
}

static void tell(struct exposer *exposer, const struct tunnel_end *end, enum tristero_event_kind kind,
                 const char *text, const struct duplex_result *result)
{
    struct tristero_event event = {
        .kind = kind, .address = end->client_uri, .text = text, .client = end->client,
        .bytes_from_client = result ? result->bytes_from_a : 0,
        .bytes_to_client = result ? result->bytes_from_b : 0,
    };

    report_event(exposer->exposure, &event);
}

static enum tristero_status call_for_tunnel(struct exposer *exposer, struct tunnel_end *end,
                                            struct tristero_error *error)
{
    struct tristero_proxy *proxy = exposer->exposure->proxy;
    enum tristero_status status;

    status = tristero_open(proxy, NULL, &end->server_uri, error);
    if (!status)
        status = tristero_address(proxy, end->server_uri, &end->client_uri, error);
    return status;
}

/* Opens, attaches and prints. */
static enum outcome tunnel_open(struct exposer *exposer, struct tunnel_end *end)
{
    struct exposure *exposure = exposer->exposure;
    struct tristero_error error;

    outlet_wait_for_room(OUTLET_OUTPUT);    /* a tunnel is for those who read its address */
    if (call_for_tunnel(exposer, end, &error) ||
        tristero_attach(exposure->proxy, end->server_uri, &end->socket, &error)) {
        snprintf(end->why, sizeof end->why, "%s", error.text);
        return NOT_OPENED;
    }
    backoff_attached(&exposer->backoff, clock_ms());
    if (prepare(end->socket) < 0) {
        snprintf(end->why, sizeof end->why, "it ended before it was used");
        return NEVER_USED;
    }
    report_address(exposure, end->client_uri);
    return SERVED;
}

/* Waits for the client's first bytes, or its end of stream. */
static bool wait_for_client(int tunnel)
{
    struct pollfd polled = { .fd = tunnel, .events = POLLIN };
    char byte;

    return waker_poll(NULL, &polled, 1, INT64_MAX) > 0 && recv(tunnel, &byte, 1, MSG_PEEK) >= 0;
}

static int service_connect(struct exposer *exposer)
{
    const struct target *target = &exposer->exposure->target;
    int socket = target_connect_in_time(target, CONNECT_TIMEOUT_MS, NULL);
    int err = socket < 0 ? socket : 0;

    if (!err && target->kind == TARGET_PORT)
        err = socket_prepare_to_relay(socket, SOCKET_KEEPALIVE_MS);
    if (!err)
        return socket;
    if (socket >= 0)
        socket_reset(socket);
    return err;
}

static enum outcome note_unused(struct tunnel_end *end)
{
    snprintf(end->why, sizeof end->why, "%s ended before a client came", end->client_uri);
    return NEVER_USED;
}

static enum outcome note_unreachable(struct exposer *exposer, struct tunnel_end *end, int err)
{
    if (end->client) {
        tell(exposer, end, TRISTERO_CLIENT_REFUSED, strerrordesc_np(-err), NULL);
        return CUT;
    }
    snprintf(end->why, sizeof end->why, "can't reach the service at %.200s: %s",
             exposer->exposure->target.text, strerrordesc_np(-err));
    return NOT_SERVED;
}

/* Closes both as the relaying has ended. Of a service that speaks first, this is what
 * tells whether there was a client: the proxy resets a tunnel that ends without. */
static enum outcome end_relaying(struct exposer *exposer, struct tunnel_end *end, int service,
                                 const struct duplex_result *result)
{
    bool has_finished = result->end == DUPLEX_FINISHED;
    void (*close_socket)(int) = has_finished ? socket_close : socket_reset;

    close_socket(end->socket);
    end->socket = -1;
    close_socket(service);
    if (!end->client && (has_finished || result->bytes_from_a)) {
        end->client = ++*exposer->clients;
        tell(exposer, end, TRISTERO_CLIENT_CAME, "", NULL);
    }
    if (!end->client)
        return note_unused(end);
    tell(exposer, end, TRISTERO_CLIENT_LEFT, duplex_end_text(result->end), result);
    return has_finished ? SERVED : CUT;
}

/* Relays an attached tunnel to the service. The client is there already, unless the service
 * is one that speaks first. */
static enum outcome serve_client(struct exposer *exposer, struct tunnel_end *end)
{
    struct duplex_limits limits = { .linger_ms = LINGER_MS, .until_ms = INT64_MAX };
    int service = service_connect(exposer);
    struct duplex_result result;

    if (service < 0)
        return note_unreachable(exposer, end, service);
    if (end->client)
        tell(exposer, end, TRISTERO_CLIENT_CAME, "", NULL);
    result = duplex_run(end->socket, service, &limits, NULL);
    return end_relaying(exposer, end, service, &result);
}

/* The life of one tunnel. */
static enum outcome expose_one(struct exposer *exposer, struct tunnel_end *end)
{
    enum outcome outcome = tunnel_open(exposer, end);

    if (outcome == SERVED && !exposer->exposure->server_first) {
        if (wait_for_client(end->socket))
            end->client = ++*exposer->clients;
        else
            outcome = note_unused(end);
    }
    if (outcome == SERVED)
        outcome = serve_client(exposer, end);
    socket_reset(end->socket);
    return outcome;
}

/* A client has the next tunnel at once. */
static void wait_before_next(struct exposer *exposer, const struct tunnel_end *end,
                             enum outcome outcome)
{
    struct tristero_event event = {
        .kind = outcome == NEVER_USED ? TRISTERO_LOST : TRISTERO_RETRYING,
        .address = end->client_uri ? end->client_uri : "", .text = end->why };

    if (outcome == SERVED || outcome == CUT) {
        exposer->backoff = (struct backoff){ 0 };
        return;
    }
    event.wait_ms = (outcome == NEVER_USED ? backoff_lost : backoff_failed)(&exposer->backoff,
                                                                            clock_ms());
    if (*end->why)
        report_event(exposer->exposure, &event);
    waker_poll(NULL, NULL, 0, exposer->backoff.next_ms);
}

/* A first tunnel that can't be had is the end, since the start could not be as asked; and
 * so is the only one that there was to be. */
static bool has_to_give_up(const struct exposer *exposer, enum outcome outcome, bool is_first)
{
    return (outcome == NOT_OPENED && is_first) ||
           (exposer->exposure->once && outcome != SERVED && outcome != CUT);
}

static void give_up(struct exposer *exposer, const struct tunnel_end *end)
{
    if (*end->why)
        complain("%s", end->why);
    report_fail(exposer->exposure->report);
}

/* One tunnel after the other. */
static void *exposer_thread(void *argument)
{
    struct exposer *exposer = argument;
    bool is_first = true;
    bool goes_on = true;

    for (; goes_on; is_first = false) {
        struct tunnel_end end = { .socket = -1 };
        enum outcome outcome = expose_one(exposer, &end);

        exposer->status = outcome == SERVED ? STATUS_OK : STATUS_FAILED;
        goes_on = !exposer->exposure->once;
        if (has_to_give_up(exposer, outcome, is_first)) {
            give_up(exposer, &end);
            goes_on = false;
        } else if (goes_on) {
            wait_before_next(exposer, &end, outcome);
        }
        free(end.server_uri);
        free(end.client_uri);
    }
    return NULL;
}

static int run_tcp(struct exposure *exposure)
{
    unsigned count = exposure->tunnels ? exposure->tunnels : 1;
    struct exposer *exposers = calloc(count, sizeof *exposers);
    atomic_ulong clients = 0;
    int status = STATUS_OK;
    unsigned started = 0;

    if (!exposers) {
        complain("out of memory");
        return STATUS_FAILED;
    }
    for (; started < count; started++) {
        exposers[started].exposure = exposure;
        exposers[started].clients = &clients;
        if (pthread_create(&exposers[started].thread, NULL, exposer_thread, &exposers[started])) {
            complain("no thread for tunnel %u of %u", started + 1, count);
            report_fail(exposure->report);
            status = STATUS_FAILED;
            break;
        }
    }
    for (unsigned i = 0; i < started; i++) {
        pthread_join(exposers[i].thread, NULL);
        if (exposers[i].status)
            status = exposers[i].status;
    }
    free(exposers);
    return status;
}

/* What ends the process ends it: its connections are armed to reset, so the proxy sees
 * at once that its tunnels are over. */
const struct exposure_backend exposure_by_tcp = { .name = "tcp", .run = run_tcp };
