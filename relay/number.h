/* number: reads a whole number of digits, as settings, options and files have it. strtoll
 * would take signs, blanks and whatever follows. Any thread. */
#ifndef RELAY_NUMBER_H
#define RELAY_NUMBER_H

#include <stddef.h>
#include <stdint.h>

/* All length bytes of text. 0, or -EINVAL if they are not a number from lowest to highest. */
int number_parse(const char *text, size_t length, int64_t lowest, int64_t highest, int64_t *number);

#endif
