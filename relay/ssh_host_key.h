/* ssh_host_key: the proxy's own key, by which its servers know it. It is made once
 * and kept in a file. Any thread, but for one ssh_key, which is one thread's at a
 * time. */
#ifndef RELAY_SSH_HOST_KEY_H
#define RELAY_SSH_HOST_KEY_H

#include "relay/ssh_keys.h"

#include <stdbool.h>

enum {
    SSH_PUBLIC_KEY_BYTES = 128          /* "ssh-ed25519 AAAA...", of an ed25519 key, with a NUL */
};

struct host_key {
    ssh_key key;
    char fingerprint[SSH_FINGERPRINT_BYTES];
    char public_key[SSH_PUBLIC_KEY_BYTES];      /* as a line of known_hosts has it */
    bool is_new;                        /* it was made just now */
};

/* Reads the key from state_dir/ssh_host_ed25519_key, in OpenSSH's format; makes
 * the folder (not those above it) and the file where they are missing, readable
 * by their owner alone. A file that others may read, that is no ed25519 key, or
 * that can't be read is refused and left as it is; what is written is there whole
 * or not at all, whenever the machine stops. Of several that make it at once, one
 * does, and the others read what it made. 0 or a negative errno, and then error
 * names the file, and what was expected, and there is nothing to close. */
int host_key_open(const char *state_dir, struct host_key *host_key,
                  char error[SSH_KEYS_ERROR_BYTES]);
void host_key_close(struct host_key *host_key);

#endif
