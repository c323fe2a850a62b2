/* backoff: how long to wait before the next try: 1 s, doubled each time up to 30 s,
 * less a random part, so that many agents of a proxy that was restarted don't come
 * all at once. */
#ifndef CLIENTS_BACKOFF_H
#define CLIENTS_BACKOFF_H

enum { BACKOFF_LAST_MS = 30000 };

struct backoff {
    int next_ms;                        /* 0: it has gone well so far */
};

/* The wait that is due now, in milliseconds. */
int backoff_take(struct backoff *backoff);

/* It has gone well. */
static inline void backoff_reset(struct backoff *backoff)
{
    backoff->next_ms = 0;
}

#endif
