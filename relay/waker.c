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
        int64_t wait_ms = -1;

        if (waker_was_asked(waker))
            return -ECANCELED;
        if (waker && atomic_exchange(&waker->nudged, false))
            return -EAGAIN;
        if (deadline_ms != INT64_MAX) {
            wait_ms = deadline_ms - clock_ms();
            if (wait_ms < 0)
                wait_ms = 0;
        }
        ready = poll_once(polled, count, wait_ms, waker ? &waiting_mask : NULL);
    } while (ready == -EINTR);
    return ready;
}
