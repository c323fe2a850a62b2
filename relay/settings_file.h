/* settings_file: opens what operators write, of which a daemon that reads it again
 * must not hang. */
#ifndef RELAY_SETTINGS_FILE_H
#define RELAY_SETTINGS_FILE_H

#include <stdio.h>

/* For reading; the caller closes *file. A pipe or socket, which would be waited for,
 * is refused: -ENXIO. A device such as /dev/null is taken. 0 or a negative errno. */
int settings_file_open(const char *path, FILE **file);

/* What went wrong, for "can't read FILE: ...". */
const char *settings_file_error(int err);

#endif
