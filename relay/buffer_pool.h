/* buffer_pool: the buffers that bytes pass through, shared by all relaying
 * threads of the process.
 *
 * A relay holds a buffer only while bytes are in flight, so a tunnel that is
 * silent costs none. Thread-safe. */
#ifndef RELAY_BUFFER_POOL_H
#define RELAY_BUFFER_POOL_H

enum { BUFFER_BYTES = 64 * 1024 };

/* A buffer of BUFFER_BYTES, or NULL when there is no memory. */
char *buffer_pool_take(void);

/* Gives a buffer back; NULL is ignored. */
void buffer_pool_give(char *buffer);

/* Frees the buffers at rest. */
void buffer_pool_free_resting(void);

#endif
