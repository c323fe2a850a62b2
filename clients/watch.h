/* watch: what the main thread does while others serve: takes the signals, draws the
 * live view, tells statistics, and finds out when it is over. */
#ifndef CLIENTS_WATCH_H
#define CLIENTS_WATCH_H

#include "clients/report.h"

/* Before any thread is started: theirs are blocked from then on, so that only watch
 * takes them. A descriptor to read them from, or a negative errno. */
int watch_block_signals(bool live);

/* Until a signal comes, all exposures have ended, or one could not begin. The exit status. */
int watch(struct report *report, struct exposure *exposures, unsigned count, int signals,
          bool live);

#endif
