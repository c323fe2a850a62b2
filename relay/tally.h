/* tally: how many of something each address, or each name, has at once.
 *
 * A network of IPv6 (/64) counts as one address, since each customer has at least
 * that. Only those who have some are kept. Not thread-safe: its owner guards it. */
#ifndef RELAY_TALLY_H
#define RELAY_TALLY_H

#include "relay/net_address.h"

#include <stddef.h>

struct tally { void *by_key; };         /* all zero: nobody has any */
struct tally_entry;                     /* of one who has some */

/* Counts one more, unless that would be more than max (0: any number). 0, and
 * *entry is what to give tally_remove; -EDQUOT; or -ENOMEM. */
int tally_add_address(struct tally *tally, const struct net_address *address, size_t max,
                      struct tally_entry **entry);
int tally_add_name(struct tally *tally, const char *name, size_t max,
                   struct tally_entry **entry);

/* Forgets all; entries that were given out are gone. */
void tally_clear(struct tally *tally);

/* Counts one less. NULL is ignored. */
void tally_remove(struct tally *tally, struct tally_entry *entry);

#endif
