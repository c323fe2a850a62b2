#include "relay/ssh_carrier.h"

#include "relay/log.h"
#include "relay/refusals.h"
#include "relay/socket.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    BACKLOG = 128,
    ACCEPT_PAUSE_MS = 100,              /* with no descriptor left to accept with */
    ACCEPTS_A_TURN = 16,
    KEEPALIVE_MS = 10000                /* of a connection that nobody has logged in by */
};

/* What is known to be sound, the fastest and strictest first. The modes of AES
 * with counters and a MAC are for clients without the others, as paramiko is. */
static const char key_exchanges[] = "curve25519-sha256,curve25519-sha256@libssh.org";
static const char ciphers[] = "chacha20-poly1305@openssh.com,aes128-gcm@openssh.com,"
    "aes256-gcm@openssh.com,aes128-ctr,aes256-ctr";
static const char macs[] = "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,"
    "hmac-sha2-256,hmac-sha2-512";
static const char users_keys[] = "ssh-ed25519,sk-ssh-ed25519@openssh.com,ecdsa-sha2-nistp256,"
    "ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,sk-ecdsa-sha2-nistp256@openssh.com,"
    "rsa-sha2-512,rsa-sha2-256";

static const struct { enum ssh_bind_options_e option; const char *value; } offers[] = {
    { SSH_BIND_OPTIONS_BANNER, "tristero" },
    { SSH_BIND_OPTIONS_KEY_EXCHANGE, key_exchanges },
    { SSH_BIND_OPTIONS_HOSTKEY_ALGORITHMS, "ssh-ed25519" },
    { SSH_BIND_OPTIONS_CIPHERS_C_S, ciphers },
    { SSH_BIND_OPTIONS_CIPHERS_S_C, ciphers },
    { SSH_BIND_OPTIONS_HMAC_C_S, macs },
    { SSH_BIND_OPTIONS_HMAC_S_C, macs },
    { SSH_BIND_OPTIONS_PUBKEY_ACCEPTED_KEY_TYPES, users_keys },
};

struct ssh_limits ssh_service_limits(struct ssh_service *service)
{
    struct ssh_limits limits;

    pthread_mutex_lock(&service->lock);
    limits = service->limits;
    pthread_mutex_unlock(&service->lock);
    return limits;
}

bool ssh_service_may_open(struct ssh_service *service, const struct net_address *peer)
{
    return !ssh_service_limits(service).opens_per_minute ||
           address_table_take(service->opens, peer, clock_ms()) == 0;
}

/* --- logins */

static void log_failure(struct ssh_service *service, const struct net_address *peer,
                        const char *why)
{
    char text[NET_ADDRESS_TEXT_BYTES];
    unsigned left_out;

    if (!log_budget_spend(&service->log_budget, clock_ms(), &left_out))
        return;
    if (left_out)
        log_write(LOG_INFO, "%u more did not log in by ssh", left_out);
    log_write(LOG_INFO, "%s did not log in by ssh: %s", log_address(peer, text), why);
}

static void drop(struct ssh_service *service, struct login *login, const char *why)
{
    log_failure(service, &login->entrant.peer, why);
    TAILQ_REMOVE(&service->logins, login, entry);
    tunnelless_remove(&service->tunnelless, &login->entrant.counted);
    login_free(login);
}

static void let_in(struct ssh_service *service, struct login *login)
{
    struct ssh_entrant entrant;
    int err;

    TAILQ_REMOVE(&service->logins, login, entry);
    login_enter(login, &entrant);
    err = carrier_start(service, &entrant);
    if (err)
        log_write(LOG_WARNING, "a server that has logged in by ssh is dropped: %s",
                  strerrordesc_np(-err));
}

static void step(struct ssh_service *service, struct login *login)
{
    switch (login_step(login)) {
    case LOGIN_WAITS:
        break;
    case LOGIN_IN:
        let_in(service, login);
        break;
    case LOGIN_FAILED:
        drop(service, login, "it broke off, or what it offered was not taken");
        break;
    }
}

/* Of the servers that have logged in and have no tunnel, the one that came first: who wants
 * one asks for it at once. Its place is free a moment later. */
