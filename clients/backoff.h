/* backoff: when to try again after a try that failed, or a connection that was lost: in
 * 1 s, doubled each time up to 30 s, less a random part, so that many agents of a proxy
 * that was restarted don't come all at once. It starts anew after a connection that
 * lasted for the longest of these times. All times are clock_ms's.
 *
 * It also knows when to give a tunnel up that turns away who attaches: not before a minute,
 * in which the proxy may only have no place, while it has not noticed yet that connections
 * were lost. */
#ifndef CLIENTS_BACKOFF_H
#define CLIENTS_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

enum {
    BACKOFF_LAST_MS = 30000,
    BACKOFF_REFUSALS = 4,               /* the fewest for which a tunnel is given up, */
    BACKOFF_PATIENCE_MS = 60000         /* and the time since the first of them */
};

struct backoff {                        /* zeros at first */
    int64_t next_ms;                    /* no try before that */
    int64_t attached_ms;                /* when a try went well, the last time */
    int whole_ms;                       /* what the next wait is a part of; 0: the first */
    unsigned refusals;                  /* of the tunnel, in a row */
    int64_t refused_ms;                 /* when the first of them was */
};

void backoff_attached(struct backoff *backoff, int64_t now_ms);

/* In how many ms the next try is due: after a try that failed; and after the loss of
 * what was attached. What happens while a try is waited for does not put it off. */
int backoff_failed(struct backoff *backoff, int64_t now_ms);
int backoff_lost(struct backoff *backoff, int64_t now_ms);

/* The tunnel has turned away who attached; it has not, or is another by now. */
void backoff_refused(struct backoff *backoff, int64_t now_ms);
void backoff_not_refused(struct backoff *backoff);
bool backoff_gives_up(const struct backoff *backoff, int64_t now_ms);

#endif
