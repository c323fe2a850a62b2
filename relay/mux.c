#include "relay/mux.h"

#include "relay/mux_private.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    EVENTS_A_TURN = 128,
    SILENT_MS = 2000                    /* without an answer to an opening */
};

int mux_init(struct mux *mux, const struct mux_handler *handler, const struct mux_limits *limits)
{
    *mux = (struct mux){ .handler = handler, .limits = *limits, .now_ms = clock_ms(),
                         .look_ms = INT64_MAX };
    mux->growth.bytes_max = limits->growth_bytes;
    rate_init(&mux->rate, limits->bytes_per_s, mux->now_ms);
    TAILQ_INIT(&mux->carriers);
    TAILQ_INIT(&mux->over);
    TAILQ_INIT(&mux->ended);
    TAILQ_INIT(&mux->held);
    mux->epoll = epoll_create1(EPOLL_CLOEXEC);
    return mux->epoll < 0 ? -errno : 0;
}

/* They may still be among the events of the turn, so that they go when it ends. */
static void free_ended(struct mux *mux)
{
    struct mux_carrier *carrier;
    struct mux_stream *stream;

    while ((carrier = TAILQ_FIRST(&mux->over))) {
        TAILQ_REMOVE(&mux->over, carrier, entry);
        mux_carrier_free(carrier);
    }
    while ((stream = TAILQ_FIRST(&mux->ended))) {
        TAILQ_REMOVE(&mux->ended, stream, entry);
        free(stream);
    }
}

static void stop_carrier(struct mux_carrier *carrier)
{
    struct mux_stream *stream;

    while ((stream = TAILQ_FIRST(&carrier->streams)))
        mux_stream_break(stream, "stopped");
    mux_carrier_fail(carrier, "stopped");
}

void mux_stop(struct mux *mux)
{
    struct mux_carrier *carrier;

    while ((carrier = TAILQ_FIRST(&mux->carriers)))
        stop_carrier(carrier);
    free_ended(mux);
}

void mux_close(struct mux *mux)
{
    mux_stop(mux);
    close(mux->epoll);
}

static int control(struct mux *mux, int operation, int fd, uint32_t events,
                   struct mux_source *source)
{
    struct epoll_event event = { .events = events, .data.ptr = source };

    return epoll_ctl(mux->epoll, operation, fd, &event) < 0 ? -errno : 0;
}

int mux_watch(struct mux *mux, int fd, uint32_t events, struct mux_source *source)
{
    return control(mux, EPOLL_CTL_ADD, fd, events, source);
}

int mux_watch_again(struct mux *mux, int fd, uint32_t events, struct mux_source *source)
{
    return control(mux, EPOLL_CTL_MOD, fd, events, source);
}

int mux_forget(struct mux *mux, int fd)
{
    return control(mux, EPOLL_CTL_DEL, fd, 0, NULL);
}

size_t mux_allowed(const struct mux *mux, size_t count)
{
    if (!mux->rate.bytes_per_s || mux->rate.allowance >= (int64_t)count)
        return count;
    return (size_t)mux->rate.allowance;
}

void mux_use_up(struct mux *mux, size_t count)
{
    if (mux->rate.bytes_per_s)
        mux->rate.allowance -= (int64_t)count;
}

static void look_at_time(struct mux *mux)
{
    const struct mux_carrier *carrier;
    struct mux_stream *stream, *next;

    mux->look_ms = INT64_MAX;
    for (carrier = TAILQ_FIRST(&mux->carriers); carrier; carrier = TAILQ_NEXT(carrier, entry)) {
        for (stream = TAILQ_FIRST(&carrier->streams); stream; stream = next) {
            next = TAILQ_NEXT(stream, sibling);
            mux_stream_look(stream, &mux->look_ms);
        }
    }
}

static struct mux_stream *fullest_stream(const struct mux *mux)
{
    const struct mux_carrier *carrier;
    struct mux_stream *stream, *fullest = NULL;

    for (carrier = TAILQ_FIRST(&mux->carriers); carrier; carrier = TAILQ_NEXT(carrier, entry)) {
        for (stream = TAILQ_FIRST(&carrier->streams); stream; stream = TAILQ_NEXT(stream, sibling)) {
            if (!fullest || stream->queue.count > fullest->queue.count)
                fullest = stream;
        }
    }
    return fullest;
}

