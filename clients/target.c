#include "clients/target.h"

#include "clients/directory.h"
#include "relay/socket.h"
#include "relay/waker.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { AGAIN_MS = 20 };

static const char UNIX_PREFIX[] = "unix:";

static int parse_socket(const char *path, struct target *target, char error[TARGET_ERROR_BYTES])
{
    struct sockaddr_un *address = &target->addresses[0].local;

    if (!*path || strlen(path) >= sizeof address->sun_path) {
        snprintf(error, TARGET_ERROR_BYTES, "got \"%.300s\", expected unix: and a path of 1 to %zu "
                 "bytes", target->text, sizeof address->sun_path - 1);
        return -EINVAL;
    }
    target->kind = TARGET_SOCKET;
    address->sun_family = AF_UNIX;
    strcpy(address->sun_path, path);
    target->count = 1;
    return 0;
}

int target_parse(const char *text, struct target *target, char error[TARGET_ERROR_BYTES])
{
    char uri_text[URI_TEXT_BYTES + 16];
    struct tunnel_uri uri;

    *target = (struct target){ .kind = TARGET_PORT };
    snprintf(target->text, sizeof target->text, "%s", text);
    if (!strncmp(text, UNIX_PREFIX, strlen(UNIX_PREFIX)))
        return parse_socket(text + strlen(UNIX_PREFIX), target, error);
    snprintf(uri_text, sizeof uri_text, "tcp://%s%s", strchr(text, ':') ? "" : "127.0.0.1:", text);
    if (strchr(text, '/') || tunnel_uri_parse(uri_text, strlen(uri_text), &uri, NULL) < 0) {
        snprintf(error, TARGET_ERROR_BYTES, "got \"%.300s\", expected PORT, HOST:PORT, [IPv6]:PORT "
                 "or unix:PATH", text);
        return -EINVAL;
    }
    memcpy(target->host, uri.host, sizeof target->host);
    target->port = uri.port;
    tunnel_uri_format(&uri, uri_text);
    snprintf(target->text, sizeof target->text, "%s", uri_text + strlen("tcp://"));
    return 0;
}

int target_of_folder(const char *path, struct target *target, char error[TARGET_ERROR_BYTES])
{
    *target = (struct target){ .kind = TARGET_FOLDER };
    if (*path && snprintf(target->text, sizeof target->text, "%s", path) < TARGET_TEXT_BYTES)
        return 0;
    snprintf(error, TARGET_ERROR_BYTES, "got \"%.300s\", expected the path of a folder", path);
    return -EINVAL;
}

static int look_up(struct target *target, char error[TARGET_ERROR_BYTES])
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct addrinfo *found;
    int problem = getaddrinfo(target->host, NULL, &hints, &found);

    if (problem) {
        snprintf(error, TARGET_ERROR_BYTES, "can't expose %.300s: %s", target->text,
                 problem == EAI_NONAME ? "there is no such host" : gai_strerror(problem));
        return -ENOENT;
    }
    for (const struct addrinfo *each = found; each && target->count < TARGET_ADDRESSES_MAX;
         each = each->ai_next) {
        struct net_address *address = &target->addresses[target->count].net;

        if (each->ai_family != AF_INET && each->ai_family != AF_INET6)
            continue;
        memcpy(&address->any, each->ai_addr, each->ai_addrlen);
        address->length = each->ai_addrlen;
        net_address_set_port(address, target->port);
        target->count++;
    }
    freeaddrinfo(found);
    return 0;
}

int target_start(struct target *target, char error[TARGET_ERROR_BYTES])
{
    switch (target->kind) {
    case TARGET_PORT: return look_up(target, error);
    case TARGET_FOLDER: return directory_open(target->text, &target->directory, error);
    default: return 0;
    }
}

void target_end(struct target *target)
{
    directory_close(target->directory);
    target->directory = NULL;
}

static int connect_folder(const struct target *target)
{
    int ends[2];
    int err;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    err = directory_take(target->directory, ends[1]);
    if (!err)
        return ends[0];
    close(ends[0]);
    return err;
}

/* *connecting tells whether it is only about to be connected. */
static int connect_address(const struct target *target, unsigned which, bool *connecting)
{
    const struct net_address *net = &target->addresses[which].net;
    bool is_local = target->kind == TARGET_SOCKET;
    socklen_t length = is_local ? sizeof target->addresses[which].local : net->length;
    int connection = socket(net->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int err;

    if (connection < 0)
        return -errno;
    *connecting = connect(connection, &net->any, length) < 0;
    if (!*connecting || errno == EINPROGRESS)
        return connection;
    err = -errno;
    close(connection);
    return err;
}

/* What is known of a connection without waiting: of this machine, all. 0 or a negative errno. */
static int known_error(int connection)
{
    socklen_t length = sizeof(int);
    int err = 0;

    if (getsockopt(connection, SOL_SOCKET, SO_ERROR, &err, &length) < 0)
        err = errno;
    return -err;
}

int target_connect(const struct target *target)
{
    bool connecting;
    int result = -ENOENT;

    if (target->kind == TARGET_FOLDER)
        return connect_folder(target);
    for (unsigned i = 0; i < target->count && result < 0; i++) {
        int connection = connect_address(target, i, &connecting);
        int err = connection < 0 ? connection : known_error(connection);

        if (err && connection >= 0)
            close(connection);
        result = err ? err : connection;
    }
    return result;
}

/* As connect_address; but where the queue of a Unix socket is full, which nothing tells the
 * end of, it is tried again until deadline_ms. */
static int connect_patiently(const struct target *target, unsigned which, bool *connecting,
                             int64_t deadline_ms)
{
    int connection;

    while ((connection = connect_address(target, which, connecting)) == -EAGAIN &&
           clock_ms() < deadline_ms)
        poll(NULL, 0, AGAIN_MS);
    return connection;
}

/* Until deadline_ms. 0 or a negative errno. */
static int wait_connected(int connection, int64_t deadline_ms)
{
    struct pollfd polled = { .fd = connection, .events = POLLOUT };
    int ready = waker_poll(NULL, &polled, 1, deadline_ms);

    if (ready <= 0)
        return ready ? ready : -ETIMEDOUT;
    return known_error(connection);
}

int target_connect_in_time(const struct target *target, int timeout_ms, unsigned *which)
{
    int64_t deadline_ms = clock_ms() + timeout_ms;
    int result = -ENOENT;

    if (target->kind == TARGET_FOLDER)
        return connect_folder(target);
    for (unsigned i = 0; i < target->count && result < 0; i++) {
        bool connecting = false;
        int connection = connect_patiently(target, i, &connecting, deadline_ms);

        result = connection;
        if (connection >= 0 && connecting)
            result = wait_connected(connection, deadline_ms);
        if (connection >= 0 && result < 0)
            close(connection);
        if (result >= 0) {
            result = connection;
            if (which)
                *which = i;
        }
    }
    return result;
}
