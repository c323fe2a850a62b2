/* http_condition: what a request makes depend on the version of a file that its client
 * has (RFC 9110, 13). Any thread. */
#ifndef CLIENTS_HTTP_CONDITION_H
#define CLIENTS_HTTP_CONDITION_H

#include <stdbool.h>
#include <time.h>

/* Fields of a GET or HEAD; NULL: it has none. A date that is none is left out of account. */
struct http_conditions {
    const char *match, *unmodified_since, *none_match, *modified_since;
};

enum http_verdict {
    HTTP_WANTED,                        /* the file is to be sent */
    HTTP_NOT_MODIFIED,                  /* the client has it: 304 */
    HTTP_FAILED                         /* it is not the one that was meant: 412 */
};

/* Of a version with that tag (see http_etag.h) that was last changed then. */
enum http_verdict http_conditions_judge(const struct http_conditions *conditions,
                                        const char *etag, time_t changed_s);

/* Whether a part of this version fits to what the client has, which If-Range tells; NULL
 * if it does not. By a date it never does: a file may change twice in a second, and who
 * was given a date was given a tag. */
bool http_condition_allows_part(const char *if_range, const char *etag);

#endif
