/* fuzz: what the fuzzers share.
 *
 * Each is one file with LLVMFuzzerTestOneInput in it, which does with an input
 * what the daemon would do, and asserts what must hold whatever the input is. */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#undef NDEBUG
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Once, before the first input; only some have it. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* Nothing but printable ASCII, as text_printable leaves it. */
bool text_is_printable(const char *text, size_t length);

/* A file without a place in any folder that has these bytes; its path, until
 * the next call. */
const char *file_with(const uint8_t *bytes, size_t length);

/* Whether a file was taken. One that was not has to have been refused for what is in
 * it, with an error that can be shown; there is none of a file that was. */
bool was_taken(int err, const char *error, size_t room);

#endif
