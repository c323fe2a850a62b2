/* live_view: what happens to the exposures, on the screen. The main thread's alone. */
#ifndef CLIENTS_LIVE_VIEW_H
#define CLIENTS_LIVE_VIEW_H

#include "clients/report.h"

struct live_view;

/* Takes the screen; NULL if it turns out not to be good for that. */
struct live_view *live_view_open(struct report *report, struct exposure *exposures,
                                 unsigned count);

/* NULL is ignored. */
void live_view_close(struct live_view *view);

/* Nothing where the screen has not yet taken what was drawn before. */
void live_view_draw(struct live_view *view);

/* After SIGWINCH, and SIGCONT. */
void live_view_fit(struct live_view *view);

/* After SIGTSTP: see screen_stop. */
void live_view_stop(struct live_view *view);

#endif
