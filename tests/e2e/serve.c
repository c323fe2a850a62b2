/* serve: a server by the library, for the end-to-end tests.
 *
 *     serve URL CONNECTIONS echo      speaks with each client on a thread of its own
 *     serve URL CONNECTIONS PORT      relays each to that port of this machine
 *
 * Prints what happens, a line each; SIGTERM stops it. A line of standard input has it
 * print the statistics. */
#include "clients/tristero_tunnel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct tristero_server *server;
static pthread_mutex_t looking = PTHREAD_MUTEX_INITIALIZER;
static bool is_over;                    /* guarded by it */
static in_port_t port;

static void *echo(void *argument)
{
    int client = *(int *)argument;
    char bytes[65536];
    ssize_t count;

    free(argument);
    while ((count = read(client, bytes, sizeof bytes)) > 0) {
        for (ssize_t sent = 0, part; sent < count; sent += part) {
            part = send(client, bytes + sent, (size_t)(count - sent), MSG_NOSIGNAL);
            if (part < 0)
                goto out;
        }
    }
out:
    close(client);
    return NULL;
}

static int connect_echo(void)
{
    int *mine = malloc(sizeof *mine);
    pthread_t thread;
    int theirs;

    if (!mine)
        return -ENOMEM;
    theirs = tristero_stream_pair(mine);
    if (theirs < 0) {
        free(mine);
        return theirs;
    }
    if (pthread_create(&thread, NULL, echo, mine)) {
        close(*mine);
        close(theirs);
        free(mine);
        return -EAGAIN;
    }
    pthread_detach(thread);
    return theirs;
}

static int connect_port(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) < 0 &&
        errno != EINPROGRESS) {
        int err = -errno;

        close(fd);
        return err;
    }
    return fd;
}

static int connect_service(void *context)
{
    (void)context;
    return port ? connect_port() : connect_echo();
}

static void on_event(void *context, const struct tristero_event *event)
{
    static const char *const names[] = {
        [TRISTERO_ATTACHED] = "attached", [TRISTERO_MOVED] = "moved", [TRISTERO_LOST] = "lost",
        [TRISTERO_RETRYING] = "retrying", [TRISTERO_CLIENT_CAME] = "came",
        [TRISTERO_CLIENT_REFUSED] = "refused", [TRISTERO_CLIENT_LEFT] = "left",
    };

    (void)context;
    printf("%s %s wait=%d client=%lu from=%llu to=%llu: %s\n", names[event->kind], event->address,
           event->wait_ms, event->client, event->bytes_from_client, event->bytes_to_client,
           event->text);
    fflush(stdout);
}

static void print_statistics(void)
{
    struct tristero_statistics seen;

    tristero_server_look(server, &seen);
    printf("statistics clients=%u connections=%u in_all=%llu refused=%llu from=%llu to=%llu "
           "lost=%llu rtt=%d\n", seen.clients, seen.connections, seen.clients_in_all, seen.refused,
           seen.bytes_from_clients, seen.bytes_to_clients, seen.times_lost, seen.rtt_us > 0);
    fflush(stdout);
}

static void *look(void *argument)
{
    char line[16];

    while (fgets(line, sizeof line, stdin)) {
        pthread_mutex_lock(&looking);
        if (!is_over)
            print_statistics();
        pthread_mutex_unlock(&looking);
    }
    return argument;
}

static void stop(int number)
{
    (void)number;
    tristero_server_stop(server);
}

int main(int argc, char **argv)
{
    struct tristero_service service = { .connect = connect_service, .event = on_event };
    struct tristero_proxy *proxy = NULL;
    struct tristero_error error;
    pthread_t thread;

    if (argc != 4)
        return 2;
    service.connections = atoi(argv[2]);
    port = (in_port_t)atoi(argv[3]);
    if (tristero_proxy_new(argv[1], NULL, &proxy, &error) ||
        tristero_server_new(proxy, &service, &server, &error)) {
        printf("error %d: %s\n", error.status, error.text);
        tristero_proxy_free(proxy);
        return 1;
    }
    signal(SIGTERM, stop);
    printf("serving %s\n", tristero_server_address(server));
    fflush(stdout);
    if (pthread_create(&thread, NULL, look, NULL) == 0)
        pthread_detach(thread);
    tristero_server_run(server);
    printf("stopped\n");
    pthread_mutex_lock(&looking);
    is_over = true;
    pthread_mutex_unlock(&looking);
    tristero_server_free(server);
    tristero_proxy_free(proxy);
    return 0;
}
