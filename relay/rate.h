/* rate: so many bytes a second, as an allowance that grows with time and is used
 * up by reading.
 *
 * What isn't used is kept for a second at most. Belongs to one thread. */
#ifndef RELAY_RATE_H
#define RELAY_RATE_H

#include <stdint.h>

struct rate {
    int64_t bytes_per_s;                /* 0: no limit, and the rest has no meaning */
    int64_t allowance;                  /* bytes that may be read now; never below 0 */
    int64_t grown_ms;                   /* of clock_ms: up to when the allowance has grown */
};

/* A second's worth may be used at once. */
void rate_init(struct rate *rate, int64_t bytes_per_s, int64_t now_ms);

/* Adds what has come since the last time. */
void rate_grow(struct rate *rate, int64_t now_ms);

/* When it is worth growing next: INT64_MAX, unless the allowance is used up. */
int64_t rate_next_ms(const struct rate *rate);

#endif
