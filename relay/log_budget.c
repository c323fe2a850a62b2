#include "relay/log_budget.h"

bool log_budget_spend(struct log_budget *budget, int64_t now_ms, unsigned *left_out)
{
    *left_out = 0;
    if (now_ms >= budget->until_ms) {
        *left_out = budget->left_out;
        *budget = (struct log_budget){ .until_ms = now_ms + LOG_BUDGET_MS };
    }
    if (budget->spent < LOG_BUDGET_LINES) {
        budget->spent++;
        return true;
    }
    budget->left_out++;
    return false;
}
