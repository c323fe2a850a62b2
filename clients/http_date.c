#include "clients/http_date.h"

/* The locale's names of days are English, since the command leaves LC_TIME alone. */
static const char FORMAT[] = "%a, %d %b %Y %H:%M:%S GMT";

void http_date_format(time_t time_s, char text[HTTP_DATE_BYTES])
{
    struct tm utc;

    text[0] = '\0';
    if (gmtime_r(&time_s, &utc))
        strftime(text, HTTP_DATE_BYTES, FORMAT, &utc);
}

bool http_date_read(const char *text, time_t *time_s)
{
    struct tm utc = { 0 };
    const char *end = strptime(text, FORMAT, &utc);

    if (!end || *end)
        return false;
    *time_s = timegm(&utc);
    return true;
}
