#include "clients/backoff.h"

#include <sys/random.h>

enum { BACKOFF_FIRST_MS = 1000 };

/* Between half the time and all of it. */
static int with_jitter(int whole_ms, int64_t now_ms)
{
    uint32_t random = 0;

    if (getrandom(&random, sizeof random, GRND_NONBLOCK) < 0)
        random = (uint32_t)now_ms;
    return whole_ms / 2 + (int)(random % (uint32_t)(whole_ms / 2));
}

void backoff_attached(struct backoff *backoff, int64_t now_ms)
{
    backoff->attached_ms = now_ms;
}

int backoff_failed(struct backoff *backoff, int64_t now_ms)
{
    int whole_ms = backoff->whole_ms ? backoff->whole_ms : BACKOFF_FIRST_MS;

    if (now_ms >= backoff->next_ms) {
        backoff->whole_ms = 2 * whole_ms < BACKOFF_LAST_MS ? 2 * whole_ms : BACKOFF_LAST_MS;
        backoff->next_ms = now_ms + with_jitter(whole_ms, now_ms);
    }
    return (int)(backoff->next_ms - now_ms);
}

int backoff_lost(struct backoff *backoff, int64_t now_ms)
{
    if (now_ms >= backoff->next_ms && now_ms - backoff->attached_ms >= BACKOFF_LAST_MS)
        backoff->whole_ms = 0;
    return backoff_failed(backoff, now_ms);
}

void backoff_refused(struct backoff *backoff, int64_t now_ms)
{
    if (!backoff->refusals++)
        backoff->refused_ms = now_ms;
}

void backoff_not_refused(struct backoff *backoff)
{
    backoff->refusals = 0;
}

bool backoff_gives_up(const struct backoff *backoff, int64_t now_ms)
{
    return backoff->refusals >= BACKOFF_REFUSALS &&
           now_ms - backoff->refused_ms > BACKOFF_PATIENCE_MS;
}
