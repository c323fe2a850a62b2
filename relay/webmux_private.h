/* webmux_private: what webmux.c, the sessions and what is sent, and webmux_receive.c
 * share. */
#ifndef RELAY_WEBMUX_PRIVATE_H
#define RELAY_WEBMUX_PRIVATE_H

#include "relay/webmux.h"

/* What a session owes, in the order in which it is written: the reset is that of the
 * session which had the id before, and so is the question, a byte that they answer by
 * a reset once they know that it is over. */
enum {
    OWES_RST = 1, OWES_QUESTION = 2, OWES_SYN = 4, OWES_CREDIT = 8, OWES_FIN = 16,
    IS_LISTED = 32
};

/* More than anybody sends, and far from overflowing. */
#define UNLIMITED (INT64_C(1) << 60)

static inline size_t webmux_least(size_t a, size_t b)
{
    return a < b ? a : b;
}

void webmux_owe(struct webmux *mux, uint8_t id, uint8_t what);

void webmux_begin_session(struct webmux *mux, uint8_t id);

/* The id may be used again, if it is this end that uses them. */
void webmux_end_session(struct webmux *mux, uint8_t id);

/* If both have ended it, and have said so. */
void webmux_end_if_over(struct webmux *mux, uint8_t id);

#endif
