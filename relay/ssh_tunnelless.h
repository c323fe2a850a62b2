/* ssh_tunnelless: how many connections by ssh have no tunnel, in all and of each
 * address: logins, and carriers that have asked for none or lost theirs. Any thread. */
#ifndef RELAY_SSH_TUNNELLESS_H
#define RELAY_SSH_TUNNELLESS_H

#include "relay/ssh_service.h"
#include "relay/tally.h"

#include <pthread.h>
#include <stdbool.h>

struct tunnelless {
    pthread_mutex_t lock;
    struct tally addresses;             /* guarded by lock */
    size_t count;                       /* guarded by lock */
};

void tunnelless_init(struct tunnelless *tunnelless);
void tunnelless_destroy(struct tunnelless *tunnelless);

/* Counts one, unless there are as many as may be: 0, -EUSERS for all, -EDQUOT for its
 * address, or -ENOMEM. Without limits, which may be NULL, -ENOMEM only. */
int tunnelless_add(struct tunnelless *tunnelless, const struct net_address *peer,
                   const struct ssh_limits *limits, struct tally_entry **counted);

/* Whether there are as many as may be. */
bool tunnelless_is_full(struct tunnelless *tunnelless, const struct ssh_limits *limits);

/* It has a tunnel, or is gone; *counted is NULL from now on. NULL is ignored. */
void tunnelless_remove(struct tunnelless *tunnelless, struct tally_entry **counted);

#endif
