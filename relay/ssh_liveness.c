/* Whether a server is still there. */
#include "relay/ssh_carrier.h"

enum {
    PING_MS_MAX = 12000,                /* a dead server is noticed within a minute */
    PINGS_UNANSWERED_MAX = 5
};

/* A question whose answer is always no: to take back a forward of the server's,
 * which has none. libssh's keepalive asks for no answer, and so proves nothing of a
 * server that stands still. */
static void ping(struct carrier *carrier)
{
    carrier->is_pinged = ssh_channel_cancel_forward(carrier->entrant.session, "", 0) == SSH_AGAIN;
}

static int64_t ping_interval_ms(const struct carrier *carrier)
{
    return clock_earlier(carrier->settings.keepalive_ms, PING_MS_MAX);
}

void liveness_begin(struct carrier *carrier, int64_t now_ms)
{
    carrier->heard_ms = now_ms;
    carrier->ping_ms = now_ms + ping_interval_ms(carrier);
}

int64_t liveness_look(struct carrier *carrier, int64_t now_ms)
{
    int64_t interval_ms = ping_interval_ms(carrier);
    int64_t dead_ms;

    if (carrier->counter.in_bytes != carrier->heard_bytes || carrier->is_held_up) {
        carrier->heard_bytes = carrier->counter.in_bytes;
        carrier->heard_ms = now_ms;
        carrier->ping_ms = now_ms + interval_ms;
    }
    dead_ms = carrier->heard_ms + PINGS_UNANSWERED_MAX * interval_ms;
    if (now_ms >= dead_ms)
        carrier_fail(carrier, "the server does not answer any more");
    if (now_ms >= carrier->ping_ms && !carrier->failure) {
        carrier->ping_ms = now_ms + interval_ms;
        if (carrier->is_pinged)         /* fetches an answer, or finds that there is none */
            ping(carrier);
        if (!carrier->is_pinged)
            ping(carrier);
    }
    return clock_earlier(carrier->ping_ms, dead_ms);
}
