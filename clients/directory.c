#include <config.h>

#include "clients/directory.h"

#include "clients/folder.h"
#include "clients/http_date.h"
#include "clients/http_range.h"
#include "clients/index_page.h"

#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

/* A client that reads slowly is borne with for longer than one that asks for nothing more:
 * a tunnel has places for not that many, and browsers keep several for long. */
enum { STALLED_S = 120, KEPT_S = 10, CONNECTIONS_MAX = 4096, READ_BYTES = 65536 };

struct directory {
    struct MHD_Daemon *daemon;
    int folder;
};

struct part {
    int file;
    uint64_t first;
};

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

static const char *header(struct MHD_Connection *connection, const char *name)
{
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

/* Hands the answer over, which may be NULL for want of memory: then the client is cut off. */
static enum MHD_Result give(struct MHD_Connection *connection, unsigned status,
                            struct MHD_Response *response)
{
    enum MHD_Result result;

    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

/* An answer without a file: the status for people. */
static struct MHD_Response *words(const char *text)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), (void *)text, MHD_RESPMEM_PERSISTENT);

    if (response)
        MHD_add_response_header(response, "Content-Type", "text/plain; charset=utf-8");
    return response;
}

static enum MHD_Result refuse(struct MHD_Connection *connection, int err)
{
    switch (-err) {
    case ENOENT: case ENOTDIR: case EXDEV: case ELOOP: case ENAMETOOLONG:
        return give(connection, MHD_HTTP_NOT_FOUND, words("There is nothing here.\n"));
    case EACCES: case EPERM:
        return give(connection, MHD_HTTP_FORBIDDEN, words("This may not be read.\n"));
    case EMFILE: case ENFILE: case ENOMEM:
        return give(connection, MHD_HTTP_SERVICE_UNAVAILABLE, words("Too much to do; try again.\n"));
    default:
        return give(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, words("This can't be read.\n"));
    }
}

/* A part is given only of the file that the client has the rest of. */
static enum http_range range_of(struct MHD_Connection *connection, const char *changed,
                                uint64_t size, uint64_t *first, uint64_t *length)
{
    const char *range = header(connection, "Range");
    const char *condition = header(connection, "If-Range");

    if (!range || (condition && strcmp(condition, changed) != 0))
        return HTTP_RANGE_ALL;
    return http_range_read(range, size, first, length);
}

static enum MHD_Result give_unsatisfied(struct MHD_Connection *connection, uint64_t size)
{
    struct MHD_Response *response = words("The file is not that long.\n");
    char range[48];

    snprintf(range, sizeof range, "bytes */%llu", (unsigned long long)size);
    if (response)
        MHD_add_response_header(response, "Content-Range", range);
    return give(connection, MHD_HTTP_RANGE_NOT_SATISFIABLE, response);
}

/* A file may become shorter meanwhile; then its client is cut off, not left to wait for the rest. */
static ssize_t read_part(void *context, uint64_t position, char *to, size_t room)
{
    const struct part *part = context;
    ssize_t count = pread(part->file, to, room, (off_t)(part->first + position));

    return count > 0 ? count : MHD_CONTENT_READER_END_WITH_ERROR;
}

static void free_part(void *context)
{
    struct part *part = context;

    close(part->file);
    free(part);
}

/* Takes the file over. */
static struct MHD_Response *part_of(int file, uint64_t first, uint64_t length)
{
    struct part *part = malloc(sizeof *part);
    struct MHD_Response *response = NULL;

    if (part) {
        *part = (struct part){ .file = file, .first = first };
        response = MHD_create_response_from_callback(length, READ_BYTES, read_part, part, free_part);
    }
    if (!response) {
        free(part);
        close(file);
    }
    return response;
}

