/* http_etag: entity tags, which name versions of files. Any thread. */
#ifndef CLIENTS_HTTP_ETAG_H
#define CLIENTS_HTTP_ETAG_H

#include <stdbool.h>
#include <sys/stat.h>
#include <time.h>

enum { HTTP_ETAG_BYTES = 40 };

/* Of the version that about tells of at the time now. Weak (W/) for a second after a
 * change, since the next one might leave all that is known of the file as it is. */
void http_etag_format(const struct stat *about, const struct timespec *now,
                      char etag[HTTP_ETAG_BYTES]);

/* Whether the field, "*" or a list of tags, names etag. Strongly: no weak tag, on either
 * side, is as good as another. What comes after nonsense in the field does not count. */
bool http_etag_is_in(const char *field, const char *etag, bool strongly);

#endif
