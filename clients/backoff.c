#include "clients/backoff.h"

#include "relay/waker.h"

#include <sys/random.h>

enum { BACKOFF_FIRST_MS = 1000 };

int backoff_take(struct backoff *backoff)
{
    int whole_ms = backoff->next_ms ? backoff->next_ms : BACKOFF_FIRST_MS;
    unsigned random = 0;

    if (getrandom(&random, sizeof random, GRND_NONBLOCK) < 0)
        random = (unsigned)clock_ms();
    backoff->next_ms = 2 * whole_ms < BACKOFF_LAST_MS ? 2 * whole_ms : BACKOFF_LAST_MS;
    return whole_ms / 2 + (int)(random % (unsigned)(whole_ms / 2));
}
