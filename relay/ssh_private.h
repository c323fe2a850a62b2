/* ssh_private: what the files of the ssh front share.
 *
 *     ssh_service.c   accepts, and keeps the list of who is here
 *     ssh_login.c     one connection until it is logged in
 *     ssh_carrier.c   one connection from then on, on its own thread: its requests
 *     ssh_liveness.c  whether its server is alive
 *     ssh_forward.c   a tunnel that a carrier holds, and where its clients connect
 *     ssh_stream.c    one client of a tunnel: its life
 *     ssh_bytes.c     what it carries
 *     ssh_exchange.c  what is written, also while keys are exchanged anew
 *     ssh_first_write.c  the first write in a channel
 *     ssh_console.c   what people see who asked for a session
 *
 * The last eight share ssh_carrier.h besides. */
#ifndef RELAY_SSH_PRIVATE_H
#define RELAY_SSH_PRIVATE_H

#include "relay/address_table.h"
#include "relay/carried.h"
#include "relay/log_budget.h"
#include "relay/ssh_authorized.h"
#include "relay/ssh_host_key.h"
#include "relay/ssh_service.h"
#include "relay/ssh_tunnelless.h"
#include "relay/waker.h"

#include <libssh/callbacks.h>
#include <libssh/libssh.h>
#include <libssh/server.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

struct carrier;
struct login;

enum { SSH_OWNER_BYTES = 256 };

TAILQ_HEAD(logins, login);
TAILQ_HEAD(carriers, carrier);

/* Everything belongs to the service's thread but what the lock guards and what is
 * atomic. */
struct ssh_service {
    pthread_t thread;
    struct waker waker;
    struct relay *relay;
    char host[URI_HOST_BYTES];          /* "": as each caller called it; never changes */
    ssh_bind bind;                      /* the proxy's key, and what it offers */
    struct host_key host_key;
    int listener;
    struct logins logins;
    struct log_budget log_budget;       /* for logins that failed */
    int64_t accept_again_ms;
    struct pollfd polled[1 + SSH_HANDSHAKES_MAX];

    struct tunnelless tunnelless;       /* of logins and carriers; has a lock of its own */

    pthread_mutex_t lock;
    struct ssh_limits limits;           /* guarded by lock */
    struct authorized_keys *keys;       /* guarded by lock; NULL: there is no file of them */
    struct address_table *opens;        /* a token: a tunnel that may be opened */
    struct carriers carriers;           /* guarded by lock: whose threads run */
    struct carriers ended;              /* guarded by lock: whose threads are to be joined */
    pthread_cond_t carrier_ended;       /* one more is in ended */
    bool draining;                      /* guarded by lock */
    bool stopping;                      /* guarded by lock: the waker may be asked no more */
};

/* A connection that has been let in. */
struct ssh_entrant {
    ssh_session session;
    ssh_event event;                    /* with the session in it */
    int socket;                         /* the session's, which closes it */
    struct net_address peer;
    struct tally_entry *counted;        /* as one without a tunnel; NULL: it has one */
    char owner[SSH_OWNER_BYTES];        /* as carried.h has it */
    char user[SSH_OWNER_BYTES];         /* of tunnels that it opens: "" where nobody is asked */
};

struct ssh_limits ssh_service_limits(struct ssh_service *service);

/* Whether the address may open one more tunnel now. */
bool ssh_service_may_open(struct ssh_service *service, const struct net_address *peer);

/* --- ssh_login */

enum login_state { LOGIN_WAITS, LOGIN_IN, LOGIN_FAILED };

/* Takes the socket over, also when it fails. */
int login_new(struct ssh_service *service, int socket, const struct net_address *peer,
              struct login **login);

/* Goes on as far as that goes without waiting. */
enum login_state login_step(struct login *login);

/* What poll is to wait for. */
short login_events(const struct login *login);

/* Frees the login, and not what is the entrant's from now on; it lacks nothing. */
void login_enter(struct login *login, struct ssh_entrant *entrant);

/* Frees it with the connection. */
void login_free(struct login *login);

/* Frees a session, its event and its socket. */
void ssh_session_end(ssh_session session, ssh_event event);

/* What is the service's of a login. */
struct login {
    TAILQ_ENTRY(login) entry;
    int64_t deadline_ms;
    struct ssh_entrant entrant;

    /* ssh_login's own. */
    struct ssh_service *service;
    struct ssh_server_callbacks_struct callbacks;
    unsigned attempts;
    bool has_keys;                      /* the key exchange is over */
    bool is_in;
};

#endif
