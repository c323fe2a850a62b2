/* webmux_ends: what the tests of webmux share: an end that is given frames, and tells
 * what it made of them. */
#ifndef TESTS_WEBMUX_ENDS_H
#define TESTS_WEBMUX_ENDS_H

#include "relay/webmux.h"

enum { EVENTS_MAX = 512 };

struct webmux_end {
    struct webmux mux;
    struct webmux_growth growth;
    struct webmux_event events[EVENTS_MAX];     /* since the last look */
    size_t events_count;
    const char *error;
};

/* All zero before. Its greeting is written already. */
void end_start(struct webmux_end *end, bool opens);

/* Opens a session, which the other end confirms: its id. */
uint8_t end_open_confirmed(struct webmux_end *end);

/* These start it with session 3, of its own or of the other end's, confirmed. A test whose
 * end can't is aborted. */
void end_start_with_own(struct webmux_end *end);
void end_start_with_theirs(struct webmux_end *end);

/* Gives it bytes, or a frame with a payload of zeros; events begins anew. What the
 * frame's padding needs is added. */
void end_take(struct webmux_end *end, const uint8_t *bytes, size_t count);
void end_take_frame(struct webmux_end *end, struct webmux_header header);

/* So does this, for a frame of a session: flags of "SFR", and a payload, which is long
 * if there is an S. */
void end_take_flags(struct webmux_end *end, uint8_t session, const char *flags, uint32_t payload);

/* A control frame. */
void end_take_control(struct webmux_end *end, uint8_t opcode, uint8_t session, uint32_t value);

/* Whether the only event is of that kind and session; NOTHING: there is none. */
bool end_told(const struct webmux_end *end, enum webmux_event_kind kind, uint8_t session);

/* Whether it says that the other end broke a rule, with that in the text. */
bool end_failed(const struct webmux_end *end, const char *text);

/* What it owes, as one word a frame, such as "S3 F3 R5 C3:262144 p3": opening or
 * confirmation, end, reset, credit, and a question. */
const char *end_says(struct webmux_end *end);

#endif
