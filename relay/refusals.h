/* refusals: counts what each limit has refused, and tells it in the log, at once
 * for the first and then once a minute at most. Any thread. */
#ifndef RELAY_REFUSALS_H
#define RELAY_REFUSALS_H

#include <stdint.h>

enum limit {
    LIMIT_MAX_TUNNELS,
    LIMIT_TUNNELS_PER_USER,
    LIMIT_TUNNELS_PER_ADDRESS,
    LIMIT_OPENS_PER_MINUTE,
    LIMIT_CONNECTIONS,
    LIMIT_CONNECTIONS_PER_ADDRESS,
    LIMIT_REQUEST_TIMEOUT,
    LIMIT_REQUEST_SIZE,
    LIMIT_SSH_HANDSHAKES,
    LIMIT_SSH_HANDSHAKES_PER_ADDRESS,
    LIMIT_SSH_LOGIN_TIMEOUT,
    LIMITS
};

/* As the operator knows it: "max-tunnels". */
const char *limit_name(enum limit limit);

void refusals_count(enum limit limit);

/* Tells what has waited for its minute, at that time of clock_ms; in how many
 * milliseconds to look again, whatever is refused meanwhile: a minute at most. */
int64_t refusals_log_due(int64_t now_ms);

/* Tells what has not been told yet, at the end. */
void refusals_log_rest(void);

#endif
