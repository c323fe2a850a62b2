#include "relay/ssh_tunnelless.h"

#include "relay/refusals.h"

#include <errno.h>

void tunnelless_init(struct tunnelless *tunnelless)
{
    *tunnelless = (struct tunnelless){ 0 };
    pthread_mutex_init(&tunnelless->lock, NULL);
}

void tunnelless_destroy(struct tunnelless *tunnelless)
{
    tally_clear(&tunnelless->addresses);
    pthread_mutex_destroy(&tunnelless->lock);
}

static void count_refusal(int err)
{
    if (err == -EUSERS)
        refusals_count(LIMIT_SSH_HANDSHAKES);
    if (err == -EDQUOT)
        refusals_count(LIMIT_SSH_HANDSHAKES_PER_ADDRESS);
}

int tunnelless_add(struct tunnelless *tunnelless, const struct net_address *peer,
                   const struct ssh_limits *limits, struct tally_entry **counted)
{
    int err = 0;

    pthread_mutex_lock(&tunnelless->lock);
    if (limits && tunnelless->count >= limits->handshakes)
        err = -EUSERS;
    if (!err)
        err = tally_add_address(&tunnelless->addresses, peer,
                                limits ? limits->handshakes_per_address : 0, counted);
    if (!err)
        tunnelless->count++;
    pthread_mutex_unlock(&tunnelless->lock);
    count_refusal(err);
    return err;
}

bool tunnelless_is_full(struct tunnelless *tunnelless, const struct ssh_limits *limits)
{
    bool is_full;

    pthread_mutex_lock(&tunnelless->lock);
    is_full = tunnelless->count >= limits->handshakes;
    pthread_mutex_unlock(&tunnelless->lock);
    return is_full;
}

void tunnelless_remove(struct tunnelless *tunnelless, struct tally_entry **counted)
{
    pthread_mutex_lock(&tunnelless->lock);
    if (*counted)
        tunnelless->count--;
    tally_remove(&tunnelless->addresses, *counted);
    pthread_mutex_unlock(&tunnelless->lock);
    *counted = NULL;
}
