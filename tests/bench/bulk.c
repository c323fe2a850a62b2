/* bulk: many bytes from a server to a client over one connection.
 *     bulk attach:PORT|listen:PORT CLIENT_PORT MIB
 * At the stage "moved", ns= is the time from the client's wish to the last byte,
 * compared. */
#include "tests/bench/wire.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void serve(struct server_end *end, uint64_t total)
{
    int connection = server_end_connection(end);
    uint64_t sent = 0;
    char wish;
    int err;

    err = receive_exactly(connection, &wish, 1);
    if (!err)
        err = send_exactly(connection, &wish, 1);   /* the whole path is there */
    if (!err)
        err = receive_exactly(connection, &wish, 1);
    while (!err && sent < total) {
        uint64_t rest = total - sent;
        size_t count = rest < PATTERN_RUN_BYTES ? (size_t)rest : PATTERN_RUN_BYTES;

        err = send_exactly(connection, pattern_at(sent), count);
        sent += count;
    }
    if (!err)
        err = receive_end(connection);
    if (err)
        die("bulk: server: %s", strerror(-err));
}

static void check(const char *bytes, size_t count, uint64_t offset)
{
    if (memcmp(bytes, pattern_at(offset), count))
        die("bulk: wrong bytes after %llu", (unsigned long long)offset);
}

static int64_t fetch(int connection, uint64_t total)
{
    static char bytes[PATTERN_RUN_BYTES];
    int64_t start_ns = clock_ns();
    uint64_t received = 0;
    int err = send_exactly(connection, "g", 1);

    if (err)
        die("bulk: client: %s", strerror(-err));
    while (received < total) {
        ssize_t now = recv(connection, bytes, sizeof bytes, 0);
        if (now <= 0)
            die("bulk: the stream ended after %llu bytes", (unsigned long long)received);
        check(bytes, (size_t)now, received);
        received += (uint64_t)now;
    }
    if (received > total)
        die("bulk: more bytes came than were sent");
    return clock_ns() - start_ns;
}

static int meet(uint16_t port)
{
    int connection = connect_to(port);
    char answer;
    int err = connection < 0 ? connection : send_exactly(connection, "?", 1);

    if (!err)
        err = receive_exactly(connection, &answer, 1);
    if (err)
        die("bulk: client: %s", strerror(-err));
    return connection;
}

int main(int count, char **arguments)
{
    struct server_end end;
    uint64_t total;
    uint16_t port;
    pid_t server;
    int connection;

    if (count != 4)
        die("usage: bulk attach:PORT|listen:PORT CLIENT_PORT MIB");
    port = (uint16_t)number_argument(arguments[2], 1, UINT16_MAX);
    total = (uint64_t)number_argument(arguments[3], 1, 1 << 24) << 20;
    pattern_make();
    end = server_end_open(arguments[1]);
    server = fork_side();
    if (server == 0) {
        serve(&end, total);
        exit(EXIT_SUCCESS);
    }
    close(end.socket < 0 ? end.listener : end.socket);
    connection = meet(port);
    stage("ready");
    stage("moved ns=%lld", (long long)fetch(connection, total));
    close(connection);
    join_side(server);
    return EXIT_SUCCESS;
}
