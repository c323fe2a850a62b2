#include "relay/waker.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <time.h>

/* Of the real-time signals, which no library here uses. */
#define WAKE_SIGNAL (SIGRTMIN + 1)

/* What owners block while they wait: all other signals. Set up with the process. */
static sigset_t waiting_mask;

static void ignore(int signal_number)
{
    (void)signal_number;
}

int waker_set_up_process(void)
{
    struct sigaction action = { .sa_handler = ignore };
    sigset_t wake;

    sigfillset(&waiting_mask);
    sigdelset(&waiting_mask, WAKE_SIGNAL);
    sigemptyset(&wake);
    sigaddset(&wake, WAKE_SIGNAL);
    if (sigaction(WAKE_SIGNAL, &action, NULL) < 0)
        return -errno;
    return -pthread_sigmask(SIG_BLOCK, &wake, NULL);
}

void waker_own(struct waker *waker)
{
    waker->owner = pthread_self();
    atomic_store(&waker->owned, true);
}

/* Not owned yet: the owner finds the flag when it comes to wait. */
static void raise_flag(struct waker *waker, atomic_bool *flag)
{
    atomic_store(flag, true);
    if (atomic_load(&waker->owned))
        pthread_kill(waker->owner, WAKE_SIGNAL);
}

void waker_ask(struct waker *waker)
{
    raise_flag(waker, &waker->asked);
}

void waker_nudge(struct waker *waker)
{
    raise_flag(waker, &waker->nudged);
}

int64_t clock_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* 0, or what whoever waits is to return at once. */
static int look_up(struct waker *waker)
{
    if (waker_was_asked(waker))
        return -ECANCELED;
    return waker && atomic_exchange(&waker->nudged, false) ? -EAGAIN : 0;
}

/* Until deadline_ms; -1: for ever. */
static int64_t time_left_ms(int64_t deadline_ms)
{
    int64_t left_ms = deadline_ms == INT64_MAX ? -1 : deadline_ms - clock_ms();

    return left_ms < 0 && deadline_ms != INT64_MAX ? 0 : left_ms;
}

static int poll_once(struct pollfd *polled, nfds_t count, int64_t wait_ms, const sigset_t *mask)
{
    struct timespec wait = { .tv_sec = wait_ms / 1000, .tv_nsec = wait_ms % 1000 * 1000000 };
    int ready = ppoll(polled, count, wait_ms < 0 ? NULL : &wait, mask);

    return ready < 0 ? -errno : ready;
}

/* The flag is looked at while the signal is blocked, and only ppoll lets the
 * signal in: an asker that comes between the two still interrupts ppoll. */
int waker_poll(struct waker *waker, struct pollfd *polled, nfds_t count, int64_t deadline_ms)
{
    int ready;

    do {
        ready = look_up(waker);
        if (ready)
            return ready;
        ready = poll_once(polled, count, time_left_ms(deadline_ms), waker ? &waiting_mask : NULL);
    } while (ready == -EINTR);
    return ready;
}

static int epoll_once(int epoll, struct epoll_event *events, int count, int64_t wait_ms,
                      const sigset_t *mask)
{
    int ready = epoll_pwait(epoll, events, count, wait_ms < INT_MAX ? (int)wait_ms : INT_MAX, mask);

    return ready < 0 ? -errno : ready;
}

int waker_epoll(struct waker *waker, int epoll, struct epoll_event *events, int count,
                int64_t deadline_ms)
{
    int ready;

    do {
        ready = look_up(waker);
        if (ready)
            return ready;
        ready = epoll_once(epoll, events, count, time_left_ms(deadline_ms),
                           waker ? &waiting_mask : NULL);
    } while (ready == -EINTR);
    return ready;
}
