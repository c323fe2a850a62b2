/* byte_queue: bytes that wait for a slow reader, first in, first out.
 *
 * Takes memory for what it holds, and none when it is empty. Belongs to one thread. */
#ifndef RELAY_BYTE_QUEUE_H
#define RELAY_BYTE_QUEUE_H

#include <stddef.h>

struct byte_chunk;

struct byte_queue {                     /* all zero: empty */
    struct byte_chunk *first, *last;
    size_t count;                       /* bytes in all */
};

/* 0, or -ENOMEM, and then it has a part of them. */
int byte_queue_put(struct byte_queue *queue, const void *bytes, size_t count);

/* The bytes that are to go next, as many as lie together: *count, 0 if there are none. */
const void *byte_queue_look(const struct byte_queue *queue, size_t *count);

/* So many of those that byte_queue_look has shown have gone. */
void byte_queue_drop(struct byte_queue *queue, size_t count);

void byte_queue_clear(struct byte_queue *queue);

#endif
