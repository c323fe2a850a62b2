#include "relay/byte_queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Below what malloc takes straight from the kernel, and gives back to it each time. */
enum { CHUNK_BYTES = 32 * 1024 };

struct byte_chunk {
    struct byte_chunk *next;
    size_t start, end;                  /* of the bytes that it holds */
    char bytes[CHUNK_BYTES];
};

/* Room at the end: in the last chunk, or in a new one. */
static struct byte_chunk *room_at_end(struct byte_queue *queue)
{
    struct byte_chunk *chunk = queue->last;

    if (chunk && chunk->end < CHUNK_BYTES)
        return chunk;
    chunk = malloc(sizeof *chunk);
    if (!chunk)
        return NULL;
    chunk->next = NULL;
    chunk->start = chunk->end = 0;
    if (queue->last)
        queue->last->next = chunk;
    else
        queue->first = chunk;
    queue->last = chunk;
    return chunk;
}

int byte_queue_put(struct byte_queue *queue, const void *bytes, size_t count)
{
    const char *from = bytes;

    while (count) {
        struct byte_chunk *chunk = room_at_end(queue);
        size_t part;

        if (!chunk)
            return -ENOMEM;
        part = CHUNK_BYTES - chunk->end < count ? CHUNK_BYTES - chunk->end : count;
        memcpy(chunk->bytes + chunk->end, from, part);
        chunk->end += part;
        queue->count += part;
        from += part;
        count -= part;
    }
    return 0;
}

const void *byte_queue_look(const struct byte_queue *queue, size_t *count)
{
    const struct byte_chunk *chunk = queue->first;

    *count = chunk ? chunk->end - chunk->start : 0;
    return chunk ? chunk->bytes + chunk->start : NULL;
}

void byte_queue_drop(struct byte_queue *queue, size_t count)
{
    struct byte_chunk *chunk = queue->first;

    queue->count -= count;
    if (!chunk)
        return;
    chunk->start += count;
    if (chunk->start < chunk->end)
        return;
    queue->first = chunk->next;
    if (!queue->first)
        queue->last = NULL;
    free(chunk);
}

void byte_queue_clear(struct byte_queue *queue)
{
    while (queue->first)
        byte_queue_drop(queue, queue->first->end - queue->first->start);
}
