/* live_view: what happens to the exposures, on the terminal, by ncurses. The main
 * thread's alone, which has blocked the signals of terminals: it takes them in turn
 * with drawing, and so the handlers of ncurses are never run. */
#ifndef CLIENTS_LIVE_VIEW_H
#define CLIENTS_LIVE_VIEW_H

#include "clients/report.h"

struct live_view;

/* Whether standard output and error are a terminal that can do more than lines, this
 * process has it to itself, and nobody has asked for plain lines (NO_COLOR). */
bool live_view_is_possible(void);

/* Takes the terminal; what it showed comes back at the end. NULL if it turns out not to
 * be good for that. */
struct live_view *live_view_open(struct report *report, struct exposure *exposures,
                                 unsigned count);

/* NULL is ignored. */
void live_view_close(struct live_view *view);

void live_view_draw(struct live_view *view);

/* After SIGWINCH, and SIGCONT. */
void live_view_fit(struct live_view *view);

/* After SIGTSTP: stops the process with the terminal as it was before; draws again once
 * it is continued. */
void live_view_stop(struct live_view *view);

/* Takes the keys that were pressed. Whether "q" was among them. */
bool live_view_is_quit(struct live_view *view);

#endif
