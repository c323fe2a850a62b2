/* http_range: the Range field of a request for one part of a file. */
#ifndef CLIENTS_HTTP_RANGE_H
#define CLIENTS_HTTP_RANGE_H

#include <stdint.h>

enum http_range {
    HTTP_RANGE_ALL,                     /* none, several, nonsense, or of nothing: the whole file
                                         * is the answer */
    HTTP_RANGE_PART,                    /* *length bytes, at least one, from *first on */
    HTTP_RANGE_OUTSIDE                  /* nothing of it is there */
};

/* Of a file of size bytes. first and length are set for HTTP_RANGE_PART only. */
enum http_range http_range_read(const char *field, uint64_t size, uint64_t *first,
                                uint64_t *length);

#endif
