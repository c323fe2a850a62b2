#include "clients/report.h"

#include "clients/json_line.h"
#include "clients/outlet.h"
#include "clients/qr.h"
#include "clients/screen.h"
#include "relay/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { TIME_BYTES = 32 };

static const char *const kinds[] = {
    [TRISTERO_ATTACHED] = "attached",
    [TRISTERO_MOVED] = "moved",
    [TRISTERO_LOST] = "lost",
    [TRISTERO_RETRYING] = "retrying",
    [TRISTERO_CLIENT_CAME] = "client-came",
    [TRISTERO_CLIENT_REFUSED] = "client-refused",
    [TRISTERO_CLIENT_LEFT] = "client-left",
};

static const char *format_time(char text[TIME_BYTES])
{
    time_t now = time(NULL);
    struct tm utc;

    if (!gmtime_r(&now, &utc) || !strftime(text, TIME_BYTES, "%Y-%m-%dT%H:%M:%SZ", &utc))
        text[0] = '\0';
    return text;
}

/* Standard output has addresses and nothing else, but as JSON. */
static size_t tell_left_out(void *context, enum outlet outlet, unsigned long count,
                            char line[OUTLET_LINE_BYTES])
{
    struct report *report = context;
    char time_text[TIME_BYTES];

    if (outlet == OUTLET_ERRORS)
        return (size_t)snprintf(line, OUTLET_LINE_BYTES, "tristero-tunnel: %lu lines were left out "
                                "here, since nobody read them\n", count);
    if (report->form == REPORT_JSON)
        return (size_t)snprintf(line, OUTLET_LINE_BYTES, "{\"event\":\"left-out\",\"time\":\"%s\","
                                "\"lines\":%lu}\n", format_time(time_text), count);
    complain("%lu lines of standard output were left out, since nobody read them", count);
    return 0;
}

/* Nobody learns the address from an output that is closed. */
static void take_failure(void *context, int err)
{
    complain("can't write to standard output: %s", strerrordesc_np(err));
    report_fail(context);
}

int report_init(struct report *report, enum report_form form)
{
    const struct outlet_keeper keeper = { tell_left_out, take_failure, report };
    int err;

    *report = (struct report){ .form = form };
    report->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (report->wake_fd < 0)
        return -errno;
    pthread_mutex_init(&report->lock, NULL);
    err = outlets_start(&keeper);
    if (err)
        report_end(report);
    return err;
}

void report_end(struct report *report)
{
    outlets_end();
    close(report->wake_fd);
    pthread_mutex_destroy(&report->lock);
}

void report_wake(struct report *report)
{
    eventfd_write(report->wake_fd, 1);
}

void report_fail(struct report *report)
{
    report->has_failed = true;
    report_wake(report);
}

/* With the report's lock held. */
static void tell(struct exposure *exposure, const char *text)
{
    struct report *report = exposure->report;
    unsigned long at = report->lines % REPORT_HISTORY;
    const char *name = report->names_services ? exposure->name : "";
    const char *colon = report->names_services ? ": " : "";

    if (report->form == REPORT_QUIET)
        return;
    if (!report->is_on_screen) {
        outlet_print(OUTLET_ERRORS, OUTLET_USUAL, "tristero-tunnel: %s%s%s\n", name, colon, text);
        return;
    }
    report->history[at].time = time(NULL);
    snprintf(report->history[at].text, REPORT_LINE_BYTES, "%s%s%s", name, colon, text);
    report->lines++;
}

/* --- as JSON */

static json_t *json_event(const struct exposure *exposure, const char *kind)
{
    json_t *object = json_object();
    char text[TIME_BYTES];

    json_object_set_new(object, "event", json_string(kind));
    json_object_set_new(object, "time", json_string(format_time(text)));
    if (*exposure->name)
        json_object_set_new(object, "name", json_string(exposure->name));
    return object;
}

/* The path of a file may be no UTF-8. */
static json_t *json_text(const char *text)
{
    char printable[TARGET_TEXT_BYTES];
    json_t *string = json_string(text);

    return string ? string
        : json_string(text_printable(text, strlen(text), printable, sizeof printable));
}

static void print_json_address(const struct exposure *exposure)
{
    json_t *object = json_event(exposure, "address");

    json_object_set_new(object, "url", json_string(exposure->url));
    json_object_set_new(object, "address", json_string(exposure->address));
    json_object_set_new(object, "service", json_text(exposure->target.text));
    json_object_set_new(object, "backend", json_string(exposure->backend->name));
    json_line_print(object, OUTLET_DEAR);
}

static void print_json_event(const struct exposure *exposure, const struct tristero_event *event)
{
    json_t *object = json_event(exposure, kinds[event->kind]);

    if (*event->text)
        json_object_set_new(object, "text", json_string(event->text));
    if (event->kind == TRISTERO_LOST || event->kind == TRISTERO_RETRYING)
        json_object_set_new(object, "wait_ms", json_integer(event->wait_ms));
    if (event->client)
        json_object_set_new(object, "client", json_integer((json_int_t)event->client));
    if (event->kind == TRISTERO_CLIENT_LEFT) {
        json_object_set_new(object, "bytes_from_client",
                            json_integer((json_int_t)event->bytes_from_client));
        json_object_set_new(object, "bytes_to_client",
                            json_integer((json_int_t)event->bytes_to_client));
    }
    json_line_print(object, OUTLET_USUAL);
}

