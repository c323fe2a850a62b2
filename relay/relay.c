#include "relay/relay.h"

#include "relay/backend.h"
#include "relay/carried.h"
#include "relay/log.h"
#include "relay/relay_private.h"
#include "relay/socket.h"
#include "relay/thread_stack.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct tunnel_backend *const backends[] = { &backend_tcp, &backend_ssh,
                                                         &backend_webmux };

static bool is_carried(const struct tunnel_backend *backend)
{
    return !backend->serve;
}

static bool has_backend(struct relay *relay, const struct tunnel_backend *backend)
{
    return !is_carried(backend) || relay_ssh(relay).port != 0;
}

void relay_backend_names(struct relay *relay, char *text, size_t room)
{
    size_t used = 0;

    text[0] = '\0';
    for (size_t i = 0; i < sizeof backends / sizeof backends[0] && used < room; i++)
        if (has_backend(relay, backends[i]))
            used += (size_t)snprintf(text + used, room - used, "%s%s", used ? ", " : "",
                                     backends[i]->scheme);
}

static const struct tunnel_backend *backend_find(struct relay *relay, const char *name)
{
    for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++) {
        if (strcmp(backends[i]->scheme, name) == 0 && has_backend(relay, backends[i]))
            return backends[i];
    }
    return NULL;
}

/* An address that is not this machine's is found out at the start, not by the
 * first tunnel. */
static int try_to_listen(const struct net_address *address)
{
    struct net_address any_port = *address;
    int listener;

    net_address_set_port(&any_port, 0);
    listener = socket_listen(&any_port, 1);
    if (listener < 0)
        return listener;
    close(listener);
    return 0;
}

