/* http_date: "Sun, 06 Nov 1994 08:49:37 GMT", and what came before it. Any thread. */
#ifndef CLIENTS_HTTP_DATE_H
#define CLIENTS_HTTP_DATE_H

#include <stdbool.h>
#include <time.h>

enum { HTTP_DATE_BYTES = 64 };

void http_date_format(time_t time_s, char text[HTTP_DATE_BYTES]);

/* Whether text is such a date, or one in the form of RFC 850 or asctime. */
bool http_date_read(const char *text, time_t *time_s);

#endif
