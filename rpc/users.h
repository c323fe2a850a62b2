/* users: who may call, from a file of the kind that Apache's htpasswd writes.
 *
 * A line is user:hash, the hash of bcrypt ($2y$, $2a$, $2b$) or SHA-512 ($6$);
 * lines that start with # and empty ones are passed over. What was read never
 * changes, but for the memory of whose password has been verified, which saves
 * the next calls the work; reading the file again makes another struct users,
 * which remembers nobody. Any thread. */
#ifndef RPC_USERS_H
#define RPC_USERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    USERS_NAME_BYTES = 64,              /* with the final NUL */
    USERS_PASSWORD_BYTES = 256,         /* with the final NUL */
    USERS_ERROR_BYTES = 600
};

struct crypt_data;                      /* of crypt.h */
struct users;

/* What a caller says of itself; valid text in both. */
struct credentials {
    char name[USERS_NAME_BYTES];
    char password[USERS_PASSWORD_BYTES];
};

/* Reads a file. 0, and *users is the caller's first hold on it; or a negative
 * errno, and then error names the file, the line if one was to blame, and what
 * was expected. Logs a warning where others may read the file. */
int users_read(const char *path, struct users **users, char error[USERS_ERROR_BYTES]);

/* Each hold is let go of once; the last one frees. NULL is let go of freely. */
struct users *users_hold(struct users *users);
void users_release(struct users *users);

size_t users_count(const struct users *users);

/* Whether there is a user of that name. Takes as long as looking does; not for
 * answers. */
bool users_know(const struct users *users, const char *name);

/* Whether these were verified lately; cheap. now_ms as clock_ms tells it. */
bool users_remember(struct users *users, const struct credentials *credentials, int64_t now_ms);

/* Verifies and, if they are right, remembers. As slow as the hash is made to be,
 * and not faster for names that there are not. work is the caller's, 32 KiB, set
 * to zero before its first use. */
bool users_verify(struct users *users, const struct credentials *credentials, int64_t now_ms,
                  struct crypt_data *work);

#endif
