/* What each tunnel counts for as long as it is alive, and the settings that it was opened
 * with. */
#include "relay/relay_private.h"

#include "relay/backend.h"
#include "relay/buffer_pool.h"
#include "relay/pipe_pool.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

/* After so many tunnels at once the heap is worth a look for what can go back. */
enum { CROWD = 100 };

void release_pools(size_t crowd)
{
    buffer_pool_free_resting();
    pipe_pool_close_resting();
    if (crowd >= CROWD)
        malloc_trim(0);
}

struct shared_settings *shared_settings_new(const struct relay_settings *values)
{
    struct shared_settings *settings = calloc(1, sizeof *settings);

    if (settings)
        settings->values = *values;
    return settings;
}

struct relay_settings relay_settings(struct relay *relay)
{
    struct relay_settings values;

    pthread_mutex_lock(&relay->lock);
    values = relay->settings->values;
    pthread_mutex_unlock(&relay->lock);
    return values;
}

int relay_change_settings(struct relay *relay, const struct relay_settings *values)
{
    struct shared_settings *settings = shared_settings_new(values);
    struct shared_settings *before;

    if (!settings)
        return -ENOMEM;
    pthread_mutex_lock(&relay->lock);
    before = relay->settings;
    settings->values.listen = before->values.listen;
    settings->values.port_low = before->values.port_low;
    settings->values.port_high = before->values.port_high;
    relay->settings = settings;
    if (before->tunnels == 0)
        free(before);
    pthread_mutex_unlock(&relay->lock);
    return 0;
}

/* With the relay's lock held. */
static int count_opener(struct relay *relay, const struct tunnel_opener *opener,
                        struct reservation *reservation)
{
    const struct relay_settings *settings = &relay->settings->values;
    int err = tally_add_address(&relay->addresses, &opener->address,
                                settings->tunnels_per_address, &reservation->address);

    if (err)
        return err == -EDQUOT ? -ETOOMANYREFS : err;
    if (*opener->user)
        err = tally_add_name(&relay->users, opener->user, settings->tunnels_per_user,
                             &reservation->user);
    if (err)
        tally_remove(&relay->addresses, reservation->address);
    return err == -EDQUOT ? -EUSERS : err;
}

/* The same. */
static void forget_opener(struct relay *relay, const struct reservation *reservation)
{
    tally_remove(&relay->addresses, reservation->address);
    tally_remove(&relay->users, reservation->user);
}

int reserve(struct relay *relay, const struct tunnel_backend *backend,
            const struct tunnel_opener *opener, struct reservation *reservation)
{
    const struct relay_settings *settings;
    int err = 0;

    pthread_mutex_lock(&relay->lock);
    settings = &relay->settings->values;
    if (relay->refusing)
        err = -ESHUTDOWN;
    else if (relay->alive >= settings->max_tunnels)
        err = -EDQUOT;
    else
        err = count_opener(relay, opener, reservation);
    if (!err && backend->has_epoll) {
        reservation->has_descriptor = descriptors_take(&relay->descriptors, settings->descriptors);
        if (!reservation->has_descriptor) {
            forget_opener(relay, reservation);
            err = -EMFILE;
        }
    }
    if (!err) {
        relay->alive++;
        relay->crowd = relay->alive > relay->crowd ? relay->alive : relay->crowd;
        reservation->id = ++relay->last_id;
        reservation->settings = relay->settings;
        relay->settings->tunnels++;
    }
    pthread_mutex_unlock(&relay->lock);
    return err;
}

void unreserve(struct relay *relay, const struct reservation *reservation)
{
    struct shared_settings *settings = reservation->settings;
    size_t crowd = 0;
    bool is_last;

    if (reservation->has_descriptor)
        descriptors_give(&relay->descriptors);
    pthread_mutex_lock(&relay->lock);
    forget_opener(relay, reservation);
    if (--settings->tunnels == 0 && settings != relay->settings)
        free(settings);
    is_last = --relay->alive == 0;
    if (is_last) {
        crowd = relay->crowd;
        relay->crowd = 0;
        pthread_cond_broadcast(&relay->emptied);
    }
    pthread_mutex_unlock(&relay->lock);
    if (is_last)
        release_pools(crowd);
}
