/* directory: a folder's files over HTTP, to read only, for expose --dir.
 *
 * GET and HEAD, parts of files (Range), and conditions on their versions (ETag,
 * Last-Modified). A folder is shown as its index.html, or as a page that lists it. Names
 * that begin with a dot are not there; for what else is not, see folder.h. */
#ifndef CLIENTS_DIRECTORY_H
#define CLIENTS_DIRECTORY_H

enum { DIRECTORY_ERROR_BYTES = 512 };

struct directory;

/* Starts a thread that serves the folder at path, which is there, and later whichever folder
 * is there when a client asks. The caller's, until directory_close. 0, or a negative errno
 * and what is wrong in error. */
int directory_open(const char *path, struct directory **directory,
                   char error[DIRECTORY_ERROR_BYTES]);

/* Serves a client at the other end of a connected stream socket, which is the
 * directory's from then on, whatever is returned. 0 or a negative errno. Any thread;
 * does not wait. */
int directory_take(struct directory *directory, int connection);

/* Cuts off whoever is there. NULL is ignored. */
void directory_close(struct directory *directory);

#endif
