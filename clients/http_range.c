#include "clients/http_range.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

static const char UNIT[] = "bytes=";

/* Digits, at least one; what is too large for 64 bits is as good as the largest.
 * Otherwise nothing is taken. */
static bool read_number(const char **text, uint64_t *number)
{
    const char *at = *text;
    uint64_t value = 0;

    for (; *at >= '0' && *at <= '9'; at++) {
        uint64_t digit = (uint64_t)(*at - '0');

        value = value > (UINT64_MAX - digit) / 10 ? UINT64_MAX : 10 * value + digit;
    }
    if (at == *text)
        return false;
    *text = at;
    *number = value;
    return true;
}

enum http_range http_range_read(const char *field, uint64_t size, uint64_t *first,
                                uint64_t *length)
{
    uint64_t from = 0, to = UINT64_MAX;
    const char *at;
    bool has_first;

    if (!size || strncasecmp(field, UNIT, strlen(UNIT)) != 0)
        return HTTP_RANGE_ALL;
    at = field + strlen(UNIT);
    has_first = read_number(&at, &from);
    if (*at++ != '-' || (!read_number(&at, &to) && !has_first) || *at || (has_first && from > to))
        return HTTP_RANGE_ALL;
    if (!has_first) {                   /* the last so many */
        from = to < size ? size - to : 0;
        if (!to)
            return HTTP_RANGE_OUTSIDE;
        to = UINT64_MAX;
    }
    if (from >= size)
        return HTTP_RANGE_OUTSIDE;
    *first = from;
    *length = (to < size ? to + 1 : size) - from;
    return HTTP_RANGE_PART;
}
