/* Attaching: a connection to the server's end of a tunnel. */
#include "clients/library.h"

#include "clients/transport.h"
#include "relay/socket.h"
#include "relay/uri.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum tristero_status connect_tunnel(const struct tristero_proxy *proxy, const char *server_uri,
                                    const char *scheme, int *socket, struct tristero_error *error)
{
    struct tunnel_uri uri;
    const char *expected;

    if (tunnel_uri_parse(server_uri, strlen(server_uri), &uri, &expected) < 0)
        return error_set(error, TRISTERO_INVALID, "can't attach to \"%.100s\": expected %s",
                         server_uri, expected);
    if (strcmp(uri.scheme, scheme) != 0)
        return error_set(error, TRISTERO_INVALID, "can't attach to %s: expected a URI of %s",
                         server_uri, scheme);
    return transport_connect(proxy, uri.host, uri.port, server_uri, socket, error);
}

/* The keepalive and the small delay of relaying, but an ordinary close, and
 * blocking mode: what a program expects of a socket that it is handed. */
static int make_ordinary(int socket)
{
    int err = socket_prepare_carrier(socket, SOCKET_KEEPALIVE_MS);
    int flags = fcntl(socket, F_GETFL);

    if (err)
        return err;
    if (flags < 0 || fcntl(socket, F_SETFL, flags & ~O_NONBLOCK) < 0)
        return -errno;
    return 0;
}

enum tristero_status tristero_attach(struct tristero_proxy *proxy, const char *server_uri,
                                     int *connection, struct tristero_error *error)
{
    const char *scheme = strncasecmp(server_uri, "ssh:", 4) == 0 ? "ssh" : "tcp";
    int socket = -1;
    enum tristero_status status = connect_tunnel(proxy, server_uri, scheme, &socket, error);
    int err;

    if (status)
        return status;
    err = make_ordinary(socket);
    if (err) {
        close(socket);
        return error_set_os(error, TRISTERO_UNREACHABLE, -err, "can't attach to %s", server_uri);
    }
    *connection = socket;
    return TRISTERO_OK;
}
