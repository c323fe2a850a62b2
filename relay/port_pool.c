#include "relay/port_pool.h"

#include "relay/socket.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

/* One connection each is wanted; a few more may knock before it is there. */
enum { PAIR_BACKLOG = 16 };

struct port_pool {
    struct net_address address;
    uint16_t port_low;
    size_t size;                        /* pairs in all */

    pthread_mutex_t lock;
    size_t first;                       /* guarded by lock: where the longest-rested stands */
    size_t resting;                     /* guarded by lock: how many stand in the queue */
    size_t queue[];                     /* guarded by lock: a ring of size indexes */
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
    pool->size = pool->resting = size;
    for (size_t i = 0; i < size; i++)
        pool->queue[i] = i;
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

static int listen_on(const struct port_pool *pool, uint16_t port)
{
    struct net_address address = pool->address;

    net_address_set_port(&address, port);
    return socket_listen(&address, PAIR_BACKLOG);
}

static int pair_listen(const struct port_pool *pool, size_t index, struct port_pair *pair)
{
    pair->index = index;
    pair->server_port = (uint16_t)(pool->port_low + 2 * index);
    pair->client_listener = -1;
    pair->server_listener = listen_on(pool, pair->server_port);
    if (pair->server_listener < 0)
        return pair->server_listener;
    pair->client_listener = listen_on(pool, (uint16_t)(pair->server_port + 1));
    if (pair->client_listener >= 0)
        return 0;
    close(pair->server_listener);
    pair->server_listener = -1;
    return pair->client_listener;
}

static ptrdiff_t queue_pop(struct port_pool *pool)
{
    ptrdiff_t index = -1;

    pthread_mutex_lock(&pool->lock);
    if (pool->resting) {
        index = (ptrdiff_t)pool->queue[pool->first];
        pool->first = (pool->first + 1) % pool->size;
        pool->resting--;
    }
    pthread_mutex_unlock(&pool->lock);
    return index;
}

static void queue_push(struct port_pool *pool, size_t index)
{
    pthread_mutex_lock(&pool->lock);
    pool->queue[(pool->first + pool->resting++) % pool->size] = index;
    pthread_mutex_unlock(&pool->lock);
}

/* For a pair that was popped but could not be tried: it rested longest still. */
static void queue_push_front(struct port_pool *pool, size_t index)
{
    pthread_mutex_lock(&pool->lock);
    pool->first = (pool->first + pool->size - 1) % pool->size;
    pool->queue[pool->first] = index;
    pool->resting++;
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
        ptrdiff_t index = queue_pop(pool);
        int err;

        if (index < 0)
            break;
        err = pair_listen(pool, (size_t)index, pair);
        if (!err)
            return 0;
        if (!is_held_by_another(err)) {
            queue_push_front(pool, (size_t)index);
            return err;
        }
        queue_push(pool, (size_t)index);
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
