#include "relay/refusals.h"

#include "relay/log.h"
#include "relay/waker.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

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

/* Takes what there is to tell; false: nothing, or not yet. */
static bool take(enum limit limit, bool is_refused, unsigned long long *untold,
                 unsigned long long *total)
{
    int64_t now_ms = clock_ms();
    bool tells;

    pthread_mutex_lock(&lock);
    counts[limit].total += is_refused;
    counts[limit].untold += is_refused;
    tells = counts[limit].untold && (!is_refused || now_ms >= counts[limit].next_line_ms);
    if (tells) {
        *untold = counts[limit].untold;
        *total = counts[limit].total;
        counts[limit].untold = 0;
        counts[limit].next_line_ms = now_ms + LINE_EVERY_MS;
    }
    pthread_mutex_unlock(&lock);
    return tells;
}

static void tell(enum limit limit, bool is_refused)
{
    unsigned long long untold, total;

    if (take(limit, is_refused, &untold, &total))
        log_write(LOG_WARNING, "the limit %s refused %llu, %llu since the start", names[limit],
                  untold, total);
}

void refusals_count(enum limit limit)
{
    tell(limit, true);
}

void refusals_log_rest(void)
{
    for (enum limit limit = 0; limit < LIMITS; limit++)
        tell(limit, false);
}
