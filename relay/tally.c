#include "relay/tally.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

/* In a tree of the C library's, which stays balanced whatever keys come. */
struct tally_entry {
    size_t count;
    size_t key_bytes;
    unsigned char key[];
};

static int compare(const void *a_pointer, const void *b_pointer)
{
    const struct tally_entry *a = a_pointer, *b = b_pointer;

    if (a->key_bytes != b->key_bytes)
        return a->key_bytes < b->key_bytes ? -1 : 1;
    return memcmp(a->key, b->key, a->key_bytes);
}

static struct tally_entry *entry_new(const void *key, size_t bytes)
{
    struct tally_entry *entry = malloc(sizeof *entry + bytes);

    if (!entry)
        return NULL;
    entry->count = 0;
    entry->key_bytes = bytes;
    memcpy(entry->key, key, bytes);
    return entry;
}

static int add(struct tally *tally, const void *key, size_t bytes, size_t max,
               struct tally_entry **out)
{
    struct tally_entry *wanted = entry_new(key, bytes);
    struct tally_entry **found = wanted ? tsearch(wanted, &tally->by_key, compare) : NULL;

    if (!found) {
        free(wanted);
        return -ENOMEM;
    }
    if (*found != wanted) {             /* it has some already */
        free(wanted);
        if (max && (*found)->count >= max)
            return -EDQUOT;
    }
    (*found)->count++;
    *out = *found;
    return 0;
}

int tally_add_address(struct tally *tally, const struct net_address *address, size_t max,
                      struct tally_entry **entry)
{
    if (address->any.sa_family == AF_INET6)
        return add(tally, &address->ip6.sin6_addr, 8, max, entry);
    return add(tally, &address->ip4.sin_addr, sizeof address->ip4.sin_addr, max, entry);
}

int tally_add_name(struct tally *tally, const char *name, size_t max, struct tally_entry **entry)
{
    return add(tally, name, strlen(name), max, entry);
}

void tally_remove(struct tally *tally, struct tally_entry *entry)
{
    if (!entry || --entry->count)
        return;
    tdelete(entry, &tally->by_key, compare);
    free(entry);
}

void tally_clear(struct tally *tally)
{
    tdestroy(tally->by_key, free);
    tally->by_key = NULL;
}
