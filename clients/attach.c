/* Attaching: a connection to the server's end of a tcp tunnel. */
#include "clients/library.h"

#include "relay/socket.h"
#include "relay/uri.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static enum tristero_status connect_failed(const char *server_uri, int err,
                                           struct tristero_error *error)
{
    char reason[128];

    switch (-err) {
    case ETIMEDOUT:
        return error_set(error, TRISTERO_TIMEOUT, "can't attach to %s: no connection in time",
                         server_uri);
    case ENOENT:
        return error_set(error, TRISTERO_UNREACHABLE, "can't attach to %s: there is no such host",
                         server_uri);
    case EMFILE: case ENFILE: case ENOBUFS: case ENOMEM:
        return error_set(error, TRISTERO_NO_RESOURCES, "can't attach to %s: %s", server_uri,
                         strerror_r(-err, reason, sizeof reason));
    default:
        return error_set(error, TRISTERO_UNREACHABLE, "can't attach to %s: %s", server_uri,
                         strerror_r(-err, reason, sizeof reason));
    }
}

/* The keepalive and the small delay of relaying, but an ordinary close, and
 * blocking mode: what a program expects of a socket that it is handed. */
static int make_ordinary(int socket)
{
    struct linger ordinary = { 0 };
    int err = socket_prepare_to_relay(socket, SOCKET_KEEPALIVE_MS);
    int flags;

    if (err)
        return err;
    flags = fcntl(socket, F_GETFL);
    if (flags < 0 || fcntl(socket, F_SETFL, flags & ~O_NONBLOCK) < 0 ||
        setsockopt(socket, SOL_SOCKET, SO_LINGER, &ordinary, sizeof ordinary) < 0)
        return -errno;
    return 0;
}

enum tristero_status tristero_attach(struct tristero_proxy *proxy, const char *server_uri,
                                     int *connection, struct tristero_error *error)
{
    struct tunnel_uri uri;
    const char *expected;
    int socket;
    int err;

    if (tunnel_uri_parse(server_uri, strlen(server_uri), &uri, &expected) < 0)
        return error_set(error, TRISTERO_INVALID, "can't attach to \"%.100s\": expected %s",
                         server_uri, expected);
    if (strcmp(uri.scheme, "tcp") != 0)
        return error_set(error, TRISTERO_INVALID,
                         "can't attach to %s: only tcp tunnels are attached to by a connection",
                         server_uri);
    socket = socket_connect(uri.host, uri.port, proxy->attach_timeout_ms);
    if (socket < 0)
        return connect_failed(server_uri, socket, error);
    err = make_ordinary(socket);
    if (err) {
        close(socket);
        return connect_failed(server_uri, err, error);
    }
    *connection = socket;
    return TRISTERO_OK;
}
