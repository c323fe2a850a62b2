#include "relay/buffer_pool.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>

/* Buffers at rest are kept up to this many; more go back to the system. */
enum { RESTING_MAX = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *resting[RESTING_MAX];      /* guarded by lock */
static size_t resting_count;            /* guarded by lock */

char *buffer_pool_take(void)
{
    char *buffer = NULL;

    pthread_mutex_lock(&lock);
    if (resting_count)
        buffer = resting[--resting_count];
    pthread_mutex_unlock(&lock);
    return buffer ? buffer : malloc(BUFFER_BYTES);
}

void buffer_pool_give(char *buffer)
{
    if (!buffer)
        return;
    pthread_mutex_lock(&lock);
    if (resting_count < RESTING_MAX) {
        resting[resting_count++] = buffer;
        buffer = NULL;
    }
    pthread_mutex_unlock(&lock);
    free(buffer);
}

void buffer_pool_free_resting(void)
{
    pthread_mutex_lock(&lock);
    while (resting_count)
        free(resting[--resting_count]);
    pthread_mutex_unlock(&lock);
}
