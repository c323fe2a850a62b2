#include "clients/http_answer.h"

#include "clients/folder.h"

#include <errno.h>
#include <string.h>

const char *http_answer_asked(struct MHD_Connection *connection, const char *name)
{
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

/* At the same address there may be another service tomorrow, so that caches are to ask. */
enum MHD_Result http_answer_give(struct MHD_Connection *connection, unsigned status,
                                 struct MHD_Response *response)
{
    enum MHD_Result result;

    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, "Cache-Control", "no-cache");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

struct MHD_Response *http_answer_words(const char *text)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), (void *)text, MHD_RESPMEM_PERSISTENT);

    if (response)
        MHD_add_response_header(response, "Content-Type", "text/plain; charset=utf-8");
    return response;
}

static const char *words_for(int err, unsigned *status)
{
    if (folder_has_none(err)) {
        *status = MHD_HTTP_NOT_FOUND;
        return "There is nothing here.\n";
    }
    switch (-err) {
    case EACCES: case EPERM:
        *status = MHD_HTTP_FORBIDDEN;
        return "This may not be read.\n";
    case EMFILE: case ENFILE: case ENOMEM:
        *status = MHD_HTTP_SERVICE_UNAVAILABLE;
        return "Too much to do; try again.\n";
    default:
        *status = MHD_HTTP_INTERNAL_SERVER_ERROR;
        return "This can't be read.\n";
    }
}

enum MHD_Result http_answer_refuse(struct MHD_Connection *connection, int err)
{
    unsigned status;
    const char *text = words_for(err, &status);

    return http_answer_give(connection, status, http_answer_words(text));
}