int relay_new(const struct relay_settings *settings, struct relay **out)
{
    struct relay *relay;
    pthread_condattr_t monotonic;
    int err = try_to_listen(&settings->listen);

    if (err)
        return err;
    relay = calloc(1, sizeof *relay);
    if (!relay)
        return -ENOMEM;
    relay->settings = shared_settings_new(settings);
    if (!relay->settings) {
        err = -ENOMEM;
        goto out;
    }
    err = port_pool_new(&settings->listen, settings->port_low, settings->port_high, &relay->pool);
    if (err)
        goto out;
    /* Pointers are what the table has. NOLINTNEXTLINE(bugprone-sizeof-expression) */
    relay->table = calloc(port_pool_size(relay->pool), sizeof relay->table[0]);
    if (!relay->table) {
        err = -ENOMEM;
        goto out;
    }
    pthread_mutex_init(&relay->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&relay->emptied, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *out = relay;
    return 0;
out:
    port_pool_free(relay->pool);
    free(relay->settings);
    free(relay);
    return err;
}

/* Waits for the end of a thread that has nothing left to do, and frees its stack. */
static void bury(const struct ended_thread *ended)
{
    if (!ended->stack)
        return;
    pthread_join(ended->thread, NULL);
    thread_stack_free(ended->stack, THREAD_STACK_BYTES);
}

void relay_free(struct relay *relay)
{
    if (!relay)
        return;
    bury(&relay->ended);
    pthread_cond_destroy(&relay->emptied);
    pthread_mutex_destroy(&relay->lock);
    port_pool_free(relay->pool);
    free(relay->table);
    free(relay->settings);
    free(relay);
    release_pools(0);
}

static void tell_to_drain(struct tunnel *tunnel)
{
    atomic_store(&tunnel->is_draining, true);
    waker_nudge(&tunnel->waker);
}

/* One that was in the making when the relay began to refuse new ones drains, too. */
int enter_table(struct relay *relay, struct tunnel *tunnel)
{
    int err = 0;

    pthread_mutex_lock(&relay->lock);
    if (relay->ending)
        err = -ESHUTDOWN;
    else
        relay->table[tunnel->pair.index] = tunnel;
    if (!err && relay->refusing && tunnel->backend->drains)
        tell_to_drain(tunnel);
    pthread_mutex_unlock(&relay->lock);
    return err;
}

void leave_table(struct relay *relay, struct tunnel *tunnel)
{
    pthread_mutex_lock(&relay->lock);
    relay->table[tunnel->pair.index] = NULL;
    pthread_mutex_unlock(&relay->lock);
}

/* Takes the place of the thread that ended before, and buries it. */
static void end_thread(struct relay *relay, void *stack)
{
    struct ended_thread before;

    pthread_mutex_lock(&relay->lock);
    before = relay->ended;
    relay->ended = (struct ended_thread){ .stack = stack, .thread = pthread_self() };
    pthread_mutex_unlock(&relay->lock);
    bury(&before);
}

/* The pair is at rest before the tunnel stops being counted: whoever sees the
 * count go down finds the pair. */
void tunnel_free(struct tunnel_start *start)
{
    struct relay *relay = start->relay;
    struct reservation reservation = start->reservation;

    tunnel_close_listener(&start->tunnel.pair.server_listener);
    tunnel_close_listener(&start->tunnel.pair.client_listener);
    port_pool_give(relay->pool, &start->tunnel.pair);
    free(start);
    unreserve(relay, &reservation);
}

/* Nobody is told an address that has closed: the table is left before. */
static void *tunnel_thread(void *argument)
{
    struct tunnel_start *start = argument;
    struct tunnel *tunnel = &start->tunnel;
    const char *why;

    waker_own(&tunnel->waker);
    why = tunnel->backend->serve(tunnel);
    leave_table(start->relay, tunnel);
    tunnel_end(tunnel, why);
    end_thread(start->relay, start->stack);
    tunnel_free(start);
    return NULL;
}

static int start_thread(struct tunnel_start *start)
{
    pthread_t thread;

    return thread_stack_start(THREAD_STACK_BYTES, tunnel_thread, start, &start->stack, &thread);
}

int tunnel_new(struct relay *relay, const struct tunnel_backend *backend, const char *host,
               const struct tunnel_opener *opener, const char *owner, struct tunnel_start **out)
{
    struct reservation reservation = { 0 };
    struct tunnel_start *start;
    int err = reserve(relay, backend, opener, &reservation);

    if (err)
        return err;
    start = calloc(1, sizeof *start + strlen(host) + 1 + strlen(owner) + 1);
    err = start ? port_pool_take(relay->pool, &start->tunnel.pair) : -ENOMEM;
    if (err) {
        free(start);
        unreserve(relay, &reservation);
        return err;
    }
    start->relay = relay;
    start->reservation = reservation;
    start->tunnel.id = reservation.id;
    start->tunnel.backend = backend;
    start->tunnel.settings = &reservation.settings->values;
    start->tunnel.descriptors = &relay->descriptors;
    start->tunnel.opener = opener->address;
    start->tunnel.opened_ms = clock_ms();
    start->tunnel.host = strcpy(start->texts, host);
    start->tunnel.owner = strcpy(start->texts + strlen(host) + 1, owner);
    start->tunnel.server_port = *owner ? relay_ssh(relay).port : start->tunnel.pair.server_port;
    *out = start;
    return 0;
}

int relay_open_tunnel(struct relay *relay, const char *backend_name, const char *host,
                      const struct tunnel_opener *opener, struct tunnel_uri *server_uri)
{
    const struct tunnel_backend *backend = backend_find(relay, backend_name);
    char text[NET_ADDRESS_TEXT_BYTES];
    struct tunnel_start *start;
    int err;

    if (!backend)
        return -EPROTONOSUPPORT;
    if (is_carried(backend))
        return carried_open(relay, backend, host, opener, server_uri);
    err = tunnel_new(relay, backend, host, opener, "", &start);
    if (err)
        return err;
    err = enter_table(relay, &start->tunnel);
    if (err)
        goto out;
    /* Once its thread runs, the tunnel may be gone at any moment. */
    tunnel_server_uri(&start->tunnel, server_uri);
    log_write(LOG_INFO, "tunnel %lu opened by %s at port %u for %s",
              (unsigned long)start->tunnel.id, log_address(&opener->address, text),
              start->tunnel.pair.server_port, backend->scheme);
    err = start_thread(start);
    if (!err)
        return 0;
    log_write(LOG_WARNING, "tunnel %lu closed: the system has no thread for it",
              (unsigned long)start->tunnel.id);
    leave_table(relay, &start->tunnel);
out:
    tunnel_free(start);
    return err;
}

/* With the relay's lock held: the tunnel at index, if it was given out as server_uri. */
static const struct tunnel *tunnel_at(const struct relay *relay, size_t index,
                                      const struct tunnel_uri *server_uri)
{
    const struct tunnel *tunnel = relay->table[index];
    struct tunnel_uri its_uri;

    if (!tunnel)
        return NULL;
    tunnel_server_uri(tunnel, &its_uri);
    return tunnel_uri_equal(&its_uri, server_uri) ? tunnel : NULL;
}

/* With the relay's lock held. The port of a carried tunnel's URI tells nothing. */
static const struct tunnel *tunnel_find(const struct relay *relay,
                                        const struct tunnel_uri *server_uri)
{
    ptrdiff_t index = port_pool_index(relay->pool, server_uri->port);
    const struct tunnel *tunnel = index < 0 ? NULL : tunnel_at(relay, (size_t)index, server_uri);

    for (size_t i = 0; i < port_pool_size(relay->pool) && *server_uri->user && !tunnel; i++)
        tunnel = tunnel_at(relay, i, server_uri);
    return tunnel;
}

int relay_tunnel_address(struct relay *relay, const struct tunnel_uri *server_uri,
                         struct tunnel_uri *client_uri)
{
    const struct tunnel *tunnel;

    pthread_mutex_lock(&relay->lock);
    tunnel = tunnel_find(relay, server_uri);
    if (tunnel)
        tunnel_client_uri(tunnel, client_uri);
    pthread_mutex_unlock(&relay->lock);
    return tunnel ? 0 : -ENOENT;
}

struct relay_counts relay_counts(struct relay *relay)
{
    struct relay_counts counts;

    pthread_mutex_lock(&relay->lock);
    counts.tunnels = relay->alive;
    pthread_mutex_unlock(&relay->lock);
    counts.resting_pairs = port_pool_resting(relay->pool);
    return counts;
}

void relay_set_ssh(struct relay *relay, const struct relay_ssh *ssh)
{
    pthread_mutex_lock(&relay->lock);
    relay->ssh = *ssh;
    pthread_mutex_unlock(&relay->lock);
}

struct relay_ssh relay_ssh(struct relay *relay)
{
    struct relay_ssh ssh;

    pthread_mutex_lock(&relay->lock);
    ssh = relay->ssh;
    pthread_mutex_unlock(&relay->lock);
    return ssh;
}

void relay_refuse_new(struct relay *relay)
{
    pthread_mutex_lock(&relay->lock);
    relay->refusing = true;
    for (size_t i = 0; i < port_pool_size(relay->pool); i++) {
        if (relay->table[i] && relay->table[i]->backend->drains)
            tell_to_drain(relay->table[i]);
    }
    pthread_mutex_unlock(&relay->lock);
}

int relay_wait_until_empty(struct relay *relay, int64_t timeout_ms)
{
    int64_t until_ms = clock_ms() + timeout_ms;
    struct timespec until = {
        .tv_sec = until_ms / 1000,
        .tv_nsec = until_ms % 1000 * 1000000,
    };
    int err = 0;

    pthread_mutex_lock(&relay->lock);
    while (relay->alive && err != ETIMEDOUT)
        err = pthread_cond_timedwait(&relay->emptied, &relay->lock, &until);
    err = relay->alive ? -ETIMEDOUT : 0;
    pthread_mutex_unlock(&relay->lock);
    return err;
}

void relay_end_all(struct relay *relay)
{
    pthread_mutex_lock(&relay->lock);
    relay->refusing = relay->ending = true;
    for (size_t i = 0; i < port_pool_size(relay->pool); i++) {
        if (relay->table[i])
            waker_ask(&relay->table[i]->waker);
    }
    pthread_mutex_unlock(&relay->lock);
    carried_expire(relay);
    pthread_mutex_lock(&relay->lock);
    while (relay->alive)
        pthread_cond_wait(&relay->emptied, &relay->lock);
    pthread_mutex_unlock(&relay->lock);
}
