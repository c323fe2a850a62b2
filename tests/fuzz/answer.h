/* answer: what the answer to a call is, whatever the call was. */
#ifndef TESTS_FUZZ_ANSWER_H
#define TESTS_FUZZ_ANSWER_H

#include <stddef.h>

/* It is plain ASCII and reads as a response, and its fault is one of those that
 * doc/protocol.md has. */
void answer_check(const char *xml, size_t length);

#endif