static enum MHD_Result give_part(struct MHD_Connection *connection, const char *path, int file,
                                 const struct stat *about, const char *changed)
{
    uint64_t size = (uint64_t)about->st_size, first = 0, length = size;
    enum http_range range = range_of(connection, changed, size, &first, &length);
    struct MHD_Response *response;
    char text[80];

    if (range == HTTP_RANGE_OUTSIDE) {
        close(file);
        return give_unsatisfied(connection, size);
    }
    response = part_of(file, first, length);
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, "Content-Type", type_of(path));
    MHD_add_response_header(response, "Last-Modified", changed);
    MHD_add_response_header(response, "Accept-Ranges", "bytes");
    if (range == HTTP_RANGE_ALL)
        return give(connection, MHD_HTTP_OK, response);
    snprintf(text, sizeof text, "bytes %llu-%llu/%llu", (unsigned long long)first,
             (unsigned long long)(first + length - 1), (unsigned long long)size);
    MHD_add_response_header(response, "Content-Range", text);
    return give(connection, MHD_HTTP_PARTIAL_CONTENT, response);
}

/* Closes file. */
static enum MHD_Result give_file(struct MHD_Connection *connection, const char *path, int file,
                                 const struct stat *about)
{
    const char *since = header(connection, "If-Modified-Since");
    char changed[HTTP_DATE_BYTES];
    struct MHD_Response *response;
    time_t since_s;

    http_date_format(about->st_mtime, changed);
    if (!since || !http_date_read(since, &since_s) || about->st_mtime > since_s)
        return give_part(connection, path, file, about, changed);
    close(file);
    response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (response)
        MHD_add_response_header(response, "Last-Modified", changed);
    return give(connection, MHD_HTTP_NOT_MODIFIED, response);
}

static enum MHD_Result give_index(struct MHD_Connection *connection, int folder, const char *path)
{
    struct MHD_Response *response;
    size_t length;
    char *page;
    int err = index_page_make(folder, path, &page, &length);

    if (err)
        return refuse(connection, err);
    response = MHD_create_response_from_buffer(length, page, MHD_RESPMEM_MUST_FREE);
    if (!response)
        free(page);
    else
        MHD_add_response_header(response, "Content-Type", "text/html; charset=utf-8");
    return give(connection, MHD_HTTP_OK, response);
}

/* Relative links of a folder's page lead inside of it only if its own URL ends in "/". */
static enum MHD_Result give_redirection(struct MHD_Connection *connection, const char *path)
{
    struct MHD_Response *response = NULL;
    char *location = NULL;
    size_t length;
    FILE *stream = open_memstream(&location, &length);

    if (!stream)
        return MHD_NO;
    fputc('/', stream);
    path_write_encoded(stream, path);
    fputc('/', stream);
    if (fclose(stream) == 0)
        response = words("It is a folder.\n");
    if (response)
        MHD_add_response_header(response, "Location", location);
    free(location);
    return give(connection, MHD_HTTP_MOVED_PERMANENTLY, response);
}

/* Without its first "/": names that may be shown, one after the other. */
static bool path_is_shown(const char *path)
{
    for (const char *name = path; *name; name++) {
        if (*name == '.' || *name == '/')
            return false;
        name = strchrnul(name, '/');
        if (!*name)
            break;
    }
    return true;
}

static enum MHD_Result give_folder(struct MHD_Connection *connection, int folder, const char *path)
{
    char index[4096];
    struct stat about;
    int file;

    if (snprintf(index, sizeof index, "%sindex.html", path) >= (int)sizeof index)
        return refuse(connection, -ENAMETOOLONG);
    file = folder_open_inside(folder, index, &about);
    if (file < 0)
        return file == -ENOENT ? give_index(connection, folder, path) : refuse(connection, file);
    if (S_ISREG(about.st_mode))
        return give_file(connection, index, file, &about);
    close(file);
    return give_index(connection, folder, path);
}

static enum MHD_Result answer(void *argument, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *data_size, void **state)
{
    const struct directory *directory = argument;
    const char *path = url + 1;
    struct stat about;
    int file;

