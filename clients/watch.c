#include "clients/watch.h"

#include "clients/live_view.h"
#include "clients/screen.h"
#include "relay/waker.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { DRAW_MS = 500, STATISTICS_MS = 5000 };

struct watcher {
    struct report *report;
    struct exposure *exposures;
    unsigned count;
    int signals;
    bool live;
    struct live_view *view;
    int64_t next_ms;                    /* to draw, or to tell statistics */
    int status;
    bool is_over;
};

/* A signal that is blocked comes even if nohup, or a shell that has started the command in
 * the background, has had it ignored. */
static void add_unless_ignored(sigset_t *signals, int signal)
{
    struct sigaction action;

    if (sigaction(signal, NULL, &action) < 0 || action.sa_handler != SIG_IGN)
        sigaddset(signals, signal);
}

int watch_block_signals(bool live)
{
    sigset_t signals;
    int fd;

    sigemptyset(&signals);
    add_unless_ignored(&signals, SIGINT);
    add_unless_ignored(&signals, SIGTERM);
    add_unless_ignored(&signals, SIGHUP);
    if (live) {
        sigaddset(&signals, SIGTSTP);
        sigaddset(&signals, SIGCONT);
        sigaddset(&signals, SIGWINCH);
    }
    fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return -errno;
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    return fd;
}

static void take_signals(struct watcher *watcher)
{
    struct signalfd_siginfo taken;

    while (read(watcher->signals, &taken, sizeof taken) == sizeof taken) {
        switch (taken.ssi_signo) {
        case SIGTSTP:
            if (watcher->view)
                live_view_stop(watcher->view);
            else
                raise(SIGSTOP);
            break;
        case SIGCONT: case SIGWINCH:
            if (watcher->view)
                live_view_fit(watcher->view);
            break;
        default:
            watcher->is_over = true;
            watcher->status = STATUS_OK;
            return;
        }
    }
}

/* How it stands with the exposures. */
static void look_at_exposures(struct watcher *watcher)
{
    unsigned ended = 0, ready = 0;
    int status = STATUS_OK;

    for (unsigned i = 0; i < watcher->count; i++) {
        struct exposure *exposure = &watcher->exposures[i];

        ready += exposure->has_address;
        if (!exposure->has_ended)
            continue;
        ended++;
        if (exposure->status)
            status = exposure->status;
        /* The start can't be as asked. */
        if (exposure->status && !exposure->has_address)
            ended = watcher->count;
    }
    if (watcher->report->has_failed)
        status = STATUS_FAILED;
    if (watcher->report->has_failed || ended >= watcher->count) {
        watcher->is_over = true;
        watcher->status = status;
    } else if (watcher->live && !watcher->view && ready == watcher->count) {
        watcher->view = live_view_open(watcher->report, watcher->exposures, watcher->count);
        watcher->live = watcher->view != NULL;
    }
}

static void tell_statistics(struct watcher *watcher)
{
    for (unsigned i = 0; i < watcher->count; i++) {
        struct exposure *exposure = &watcher->exposures[i];
        struct tristero_statistics now;

        if (exposure->has_address && exposure->backend->look && exposure->backend->look(exposure, &now))
            report_statistics(exposure, &now);
    }
}

/* What is due from time to time; when next, -1 if never. */
static int do_what_is_due(struct watcher *watcher)
{
    bool is_json = watcher->report->form == REPORT_JSON;
    int64_t now_ms = clock_ms();

    if (!watcher->view && !is_json)
        return -1;
    if (now_ms >= watcher->next_ms) {
        if (watcher->view)
            live_view_draw(watcher->view);
        else
            tell_statistics(watcher);
        watcher->next_ms = now_ms + (watcher->view ? DRAW_MS : STATISTICS_MS);
    }
    return (int)(watcher->next_ms - now_ms);
}

int watch(struct report *report, struct exposure *exposures, unsigned count, int signals,
          bool live)
{
    struct watcher watcher = { .report = report, .exposures = exposures, .count = count,
                               .signals = signals, .live = live,
                               .next_ms = clock_ms() + (live ? 0 : STATISTICS_MS) };
    bool has_keys = isatty(STDIN_FILENO);

    while (look_at_exposures(&watcher), !watcher.is_over) {
        int wait_ms = do_what_is_due(&watcher);
        struct pollfd polled[] = {
            { .fd = signals, .events = POLLIN },
            { .fd = report->wake_fd, .events = POLLIN },
            { .fd = watcher.view && has_keys ? STDIN_FILENO : -1, .events = POLLIN },
        };
        eventfd_t asked;

        if (poll(polled, sizeof polled / sizeof polled[0], wait_ms) <= 0)
            continue;
        if (polled[1].revents)
            eventfd_read(report->wake_fd, &asked);
        if (polled[0].revents)
            take_signals(&watcher);
        if (polled[2].revents & ~POLLIN)
            has_keys = false;           /* the terminal is gone; SIGHUP says so */
        else if (polled[2].revents && screen_was_pressed('q'))
            break;
        if (watcher.is_over)
            break;
    }
    live_view_close(watcher.view);
    return watcher.status;
}
