/* ssh_authorized: the keys of users who may open tunnels, from a file as OpenSSH's
 * authorized_keys is.
 *
 * What was read never changes; reading the file again makes another struct
 * authorized_keys. Any thread. */
#ifndef RELAY_SSH_AUTHORIZED_H
#define RELAY_SSH_AUTHORIZED_H

#include "relay/ssh_keys.h"

#include <stdbool.h>

struct authorized_keys;

/* Reads a file of keys, a line each: options (or none), type, key in base 64, and a
 * comment. Empty lines and those that start with # are passed over. Of options,
 * those that only take away what the proxy never gives (no-pty, no-agent-forwarding,
 * no-x11-forwarding, no-user-rc, in any case) are taken; restrict and
 * no-port-forwarding forbid a key everything here unless port-forwarding follows;
 * any other option is an error, since to ignore it could allow what it was to
 * forbid. A file that others may write to is refused. 0, and *keys is the caller's
 * first hold on it; or a negative errno, and then error names the file, the line if
 * one was to blame, and what was expected. Logs a warning where there is no key in
 * the file. */
int authorized_keys_read(const char *path, struct authorized_keys **keys,
                         char error[SSH_KEYS_ERROR_BYTES]);

/* Each hold is let go of once; the last one frees. NULL is let go of freely. */
struct authorized_keys *authorized_keys_hold(struct authorized_keys *keys);
void authorized_keys_release(struct authorized_keys *keys);

/* Of lines with a key, also where the key is forbidden everything or comes twice. */
size_t authorized_keys_count(const struct authorized_keys *keys);

/* Whether the key may open tunnels; it may be a public key alone. The first line that
 * has it decides. NULL keys: none may. */
bool authorized_keys_allow(const struct authorized_keys *keys, ssh_key key);

#endif