static void make_room(struct ssh_service *service)
{
    struct carrier *carrier;

    pthread_mutex_lock(&service->lock);
    for (carrier = TAILQ_FIRST(&service->carriers); carrier; carrier = TAILQ_NEXT(carrier, entry))
        if (carrier_make_room(carrier))
            break;
    pthread_mutex_unlock(&service->lock);
}

/* As tunnelless_add. Where all places are taken, whoever has kept the service waiting
 * longest makes room: somebody who logs in takes a moment. For the next newcomer there is to
 * be a place at once. */
static int count_newcomer(struct ssh_service *service, const struct net_address *peer,
                          const struct ssh_limits *limits, struct tally_entry **counted)
{
    struct login *oldest;
    int err;

    while ((err = tunnelless_add(&service->tunnelless, peer, limits, counted)) == -EUSERS &&
           (oldest = TAILQ_FIRST(&service->logins)))
        drop(service, oldest, "it had to make room for another");
    if (tunnelless_is_full(&service->tunnelless, limits))
        make_room(service);
    return err;
}

static void add(struct ssh_service *service, int socket, const struct net_address *peer,
                const struct ssh_limits *limits)
{
    struct tally_entry *counted = NULL;
    struct login *login;
    int err = count_newcomer(service, peer, limits, &counted);

    if (!err)
        err = socket_prepare_carrier(socket, KEEPALIVE_MS);
    if (err)
        close(socket);
    else
        err = login_new(service, socket, peer, &login);
    if (err) {
        tunnelless_remove(&service->tunnelless, &counted);
        if (err != -EUSERS && err != -EDQUOT)
            log_failure(service, peer, strerrordesc_np(-err));
        return;
    }
    login->entrant.counted = counted;
    login->deadline_ms = clock_ms() + limits->login_timeout_ms;
    TAILQ_INSERT_TAIL(&service->logins, login, entry);
    step(service, login);               /* sends the banner */
}

static void accept_waiting(struct ssh_service *service)
{
    struct ssh_limits limits = ssh_service_limits(service);

    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        struct net_address peer;
        int socket = net_address_accept(service->listener, &peer);

        if (socket >= 0) {
            add(service, socket, &peer, &limits);
            continue;
        }
        if (socket != -EAGAIN && socket != -ECONNABORTED && socket != -EINTR)
            service->accept_again_ms = clock_ms() + ACCEPT_PAUSE_MS;
        return;
    }
}

static int64_t expire_logins(struct ssh_service *service)
{
    struct login *oldest;

    while ((oldest = TAILQ_FIRST(&service->logins)) && oldest->deadline_ms <= clock_ms()) {
        refusals_count(LIMIT_SSH_LOGIN_TIMEOUT);
        drop(service, oldest, "it took too long");
    }
    return oldest ? oldest->deadline_ms : INT64_MAX;
}

/* --- carriers */

static void bury_ended(struct ssh_service *service)
{
    struct carrier *carrier;

    do {
        pthread_mutex_lock(&service->lock);
        carrier = TAILQ_FIRST(&service->ended);
        if (carrier)
            TAILQ_REMOVE(&service->ended, carrier, entry);
        pthread_mutex_unlock(&service->lock);
        if (carrier)
            carrier_bury(carrier);
    } while (carrier);
}

/* --- the thread */

/* What to wait for, in the order of the logins; the listener's is the first. */
static size_t fill_polled(struct ssh_service *service, bool accepting)
{
    struct pollfd *polled = service->polled;
    struct login *login;
    size_t count = 0;

    polled[count++] = (struct pollfd){ .fd = accepting ? service->listener : -1,
                                       .events = POLLIN };
    for (login = TAILQ_FIRST(&service->logins); login; login = TAILQ_NEXT(login, entry))
        polled[count++] = (struct pollfd){ .fd = login->entrant.socket,
                                           .events = login_events(login) };
    return count;
}

