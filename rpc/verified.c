#include "rpc/verified.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum {
    SETS = 256,
    PLACES = 4,                         /* in a set: where credentials may be kept */
    DIGEST_BYTES = crypto_generichash_BYTES
};

struct place {
    unsigned char digest[DIGEST_BYTES];
    int64_t until_ms;                   /* past: nothing is here */
};

struct verified {
    unsigned char key[crypto_generichash_KEYBYTES];
    pthread_mutex_t lock;
    struct place places[SETS][PLACES];  /* guarded by lock */
};

struct verified *verified_new(void)
{
    struct verified *verified = sodium_init() < 0 ? NULL : calloc(1, sizeof *verified);

    if (!verified)
        return NULL;
    crypto_generichash_keygen(verified->key);
    pthread_mutex_init(&verified->lock, NULL);
    return verified;
}

void verified_free(struct verified *verified)
{
    if (!verified)
        return;
    pthread_mutex_destroy(&verified->lock);
    sodium_memzero(verified, sizeof *verified);
    free(verified);
}

/* The NULs keep "ab" and "c" apart from "a" and "bc". */
static struct place *digest_and_find(struct verified *verified, const char *name,
                                     const char *password, unsigned char digest[DIGEST_BYTES])
{
    crypto_generichash_state state;
    uint16_t index;

    crypto_generichash_init(&state, verified->key, sizeof verified->key, DIGEST_BYTES);
    crypto_generichash_update(&state, (const unsigned char *)name, strlen(name) + 1);
    crypto_generichash_update(&state, (const unsigned char *)password, strlen(password) + 1);
    crypto_generichash_final(&state, digest, DIGEST_BYTES);
    memcpy(&index, digest, sizeof index);
    return verified->places[index % SETS];
}

void verified_add(struct verified *verified, const char *name, const char *password,
                  int64_t now_ms)
{
    unsigned char digest[DIGEST_BYTES];
    struct place *set = digest_and_find(verified, name, password, digest);
    struct place *oldest = set;

    pthread_mutex_lock(&verified->lock);
    for (size_t i = 0; i < PLACES; i++) {
        if (sodium_memcmp(set[i].digest, digest, DIGEST_BYTES) == 0) {
            oldest = &set[i];
            break;
        }
        if (set[i].until_ms < oldest->until_ms)
            oldest = &set[i];
    }
    memcpy(oldest->digest, digest, DIGEST_BYTES);
    oldest->until_ms = now_ms + VERIFIED_FOR_MS;
    pthread_mutex_unlock(&verified->lock);
}

bool verified_has(struct verified *verified, const char *name, const char *password,
                  int64_t now_ms)
{
    unsigned char digest[DIGEST_BYTES];
    const struct place *set = digest_and_find(verified, name, password, digest);
    bool found = false;

    pthread_mutex_lock(&verified->lock);
    for (size_t i = 0; i < PLACES; i++) {
        bool is_it = sodium_memcmp(set[i].digest, digest, DIGEST_BYTES) == 0;

        found |= is_it && set[i].until_ms > now_ms;
    }
    pthread_mutex_unlock(&verified->lock);
    return found;
}
