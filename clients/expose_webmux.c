/* tristero-tunnel expose --backend webmux: the library serves any number of clients. */
#include "clients/report.h"

#include <stdlib.h>

static int connect_client(void *context)
{
    struct exposure *exposure = context;

    return target_connect(&exposure->target);
}

static void take_event(void *context, const struct tristero_event *event)
{
    report_event(context, event);
}

/* From the moment that others may stop it and look at it, until they may no longer.
 * Whether it is to stop already. */
static bool make_known(struct exposure *exposure, struct tristero_server *server)
{
    bool stopping;

    pthread_mutex_lock(&exposure->lock);
    exposure->serving = server;
    stopping = exposure->stopping;
    pthread_mutex_unlock(&exposure->lock);
    return stopping;
}

static void tell_last_statistics(struct exposure *exposure, const struct tristero_server *server)
{
    struct tristero_statistics last;

    if (exposure->report->form != REPORT_JSON)
        return;
    tristero_server_look(server, &last);
    report_statistics(exposure, &last);
}

static int run_exposure(struct exposure *exposure)
{
    struct tristero_service service = {
        .connect = connect_client, .event = take_event, .context = exposure,
        .connections = (int)exposure->connections,
    };
    struct tristero_server *server;
    struct tristero_error error;

    if (tristero_server_new(exposure->proxy, &service, &server, &error)) {
        if (make_known(exposure, NULL))
            return STATUS_OK;           /* it was broken off */
        complain("%s%s%s", exposure->name, *exposure->name ? ": " : "", error.text);
        return STATUS_FAILED;
    }
    report_address(exposure, tristero_server_address(server));
    if (!make_known(exposure, server))
        tristero_server_run(server);
    make_known(exposure, NULL);
    tell_last_statistics(exposure, server);
    tristero_server_free(server);
    return STATUS_OK;
}

static void stop_exposure(struct exposure *exposure)
{
    pthread_mutex_lock(&exposure->lock);
    exposure->stopping = true;
    if (exposure->serving)
        tristero_server_stop(exposure->serving);
    else
        tristero_proxy_cancel(exposure->proxy);
    pthread_mutex_unlock(&exposure->lock);
}

static bool look_at_exposure(struct exposure *exposure, struct tristero_statistics *statistics)
{
    bool is_serving;

    pthread_mutex_lock(&exposure->lock);
    is_serving = exposure->serving != NULL;
    if (is_serving)
        tristero_server_look(exposure->serving, statistics);
    pthread_mutex_unlock(&exposure->lock);
    return is_serving;
}

const struct exposure_backend exposure_by_webmux = {
    .name = "webmux", .is_probed = true, .has_one_address = true,
    .run = run_exposure, .stop = stop_exposure, .look = look_at_exposure,
};
