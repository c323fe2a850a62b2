/* ssh_keys: what the proxy's own key (ssh_host_key) and the keys of its users
 * (ssh_authorized) have in common. Any thread, but for one ssh_key, which is one
 * thread's at a time. */
#ifndef RELAY_SSH_KEYS_H
#define RELAY_SSH_KEYS_H

#include <libssh/libssh.h>
#include <stddef.h>
#include <sys/types.h>

enum {
    SSH_KEYS_ERROR_BYTES = 600,
    SSH_KEYS_PATH_BYTES = 200,          /* of a path, as errors show it, some twice */
    SSH_FINGERPRINT_BYTES = 64          /* "SHA256:" and base 64, with a NUL */
};

/* "SHA256:..." of a key, as ssh-keygen -l shows it; the same for no two keys, and
 * for a private key as for its public one. 0 or -ENOMEM. */
int ssh_key_fingerprint(ssh_key key, char fingerprint[SSH_FINGERPRINT_BYTES]);

/* A file of keys, and what is asked of it. */
struct ssh_key_file {
    int folder;                         /* that path starts from, or AT_FDCWD */
    const char *path;
    const char *shown;                  /* the path, as errors show it */
    int open_flags;                     /* O_NOFOLLOW, or 0 */
    mode_t forbidden;                   /* bits of its mode, those that let others ... */
    const char *others_may;             /* ... "read or write" it */
    const char *mode;                   /* that chmod is to give it */
    size_t bytes_max;
};

/* Reads it whole. 0, and *text is the caller's to free, with no NUL but the one at its
 * end; or a negative errno, and then error says why, and what to do. */
int ssh_key_file_read(const struct ssh_key_file *file, char **text,
                      char error[SSH_KEYS_ERROR_BYTES]);

#endif
