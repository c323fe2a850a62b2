/* One connection until it is logged in: key exchange, and whom it says to be. */
#include "relay/ssh_private.h"

#include <errno.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ATTEMPTS_MAX = 12 };             /* keys that an agent may offer, and what comes before */

static bool is_token_of(struct login *login, const char *user)
{
    return carried_is_token(user) &&
           carried_admits(login->service->relay, user, &login->entrant.peer);
}

static int let_in(struct login *login)
{
    login->is_in = true;
    return SSH_AUTH_SUCCESS;
}

/* The same for the same name at the same address, whatever bytes are in the name. */
static void own_by_name(struct ssh_entrant *entrant, const char *name)
{
    unsigned char hash[crypto_generichash_BYTES];
    char host[NET_ADDRESS_TEXT_BYTES];
    char hexadecimal[2 * sizeof hash + 1];

    crypto_generichash(hash, sizeof hash, (const unsigned char *)name, strlen(name), NULL, 0);
    sodium_bin2hex(hexadecimal, sizeof hexadecimal, hash, sizeof hash);
    net_address_format_host(&entrant->peer, host);
    snprintf(entrant->owner, sizeof entrant->owner, "login %s at %s", hexadecimal, host);
}

/* A token that is no more is never taken for a name: who has it wants that tunnel. */
static int on_none(ssh_session session, const char *user, void *context)
{
    struct login *login = context;
    struct ssh_entrant *entrant = &login->entrant;

    login->attempts++;
    ssh_set_auth_methods(session, SSH_AUTH_METHOD_PUBLICKEY);
    if (carried_is_token(user)) {
        if (!is_token_of(login, user))
            return SSH_AUTH_DENIED;
        snprintf(entrant->owner, sizeof entrant->owner, "%s", user);
        return let_in(login);
    }
    if (!ssh_service_limits(login->service).open_to_all)
        return SSH_AUTH_DENIED;
    own_by_name(entrant, user);
    return let_in(login);
}

static bool is_authorized(struct ssh_service *service, ssh_key key)
{
    struct authorized_keys *keys;
    bool authorized;

    pthread_mutex_lock(&service->lock);
    keys = authorized_keys_hold(service->keys);
    pthread_mutex_unlock(&service->lock);
    authorized = authorized_keys_allow(keys, key);
    authorized_keys_release(keys);
    return authorized;
}

static int on_key(ssh_session session, const char *user, ssh_key key, char signature_state,
                  void *context)
{
    struct login *login = context;
    struct ssh_entrant *entrant = &login->entrant;
    char fingerprint[SSH_FINGERPRINT_BYTES];

    (void)session;
    login->attempts++;
    if (carried_is_token(user) || !is_authorized(login->service, key))
        return SSH_AUTH_DENIED;
    if (signature_state == SSH_PUBLICKEY_STATE_NONE)    /* a question, before it signs */
        return SSH_AUTH_SUCCESS;
    if (signature_state != SSH_PUBLICKEY_STATE_VALID ||
        ssh_key_fingerprint(key, fingerprint))
        return SSH_AUTH_DENIED;
    snprintf(entrant->user, sizeof entrant->user, "key %s", fingerprint);
    snprintf(entrant->owner, sizeof entrant->owner, "key %s", fingerprint);
    return let_in(login);
}

void ssh_session_end(ssh_session session, ssh_event event)
{
    if (event)
        ssh_event_free(event);          /* gives the session back what it polls with */
    ssh_free(session);
}

/* The session has the socket from ssh_bind_accept_fd on, unless that fails early. */
static int adopt(struct login *login, int socket)
{
    struct ssh_entrant *entrant = &login->entrant;

    entrant->session = ssh_new();
    if (!entrant->session) {
        close(socket);
        return -ENOMEM;
    }
    ssh_set_blocking(entrant->session, 0);
    if (ssh_options_set(entrant->session, SSH_OPTIONS_COMPRESSION, "none") != SSH_OK) {
        close(socket);
        return -ENOMEM;
    }
    if (ssh_bind_accept_fd(login->service->bind, entrant->session, socket) != SSH_OK) {
        if (ssh_get_fd(entrant->session) != socket)
            close(socket);
        return -ENOMEM;
    }
    entrant->socket = socket;
    return 0;
}

int login_new(struct ssh_service *service, int socket, const struct net_address *peer,
              struct login **out)
{
    struct login *login = calloc(1, sizeof *login);
    int err;

    if (!login) {
        close(socket);
        return -ENOMEM;
    }
    login->service = service;
    login->entrant.peer = *peer;
    login->callbacks = (struct ssh_server_callbacks_struct){
        .userdata = login,
        .auth_none_function = on_none,
        .auth_pubkey_function = on_key,
    };
    ssh_callbacks_init(&login->callbacks);
    err = adopt(login, socket);
    if (!err && ssh_set_server_callbacks(login->entrant.session, &login->callbacks) != SSH_OK)
        err = -ENOMEM;
    if (err)
        login_free(login);
    else
        *out = login;
    return err;
}

static bool has_ended(ssh_session session)
{
    return ssh_get_status(session) & (SSH_CLOSED | SSH_CLOSED_ERROR);
}

/* A client that does not wait for answers may be in before the library has said that
 * the exchange is over. A session can have an event once the exchange has begun. */
static bool exchange_keys(struct login *login)
{
    struct ssh_entrant *entrant = &login->entrant;
    int state = ssh_handle_key_exchange(entrant->session);

    login->has_keys = state == SSH_OK || login->is_in;
    if (!login->has_keys)
        return state == SSH_AGAIN;
    entrant->event = ssh_event_new();
    return entrant->event && ssh_event_add_session(entrant->event, entrant->session) == SSH_OK;
}

enum login_state login_step(struct login *login)
{
    ssh_session session = login->entrant.session;

    if (!login->has_keys) {
        if (!exchange_keys(login))
            return LOGIN_FAILED;
    } else if (ssh_event_dopoll(login->entrant.event, 0) == SSH_ERROR) {
        return LOGIN_FAILED;
    }
    if (login->is_in)
        return LOGIN_IN;
    return has_ended(session) || login->attempts > ATTEMPTS_MAX ? LOGIN_FAILED : LOGIN_WAITS;
}

short login_events(const struct login *login)
{
    bool has_more = ssh_get_status(login->entrant.session) & SSH_WRITE_PENDING;

    return (short)(POLLIN | (has_more ? POLLOUT : 0));
}

void login_enter(struct login *login, struct ssh_entrant *entrant)
{
    *entrant = login->entrant;
    free(login);
}

void login_free(struct login *login)
{
    if (login->entrant.session)
        ssh_session_end(login->entrant.session, login->entrant.event);
    free(login);
}
