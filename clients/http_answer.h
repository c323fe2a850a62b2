/* http_answer: what the answers of expose --dir have in common. On the thread that
 * libmicrohttpd calls back on. */
#ifndef CLIENTS_HTTP_ANSWER_H
#define CLIENTS_HTTP_ANSWER_H

#include <microhttpd.h>

/* A field of the request; NULL if it has none of that name. */
const char *http_answer_asked(struct MHD_Connection *connection, const char *name);

/* Hands the answer over, which may be NULL for want of memory: then the client is cut off. */
enum MHD_Result http_answer_give(struct MHD_Connection *connection, unsigned status,
                                 struct MHD_Response *response);

/* An answer without a file: what people are told. text is to stay. NULL: no memory. */
struct MHD_Response *http_answer_words(const char *text);

/* Tells why there is no file, by a negative errno. */
enum MHD_Result http_answer_refuse(struct MHD_Connection *connection, int err);

#endif
