#include "relay/rate.h"

enum {
    STEP_MS = 20,                       /* or else bytes would be moved one by one */
    KEPT_MS = 1000
};

void rate_init(struct rate *rate, int64_t bytes_per_s, int64_t now_ms)
{
    *rate = (struct rate){ bytes_per_s, bytes_per_s, now_ms };
}

void rate_grow(struct rate *rate, int64_t now_ms)
{
    int64_t passed_ms = now_ms - rate->grown_ms;
    int64_t grown;

    if (!rate->bytes_per_s)
        return;
    grown = rate->bytes_per_s * (passed_ms < KEPT_MS ? passed_ms : KEPT_MS) / 1000;
    if (passed_ms < STEP_MS || grown == 0)
        return;
    rate->allowance += grown;
    rate->grown_ms += grown * 1000 / rate->bytes_per_s;     /* less than a byte's time is left */
    if (rate->allowance >= rate->bytes_per_s) {
        rate->allowance = rate->bytes_per_s;
        rate->grown_ms = now_ms;
    }
}

int64_t rate_next_ms(const struct rate *rate)
{
    int64_t byte_ms;

    if (!rate->bytes_per_s || rate->allowance > 0)
        return INT64_MAX;
    byte_ms = (999 + rate->bytes_per_s) / rate->bytes_per_s;
    return rate->grown_ms + (byte_ms > STEP_MS ? byte_ms : STEP_MS);
}
