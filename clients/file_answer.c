#include "clients/file_answer.h"

#include "clients/http_answer.h"
#include "clients/http_condition.h"
#include "clients/http_date.h"
#include "clients/http_etag.h"
#include "clients/http_range.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

enum { READ_BYTES = 65536 };

static const struct {
    const char *suffix, *type;
} types[] = {
    { "html", "text/html; charset=utf-8" }, { "htm", "text/html; charset=utf-8" },
    { "css", "text/css; charset=utf-8" }, { "js", "text/javascript; charset=utf-8" },
    { "mjs", "text/javascript; charset=utf-8" }, { "json", "application/json" },
    { "xml", "application/xml" }, { "txt", "text/plain; charset=utf-8" },
    { "md", "text/plain; charset=utf-8" }, { "log", "text/plain; charset=utf-8" },
    { "csv", "text/csv; charset=utf-8" }, { "svg", "image/svg+xml" }, { "png", "image/png" },
    { "jpg", "image/jpeg" }, { "jpeg", "image/jpeg" }, { "gif", "image/gif" },
    { "webp", "image/webp" }, { "avif", "image/avif" }, { "ico", "image/x-icon" },
    { "pdf", "application/pdf" }, { "wasm", "application/wasm" }, { "mp3", "audio/mpeg" },
    { "ogg", "audio/ogg" }, { "wav", "audio/wav" }, { "mp4", "video/mp4" },
    { "webm", "video/webm" }, { "woff2", "font/woff2" }, { "ttf", "font/ttf" },
    { "zip", "application/zip" }, { "gz", "application/gzip" }, { "xz", "application/x-xz" },
};

static const char *type_of(const char *path)
{
    const char *name = strrchr(path, '/');
    const char *dot = strrchr(name ? name : path, '.');

    for (size_t i = 0; dot && i < sizeof types / sizeof types[0]; i++) {
        if (!strcasecmp(dot + 1, types[i].suffix))
            return types[i].type;
    }
    return "application/octet-stream";
}

/* What is sent of a file. */
struct part {
    int file;
    uint64_t first, length;             /* MHD_SIZE_UNKNOWN: all that is there */
};

struct version {
    char etag[HTTP_ETAG_BYTES];
    time_t changed_s;
    bool is_of_the_past;                /* and not yet to come, by this machine's clock */
};

static struct version version_of(const struct stat *about)
{
    struct version version = { .changed_s = about->st_mtime };
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    http_etag_format(about, &now, version.etag);
    version.is_of_the_past = version.changed_s <= now.tv_sec;
    return version;
}

static void add_version(struct MHD_Response *response, const struct version *version)
{
    char changed[HTTP_DATE_BYTES];

    MHD_add_response_header(response, "ETag", version->etag);
    if (!version->is_of_the_past)
        return;
    http_date_format(version->changed_s, changed);
    MHD_add_response_header(response, "Last-Modified", changed);
}

/* A file may become shorter meanwhile; then its client is cut off, not left to wait for the rest. */
static ssize_t read_part(void *context, uint64_t position, char *to, size_t room)
{
    const struct part *part = context;
    ssize_t count = pread(part->file, to, room, (off_t)(part->first + position));

    if (count > 0)
        return count;
    return count == 0 && part->length == MHD_SIZE_UNKNOWN ? MHD_CONTENT_READER_END_OF_STREAM
                                                          : MHD_CONTENT_READER_END_WITH_ERROR;
}

static void free_part(void *context)
{
    struct part *part = context;

    close(part->file);
    free(part);
}

/* Takes the file over. NULL: no memory. */
static struct MHD_Response *part_of(const struct part *part)
{
    struct part *own = malloc(sizeof *own);
    struct MHD_Response *response = NULL;

    if (own) {
        *own = *part;
        response = MHD_create_response_from_callback(part->length, READ_BYTES, read_part, own,
                                                     free_part);
    }
    if (!response) {
        free(own);
        close(part->file);
    }
    return response;
}

static enum MHD_Result give_outside(struct MHD_Connection *connection, uint64_t size)
{
    struct MHD_Response *response = http_answer_words("The file is not that long.\n");
    char range[48];

