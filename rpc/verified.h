/* verified: remembers credentials that were found right, as keyed hashes, for a
 * while.
 *
 * The memory is fixed; what is too much pushes out what would be forgotten
 * first. Neither names nor passwords are kept, and the key never leaves the
 * process. Any thread. */
#ifndef RPC_VERIFIED_H
#define RPC_VERIFIED_H

#include <stdbool.h>
#include <stdint.h>

enum { VERIFIED_FOR_MS = 15 * 60 * 1000 };

struct verified;

/* NULL when there is no memory. */
struct verified *verified_new(void);
void verified_free(struct verified *verified);

void verified_add(struct verified *verified, const char *name, const char *password,
                  int64_t now_ms);
bool verified_has(struct verified *verified, const char *name, const char *password,
                  int64_t now_ms);

#endif
