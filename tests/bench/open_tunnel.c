#include "tests/bench/open_tunnel.h"

#include "tests/bench/wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MESSAGE_BYTES = 2048 };

static int receive_all(int connection, char text[MESSAGE_BYTES])
{
    size_t used = 0;

    for (;;) {
        ssize_t now = recv(connection, text + used, MESSAGE_BYTES - 1 - used, 0);
        if (now < 0)
            return -errno;
        used += (size_t)now;
        if (now == 0 || used == MESSAGE_BYTES - 1)
            break;
    }
    text[used] = '\0';
    return 0;
}

/* Sends the text, and puts the answer in its place. */
static int exchange(uint16_t rpc_port, char text[MESSAGE_BYTES])
{
    int connection = connect_to(rpc_port);
    int err = connection;

    if (connection < 0)
        return err;
    err = send_exactly(connection, text, strlen(text));
    if (!err)
        err = receive_all(connection, text);
    close(connection);
    return err;
}

/* Calls a method whose result is a URI, and takes the port from it. */
static int call(uint16_t rpc_port, const char *method, const char *parameters, uint16_t *port)
{
    char body[MESSAGE_BYTES / 2], text[MESSAGE_BYTES];
    const char *uri;
    int length, err;

    length = snprintf(body, sizeof body,
                      "<?xml version=\"1.0\"?><methodCall><methodName>Tunnel.%s</methodName>"
                      "<params>%s</params></methodCall>", method, parameters);
    snprintf(text, sizeof text,
             "POST /RPC2 HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nContent-Type: text/xml\r\n"
             "Content-Length: %d\r\n\r\n%s", rpc_port, length, body);
    err = exchange(rpc_port, text);
    if (err)
        return err;
    uri = strstr(text, "tcp://127.0.0.1:");
    if (!uri) {
        fprintf(stderr, "%s: %s\n", method, text);
        return -EPROTO;
    }
    *port = (uint16_t)strtol(uri + strlen("tcp://127.0.0.1:"), NULL, 10);
    return 0;
}

int open_tunnel(uint16_t rpc_port, struct tunnel_ports *ports)
{
    char parameter[128];
    int err = call(rpc_port, "openTunnel", "", &ports->server);

    if (err)
        return err;
    snprintf(parameter, sizeof parameter,
             "<param><value><string>tcp://127.0.0.1:%u</string></value></param>", ports->server);
    return call(rpc_port, "getTunnelAddress", parameter, &ports->client);
}