    snprintf(range, sizeof range, "bytes */%llu", (unsigned long long)size);
    if (response)
        MHD_add_response_header(response, "Content-Range", range);
    return http_answer_give(connection, MHD_HTTP_RANGE_NOT_SATISFIABLE, response);
}

/* A HEAD has no parts (RFC 9110, 14.2). */
static enum http_range range_of(struct MHD_Connection *connection, bool is_head, const char *etag,
                                uint64_t size, struct part *part)
{
    const char *range = is_head ? NULL : http_answer_asked(connection, "Range");

    if (!range || !http_condition_allows_part(http_answer_asked(connection, "If-Range"), etag))
        return HTTP_RANGE_ALL;
    return http_range_read(range, size, &part->first, &part->length);
}

static enum MHD_Result give_part(struct MHD_Connection *connection, bool is_head, const char *path,
                                 int file, uint64_t size, const struct version *version)
{
    struct part part = { .file = file, .length = size };
    enum http_range range = range_of(connection, is_head, version->etag, size, &part);
    struct MHD_Response *response;
    char text[80];

    if (range == HTTP_RANGE_OUTSIDE) {
        close(file);
        return give_outside(connection, size);
    }
    response = part_of(&part);
    if (!response)
        return MHD_NO;
    add_version(response, version);
    MHD_add_response_header(response, "Content-Type", type_of(path));
    MHD_add_response_header(response, "Accept-Ranges", "bytes");
    if (range == HTTP_RANGE_ALL)
        return http_answer_give(connection, MHD_HTTP_OK, response);
    snprintf(text, sizeof text, "bytes %llu-%llu/%llu", (unsigned long long)part.first,
             (unsigned long long)(part.first + part.length - 1), (unsigned long long)size);
    MHD_add_response_header(response, "Content-Range", text);
    return http_answer_give(connection, MHD_HTTP_PARTIAL_CONTENT, response);
}

/* Without the file, but it tells the length that the file has. */
static enum MHD_Result give_not_modified(struct MHD_Connection *connection, int file, uint64_t size,
                                         const struct version *version)
{
    const struct part whole = { .file = file, .length = size };
    struct MHD_Response *response = part_of(&whole);

    if (response)
        add_version(response, version);
    return http_answer_give(connection, MHD_HTTP_NOT_MODIFIED, response);
}

static enum MHD_Result give_to_its_end(struct MHD_Connection *connection, const char *path, int file)
{
    const struct part all = { .file = file, .length = MHD_SIZE_UNKNOWN };
    struct MHD_Response *response = part_of(&all);

    if (response)
        MHD_add_response_header(response, "Content-Type", type_of(path));
    return http_answer_give(connection, MHD_HTTP_OK, response);
}

/* 1, 0 or a negative errno. A file of /proc is said to be empty, and one of /sys to be
 * as long as a page, whatever is in it. */
static int has_its_size(int file, off_t size)
{
    char byte;
    ssize_t count = pread(file, &byte, 1, size ? size - 1 : 0);

    return count < 0 ? -errno : count == (size ? 1 : 0);
}

enum MHD_Result file_answer_give(struct MHD_Connection *connection, bool is_head,
                                 const char *path, int file, const struct stat *about)
{
    const struct http_conditions conditions = {
        .match = http_answer_asked(connection, "If-Match"),
        .unmodified_since = http_answer_asked(connection, "If-Unmodified-Since"),
        .none_match = http_answer_asked(connection, "If-None-Match"),
        .modified_since = http_answer_asked(connection, "If-Modified-Since"),
    };
    struct version version = version_of(about);
    uint64_t size = (uint64_t)about->st_size;
    int has_size = has_its_size(file, about->st_size);

    if (has_size < 0) {
        close(file);
        return http_answer_refuse(connection, has_size);
    }
    if (!has_size)
        return give_to_its_end(connection, path, file);
    switch (http_conditions_judge(&conditions, version.etag, version.changed_s)) {
    case HTTP_WANTED:
        return give_part(connection, is_head, path, file, size, &version);
    case HTTP_NOT_MODIFIED:
        return give_not_modified(connection, file, size, &version);
    default:
        close(file);
        return http_answer_give(connection, MHD_HTTP_PRECONDITION_FAILED,
                                http_answer_words("This is not the file that was meant.\n"));
    }
}
