/* endpoints: connections on loopback without any relay, held idle, to learn what
 * the sockets of a bench program itself cost the machine.
 *     endpoints CONNECTIONS
 * Stage "ready" before the first is there, "held" when all are. */
#include "tests/bench/wire.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static uint16_t port_of(int listener)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;

    if (getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        die("endpoints: no port");
    return ntohs(address.sin_port);
}

int main(int count, char **arguments)
{
    long connections;
    int listener;

    if (count != 2)
        die("usage: endpoints CONNECTIONS");
    connections = number_argument(arguments[1], 1, 9900);
    raise_descriptor_limit();
    listener = listen_on(0);
    if (listener < 0)
        die("endpoints: %s", strerror(-listener));
    stage("ready");
    for (long i = 0; i < connections; i++) {
        char byte = 0;
        int client = connect_to(port_of(listener));
        int server = client < 0 ? client : accept_from(listener);
        int err = server < 0 ? server : send_exactly(client, &byte, 1);

        if (!err)                       /* as those of tunnels: used once, and silent since */
            err = receive_exactly(server, &byte, 1);
        if (err)
            die("endpoints: connection %ld: %s", i, strerror(-err));
    }
    stage("held");
    return EXIT_SUCCESS;
}
