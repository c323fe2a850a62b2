/* folder: opens what is in a folder, and nothing outside of it.
 *
 * Paths are relative to the folder, with "/" between names, none of them empty, "." or
 * ".."; "" is the folder itself. Links are followed as long as they stay inside.
 * Whatever is neither a file nor a folder is not there (-ENOENT) and is never opened:
 * opening a device may do something, a FIFO would be waited for. Any thread. */
#ifndef CLIENTS_FOLDER_H
#define CLIENTS_FOLDER_H

#include <stdbool.h>
#include <sys/stat.h>

/* 0 if what is in the folder can be opened; or a negative errno. -ENOSYS: this kernel has
 * no openat2(2), without which nothing here is safe. */
int folder_check(const char *path);

/* A descriptor of the folder, the caller's to close; or a negative errno. */
int folder_open(const char *path);

/* What is there, without opening it. 0 or a negative errno. */
int folder_look(int folder, const char *path, struct stat *about);

/* For reading; the descriptor is the caller's to close. Or a negative errno. */
int folder_open_inside(int folder, const char *path, struct stat *about);

/* Whether a negative errno of the above tells that nothing is there. */
bool folder_has_none(int err);

#endif
