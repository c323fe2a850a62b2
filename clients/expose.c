/* tristero-tunnel expose: makes services of this machine reachable: finds out what is to
 * be exposed and how, has a thread serve each service, and watches them. */
#include "clients/exposure.h"
#include "clients/outlet.h"
#include "clients/qr.h"
#include "clients/report.h"
#include "clients/screen.h"
#include "clients/watch.h"

#include "relay/waker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

enum { STOP_MS = 3000 };                /* for all to end when they are told to */

/* The first is the usual one. */
static const struct exposure_backend *const backends[] = {
    &exposure_by_webmux, &exposure_by_ssh, &exposure_by_tcp
};
const char exposure_backend_names[] = "webmux, ssh or tcp";

const struct exposure_backend *exposure_backend_find(const char *name)
{
    for (size_t i = 0; name && i < sizeof backends / sizeof backends[0]; i++) {
        if (!strcmp(backends[i]->name, name))
            return backends[i];
    }
    return name ? NULL : backends[0];
}

const char *exposure_misfit(const struct exposure *exposure)
{
    bool is_tcp = exposure->backend == &exposure_by_tcp;

    if (exposure->connections && exposure->backend != &exposure_by_webmux)
        return "connections";
    return is_tcp ? NULL : exposure->once ? "once" : exposure->tunnels ? "tunnels"
        : exposure->server_first ? "server-first" : NULL;
}

const char *exposure_fit(const struct exposure *exposure)
{
    return exposure->connections ? "the backend webmux alone" : "the backend tcp alone";
}

static int wrong(const char *text)
{
    complain("expose: %s", text);
    return STATUS_USAGE;
}

int exposures_of_arguments(const struct arguments *arguments, struct exposure **exposures,
                           unsigned *count)
{
    const struct exposure_backend *backend = exposure_backend_find(arguments->backend);
    char error[TARGET_ERROR_BYTES];
    struct exposure *exposure;

    if (!backend) {
        snprintf(error, sizeof error, "--backend is \"%.100s\", expected %s", arguments->backend,
                 exposure_backend_names);
        return wrong(error);
    }
    exposure = calloc(1, sizeof *exposure);
    if (!exposure) {
        complain("out of memory");
        return STATUS_FAILED;
    }
    *exposures = exposure;
    *count = 1;
    exposure->backend = backend;
    exposure->once = arguments->once;
    exposure->server_first = arguments->server_first;
    exposure->tunnels = arguments->tunnels;
    exposure->connections = arguments->connections;
    if ((arguments->folder ? target_of_folder(arguments->folder, &exposure->target, error)
                           : target_parse(arguments->operand, &exposure->target, error)) < 0)
        return wrong(error);
    if (exposure_misfit(exposure)) {
        snprintf(error, sizeof error, "--%s goes with %s", exposure_misfit(exposure),
                 exposure_fit(exposure));
        return wrong(error);
    }
    return proxy_make(arguments, "", arguments->proxy_url, &exposure->proxy);
}

/* --- the command line as a whole */

static int check_arguments(const struct arguments *arguments)
{
    int given = (arguments->operand != NULL) + (arguments->folder != NULL) +
                (arguments->config != NULL);

    if (!given)
        return wrong("expected what to expose: PORT, HOST:PORT, unix:PATH, --dir PATH or "
                     "--config FILE");
    if (given > 1)
        return wrong("got several things to expose, expected one of PORT, --dir and --config; "
                     "a file of --config may name any number");
    if (arguments->json && (arguments->with_qr || arguments->quiet))
        return wrong("--json goes with neither --qr nor --quiet");
    if (arguments->with_qr && !qr_is_built)
        return wrong("--qr: this build is without libqrencode");
    if (arguments->config && (arguments->backend || arguments->once || arguments->tunnels ||
                              arguments->connections || arguments->server_first))
        return wrong("with --config, the file says for each service how to expose it");
    return STATUS_OK;
}

static enum report_form form_of(const struct arguments *arguments)
{
    return arguments->json ? REPORT_JSON : arguments->quiet ? REPORT_QUIET : REPORT_LINES;
}

