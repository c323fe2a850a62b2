#include "relay/carried.h"

#include "relay/log.h"
#include "relay/relay_private.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* RFC 4648's, in lower case: what a user's name can be everywhere. */
static const char base32[] = "abcdefghijklmnopqrstuvwxyz234567";

const struct tunnel_backend backend_ssh = { .scheme = "ssh" };

/* 130 bits, which nobody guesses. */
static void token_make(char token[CARRIED_TOKEN_BYTES])
{
    memcpy(token, "t-", 2);
    for (size_t i = 2; i < CARRIED_TOKEN_BYTES - 1; i++)
        token[i] = base32[arc4random_uniform(sizeof base32 - 1)];
    token[CARRIED_TOKEN_BYTES - 1] = '\0';
}

bool carried_is_token(const char *text)
{
    return strlen(text) == CARRIED_TOKEN_BYTES - 1 && strncmp(text, "t-", 2) == 0 &&
           strspn(text + 2, base32) == CARRIED_TOKEN_BYTES - 3;
}

static struct tunnel_start *start_of(struct tunnel *tunnel)
{
    return (struct tunnel_start *)((char *)tunnel - offsetof(struct tunnel_start, tunnel));
}

/* How long it took to find out tells nothing of a token. */
static bool is_owner(const struct tunnel *tunnel, const char *owner)
{
    size_t length = strlen(owner);

    return strlen(tunnel->owner) == length && length &&
           sodium_memcmp(tunnel->owner, owner, length) == 0;
}

/* With the relay's lock held. */
static void nudge_expirer(struct relay *relay)
{
    if (relay->expirer)
        waker_nudge(relay->expirer);
}

/* Nobody attaches at the server port: it stays closed. */
static int open_for(struct relay *relay, const struct tunnel_backend *backend, const char *host,
                    const struct tunnel_opener *opener, const char *owner,
                    struct tunnel_start **out)
{
    char text[NET_ADDRESS_TEXT_BYTES];
    struct tunnel_start *start;
    int err = tunnel_new(relay, backend, host, opener, owner, &start);

    if (err)
        return err;
    tunnel_close_listener(&start->tunnel.pair.server_listener);
    log_write(LOG_INFO, "tunnel %lu opened by %s for %s, with clients at port %u",
              (unsigned long)start->tunnel.id, log_address(&opener->address, text),
              backend->scheme, start->tunnel.pair.server_port + 1);
    *out = start;
    return 0;
}

int carried_open(struct relay *relay, const struct tunnel_backend *backend, const char *host,
                 const struct tunnel_opener *opener, struct tunnel_uri *server_uri)
{
    char token[CARRIED_TOKEN_BYTES];
    struct tunnel_start *start;
    struct tunnel *tunnel;
    int err;

    token_make(token);
    err = open_for(relay, backend, host, opener, token, &start);
    if (err)
        return err;
    tunnel = &start->tunnel;
    tunnel->waits_until_ms = clock_earlier(tunnel_until_ms(tunnel),
                                           clock_ms() + tunnel->settings->attach_timeout_ms);
    tunnel_server_uri(tunnel, server_uri);
    err = enter_table(relay, tunnel);
    if (err) {
        tunnel_free(start);
        return err;
    }
    pthread_mutex_lock(&relay->lock);
    nudge_expirer(relay);
    pthread_mutex_unlock(&relay->lock);
    return 0;
}

int carried_open_held(struct relay *relay, const struct tunnel_backend *backend, const char *host,
                      const struct tunnel_opener *opener, const char *owner,
                      struct tunnel **tunnel)
{
    struct tunnel_start *start;
    int err = open_for(relay, backend, host, opener, owner, &start);

    if (err)
        return err;
    start->tunnel.is_held = start->tunnel.was_held = true;
    err = enter_table(relay, &start->tunnel);
    if (err)
        tunnel_free(start);
    else
        *tunnel = &start->tunnel;
    return err;
}