/* Waits once, and does what there is to do. false: the service has to stop. */
static bool turn(struct ssh_service *service)
{
    int64_t until_ms = clock_earlier(expire_logins(service), carried_expire(service->relay));
    bool accepting = clock_ms() >= service->accept_again_ms;
    size_t count = fill_polled(service, accepting && service->listener >= 0);
    struct login *login = TAILQ_FIRST(&service->logins);
    int ready;

    if (!accepting)
        until_ms = clock_earlier(until_ms, service->accept_again_ms);
    ready = waker_poll(&service->waker, service->polled, count, until_ms);
    bury_ended(service);
    if (ready == -ECANCELED)
        return false;
    for (size_t i = 1; i < count && ready > 0; i++) {
        struct login *next = TAILQ_NEXT(login, entry);

        if (service->polled[i].revents)
            step(service, login);
        login = next;
    }
    if (ready > 0 && service->polled[0].revents)
        accept_waiting(service);
    return true;
}

static bool is_draining(struct ssh_service *service)
{
    bool draining;

    pthread_mutex_lock(&service->lock);
    draining = service->draining;
    pthread_mutex_unlock(&service->lock);
    return draining;
}

static void stop_accepting(struct ssh_service *service)
{
    struct login *login;

    close(service->listener);
    service->listener = -1;
    while ((login = TAILQ_FIRST(&service->logins)))
        drop(service, login, "the proxy ends");
}

static void *service_thread(void *argument)
{
    struct ssh_service *service = argument;

    waker_own(&service->waker);
    do {
        if (is_draining(service) && service->listener >= 0)
            stop_accepting(service);
    } while (turn(service));
    return NULL;
}

/* --- start and end */

static int set_offers(struct ssh_service *service)
{
    bool process_config = false;        /* none of the machine's */
    ssh_key key;
    size_t i;

    service->bind = ssh_bind_new();
    if (!service->bind)
        return -ENOMEM;
    if (ssh_bind_options_set(service->bind, SSH_BIND_OPTIONS_PROCESS_CONFIG, &process_config))
        return -EINVAL;
    for (i = 0; i < sizeof offers / sizeof offers[0]; i++)
        if (ssh_bind_options_set(service->bind, offers[i].option, offers[i].value))
            return -EINVAL;
    /* The bind frees what it gets. */
    key = ssh_key_dup(service->host_key.key);
    if (!key)
        return -ENOMEM;
    if (ssh_bind_options_set(service->bind, SSH_BIND_OPTIONS_IMPORT_KEY, key) == 0)
        return 0;
    ssh_key_free(key);
    return -EINVAL;
}

static int open_listener(struct ssh_service *service, const struct ssh_settings *settings,
                         char error[SSH_SERVICE_ERROR_BYTES])
{
    struct relay_ssh offered;
    struct net_address bound;
    char text[NET_ADDRESS_TEXT_BYTES];
    int err = 0;

    service->listener = socket_listen(&settings->listen, BACKLOG);
    if (service->listener < 0)
        err = service->listener;
    if (!err)
        err = net_address_of_socket(service->listener, &bound);
    if (err) {
        net_address_format(&settings->listen, text);
        snprintf(error, SSH_SERVICE_ERROR_BYTES, "can't serve ssh on %s: %s", text,
                 strerrordesc_np(-err));
        return err;
    }
    net_address_format(&bound, text);
    log_write(LOG_INFO, "ssh at %s, host key %s%s", text, service->host_key.fingerprint,
              service->host_key.is_new ? " (new)" : "");
    offered.port = net_address_port(&bound);
    snprintf(offered.public_key, sizeof offered.public_key, "%s", service->host_key.public_key);
    relay_set_ssh(service->relay, &offered);
    return 0;
}

static void service_free(struct ssh_service *service)
{
    if (service->listener >= 0)
        close(service->listener);
    if (service->bind)
        ssh_bind_free(service->bind);
    host_key_close(&service->host_key);
    authorized_keys_release(service->keys);
    address_table_free(service->opens);
    tunnelless_destroy(&service->tunnelless);
    pthread_cond_destroy(&service->carrier_ended);
    pthread_mutex_destroy(&service->lock);
    free(service);
}

int ssh_service_read_keys(const char *path, struct authorized_keys **keys,
                          char error[SSH_SERVICE_ERROR_BYTES])
{
    *keys = NULL;
    return *path ? authorized_keys_read(path, keys, error) : 0;
}

void ssh_service_free_keys(struct authorized_keys *keys)
{
    authorized_keys_release(keys);
}

static struct ssh_service *service_new(const struct ssh_settings *settings, struct relay *relay)
{
    struct ssh_service *service = calloc(1, sizeof *service);