void report_statistics(struct exposure *exposure, const struct tristero_statistics *statistics)
{
    json_t *object = json_event(exposure, "statistics");
    const struct {
        const char *name;
        unsigned long long value;
    } values[] = {
        { "clients", statistics->clients },
        { "clients_in_all", statistics->clients_in_all },
        { "refused", statistics->refused },
        { "bytes_from_clients", statistics->bytes_from_clients },
        { "bytes_to_clients", statistics->bytes_to_clients },
        { "connections", statistics->connections },
        { "times_lost", statistics->times_lost },
        { "rtt_us", statistics->rtt_us },
    };

    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        json_object_set_new(object, values[i].name, json_integer((json_int_t)values[i].value));
    json_line_print(object, OUTLET_USUAL);
}

/* --- as lines */

static void print_qr(const char *url)
{
    struct qr *qr = qr_make(url);
    bool has_colour = screen_may_have_colours();

    if (!qr) {
        complain("can't make the QR code of %s: out of memory", url);
        return;
    }
    for (int i = 0; i < qr->height; i++)
        print_line("%s%s%s", has_colour ? "\033[97;40m" : "", qr->rows[i], has_colour ? "\033[0m" : "");
    qr_free(qr);
}

/* With the report's lock held. */
static void print_address(struct exposure *exposure)
{
    struct report *report = exposure->report;

    snprintf(exposure->printed_url, sizeof exposure->printed_url, "%s", exposure->url);
    if (report->form == REPORT_JSON)
        print_json_address(exposure);
    else if (report->names_services)
        print_line("%s %s", exposure->name, exposure->url);
    else
        print_line("%s", exposure->url);
    if (report->with_qr)
        print_qr(exposure->url);
}

void report_address(struct exposure *exposure, const char *address)
{
    struct report *report = exposure->report;
    const char *after_scheme = strstr(address, "://");

    pthread_mutex_lock(&report->lock);
    snprintf(exposure->address, sizeof exposure->address, "%s", address);
    if (exposure->scheme && after_scheme)
        snprintf(exposure->url, sizeof exposure->url, "%s%s/", exposure->scheme, after_scheme);
    else
        snprintf(exposure->url, sizeof exposure->url, "%s", address);
    if (!report->is_on_screen)
        print_address(exposure);
    pthread_mutex_unlock(&report->lock);
    exposure->has_address = true;
    report_wake(report);
}

static void format_event(const struct exposure *exposure, const struct tristero_event *event,
                         char line[REPORT_EVENT_BYTES])
{
    const char *semicolon = *event->text ? "; " : "";
    char number[24] = "";

    switch (event->kind) {
    case TRISTERO_ATTACHED:
        snprintf(line, REPORT_EVENT_BYTES, "attached again, at the same address%s%s", semicolon,
                 event->text);
        break;
    case TRISTERO_MOVED:
        snprintf(line, REPORT_EVENT_BYTES, "attached again, at a new address: %s%s%s", exposure->url,
                 semicolon, event->text);
        break;
    case TRISTERO_LOST:
        snprintf(line, REPORT_EVENT_BYTES, "lost the connection to the proxy: %s; next try in %.1f s",
                 event->text, event->wait_ms / 1000.0);
        break;
    case TRISTERO_RETRYING:
        snprintf(line, REPORT_EVENT_BYTES, "not attached: %s; next try in %.1f s", event->text,
                 event->wait_ms / 1000.0);
        break;
    case TRISTERO_CLIENT_CAME:
        snprintf(line, REPORT_EVENT_BYTES, "client %lu came", event->client);
        break;
    case TRISTERO_CLIENT_REFUSED:       /* ssh does not number them */
        if (event->client)
            snprintf(number, sizeof number, " %lu", event->client);
        snprintf(line, REPORT_EVENT_BYTES, "client%s was not served: can't reach the service at %.200s: %s",
                 number, exposure->target.text, event->text);
        break;
    case TRISTERO_CLIENT_LEFT:
        snprintf(line, REPORT_EVENT_BYTES, "client %lu left: %s; %llu bytes from it, %llu to it",
                 event->client, event->text, event->bytes_from_client, event->bytes_to_client);
        break;
    }
}

void report_event(struct exposure *exposure, const struct tristero_event *event)
{
    struct report *report = exposure->report;
    char line[REPORT_EVENT_BYTES] = "";

    if (event->kind == TRISTERO_MOVED)
        report_address(exposure, event->address);
    pthread_mutex_lock(&report->lock);
    if (report->form == REPORT_JSON) {
        print_json_event(exposure, event);
    } else {
        format_event(exposure, event, line);
        tell(exposure, line);
    }
    pthread_mutex_unlock(&report->lock);
}

/* --- beside a screen */

void report_take_screen(struct report *report)
{
    pthread_mutex_lock(&report->lock);
    report->is_on_screen = true;
    pthread_mutex_unlock(&report->lock);
}

void report_leave_screen(struct report *report, struct exposure *exposures, unsigned count)
{
    pthread_mutex_lock(&report->lock);
    report->is_on_screen = false;
    for (unsigned i = 0; i < count; i++) {
        if (strcmp(exposures[i].url, exposures[i].printed_url) != 0)
            print_address(&exposures[i]);
    }
    pthread_mutex_unlock(&report->lock);
}