bool carried_admits(struct relay *relay, const char *token, const struct net_address *peer)
{
    bool admitted = false;

    pthread_mutex_lock(&relay->lock);
    for (size_t i = 0; i < port_pool_size(relay->pool) && !admitted; i++) {
        const struct tunnel *tunnel = relay->table[i];

        admitted = tunnel && is_owner(tunnel, token) && tunnel_admits(tunnel, peer);
    }
    pthread_mutex_unlock(&relay->lock);
    return admitted;
}

int carried_hold(struct relay *relay, const char *owner, uint16_t client_port,
                 struct tunnel **out)
{
    struct tunnel *found = NULL;
    bool is_busy = false;

    pthread_mutex_lock(&relay->lock);
    for (size_t i = 0; i < port_pool_size(relay->pool); i++) {
        struct tunnel *tunnel = relay->table[i];

        if (!tunnel || !is_owner(tunnel, owner) ||
            (client_port && client_port != tunnel->pair.server_port + 1))
            continue;
        if (tunnel->is_held)
            is_busy = true;
        else if (!found || tunnel->id < found->id)
            found = tunnel;
    }
    if (found)
        found->is_held = found->was_held = true;
    pthread_mutex_unlock(&relay->lock);
    *out = found;
    return found ? 0 : is_busy ? -EBUSY : -ENOENT;
}

void carried_let_go(struct relay *relay, struct tunnel *tunnel)
{
    int64_t reserve_ms = tunnel->settings->reserve_ms;
    uint64_t id = tunnel->id;           /* once it waits, it may be gone at any moment */
    bool waits;

    pthread_mutex_lock(&relay->lock);
    waits = reserve_ms && !relay->refusing;
    if (waits) {
        tunnel->waits_until_ms = clock_earlier(tunnel_until_ms(tunnel), clock_ms() + reserve_ms);
        tunnel->is_held = false;
        nudge_expirer(relay);
    }
    pthread_mutex_unlock(&relay->lock);
    if (waits)
        log_write(LOG_INFO, "tunnel %lu waits for its server to come back", (unsigned long)id);
    else
        carried_close(relay, tunnel, "the server has gone");
}

static void close_now(struct tunnel *tunnel, const char *why)
{
    log_write(LOG_INFO, "tunnel %lu closed: %s", (unsigned long)tunnel->id, why);
    tunnel_free(start_of(tunnel));
}

void carried_close(struct relay *relay, struct tunnel *tunnel, const char *why)
{
    leave_table(relay, tunnel);
    close_now(tunnel, why);
}

static const char *why_expired(const struct relay *relay, const struct tunnel *tunnel)
{
    if (relay->refusing)
        return "the proxy is shutting down";
    return tunnel->was_held ? "its server did not come back in time"
                            : "no server attached in time";
}

/* One that has waited long enough, out of the table, and why for the log; or NULL, and
 * when the next will have. */
static struct tunnel *take_expired(struct relay *relay, const char **why, int64_t *next_ms)
{
    int64_t now_ms = clock_ms();
    struct tunnel *expired = NULL;

    *next_ms = INT64_MAX;
    pthread_mutex_lock(&relay->lock);
    for (size_t i = 0; i < port_pool_size(relay->pool) && !expired; i++) {
        struct tunnel *tunnel = relay->table[i];

        if (!tunnel || !*tunnel->owner || tunnel->is_held)
            continue;
        if (tunnel->waits_until_ms <= now_ms || relay->refusing) {
            expired = tunnel;
            *why = why_expired(relay, tunnel);
            relay->table[i] = NULL;
        } else {
            *next_ms = clock_earlier(*next_ms, tunnel->waits_until_ms);
        }
    }
    pthread_mutex_unlock(&relay->lock);
    return expired;
}

int64_t carried_expire(struct relay *relay)
{
    struct tunnel *tunnel;
    const char *why;
    int64_t next_ms;

    while ((tunnel = take_expired(relay, &why, &next_ms)))
        close_now(tunnel, why);
    return next_ms;
}

void carried_set_expirer(struct relay *relay, struct waker *expirer)
{
    pthread_mutex_lock(&relay->lock);
    relay->expirer = expirer;
    pthread_mutex_unlock(&relay->lock);
}
