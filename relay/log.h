/* log: one line an event, on standard error:
 * "2026-01-31T12:00:00Z info tunnel 7 attached".
 *
 * Lines name tunnels by id. Addresses of peers come in only through
 * log_address, which hides them unless the operator asked for them. Any
 * thread; a line is one write, so lines never mix. Where standard error takes
 * no more (a full disk, a reader that has stopped), lines are lost and counted,
 * and the count is the first line that can be written again: logging holds
 * nobody up for longer than a moment. Nothing is logged before log_set_level. */
#ifndef RELAY_LOG_H
#define RELAY_LOG_H

#include "relay/net_address.h"

#include <stdbool.h>

enum log_level { LOG_NOTHING, LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level level);
void log_set_addresses(bool shown);

void log_write(enum log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The address as the policy allows: "192.0.2.1:5000" or "(hidden)". Returns text. */
const char *log_address(const struct net_address *address, char text[NET_ADDRESS_TEXT_BYTES]);

/* Copies foreign text so that it can stand in a log line, a fault or an error:
 * at most room - 1 bytes, everything but printable ASCII replaced by "?", cut
 * with "..." where it is longer. Returns out. */
const char *text_printable(const char *text, size_t length, char *out, size_t room);

#endif