static bool wants_live_view(const struct report *report, const struct exposure *exposures,
                            unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (!exposures[i].backend->has_one_address)
            return false;
    }
    return report->form == REPORT_LINES && screen_is_possible();
}

/* --- starting and ending */

static void *exposure_thread(void *argument)
{
    struct exposure *exposure = argument;

    if (exposure->backend->is_probed)
        exposure->scheme = target_probe_scheme(&exposure->target);
    exposure->status = exposure->backend->run(exposure);
    exposure->has_ended = true;
    report_wake(exposure->report);
    return NULL;
}

static int start_targets(struct exposure *exposures, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char error[TARGET_ERROR_BYTES];

        if (target_start(&exposures[i].target, error) < 0) {
            complain("%s%s%s", exposures[i].name, *exposures[i].name ? ": " : "", error);
            return STATUS_FAILED;
        }
    }
    return STATUS_OK;
}

/* Those that can't be told to end go on until the process does. */
static bool all_have_ended(const struct exposure *exposures, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (!exposures[i].has_ended)
            return false;
    }
    return true;
}

static void stop_all(struct report *report, struct exposure *exposures, unsigned count)
{
    struct pollfd polled = { .fd = report->wake_fd, .events = POLLIN };
    int64_t until_ms = clock_ms() + STOP_MS;
    bool can_be_stopped = true;
    eventfd_t asked;

    for (unsigned i = 0; i < count; i++) {
        if (exposures[i].backend->stop)
            exposures[i].backend->stop(&exposures[i]);
        else
            can_be_stopped = false;
    }
    while (can_be_stopped && !all_have_ended(exposures, count) &&
           waker_poll(NULL, &polled, 1, until_ms) > 0)
        eventfd_read(report->wake_fd, &asked);
}

/* Returns only if every thread has ended: the process ends with those that have not. */
static int serve(struct report *report, struct exposure *exposures, unsigned count)
{
    bool live = wants_live_view(report, exposures, count);
    int signals = watch_block_signals(live);
    unsigned started = 0;
    int status = signals < 0 ? STATUS_FAILED : STATUS_OK;

    for (; started < count && !status; started++) {
        struct exposure *exposure = &exposures[started];

        exposure->report = report;
        pthread_mutex_init(&exposure->lock, NULL);
        if (pthread_create(&exposure->thread, NULL, exposure_thread, exposure)) {
            status = STATUS_FAILED;
            break;
        }
    }
    if (status)
        complain("can't start: no descriptors or threads");
    else
        status = watch(report, exposures, count, signals, live);
    stop_all(report, exposures, started);
    if (!all_have_ended(exposures, started)) {
        for (unsigned i = 0; i < started; i++)
            pthread_detach(exposures[i].thread);
        outlets_end();
        _exit(status);
    }
    for (unsigned i = 0; i < started; i++) {
        pthread_join(exposures[i].thread, NULL);
        pthread_mutex_destroy(&exposures[i].lock);
    }
    if (signals >= 0)
        close(signals);
    return status;
}

/* A client takes up to three descriptors, and there may be some thousands. */
static void allow_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);   /* clients are refused where it is too low */
}

int expose_command(struct tristero_proxy *none, const struct arguments *arguments)
{
    int status = check_arguments(arguments);
    struct exposure *exposures = NULL;
    struct report report;
    unsigned count = 0;

    (void)none;
    if (!status)
        status = (arguments->config ? exposures_of_file : exposures_of_arguments)(
            arguments, &exposures, &count);
    for (unsigned i = 0; i < count; i++)
        exposures[i].timeout_s = arguments->timeout_s;
    allow_descriptors();
    if (!status)
        status = start_targets(exposures, count);
    if (!status && report_init(&report, form_of(arguments)) < 0) {
        complain("can't start: no descriptors");
        status = STATUS_FAILED;
    } else if (!status) {
        report.with_qr = arguments->with_qr;
        report.names_services = arguments->config != NULL;
        status = serve(&report, exposures, count);
        report_end(&report);
    }
    for (unsigned i = 0; i < count; i++) {
        target_end(&exposures[i].target);
        tristero_proxy_free(exposures[i].proxy);
    }
    free(exposures);
    return status;
}
