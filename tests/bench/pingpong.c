/* pingpong: messages of 64 bytes to and fro over one connection.
 *     pingpong attach:PORT|listen:PORT CLIENT_PORT ROUND_TRIPS
 * At the stage "done": the median and the 99th percentile of a round trip. */
#include "tests/bench/wire.h"

#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    MESSAGE_BYTES = 64,
    WARM_UP = 1000,                     /* round trips that are not counted */
    ANSWERS_AT = 12345                  /* answers come from elsewhere in the pattern */
};

/* The two ends stay on the first and the last processor that there is. A
 * scheduler that puts both and the relay on one makes round trips four times
 * as fast for as long as it likes, and medians of nothing. */
static void stay_on_processor(bool last)
{
    cpu_set_t allowed, chosen;
    int processor = 0;

    if (sched_getaffinity(0, sizeof allowed, &allowed) < 0)
        die("pingpong: the processors: %s", strerror(errno));
    for (int i = 0; i < CPU_SETSIZE; i++) {
        if (!CPU_ISSET(i, &allowed))
            continue;
        processor = i;
        if (!last)
            break;
    }
    CPU_ZERO(&chosen);
    CPU_SET(processor, &chosen);
    if (sched_setaffinity(0, sizeof chosen, &chosen) < 0)
        die("pingpong: processor %d: %s", processor, strerror(errno));
}

static int receive_checked(int connection, uint64_t offset)
{
    char message[MESSAGE_BYTES];
    int err = receive_exactly(connection, message, sizeof message);

    if (!err && memcmp(message, pattern_at(offset), sizeof message))
        err = -EBADMSG;
    return err;
}

static void serve(struct server_end *end, long trips)
{
    int connection = server_end_connection(end);
    int err = 0;

    for (uint64_t offset = 0; !err && trips--; offset += MESSAGE_BYTES) {
        err = receive_checked(connection, offset);
        if (!err)
            err = send_exactly(connection, pattern_at(offset + ANSWERS_AT), MESSAGE_BYTES);
    }
    if (!err)
        err = receive_end(connection);
    if (err)
        die("pingpong: server: %s", strerror(-err));
}

static void play(int connection, long trips, int64_t *times_ns)
{
    for (long i = 0; i < trips; i++) {
        uint64_t offset = (uint64_t)i * MESSAGE_BYTES;
        int64_t start_ns = clock_ns();
        int err = send_exactly(connection, pattern_at(offset), MESSAGE_BYTES);

        if (!err)
            err = receive_checked(connection, offset + ANSWERS_AT);
        if (err)
            die("pingpong: client: %s", strerror(-err));
        times_ns[i] = clock_ns() - start_ns;
    }
}

int main(int count, char **arguments)
{
    struct server_end end;
    int64_t *times_ns, *counted_ns;
    uint16_t port;
    long trips;
    pid_t server;
    int connection;

    if (count != 4)
        die("usage: pingpong attach:PORT|listen:PORT CLIENT_PORT ROUND_TRIPS");
    port = (uint16_t)number_argument(arguments[2], 1, UINT16_MAX);
    trips = number_argument(arguments[3], 100, 100000000);
    pattern_make();
    end = server_end_open(arguments[1]);
    server = fork_side();
    stay_on_processor(server == 0);
    if (server == 0) {
        serve(&end, WARM_UP + trips);
        exit(EXIT_SUCCESS);
    }
    close(end.socket < 0 ? end.listener : end.socket);
    times_ns = calloc((size_t)(WARM_UP + trips), sizeof *times_ns);
    if (!times_ns)
        die("pingpong: no memory");
    connection = connect_to(port);
    if (connection < 0)
        die("pingpong: client: %s", strerror(-connection));
    play(connection, WARM_UP + trips, times_ns);
    counted_ns = times_ns + WARM_UP;
    qsort(counted_ns, (size_t)trips, sizeof *counted_ns, compare_int64);
    stage("done p50_ns=%lld p99_ns=%lld", (long long)counted_ns[trips / 2],
          (long long)counted_ns[trips * 99 / 100]);
    close(connection);
    join_side(server);
    free(times_ns);
    return EXIT_SUCCESS;
}
