/* carried: tunnels without a thread of their own.
 *
 * A carrier is a connection of a server that carries the streams of one or more
 * tunnels; its thread holds them, and owns what they have, for as long as it
 * lives. Then each waits, with its clients' port listening, for a carrier of the
 * same owner, and closes when none has come in time. The owner is whoever may
 * hold it: a token, which only whoever opened the tunnel knows, or another text,
 * with a blank in it, that says how it was let in. Any thread. */
#ifndef RELAY_CARRIED_H
#define RELAY_CARRIED_H

#include "relay/backend.h"
#include "relay/relay.h"
#include "relay/waker.h"

enum { CARRIED_TOKEN_BYTES = 29 };      /* "t-", 26 characters, and a NUL */

/* Whether a text has the form of a token. No other owner has it. */
bool carried_is_token(const char *text);

/* Opens a tunnel for a token, which is in *server_uri. It waits for the attach timeout.
 * Errors as relay_open_tunnel's. */
int carried_open(struct relay *relay, const struct tunnel_backend *backend, const char *host,
                 const struct tunnel_opener *opener, struct tunnel_uri *server_uri);

/* Opens a tunnel that the caller holds. */
int carried_open_held(struct relay *relay, const struct tunnel_backend *backend, const char *host,
                      const struct tunnel_opener *opener, const char *owner,
                      struct tunnel **tunnel);

/* Whether there is a tunnel of that token, and it admits peer. */
bool carried_admits(struct relay *relay, const char *token, const struct net_address *peer);

/* Takes hold of a tunnel of that owner that waits: the one with that client port,
 * or, for port 0, the first that was opened. 0; -EBUSY: another holds it; -ENOENT. */
int carried_hold(struct relay *relay, const char *owner, uint16_t client_port,
                 struct tunnel **tunnel);

/* The holder has no carrier any more: the tunnel waits for another, if it may. */
void carried_let_go(struct relay *relay, struct tunnel *tunnel);

/* By the holder: closes the tunnel, why for the log. */
void carried_close(struct relay *relay, struct tunnel *tunnel, const char *why);

/* Closes the tunnels that have waited long enough; all that wait, once no new ones
 * are to be opened. When the next will have, by clock_ms; INT64_MAX: none waits. */
int64_t carried_expire(struct relay *relay);

/* Whose thread calls carried_expire, and is nudged when there is more to wait for;
 * NULL: nobody's. */
void carried_set_expirer(struct relay *relay, struct waker *expirer);

#endif
