#include "relay/address_table.h"

#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum {
    SETS = 1024,
    PLACES = 8,                         /* in a set: where an address may be kept */
    KEY_BYTES = 9                       /* the family, and 4 bytes of IPv4 or 8 of IPv6 */
};

/* An address whose bucket is not full. */
struct place {
    uint8_t key[KEY_BYTES];
    int64_t full_at_ms;                 /* past: nobody is here */
};

struct address_table {
    unsigned char hash_key[crypto_shorthash_KEYBYTES];

    pthread_mutex_t lock;
    int64_t interval_ms;                /* guarded by lock */
    int64_t capacity_ms;                /* guarded by lock: what an empty bucket takes to fill */
    struct place places[SETS][PLACES];  /* guarded by lock */
};

int address_table_new(unsigned tokens, int64_t interval_ms, struct address_table **out)
{
    struct address_table *table;

    if (sodium_init() < 0)
        return -ENOSYS;
    table = calloc(1, sizeof *table);
    if (!table)
        return -ENOMEM;
    table->interval_ms = interval_ms;
    table->capacity_ms = tokens * interval_ms;
    crypto_shorthash_keygen(table->hash_key);
    pthread_mutex_init(&table->lock, NULL);
    *out = table;
    return 0;
}

void address_table_change(struct address_table *table, unsigned tokens, int64_t interval_ms)
{
    pthread_mutex_lock(&table->lock);
    table->interval_ms = interval_ms;
    table->capacity_ms = tokens * interval_ms;
    pthread_mutex_unlock(&table->lock);
}

void address_table_free(struct address_table *table)
{
    if (!table)
        return;
    pthread_mutex_destroy(&table->lock);
    free(table);
}

static void key_of(const struct net_address *address, uint8_t key[KEY_BYTES])
{
    memset(key, 0, KEY_BYTES);
    key[0] = (uint8_t)address->any.sa_family;
    if (address->any.sa_family == AF_INET6)
        memcpy(key + 1, &address->ip6.sin6_addr, 8);
    else
        memcpy(key + 1, &address->ip4.sin_addr, 4);
}

bool address_table_are_one(const struct net_address *a, const struct net_address *b)
{
    uint8_t key_of_a[KEY_BYTES], key_of_b[KEY_BYTES];

    key_of(a, key_of_a);
    key_of(b, key_of_b);
    return memcmp(key_of_a, key_of_b, KEY_BYTES) == 0;
}

/* The place of the key, or the one that it would get. */
static struct place *find(struct address_table *table, const uint8_t key[KEY_BYTES])
{
    unsigned char hash[crypto_shorthash_BYTES];
    struct place *set, *emptiest;
    uint16_t index;

    crypto_shorthash(hash, key, KEY_BYTES, table->hash_key);
    memcpy(&index, hash, sizeof index);
    set = emptiest = table->places[index % SETS];
    for (size_t i = 0; i < PLACES; i++) {
        if (memcmp(set[i].key, key, KEY_BYTES) == 0)
            return &set[i];
        if (set[i].full_at_ms < emptiest->full_at_ms)
            emptiest = &set[i];
    }
    return emptiest;
}

static int64_t look_or_take(struct address_table *table, const struct net_address *address,
                            int64_t now_ms, bool takes)
{
    uint8_t key[KEY_BYTES];
    struct place *place;
    int64_t full_at_ms, wait_ms;

    key_of(address, key);
    pthread_mutex_lock(&table->lock);
    place = find(table, key);
    full_at_ms = now_ms;
    if (place->full_at_ms > now_ms && memcmp(place->key, key, KEY_BYTES) == 0)
        full_at_ms = place->full_at_ms;
    full_at_ms += table->interval_ms;
    wait_ms = full_at_ms - table->capacity_ms - now_ms;
    if (takes && wait_ms <= 0) {
        memcpy(place->key, key, KEY_BYTES);
        place->full_at_ms = full_at_ms;
    }
    pthread_mutex_unlock(&table->lock);
    return wait_ms > 0 ? wait_ms : 0;
}

int address_table_set_per_minute(struct address_table **table, size_t per_minute)
{
    unsigned tokens = (unsigned)per_minute;
    int64_t interval_ms = tokens ? (60000 + tokens - 1) / tokens : 1;

    if (!*table)
        return address_table_new(tokens, interval_ms, table);
    if (tokens)
        address_table_change(*table, tokens, interval_ms);
    return 0;
}

int64_t address_table_take(struct address_table *table, const struct net_address *address,
                           int64_t now_ms)
{
    return look_or_take(table, address, now_ms, true);
}

int64_t address_table_look(struct address_table *table, const struct net_address *address,
                           int64_t now_ms)
{
    return look_or_take(table, address, now_ms, false);
}

void address_table_give(struct address_table *table, const struct net_address *address)
{
    uint8_t key[KEY_BYTES];
    struct place *place;

    key_of(address, key);
    pthread_mutex_lock(&table->lock);
    place = find(table, key);
    if (memcmp(place->key, key, KEY_BYTES) == 0)
        place->full_at_ms -= table->interval_ms;
    pthread_mutex_unlock(&table->lock);
}
