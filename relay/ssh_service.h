/* ssh_service: the ssh front of a relay, where servers attach with any ssh client.
 *
 * One thread accepts connections and takes each through key exchange and login,
 * held up by none; who is in gets a thread of its own (ssh_carrier), where what it
 * asks for is done. The same thread closes tunnels that have waited too long.
 * Start, drain and stop from one thread. */
#ifndef RELAY_SSH_SERVICE_H
#define RELAY_SSH_SERVICE_H

#include "relay/net_address.h"
#include "relay/relay.h"
#include "relay/uri.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ssh_service;
struct authorized_keys;

enum { SSH_SERVICE_ERROR_BYTES = 1024, SSH_HANDSHAKES_MAX = 4096 };

/* What holds for connections that come, and for logins, from now on. */
struct ssh_limits {
    bool open_to_all;                   /* everybody may open tunnels, without a key */
    bool reveal_clients;                /* a server is told its clients' addresses */
    size_t handshakes;                  /* connections that have no tunnel, at once;
                                         * SSH_HANDSHAKES_MAX at most */
    size_t handshakes_per_address;      /* the same; 0: any number */
    size_t opens_per_minute;            /* tunnels that one address opens; 0: any number */
    int64_t login_timeout_ms;           /* from connecting to being logged in */
};

struct ssh_settings {
    struct net_address listen;          /* port 0 takes a free one */
    const char *state_dir;              /* where the proxy's key is, or will be */
    const char *host;                   /* of addresses that are told; NULL: as it was called */
    struct authorized_keys *keys;       /* of who may open tunnels; NULL: none. Taken over. */
    struct ssh_limits limits;
};

/* Reads the file of keys at path; "": there is none, and *keys is NULL. 0 or a
 * negative errno, and then error says in one line what is wrong, and where. */
int ssh_service_read_keys(const char *path, struct authorized_keys **keys,
                          char error[SSH_SERVICE_ERROR_BYTES]);
void ssh_service_free_keys(struct authorized_keys *keys);

/* Makes the proxy's key if there is none, listens and starts; relay must outlive
 * the service and offers the ssh backend meanwhile. Errors as above. -ENOTSUP:
 * built without ssh. */
int ssh_service_start(const struct ssh_settings *settings, struct relay *relay,
                      struct ssh_service **service, char error[SSH_SERVICE_ERROR_BYTES]);

/* As at the start; the keys are taken over. Carriers that are here keep what they
 * have. Any thread. */
void ssh_service_change(struct ssh_service *service, const struct ssh_limits *limits,
                        struct authorized_keys *keys);

/* No new connections, and no new clients, from now on: what is under way may
 * finish. After relay_refuse_new. */
void ssh_service_drain(struct ssh_service *service);

/* Ends every connection, with a reset to clients. NULL is ignored. */
void ssh_service_stop(struct ssh_service *service);

#endif
