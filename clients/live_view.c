#include "clients/live_view.h"

#include "clients/qr.h"
#include "clients/screen.h"
#include "relay/waker.h"

#include <curses.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SAMPLE_MS = 1000, QR_COLOURS = 1, LEFT_COLUMNS_MIN = 44, HISTORY_ROWS_MIN = 4,
       ROWS_OF_AIR_MIN = 12 };             /* with fewer rows, none is left empty below the title */

/* How fast bytes come, from one second to the next. */
struct sample {
    int64_t at_ms;
    unsigned long long in, out;
    double in_per_s, out_per_s;
};

struct live_view {
    struct screen *screen;
    struct report *report;
    struct exposure *exposures;
    unsigned count;
    struct sample *samples;             /* of each */
    int64_t began_ms;
    struct qr *qr;
    char qr_url[EXPOSURE_URL_BYTES];
    int row;                            /* while it is drawn: the next one */
    bool qr_is_beside;
};

/* --- pieces of text */

/* As long as a column is wide: "0 B", "999 B", "1.0 kB", "12.3 MB". */
static const char *size_text(double bytes, char text[16])
{
    static const char *const units[] = { "B", "kB", "MB", "GB", "TB", "PB", "EB" };
    int unit = 0;

    for (; bytes >= 999.95 && unit < 6; unit++)
        bytes /= 1000;
    snprintf(text, 16, unit ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
    return text;
}

static const char *rtt_text(unsigned rtt_us, char text[24])
{
    if (!rtt_us)
        snprintf(text, 24, "unknown");
    else
        snprintf(text, 24, rtt_us < 10000 ? "%.2f ms" : "%.0f ms", rtt_us / 1000.0);
    return text;
}

/* How many columns the next row has. */
static int row_columns(const struct live_view *view)
{
    bool is_beside = view->qr_is_beside && view->row <= view->qr->height;

    return is_beside ? COLS - view->qr->width - 1 : COLS;
}

__attribute__((format(printf, 2, 3)))
static void put_row(struct live_view *view, const char *format, ...)
{
    int width = row_columns(view);
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (view->row < LINES && width > 2)
        mvaddnstr(view->row, 1, text, width - 2);
    view->row++;
}

static bool fits_row(const struct live_view *view, size_t length)
{
    return (int)length <= row_columns(view) - 2;
}

/* Over as many rows as it takes, filled to their edges, so that it can be copied whole. */
static void put_whole(struct live_view *view, const char *text)
{
    if (fits_row(view, strlen(text))) {
        put_row(view, "%s", text);
        return;
    }
    for (size_t left = strlen(text); left && view->row < LINES; view->row++) {
        size_t width = (size_t)row_columns(view);
        size_t count = left < width ? left : width;

        mvaddnstr(view->row, 0, text, (int)count);
        text += count;
        left -= count;
    }
}

/* --- the parts, from top to bottom */

static void draw_title(struct live_view *view)
{
    long up_s = (long)((clock_ms() - view->began_ms) / 1000);

    attron(A_REVERSE);
    mvhline(view->row, 0, ' ', COLS);
    put_row(view, "tristero-tunnel expose   up %ld:%02ld:%02ld   Ctrl-C or q ends it", up_s / 3600,
            up_s / 60 % 60, up_s % 60);
    attroff(A_REVERSE);
}

static void take_sample(struct sample *sample, const struct tristero_statistics *now)
{
    int64_t now_ms = clock_ms();
    double passed_s = (double)(now_ms - sample->at_ms) / 1000;

    if (sample->at_ms && now_ms - sample->at_ms < SAMPLE_MS)
        return;
    if (sample->at_ms) {
        sample->in_per_s = (double)(now->bytes_from_clients - sample->in) / passed_s;
        sample->out_per_s = (double)(now->bytes_to_clients - sample->out) / passed_s;
    }
    sample->at_ms = now_ms;
    sample->in = now->bytes_from_clients;
    sample->out = now->bytes_to_clients;
}

static void draw_numbers(struct live_view *view, const struct sample *sample,
                         const struct tristero_statistics *now)
{
    char in[16], out[16], in_rate[16], out_rate[16], rtt[24];

    size_text((double)now->bytes_from_clients, in);
    size_text((double)now->bytes_to_clients, out);
    size_text(sample->in_per_s, in_rate);
    size_text(sample->out_per_s, out_rate);
    rtt_text(now->rtt_us, rtt);
    if (view->count > 1) {
        put_row(view, "    %u now, %llu in all, %llu refused; round trip %s; %llu lost", now->clients,
                now->clients_in_all, now->refused, rtt, now->times_lost);
        put_row(view, "    in %s (%s/s), out %s (%s/s)", in, in_rate, out, out_rate);
        return;
    }
    if (COLS < LEFT_COLUMNS_MIN) {
        put_row(view, "%u now, %llu in all", now->clients, now->clients_in_all);
        put_row(view, "%llu refused", now->refused);
        put_row(view, "in %s, %s/s", in, in_rate);
        put_row(view, "out %s, %s/s", out, out_rate);
        put_row(view, "rtt %s, %llu lost", rtt, now->times_lost);
        return;
    }
    put_row(view, "clients     %8u now  %10llu in all", now->clients, now->clients_in_all);
    put_row(view, "refused     %8llu", now->refused);
    put_row(view, "in          %12s  %10s/s", in, in_rate);
    put_row(view, "out         %12s  %10s/s", out, out_rate);
    put_row(view, "round trip  %12s", rtt);
    put_row(view, "connections %8u now  %10llu lost", now->connections, now->times_lost);
}

/* The address is what people want most: it is never cut. */
static void draw_address(struct live_view *view, const struct exposure *exposure)
{
    attron(A_BOLD);
    if (view->count == 1) {
        put_whole(view, exposure->url);
    } else if (fits_row(view, strlen(exposure->name) + 2 + strlen(exposure->url))) {
        put_row(view, "%s  %s", exposure->name, exposure->url);
    } else {
        put_row(view, "%s", exposure->name);
        put_whole(view, exposure->url);
    }
    attroff(A_BOLD);
}

static void draw_details(struct live_view *view, unsigned which)
{
    struct exposure *exposure = &view->exposures[which];
    struct tristero_statistics now;

    put_row(view, "%sto %s, by %s", view->count > 1 ? "    " : "", exposure->target.text,
            exposure->backend->name);
    if (view->count == 1)
        view->row++;
    if (exposure->backend->look && exposure->backend->look(exposure, &now)) {
        take_sample(&view->samples[which], &now);
        draw_numbers(view, &view->samples[which], &now);
    }
}

/* Where there is not room for all, those of several have their addresses alone. */
static void draw_exposures(struct live_view *view)
{
    int first = view->row;

    for (unsigned i = 0; i < view->count; i++) {
        draw_address(view, &view->exposures[i]);
        draw_details(view, i);
    }
    if (view->count == 1 || view->row <= LINES)
        return;
    move(first, 0);
    clrtobot();
    view->row = first;
    for (unsigned i = 0; i < view->count; i++)
        draw_address(view, &view->exposures[i]);
}

static void draw_qr(struct live_view *view, int row, int column)
{
    if (has_colors())
        attron(COLOR_PAIR(QR_COLOURS));
    for (int i = 0; i < view->qr->height; i++)
        mvaddstr(row + i, column, view->qr->rows[i]);
    if (has_colors())
        attroff(COLOR_PAIR(QR_COLOURS));
}

/* Of the first service; NULL where none is asked for. */
static void make_qr(struct live_view *view)
{
    const char *url = view->exposures[0].url;

    if (!view->report->with_qr || view->count > 1 || !strcmp(url, view->qr_url))
        return;
    qr_free(view->qr);
    view->qr = qr_make(url);
    snprintf(view->qr_url, sizeof view->qr_url, "%s", url);
}

static bool qr_fits_beside(const struct live_view *view)
{
    return view->qr && COLS >= view->qr->width + LEFT_COLUMNS_MIN && LINES > view->qr->height;
}

static void draw_history(struct live_view *view)
{
    unsigned long rows = view->row < LINES ? (unsigned long)(LINES - view->row) : 0;
    unsigned long lines = view->report->lines;
    unsigned long known = lines < REPORT_HISTORY ? lines : REPORT_HISTORY;

    for (unsigned long i = lines - (known < rows ? known : rows); i < lines; i++) {
        unsigned long at = i % REPORT_HISTORY;
        char text[16] = "";
        struct tm local;

        if (localtime_r(&view->report->history[at].time, &local))
            strftime(text, sizeof text, "%H:%M:%S", &local);
        put_row(view, "%s  %s", text, view->report->history[at].text);
    }
}

void live_view_draw(struct live_view *view)
{
    int below;

    if (!screen_is_free())
        return;
    pthread_mutex_lock(&view->report->lock);
    make_qr(view);
    erase();
    view->row = 0;
    view->qr_is_beside = false;
    draw_title(view);
    view->qr_is_beside = qr_fits_beside(view);
    if (view->qr_is_beside)
        draw_qr(view, 1, COLS - view->qr->width);
    view->row += LINES >= ROWS_OF_AIR_MIN;
    draw_exposures(view);
    view->row++;
    below = view->row;
    if (view->qr && !view->qr_is_beside) {
        if (COLS >= view->qr->width && LINES - below >= view->qr->height + HISTORY_ROWS_MIN) {
            draw_qr(view, below, 0);
            view->row += view->qr->height + 1;
        } else {
            put_row(view, "No room for the QR code: it takes %d columns and %d rows.",
                    view->qr->width, view->qr->height);
        }
    }
    draw_history(view);
    pthread_mutex_unlock(&view->report->lock);
    screen_show(view->screen);
}

/* --- its life */

struct live_view *live_view_open(struct report *report, struct exposure *exposures,
                                 unsigned count)
{
    struct live_view *view = calloc(1, sizeof *view);

    if (view)
        view->samples = calloc(count, sizeof *view->samples);
    if (!view || !view->samples)
        goto fail;
    view->screen = screen_open();
    if (!view->screen)
        goto fail;
    view->report = report;
    view->exposures = exposures;
    view->count = count;
    view->began_ms = clock_ms();
    if (has_colors()) {
        start_color();
        init_pair(QR_COLOURS, COLOR_WHITE, COLOR_BLACK);
    }
    report_take_screen(report);
    live_view_draw(view);
    return view;
fail:
    if (view)
        free(view->samples);
    free(view);
    return NULL;
}

void live_view_close(struct live_view *view)
{
    if (!view)
        return;
    screen_close(view->screen);
    report_leave_screen(view->report, view->exposures, view->count);
    qr_free(view->qr);
    free(view->samples);
    free(view);
}

void live_view_fit(struct live_view *view)
{
    screen_fit();
    live_view_draw(view);
}

void live_view_stop(struct live_view *view)
{
    screen_stop(view->screen);
    live_view_draw(view);
}
