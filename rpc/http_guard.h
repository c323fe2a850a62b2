/* http_guard: which HTTP requests are calls, and how they are answered.
 *
 * Only what nobody reads in two ways gets through: one POST to /RPC2 or /, a
 * small header, one plain Content-Length, an XML content type. Whatever else
 * comes is refused with a status and a sentence. A browser can't send an XML
 * content type to another site without asking first, so web pages can't open
 * tunnels behind their reader's back. Pure functions; any thread. */
#ifndef RPC_HTTP_GUARD_H
#define RPC_HTTP_GUARD_H

#include "relay/uri.h"
#include "rpc/users.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    HTTP_HEADER_BYTES = 4000,
    HTTP_BODY_BYTES = 64 * 1024,
    HTTP_REQUEST_BYTES = HTTP_HEADER_BYTES + HTTP_BODY_BYTES,
    HTTP_REFUSAL_BYTES = 600,
    HTTP_ANSWER_HEADER_BYTES = 200,
    HTTP_FORWARDED_BYTES = 64           /* an address, maybe with a port, and a NUL */
};

enum http_verdict { HTTP_INCOMPLETE, HTTP_COMPLETE, HTTP_REFUSED };

struct http_request {
    size_t bytes;                       /* header and body; 0 until the header is complete */
    size_t header_bytes;                /* of these, the ones before the body */
    bool expects_continue;              /* the client waits for a 100 before it sends the body */
    char forwarded_for[HTTP_FORWARDED_BYTES];   /* the last of X-Forwarded-For; "" without one */
    char host[URI_HOST_BYTES];          /* from Host, without the port; "" without that field */
    bool has_credentials;               /* of HTTP Basic authentication, whether right or not */
    struct credentials credentials;
    int status;                         /* when refused: the HTTP status */
    char reason[200];                   /* when refused: one sentence */
};

/* Looks at the bytes that have arrived so far, from the first of the request
 * on, and fills request. Bytes beyond the request are not looked at. body_max:
 * bytes that a body may have, HTTP_BODY_BYTES at most. */
enum http_verdict http_guard_look(const char *bytes, size_t length, size_t body_max,
                                  struct http_request *request);

/* Notes down a refusal that somebody else has found a reason for. */
void http_request_refuse(struct http_request *request, int status, const char *reason);

/* An answer that is no call's. */
struct http_refusal {
    int status;
    int retry_after_s;                  /* 0: nothing is said of that */
    const char *reason;                 /* one sentence */
};

/* Writes what comes before the XML of an answer to a call; its length. */
size_t http_answer_header_write(size_t xml_bytes, char text[HTTP_ANSWER_HEADER_BYTES]);

/* Writes the whole answer; its length. */
size_t http_refusal_write(const struct http_refusal *refusal, char text[HTTP_REFUSAL_BYTES]);

#endif
