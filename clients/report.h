/* report: tells people, or a program, what happens to the services that are exposed.
 * Any thread, but where it says otherwise. */
#ifndef CLIENTS_REPORT_H
#define CLIENTS_REPORT_H

#include "clients/exposure.h"

enum report_form {
    REPORT_LINES,                       /* addresses on standard output, the rest on standard error */
    REPORT_JSON,                        /* all of it on standard output */
    REPORT_QUIET                        /* addresses, and what ends the command */
};

enum { REPORT_HISTORY = 128, REPORT_EVENT_BYTES = 800,
       REPORT_LINE_BYTES = REPORT_EVENT_BYTES + EXPOSURE_NAME_BYTES + 2 };

struct report {
    enum report_form form;
    bool with_qr;
    bool names_services;                /* by their sections */
    int wake_fd;                        /* an eventfd that the main thread waits for */
    atomic_bool has_failed;             /* it can't be as asked, or standard output takes nothing */

    pthread_mutex_t lock;               /* of what follows, and of the addresses */
    bool is_on_screen;                  /* lines go to the history alone */
    unsigned long lines;                /* that ever were in it */
    struct {
        time_t time;
        char text[REPORT_LINE_BYTES];
    } history[REPORT_HISTORY];
};

/* From here on, what is printed goes by way of clients/outlet.h, until the end, which it is
 * given a second for. 0 or a negative errno. */
int report_init(struct report *report, enum report_form form);
void report_end(struct report *report);

/* Where an exposure's clients connect, from now on. */
void report_address(struct exposure *exposure, const char *address);

void report_event(struct exposure *exposure, const struct tristero_event *event);

/* JSON only. On the main thread. */
void report_statistics(struct exposure *exposure, const struct tristero_statistics *statistics);

/* Has the main thread end the command, as failed. */
void report_fail(struct report *report);

/* Has the main thread look up. */
void report_wake(struct report *report);

/* From now on a screen shows what happens; or no longer: then what was printed is out
 * of date where there is a new address, which is printed. */
void report_take_screen(struct report *report);
void report_leave_screen(struct report *report, struct exposure *exposures, unsigned count);

#endif