    if (!service)
        return NULL;
    service->relay = relay;
    service->listener = -1;
    service->limits = settings->limits;
    service->keys = settings->keys;
    snprintf(service->host, sizeof service->host, "%s", settings->host ? settings->host : "");
    tunnelless_init(&service->tunnelless);
    pthread_mutex_init(&service->lock, NULL);
    pthread_cond_init(&service->carrier_ended, NULL);
    TAILQ_INIT(&service->logins);
    TAILQ_INIT(&service->carriers);
    TAILQ_INIT(&service->ended);
    return service;
}

/* All but the thread. */
static int prepare(struct ssh_service *service, const struct ssh_settings *settings,
                   char error[SSH_SERVICE_ERROR_BYTES])
{
    int err = address_table_set_per_minute(&service->opens, settings->limits.opens_per_minute);

    if (err) {
        snprintf(error, SSH_SERVICE_ERROR_BYTES, "can't serve ssh: no memory");
        return err;
    }
    err = host_key_open(settings->state_dir, &service->host_key, error);
    if (err)
        return err;
    err = set_offers(service);
    if (!err)
        return open_listener(service, settings, error);
    snprintf(error, SSH_SERVICE_ERROR_BYTES, "can't serve ssh: %s",
             service->bind ? ssh_get_error(service->bind) : strerrordesc_np(-err));
    return err;
}

int ssh_service_start(const struct ssh_settings *settings, struct relay *relay,
                      struct ssh_service **out, char error[SSH_SERVICE_ERROR_BYTES])
{
    struct ssh_service *service = service_new(settings, relay);
    int err;

    if (!service) {
        authorized_keys_release(settings->keys);
        snprintf(error, SSH_SERVICE_ERROR_BYTES, "can't serve ssh: no memory");
        return -ENOMEM;
    }
    err = prepare(service, settings, error);
    if (err)
        goto out;
    carried_set_expirer(relay, &service->waker);
    err = -pthread_create(&service->thread, NULL, service_thread, service);
    if (!err) {
        *out = service;
        return 0;
    }
    snprintf(error, SSH_SERVICE_ERROR_BYTES, "can't serve ssh: %s", strerrordesc_np(-err));
    carried_set_expirer(relay, NULL);
    relay_set_ssh(relay, &(struct relay_ssh){ 0 });
out:
    service_free(service);
    return err;
}

void ssh_service_change(struct ssh_service *service, const struct ssh_limits *limits,
                        struct authorized_keys *keys)
{
    struct authorized_keys *before;

    pthread_mutex_lock(&service->lock);
    before = service->keys;
    service->keys = keys;
    service->limits = *limits;
    pthread_mutex_unlock(&service->lock);
    address_table_set_per_minute(&service->opens, limits->opens_per_minute);
    authorized_keys_release(before);
}

void ssh_service_drain(struct ssh_service *service)
{
    struct carrier *carrier;

    pthread_mutex_lock(&service->lock);
    service->draining = true;
    for (carrier = TAILQ_FIRST(&service->carriers); carrier; carrier = TAILQ_NEXT(carrier, entry))
        carrier_drain(carrier);
    pthread_mutex_unlock(&service->lock);
    waker_nudge(&service->waker);
}

void ssh_service_stop(struct ssh_service *service)
{
    struct carrier *carrier;

    if (!service)
        return;
    relay_set_ssh(service->relay, &(struct relay_ssh){ 0 });
    carried_set_expirer(service->relay, NULL);
    pthread_mutex_lock(&service->lock);
    service->stopping = true;
    pthread_mutex_unlock(&service->lock);
    waker_ask(&service->waker);
    pthread_join(service->thread, NULL);
    pthread_mutex_lock(&service->lock);
    for (carrier = TAILQ_FIRST(&service->carriers); carrier; carrier = TAILQ_NEXT(carrier, entry))
        carrier_ask_to_end(carrier);
    while (!TAILQ_EMPTY(&service->carriers))
        pthread_cond_wait(&service->carrier_ended, &service->lock);
    pthread_mutex_unlock(&service->lock);
    bury_ended(service);
    if (service->listener >= 0)
        stop_accepting(service);
    service_free(service);
}
