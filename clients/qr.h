/* qr: a QR code in half blocks of UTF-8, light on dark, with the quiet zone around it. */
#ifndef CLIENTS_QR_H
#define CLIENTS_QR_H

#include <stdbool.h>

/* Whether this build can make any. */
extern const bool qr_is_built;

struct qr {
    int width, height;                  /* in a terminal's cells */
    char **rows;                        /* height of them, in UTF-8 */
};

/* NULL if the text is too long or there is no memory. The caller's, until qr_free. */
struct qr *qr_make(const char *text);

/* NULL is ignored. */
void qr_free(struct qr *qr);

#endif