/* Each in its turn, which is not over before its socket or the rate takes no more. */
static void deliver_held(struct mux *mux)
{
    struct mux_stream *stream;

    while ((stream = TAILQ_FIRST(&mux->held)) && mux_allowed(mux, 1))
        mux_stream_deliver(stream);
}

static void move_carriers(struct mux *mux)
{
    struct mux_carrier *used_up = NULL;     /* what the rate allowed */
    struct mux_carrier *carrier, *next;

    for (carrier = TAILQ_FIRST(&mux->carriers); carrier; carrier = next) {
        bool was_allowed = mux_allowed(mux, 1);

        next = TAILQ_NEXT(carrier, entry);
        mux_carrier_move(carrier);
        if (was_allowed && !mux_allowed(mux, 1) && !carrier->failure)
            used_up = carrier;
    }
    if (used_up) {                          /* the next time it comes last */
        TAILQ_REMOVE(&mux->carriers, used_up, entry);
        TAILQ_INSERT_TAIL(&mux->carriers, used_up, entry);
    }
}

/* Where the rate does not suffice for both directions, each comes first in its turn: one
 * that has bytes all the time would leave the other nothing. */
static void move_all(struct mux *mux)
{
    bool was_allowed = mux_allowed(mux, 1);

    mux->has_more = false;
    if (!mux->reads_sockets_first)
        deliver_held(mux);
    move_carriers(mux);
    deliver_held(mux);
    if (was_allowed && !mux_allowed(mux, 1))
        mux->reads_sockets_first = !mux->reads_sockets_first;
    while (mux->waiting > mux->limits.waiting_bytes) {
        mux_stream_break(fullest_stream(mux), "too much waits for slow readers");
        mux->has_more = true;
    }
}

/* When there is something to do though nothing happens. */
static int64_t next_ms(const struct mux *mux)
{
    if (mux->has_more)
        return 0;
    return clock_earlier(mux->look_ms, rate_next_ms(&mux->rate));
}

int mux_turn(struct mux *mux, struct waker *waker, int64_t deadline_ms)
{
    struct epoll_event events[EVENTS_A_TURN];
    int ready = waker_epoll(waker, mux->epoll, events, EVENTS_A_TURN,
                            clock_earlier(deadline_ms, next_ms(mux)));

    if (ready < 0)
        return ready;
    mux->now_ms = clock_ms();
    rate_grow(&mux->rate, mux->now_ms);
    for (int i = 0; i < ready; i++) {
        struct mux_source *source = events[i].data.ptr;

        source->ready(source, events[i].events);
    }
    if (mux->now_ms >= mux->look_ms)
        look_at_time(mux);
    move_all(mux);                      /* what follows from all that, too */
    free_ended(mux);
    return 0;
}

static bool is_better(const struct mux_carrier *carrier, const struct mux_carrier *than)
{
    int64_t now_ms = carrier->mux->now_ms;
    bool is_silent = carrier->asked_ms && now_ms >= carrier->asked_ms + SILENT_MS;
    bool other_is = than && than->asked_ms && now_ms >= than->asked_ms + SILENT_MS;

    if (!than || is_silent != other_is)
        return !than || other_is;
    return webmux_count(&carrier->webmux) < webmux_count(&than->webmux);
}

struct mux_carrier *mux_choose_carrier(struct mux *mux)
{
    struct mux_carrier *chosen = NULL;
    struct mux_carrier *carrier;

    for (carrier = TAILQ_FIRST(&mux->carriers); carrier; carrier = TAILQ_NEXT(carrier, entry)) {
        if (!carrier->hung_up && webmux_has_room(&carrier->webmux) && is_better(carrier, chosen))
            chosen = carrier;
    }
    return chosen;
}

bool mux_has_sent_all(const struct mux *mux)
{
    const struct mux_carrier *carrier;

    for (carrier = TAILQ_FIRST(&mux->carriers); carrier; carrier = TAILQ_NEXT(carrier, entry)) {
        if (!mux_carrier_has_sent_all(carrier))
            return false;
    }
    return true;
}
