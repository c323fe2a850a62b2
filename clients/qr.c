#include <config.h>

#include "clients/qr.h"

#include <qrencode.h>
#include <stdlib.h>
#include <string.h>

enum { QUIET_ZONE = 4, CELL_BYTES = 3 };

const bool qr_is_built = true;

static bool is_light(const QRcode *code, int x, int y)
{
    bool is_inside = x >= 0 && y >= 0 && x < code->width && y < code->width;

    return !is_inside || !(code->data[y * code->width + x] & 1);
}

/* Two rows of modules. Light ones are drawn: a terminal is mostly dark. */
static char *draw_row(const QRcode *code, int y)
{
    char *row = malloc((size_t)(code->width + 2 * QUIET_ZONE) * CELL_BYTES + 1);
    char *at = row;

    for (int x = -QUIET_ZONE; row && x < code->width + QUIET_ZONE; x++) {
        bool upper = is_light(code, x, y);
        bool lower = y + 1 < code->width + QUIET_ZONE && is_light(code, x, y + 1);

        at = stpcpy(at, upper ? lower ? "\u2588" : "\u2580" : lower ? "\u2584" : " ");
    }
    return row;
}

static struct qr *draw(const QRcode *code)
{
    struct qr *qr = calloc(1, sizeof *qr);
    int modules = code->width + 2 * QUIET_ZONE;

    if (!qr)
        return NULL;
    qr->width = modules;
    qr->height = (modules + 1) / 2;
    qr->rows = calloc((size_t)qr->height, sizeof *qr->rows);
    for (int i = 0; i < qr->height; i++) {
        if (qr->rows)
            qr->rows[i] = draw_row(code, 2 * i - QUIET_ZONE);
        if (!qr->rows || !qr->rows[i]) {
            qr_free(qr);
            return NULL;
        }
    }
    return qr;
}

struct qr *qr_make(const char *text)
{
    QRcode *code = QRcode_encodeString8bit(text, 0, QR_ECLEVEL_L);
    struct qr *qr = code ? draw(code) : NULL;

    QRcode_free(code);
    return qr;
}

void qr_free(struct qr *qr)
{
    if (!qr)
        return;
    for (int i = 0; qr->rows && i < qr->height; i++)
        free(qr->rows[i]);
    free(qr->rows);
    free(qr);
}
