#include "relay/duplex.h"

#include "relay/flow.h"
#include "relay/rate.h"

#include <errno.h>

/* What to wait for on a socket that in reads from and out writes to. Resets are
 * told without asking; but so is, for ever, that the socket is through both
 * ways, so that one is left out while nothing is wanted of it. */
static struct pollfd interest(const struct flow *in, const struct flow *out)
{
    struct pollfd polled = { .fd = in->from };

    if (flow_wants_bytes(in))
        polled.events |= POLLIN;
    if (out->pending)
        polled.events |= POLLOUT;
    if (!polled.events && in->hung_up)
        polled.fd = -1;
    return polled;
}

static enum duplex_end end_of_error(int err)
{
    switch (-err) {
    case ECONNRESET: case EPIPE: case ETIMEDOUT: case EHOSTUNREACH: case ENETUNREACH:
    case ENOTCONN: case ECONNABORTED: case ENETDOWN: case EHOSTDOWN: case EPROTO:
        return DUPLEX_RESET;
    default:
        return DUPLEX_FAILED;
    }
}

struct duplex {
    struct flow from_a, from_b;
    const struct duplex_limits *limits;
    int64_t moved_last_ms;              /* when a byte or an end last passed */
    int64_t lingers_since_ms;           /* the same, or when a look last found no silence */
    bool bytes_waited;                  /* for a slow reader, at the last such look */
    struct rate rate;                   /* of both flows together */
    bool b_is_first;                    /* in turns, or else one would use up a rate for ever */
};

static bool half_open(const struct duplex *duplex)
{
    return duplex->from_a.ended != duplex->from_b.ended;
}

static bool is_held_back(const struct duplex *duplex)
{
    return duplex->rate.bytes_per_s && duplex->rate.allowance <= 0;
}

static int64_t deadline(const struct duplex *duplex)
{
    int64_t deadline_ms = clock_earlier(duplex->limits->until_ms, rate_next_ms(&duplex->rate));

    if (is_held_back(duplex))
        return deadline_ms;
    if (duplex->limits->idle_ms)
        deadline_ms = clock_earlier(deadline_ms,
                                    duplex->moved_last_ms + duplex->limits->idle_ms);
    if (half_open(duplex))
        deadline_ms = clock_earlier(deadline_ms,
                                    duplex->lingers_since_ms + duplex->limits->linger_ms);
    return deadline_ms;
}

/* Whether nobody had anything to do for the linger time. Bytes that wait for a slow
 * reader are no silence, whichever way they go: also of the direction that has
 * ended, they may be in a socket's buffer still. Nothing tells when the last of
 * them leaves, so that from the next look on a new linger time begins. */
static bool lingered(struct duplex *duplex, int64_t now_ms)
{
    bool waited_before = duplex->bytes_waited;

    duplex->lingers_since_ms = now_ms;
    duplex->bytes_waited = !flow_is_silent(&duplex->from_a) || !flow_is_silent(&duplex->from_b);
    return !duplex->bytes_waited && !waited_before;
}

/* Whether a deadline has passed that ends the relay, and which. While bytes were held
 * back by their rate, nobody was silent. */
static bool timed_out(struct duplex *duplex, bool was_held_back, enum duplex_end *end)
{
    int64_t now_ms = clock_ms();

    *end = DUPLEX_EXPIRED;
    if (now_ms >= duplex->limits->until_ms)
        return true;
    if (was_held_back)
        return false;
    *end = DUPLEX_IDLE;
    if (duplex->limits->idle_ms && now_ms >= duplex->moved_last_ms + duplex->limits->idle_ms)
        return true;
    *end = DUPLEX_LINGERED;
    return half_open(duplex) && now_ms >= duplex->lingers_since_ms + duplex->limits->linger_ms &&
           lingered(duplex, now_ms);
}

static uint64_t progress(const struct duplex *duplex)
{
    return duplex->from_a.bytes + duplex->from_b.bytes + duplex->from_a.ended +
           duplex->from_b.ended;
}

static int move_both(struct duplex *duplex, bool a_is_readable, bool b_is_readable)
{
    uint64_t before = progress(duplex);
    int err = 0;

    if (duplex->rate.bytes_per_s)
        rate_grow(&duplex->rate, clock_ms());
    if (duplex->b_is_first)
        err = flow_move(&duplex->from_b, b_is_readable);
    if (!err)
        err = flow_move(&duplex->from_a, a_is_readable);
    if (!err && !duplex->b_is_first)
        err = flow_move(&duplex->from_b, b_is_readable);
    if (progress(duplex) != before) {
        duplex->moved_last_ms = duplex->lingers_since_ms = clock_ms();
        duplex->b_is_first = !duplex->b_is_first;
    }
    return err;
}

/* Waits, moves, waits ... until there is a reason to stop. */
static enum duplex_end duplex_relay(struct duplex *duplex, struct waker *waker)
{
    while (!duplex->from_a.ended || !duplex->from_b.ended) {
        struct pollfd polled[2] = {
            interest(&duplex->from_a, &duplex->from_b),
            interest(&duplex->from_b, &duplex->from_a),
        };
        uint64_t before = progress(duplex);
        bool was_held_back = is_held_back(duplex);
        enum duplex_end end;
        int ready = waker_poll(waker, polled, 2, deadline(duplex));
        int err;

        if (ready == -ECANCELED)
            return DUPLEX_STOPPED;
        if (ready < 0)
            return DUPLEX_FAILED;
        duplex->from_a.hung_up |= polled[0].revents & POLLHUP;
        duplex->from_b.hung_up |= polled[1].revents & POLLHUP;
        /* With a reset there may be bytes that came before it. */
        err = move_both(duplex, polled[0].revents & ~POLLOUT, polled[1].revents & ~POLLOUT);
        if ((polled[0].revents | polled[1].revents) & POLLERR)
            return DUPLEX_RESET;
        if (err)
            return end_of_error(err);
        if (duplex->moved_last_ms >= duplex->limits->until_ms)
            return DUPLEX_EXPIRED;      /* however busy it is */
        if (progress(duplex) == before && timed_out(duplex, was_held_back, &end))
            return end;
    }
    return DUPLEX_FINISHED;
}

struct duplex_result duplex_run(int a, int b, const struct duplex_limits *limits,
                                struct waker *waker)
{
    struct duplex duplex = { .limits = limits, .moved_last_ms = clock_ms() };
    struct duplex_result result;

    duplex.lingers_since_ms = duplex.moved_last_ms;
    flow_init(&duplex.from_a, a, b);
    flow_init(&duplex.from_b, b, a);
    rate_init(&duplex.rate, limits->bytes_per_s, duplex.moved_last_ms);
    if (limits->bytes_per_s)
        duplex.from_a.allowance = duplex.from_b.allowance = &duplex.rate.allowance;
    result.end = duplex_relay(&duplex, waker);
    flow_release(&duplex.from_a);
    flow_release(&duplex.from_b);
    result.bytes_from_a = duplex.from_a.bytes;
    result.bytes_from_b = duplex.from_b.bytes;
    return result;
}

const char *duplex_end_text(enum duplex_end end)
{
    switch (end) {
    case DUPLEX_FINISHED: return "finished";
    case DUPLEX_RESET:    return "reset by a peer";
    case DUPLEX_LINGERED: return "one side ended, the other was silent for too long";
    case DUPLEX_IDLE:     return "idle for too long";
    case DUPLEX_EXPIRED:  return "its lifetime is over";
    case DUPLEX_STOPPED:  return "stopped";
    case DUPLEX_FAILED:   return "failed for lack of memory or descriptors";
    }
    return "?";
}
