#include "relay/refusals.h"

#include "relay/log.h"
#include "relay/waker.h"

#include <pthread.h>
#include <stdbool.h>

enum { LINE_EVERY_MS = 60000 };

static const char *const names[LIMITS] = {
    [LIMIT_MAX_TUNNELS]             = "max-tunnels",
    [LIMIT_TUNNELS_PER_USER]        = "tunnels-per-user",
    [LIMIT_TUNNELS_PER_ADDRESS]     = "tunnels-per-address",
    [LIMIT_OPENS_PER_MINUTE]        = "opens-per-minute",
    [LIMIT_CONNECTIONS]             = "connections",
    [LIMIT_CONNECTIONS_PER_ADDRESS] = "connections-per-address",
    [LIMIT_REQUEST_TIMEOUT]         = "request-timeout",
    [LIMIT_REQUEST_SIZE]            = "request-size",
    [LIMIT_SSH_HANDSHAKES]          = "ssh-handshakes",
    [LIMIT_SSH_HANDSHAKES_PER_ADDRESS] = "ssh-handshakes-per-address",
    [LIMIT_SSH_LOGIN_TIMEOUT]       = "ssh-login-timeout",
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    unsigned long long total, untold;
    int64_t next_line_ms;
} counts[LIMITS];                       /* guarded by lock */

const char *limit_name(enum limit limit)
{
    return names[limit];
}

/* What has not been told yet, unless it has to wait for its minute; how long the limit
 * may then be left alone. */
static int64_t tell(enum limit limit, int64_t now_ms, bool waits)
{
    unsigned long long untold, total;
    int64_t wait_ms = LINE_EVERY_MS;

    pthread_mutex_lock(&lock);
    untold = counts[limit].untold;
    total = counts[limit].total;
    if (untold && waits && now_ms < counts[limit].next_line_ms) {
        wait_ms = counts[limit].next_line_ms - now_ms;
        untold = 0;
    } else if (untold) {
        counts[limit].untold = 0;
        counts[limit].next_line_ms = now_ms + LINE_EVERY_MS;
    }
    pthread_mutex_unlock(&lock);
    if (untold)
        log_write(LOG_WARNING, "the limit %s refused %llu, %llu since the start", names[limit],
                  untold, total);
    return wait_ms;
}

void refusals_count(enum limit limit)
{
    pthread_mutex_lock(&lock);
    counts[limit].total++;
    counts[limit].untold++;
    pthread_mutex_unlock(&lock);
    tell(limit, clock_ms(), true);
}

int64_t refusals_log_due(int64_t now_ms)
{
    int64_t next_ms = LINE_EVERY_MS;

    for (enum limit limit = 0; limit < LIMITS; limit++) {
        int64_t wait_ms = tell(limit, now_ms, true);

        next_ms = wait_ms < next_ms ? wait_ms : next_ms;
    }
    return next_ms;
}

void refusals_log_rest(void)
{
    for (enum limit limit = 0; limit < LIMITS; limit++)
        tell(limit, clock_ms(), false);
}
