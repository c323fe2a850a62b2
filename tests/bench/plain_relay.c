/* plain_relay: the least that a relay in user space can do, to compare with.
 *     plain_relay PORT SERVER_PORT
 * For each client that comes to PORT, a connection to SERVER_PORT, and for each
 * direction a thread that reads and writes by blocking calls. */
#include "tests/bench/wire.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER_BYTES = 64 * 1024 };

struct direction {
    int from, to;
};

static void *copy(void *context)
{
    struct direction *direction = context;
    char *buffer = malloc(BUFFER_BYTES);
    ssize_t count;

    while (buffer && (count = read(direction->from, buffer, BUFFER_BYTES)) > 0)
        if (send_exactly(direction->to, buffer, (size_t)count) < 0)
            break;
    shutdown(direction->to, SHUT_WR);
    free(buffer);
    return NULL;
}

static void *relay(void *context)
{
    struct direction *up = context;
    struct direction down = { up->to, up->from };
    pthread_t thread;

    if (pthread_create(&thread, NULL, copy, &down))
        die("plain_relay: no thread");
    copy(up);
    pthread_join(thread, NULL);
    close(up->from);
    close(up->to);
    free(up);
    return NULL;
}

/* A connection may be silent for as long as it likes. */
static void wait_for_ever(int socket)
{
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ 0 }, sizeof(struct timeval));
}

int main(int count, char **arguments)
{
    uint16_t server_port;
    int listener;

    if (count != 3)
        die("usage: plain_relay PORT SERVER_PORT");
    listener = listen_on((uint16_t)number_argument(arguments[1], 1, UINT16_MAX));
    server_port = (uint16_t)number_argument(arguments[2], 1, UINT16_MAX);
    if (listener < 0)
        die("plain_relay: port %s: %s", arguments[1], strerror(-listener));
    wait_for_ever(listener);
    for (;;) {
        struct direction *up = malloc(sizeof *up);
        pthread_t thread;

        if (!up)
            die("plain_relay: no memory");
        *up = (struct direction){ accept_from(listener), connect_to(server_port) };
        if (up->from < 0 || up->to < 0) {
            close(up->from);
            close(up->to);
            free(up);
            continue;
        }
        wait_for_ever(up->from);
        wait_for_ever(up->to);
        if (pthread_create(&thread, NULL, relay, up))
            die("plain_relay: no thread");
        pthread_detach(thread);
    }
}
