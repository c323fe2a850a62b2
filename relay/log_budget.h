/* log_budget: so many log lines of a kind a minute, so that a flood of what they
 * tell about does not fill the disk. Not thread-safe: its owner guards it. */
#ifndef RELAY_LOG_BUDGET_H
#define RELAY_LOG_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

enum { LOG_BUDGET_LINES = 20, LOG_BUDGET_MS = 60000 };

struct log_budget {                     /* all zero: nothing spent */
    int64_t until_ms;                   /* when the minute ends */
    unsigned spent, left_out;           /* in this minute */
};

/* Whether there is a line left. *left_out: how many had none in the minute before,
 * for the first line of a new one to tell. */
bool log_budget_spend(struct log_budget *budget, int64_t now_ms, unsigned *left_out);

#endif
