#include "clients/http_date.h"

/* The locale's names of days are English, since the command leaves LC_TIME alone. The
 * first is the one to write; the others are of old, and still to be read (RFC 9110, 5.6.7). */
static const char *const forms[] = {
    "%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y",
};

void http_date_format(time_t time_s, char text[HTTP_DATE_BYTES])
{
    struct tm utc;

    text[0] = '\0';
    if (gmtime_r(&time_s, &utc))
        strftime(text, HTTP_DATE_BYTES, forms[0], &utc);
}

bool http_date_read(const char *text, time_t *time_s)
{
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        struct tm utc = { 0 };
        const char *end = strptime(text, forms[i], &utc);

        if (end && !*end) {
            *time_s = timegm(&utc);
            return true;
        }
    }
    return false;
}
