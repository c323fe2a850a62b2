#include "clients/http_condition.h"

#include "clients/http_date.h"
#include "clients/http_etag.h"

#include <stddef.h>
#include <string.h>

/* Otherwise is the answer if the field is not there, or no date. */
static bool is_changed_since(const char *field, time_t changed_s, bool otherwise)
{
    time_t since_s;

    return field && http_date_read(field, &since_s) ? changed_s > since_s : otherwise;
}

enum http_verdict http_conditions_judge(const struct http_conditions *conditions,
                                        const char *etag, time_t changed_s)
{
    bool is_meant = conditions->match
        ? http_etag_is_in(conditions->match, etag, true)
        : !is_changed_since(conditions->unmodified_since, changed_s, false);
    bool is_new = conditions->none_match
        ? !http_etag_is_in(conditions->none_match, etag, false)
        : is_changed_since(conditions->modified_since, changed_s, true);

    if (!is_meant)
        return HTTP_FAILED;
    return is_new ? HTTP_WANTED : HTTP_NOT_MODIFIED;
}

bool http_condition_allows_part(const char *if_range, const char *etag)
{
    return !if_range || (*etag == '"' && !strcmp(if_range, etag));
}
