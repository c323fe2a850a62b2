/* backoff: when to try again after a try that failed, or a connection that was lost: in
 * 1 s, doubled each time up to 30 s, less a random part, so that many agents of a proxy
 * that was restarted don't come all at once. It starts anew after a connection that
 * lasted for the longest of these times. All times are clock_ms's. */
#ifndef CLIENTS_BACKOFF_H
#define CLIENTS_BACKOFF_H

#include <stdint.h>

enum { BACKOFF_LAST_MS = 30000 };

struct backoff {                        /* zeros at first */
    int64_t next_ms;                    /* no try before that */
    int64_t attached_ms;                /* when a try went well, the last time */
    int whole_ms;                       /* what the next wait is a part of; 0: the first */
};

void backoff_attached(struct backoff *backoff, int64_t now_ms);

/* In how many ms the next try is due: after a try that failed; and after the loss of
 * what was attached. What happens while a try is waited for does not put it off. */
int backoff_failed(struct backoff *backoff, int64_t now_ms);
int backoff_lost(struct backoff *backoff, int64_t now_ms);

#endif
