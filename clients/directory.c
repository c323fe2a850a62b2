#include <config.h>

#include "clients/directory.h"

#include "clients/file_answer.h"
#include "clients/folder.h"
#include "clients/http_answer.h"
#include "clients/index_page.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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
enum { STALLED_S = 120, KEPT_S = 10, CONNECTIONS_MAX = 4096 };

struct directory {
    struct MHD_Daemon *daemon;
    char *path;                         /* opened for each request: another folder may stand there */
};

static enum MHD_Result give_index(struct MHD_Connection *connection, int folder, const char *path)
{
    struct MHD_Response *response;
    size_t length;
    char *page;
    int err = index_page_make(folder, path, &page, &length);

    if (err)
        return http_answer_refuse(connection, err);
    response = MHD_create_response_from_buffer(length, page, MHD_RESPMEM_MUST_FREE);
    if (!response)
        free(page);
    else
        MHD_add_response_header(response, "Content-Type", "text/html; charset=utf-8");
    return http_answer_give(connection, MHD_HTTP_OK, response);
}

struct query {
    FILE *stream;
    char separator;                     /* before the next of it */
};

static enum MHD_Result write_argument(void *context, enum MHD_ValueKind kind, const char *name,
                                      const char *value)
{
    struct query *query = context;

    (void)kind;
    fputc(query->separator, query->stream);
    query->separator = '&';
    path_write_encoded(query->stream, name);
    if (value) {
        fputc('=', query->stream);
        path_write_encoded(query->stream, value);
    }
    return MHD_YES;
}

/* Relative links of a folder's page lead inside of it only if its own URL ends in "/". */
static enum MHD_Result give_redirection(struct MHD_Connection *connection, const char *path)
{
    struct MHD_Response *response = NULL;
    char *location = NULL;
    size_t length;
    FILE *stream = open_memstream(&location, &length);
    struct query query;

    if (!stream)
        return MHD_NO;
    query = (struct query){ .stream = stream, .separator = '?' };
    fputc('/', stream);
    path_write_encoded(stream, path);
    fputc('/', stream);
    MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, write_argument, &query);
    if (fclose(stream) == 0)
        response = http_answer_words("It is a folder.\n");
    if (response)
        MHD_add_response_header(response, "Location", location);
    free(location);
    return http_answer_give(connection, MHD_HTTP_MOVED_PERMANENTLY, response);
}

/* Without its first "/"; also of a whole URL, as a proxy would get it. NULL: it has none. */
static const char *path_of(const char *url)
{
    static const char scheme[] = "http://";

    if (!strncasecmp(url, scheme, strlen(scheme)))
        url = strchrnul(url + strlen(scheme), '/');
    else if (*url != '/')
        return NULL;
    return *url ? url + 1 : url;
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

static enum MHD_Result give_folder(struct MHD_Connection *connection, bool is_head, int folder,
                                   const char *path)
{
    char index[PATH_MAX];
    struct stat about;
    int file = -ENAMETOOLONG;

    if (snprintf(index, sizeof index, "%sindex.html", path) < (int)sizeof index)
        file = folder_open_inside(folder, index, &about);
    if (folder_has_none(file))
        return give_index(connection, folder, path);
    if (file < 0)
        return http_answer_refuse(connection, file);
    if (S_ISREG(about.st_mode))
        return file_answer_give(connection, is_head, index, file, &about);
    close(file);
    return give_index(connection, folder, path);
}

static enum MHD_Result give(struct MHD_Connection *connection, bool is_head, int folder,
                            const char *path)
{
    struct stat about;
    int file;

    if (!*path || path[strlen(path) - 1] == '/')
        return give_folder(connection, is_head, folder, path);
    file = folder_open_inside(folder, path, &about);
    if (file < 0)
        return http_answer_refuse(connection, file);
    if (S_ISREG(about.st_mode))
        return file_answer_give(connection, is_head, path, file, &about);
    close(file);
    return give_redirection(connection, path);
}

static enum MHD_Result give_not_allowed(struct MHD_Connection *connection)
{
    struct MHD_Response *response = http_answer_words("Files can only be read here.\n");

    if (response)
        MHD_add_response_header(response, "Allow", "GET, HEAD");
    return http_answer_give(connection, MHD_HTTP_METHOD_NOT_ALLOWED, response);
}

static enum MHD_Result answer(void *argument, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *data_size, void **state)
{
    const struct directory *directory = argument;
    const char *path = path_of(url);
    bool is_head = !strcmp(method, "HEAD");
    enum MHD_Result result;
    int folder;

    (void)data;
    MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, (unsigned)STALLED_S);
    if (!is_head && strcmp(method, "GET") != 0)
        return give_not_allowed(connection);
    if (!*state || *data_size) {        /* an answer before the request's end would end the connection */
        *state = (void *)directory;
        *data_size = 0;
        return MHD_YES;
    }
    if (!strcmp(version, MHD_HTTP_VERSION_1_1) && !http_answer_asked(connection, "Host"))
        return http_answer_give(connection, MHD_HTTP_BAD_REQUEST,
                                http_answer_words("The request names no host.\n"));
    if (!path || !path_is_shown(path))
        return http_answer_refuse(connection, -ENOENT);
    folder = folder_open(directory->path);
    if (folder < 0)
        return http_answer_refuse(connection, folder);
    result = give(connection, is_head, folder, path);
    close(folder);
    return result;
}

static void take_completed(void *argument, struct MHD_Connection *connection, void **state,
                           enum MHD_RequestTerminationCode how)
{
    (void)argument, (void)state, (void)how;
    MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, (unsigned)KEPT_S);
}

static int hex_value(char digit)
{
    static const char digits[] = "0123456789abcdefABCDEF";
    const char *at = digit ? strchr(digits, digit) : NULL;

    if (!at)
        return -1;
    return (int)(at - digits) - (at - digits > 15 ? 6 : 0);
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

/* The working directory's own name may be another's later. NULL: no memory. */
static char *absolute_path(const char *path)
{
    char *here = *path == '/' ? NULL : getcwd(NULL, 0);
    char *whole;

    if (!here)
        return strdup(path);
    if (asprintf(&whole, "%s/%s", here, path) < 0)
        whole = NULL;
    free(here);
    return whole;
}

/* 0 or a negative errno. */
static int start(struct directory *directory, const char *path)
{
    int err;

    directory->path = absolute_path(path);
    if (!directory->path)
        return -ENOMEM;
    err = folder_check(directory->path);
    if (err)
        return err;
    directory->daemon = daemon_start(directory);
    return directory->daemon ? 0 : -ENOMEM;
}

int directory_open(const char *path, struct directory **out, char error[DIRECTORY_ERROR_BYTES])
{
    struct directory *directory = calloc(1, sizeof *directory);
    int err = directory ? start(directory, path) : -ENOMEM;

    if (!err) {
        *out = directory;
        return 0;
    }
    if (err == -ENOSYS)
        snprintf(error, DIRECTORY_ERROR_BYTES, "a folder needs openat2(2), which this kernel does "
                 "not have; Linux has it from 5.6 on");
    else
        snprintf(error, DIRECTORY_ERROR_BYTES, "can't serve the folder %.300s: %s", path,
                 err == -ENOMEM ? "no memory or descriptors" : strerror(-err));
    directory_close(directory);
    return err;
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
    if (directory->daemon)
        MHD_stop_daemon(directory->daemon);
    free(directory->path);
    free(directory);
}
