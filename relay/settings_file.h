/* settings_file: opens what operators write, of which a daemon that reads it again
 * must not hang, and reads it, or a key, whole. */
#ifndef RELAY_SETTINGS_FILE_H
#define RELAY_SETTINGS_FILE_H

#include <stddef.h>
#include <stdio.h>

/* For reading; the caller closes *file. A pipe or socket, which would be waited for,
 * is refused: -ENXIO. A device such as /dev/null is taken. 0 or a negative errno. */
int settings_file_open(const char *path, FILE **file);

/* Reads the rest of an open file. 0, and *text is the caller's to free, with no NUL but
 * the one at its end; or a negative errno: -EFBIG where there is more than bytes_max,
 * -EILSEQ where there is a NUL. What was read of a file that is refused is wiped. */
int settings_file_read(int descriptor, size_t bytes_max, char **text);

/* What went wrong, for "can't read FILE: ...". */
const char *settings_file_error(int err);

#endif
