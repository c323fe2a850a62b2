/* waker: asks a thread that waits in waker_poll to look up.
 *
 * An asked thread needs no descriptor for it: the asker sets a flag and sends
 * the thread a signal that only waker_poll lets in. One waker belongs to one
 * thread, its owner; any other thread may call waker_ask while the owner is
 * alive, which the asker must make sure of (by the lock that guards the list
 * it found the waker in). */
#ifndef RELAY_WAKER_H
#define RELAY_WAKER_H

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct waker {                          /* all zero: nobody owns it yet, nobody asked */
    atomic_bool asked;
    atomic_bool nudged;
    atomic_bool owned;
    pthread_t owner;                    /* set before owned is */
};

/* Once in a process, before the first waker is used, in a thread whose signal
 * mask later threads inherit: installs the signal's handler and blocks it.
 * 0 or a negative errno. */
int waker_set_up_process(void);

/* By the thread that will wait: takes a zeroed waker, which others may have
 * asked already. */
void waker_own(struct waker *waker);

/* By anyone, at any time while the waker exists and its owner has not ended. */
void waker_ask(struct waker *waker);

/* The same, but the owner only looks up once: waker_poll returns -EAGAIN. */
void waker_nudge(struct waker *waker);

static inline bool waker_was_asked(struct waker *waker)
{
    return waker && atomic_load(&waker->asked);
}

/* As poll, by the owner: the number of ready entries, 0 when deadline_ms (of
 * clock_ms; INT64_MAX for none) has passed, -ECANCELED once the waker was
 * asked, -EAGAIN when it was nudged, another negative errno for a failure. Waits
 * again by itself when interrupted by other signals. waker may be NULL: then nobody
 * can ask, and the thread's signal mask stays as it is; an owner lets no other signal
 * in. */
int waker_poll(struct waker *waker, struct pollfd *polled, nfds_t count, int64_t deadline_ms);

/* The same for what an epoll descriptor watches. */
int waker_epoll(struct waker *waker, int epoll, struct epoll_event *events, int count,
                int64_t deadline_ms);

/* Milliseconds of a clock that only goes forward. */
int64_t clock_ms(void);

static inline int64_t clock_earlier(int64_t a_ms, int64_t b_ms)
{
    return a_ms < b_ms ? a_ms : b_ms;
}

#endif