    (void)version, (void)data;
    MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, (unsigned)STALLED_S);
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) {
        struct MHD_Response *response = words("Files can only be read here.\n");

        if (response)
            MHD_add_response_header(response, "Allow", "GET, HEAD");
        return give(connection, MHD_HTTP_METHOD_NOT_ALLOWED, response);
    }
    if (!*state || *data_size) {        /* an answer before the request's end would end the connection */
        *state = (void *)directory;
        *data_size = 0;
        return MHD_YES;
    }
    if (*url != '/' || !path_is_shown(path))
        return refuse(connection, -ENOENT);
    if (!*path || path[strlen(path) - 1] == '/')
        return give_folder(connection, directory->folder, path);
    file = folder_open_inside(directory->folder, path, &about);
    if (file < 0)
        return refuse(connection, file);
    if (S_ISREG(about.st_mode))
        return give_file(connection, path, file, &about);
    close(file);
    return give_redirection(connection, path);
}

static void take_completed(void *argument, struct MHD_Connection *connection, void **state,
                           enum MHD_RequestTerminationCode how)
{
    (void)argument, (void)state, (void)how;
    MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, (unsigned)KEPT_S);
}

static int hex_value(char digit)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = digit ? strchr(digits, digit | 0x20) : NULL;

    return at ? (int)(at - digits) : -1;
}

/* Decodes in place. What is no encoded byte stays as it is, as does a NUL, at which
 * a name would seem to end: it makes a name that nothing has. */
static size_t unescape(void *argument, struct MHD_Connection *connection, char *text)
{
    char *to = text;

    (void)argument, (void)connection;
    for (const char *from = text; *from; from++) {
        int high = *from == '%' ? hex_value(from[1]) : -1;
        int low = high < 0 ? -1 : hex_value(from[2]);

        if (low < 0 || (high | low) == 0) {
            *to++ = *from;
            continue;
        }
        *to++ = (char)(high << 4 | low);
        from += 2;
    }
    *to = '\0';
    return (size_t)(to - text);
}

/* Signals are not for its thread to take. With epoll, libmicrohttpd 0.9.75 does not notice
 * an end that is there before it has read what came before. */
static struct MHD_Daemon *daemon_start(struct directory *directory)
{
    struct MHD_Daemon *daemon;
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    daemon = MHD_start_daemon(
        MHD_USE_NO_LISTEN_SOCKET | MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_ITC, 0, NULL, NULL,
        answer, directory, MHD_OPTION_UNESCAPE_CALLBACK, unescape, NULL,
        MHD_OPTION_NOTIFY_COMPLETED, take_completed, NULL,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)KEPT_S,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX, MHD_OPTION_END);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return daemon;
}

int directory_open(const char *path, struct directory **out, char error[DIRECTORY_ERROR_BYTES])
{
    struct directory *directory = calloc(1, sizeof *directory);
    int folder = folder_open(path);

    if (folder < 0 || !directory)
        goto fail;
    directory->folder = folder;
    directory->daemon = daemon_start(directory);
    if (!directory->daemon)
        goto fail;
    *out = directory;
    return 0;
fail:
    if (folder == -ENOSYS)
        snprintf(error, DIRECTORY_ERROR_BYTES, "a folder needs openat2(2), which this kernel does "
                 "not have; Linux has it from 5.6 on");
    else
        snprintf(error, DIRECTORY_ERROR_BYTES, "can't serve the folder %.300s: %s", path,
                 folder < 0 ? strerror(-folder) : "no memory or descriptors");
    if (folder >= 0)
        close(folder);
    free(directory);
    return folder < 0 ? folder : -ENOMEM;
}

int directory_take(struct directory *directory, int connection)
{
    struct sockaddr nobody = { .sa_family = AF_UNIX };
    int flags = fcntl(connection, F_GETFL);

    if (flags < 0 || fcntl(connection, F_SETFL, flags | O_NONBLOCK) < 0) {
        close(connection);
        return -EBADF;
    }
    /* It closes what it does not take. */
    return MHD_add_connection(directory->daemon, connection, &nobody, sizeof nobody) == MHD_YES
        ? 0 : -EMFILE;
}

void directory_close(struct directory *directory)
{
    if (!directory)
        return;
    MHD_stop_daemon(directory->daemon);
    close(directory->folder);
    free(directory);
}
