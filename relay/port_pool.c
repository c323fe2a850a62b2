#include "relay/port_pool.h"

#include "relay/socket.h"
#include "relay/waker.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    SERVER_BACKLOG = 16,                /* connections of the server, and strangers who knock */
    CLIENT_BACKLOG = 512                /* clients that come at once, or wait for their turn */
};

struct resting_pair {
    size_t index;
    int64_t rested_ms;                  /* when it will have rested */
};

struct port_pool {
    struct net_address address;
    uint16_t port_low;
    size_t size;                        /* pairs in all */

    pthread_mutex_t lock;
    size_t first;                       /* guarded by lock: where the queue begins */
    size_t resting;                     /* guarded by lock: how many stand in the queue */
    size_t rested;                      /* guarded by lock: as many in front are known to have */
    struct resting_pair queue[];        /* guarded by lock: a ring of size pairs */
};

int port_pool_new(const struct net_address *address, uint16_t port_low, uint16_t port_high,
                  struct port_pool **out)
{
    size_t ports = port_high >= port_low ? (size_t)(port_high - port_low) + 1 : 0;
    size_t size = ports / 2;
    struct port_pool *pool;

    if (size == 0 || port_low == 0)
        return -EINVAL;
    pool = calloc(1, sizeof *pool + size * sizeof pool->queue[0]);
    if (!pool)
        return -ENOMEM;
    pool->address = *address;
    pool->port_low = port_low;
    pool->size = pool->resting = pool->rested = size;
    for (size_t i = 0; i < size; i++)
        pool->queue[i].index = i;       /* rested since ever */
    pthread_mutex_init(&pool->lock, NULL);
    *out = pool;
    return 0;
}

void port_pool_free(struct port_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

static int listen_on(const struct port_pool *pool, uint16_t port, int backlog)
{
    struct net_address address = pool->address;
    int listener;
    int err;

    net_address_set_port(&address, port);
    listener = socket_listen(&address, backlog);
    err = listener < 0 ? listener : socket_arm_reset(listener);
    if (!err || listener < 0)
        return listener;
    close(listener);
    return err;
}

static int pair_listen(const struct port_pool *pool, size_t index, struct port_pair *pair)
{
    pair->index = index;
    pair->server_port = (uint16_t)(pool->port_low + 2 * index);
    pair->client_listener = -1;
    pair->server_listener = listen_on(pool, pair->server_port, SERVER_BACKLOG);
    if (pair->server_listener < 0)
        return pair->server_listener;
    pair->client_listener = listen_on(pool, (uint16_t)(pair->server_port + 1), CLIENT_BACKLOG);
    if (pair->client_listener >= 0)
        return 0;
    close(pair->server_listener);
    pair->server_listener = -1;
    return pair->client_listener;
}

static struct resting_pair *queue_at(struct port_pool *pool, size_t place)
{
    return &pool->queue[(pool->first + place) % pool->size];
}

/* Puts one that has rested in front, whichever it is. */
static void queue_draw(struct port_pool *pool)
{
    int64_t now_ms = clock_ms();
    struct resting_pair *front = queue_at(pool, 0);
    struct resting_pair *drawn = front;
    struct resting_pair pair;

    while (pool->rested < pool->resting && queue_at(pool, pool->rested)->rested_ms <= now_ms)
        pool->rested++;
    if (pool->rested)
        drawn = queue_at(pool, arc4random_uniform((uint32_t)pool->rested));
    pair = *drawn;
    *drawn = *front;
    *front = pair;
}

static bool queue_pop(struct port_pool *pool, struct resting_pair *pair)
{
    bool is_there;

    pthread_mutex_lock(&pool->lock);
    is_there = pool->resting > 0;
    if (is_there) {
        queue_draw(pool);
        *pair = *queue_at(pool, 0);
        pool->first = (pool->first + 1) % pool->size;
        pool->resting--;
        pool->rested -= pool->rested > 0;
    }
    pthread_mutex_unlock(&pool->lock);
    return is_there;
}

static void queue_push(struct port_pool *pool, size_t index)
{
    struct resting_pair pair = { .index = index, .rested_ms = clock_ms() + PORT_POOL_REST_MS };

    pthread_mutex_lock(&pool->lock);
    *queue_at(pool, pool->resting++) = pair;
    pthread_mutex_unlock(&pool->lock);
}

/* For a pair that was popped but could not be tried: its turn is not over. Others
 * that rested longer may have been put back meanwhile, and stay before it. */
static void queue_put_back(struct port_pool *pool, const struct resting_pair *pair)
{
    size_t place = 0;

    pthread_mutex_lock(&pool->lock);
    pool->first = (pool->first + pool->size - 1) % pool->size;
    for (; place < pool->resting && queue_at(pool, place + 1)->rested_ms < pair->rested_ms; place++)
        *queue_at(pool, place) = *queue_at(pool, place + 1);
    *queue_at(pool, place) = *pair;
    pool->resting++;
    pool->rested += place < pool->rested;
    pthread_mutex_unlock(&pool->lock);
}

/* EACCES: a port that only root may have is as good as held. */
static bool is_held_by_another(int err)
{
    return err == -EADDRINUSE || err == -EACCES;
}

int port_pool_take(struct port_pool *pool, struct port_pair *pair)
{
    size_t tries = port_pool_resting(pool);

    while (tries--) {
        struct resting_pair popped;
        int err;

        if (!queue_pop(pool, &popped))
            break;
        err = pair_listen(pool, popped.index, pair);
        if (!err)
            return 0;
        if (!is_held_by_another(err)) {
            queue_put_back(pool, &popped);
            return err;
        }
        queue_push(pool, popped.index);
    }
    return -EADDRNOTAVAIL;
}

void port_pool_give(struct port_pool *pool, const struct port_pair *pair)
{
    queue_push(pool, pair->index);
}

size_t port_pool_size(const struct port_pool *pool)
{
    return pool->size;
}

size_t port_pool_resting(struct port_pool *pool)
{
    size_t resting;

    pthread_mutex_lock(&pool->lock);
    resting = pool->resting;
    pthread_mutex_unlock(&pool->lock);
    return resting;
}

ptrdiff_t port_pool_index(const struct port_pool *pool, uint16_t server_port)
{
    ptrdiff_t offset = (ptrdiff_t)server_port - pool->port_low;

    if (offset < 0 || offset % 2 || (size_t)offset / 2 >= pool->size)
        return -1;
    return offset / 2;
}
