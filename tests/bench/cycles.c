/* cycles: whole short lives, one after the other in each worker: of tunnels (open,
 * attach, come as a client, 1 KiB each way, close), or of the streams of one tunnel.
 *     cycles RPC_PORT CYCLES WORKERS
 *     cycles listen:PORT CLIENT_PORT STREAMS
 * A stage "part" after each tenth, with the rate since the one before, and at
 * last "done" with the number of cycles that failed. */
#include "tests/bench/open_tunnel.h"
#include "tests/bench/wire.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MESSAGE_BYTES = 1024, PARTS = 10, COMPLAINTS = 3 };

static uint16_t rpc_port;               /* 0: there are streams, not tunnels */
static int listener = -1;               /* of the streams' server, */
static uint16_t client_port;            /* and where their clients come */
static atomic_long cycles_left;         /* of this part, shared by the workers */
static atomic_long cycles_failed;

static int pass(int from, int to, uint64_t offset)
{
    char message[MESSAGE_BYTES];
    int err = send_exactly(from, pattern_at(offset), sizeof message);

    if (!err)
        err = receive_exactly(to, message, sizeof message);
    if (!err && memcmp(message, pattern_at(offset), sizeof message))
        err = -EBADMSG;
    return err;
}

/* The client says that it is done; the server hears it and ends as well. */
static int end_well(int server, int client)
{
    int err = shutdown(client, SHUT_WR) < 0 ? -errno : 0;

    if (!err)
        err = receive_end(server);
    if (!err)
        err = shutdown(server, SHUT_WR) < 0 ? -errno : 0;
    if (!err)
        err = receive_end(client);
    return err;
}

static int begin_stream(int *server, int *client)
{
    *client = connect_to(client_port);
    if (*client < 0)
        return *client;
    *server = accept_from(listener);
    return *server < 0 ? *server : 0;
}

static int begin_tunnel(int *server, int *client)
{
    struct tunnel_ports ports;
    int err = open_tunnel(rpc_port, &ports);

    if (err)
        return err;
    *server = connect_to(ports.server);
    if (*server < 0)
        return *server;
    *client = connect_to(ports.client);
    return *client < 0 ? *client : 0;
}

static int cycle(uint64_t offset)
{
    int server = -1, client = -1;
    int err = (rpc_port ? begin_tunnel : begin_stream)(&server, &client);

    if (!err)
        err = pass(client, server, offset);
    if (!err)
        err = pass(server, client, offset + MESSAGE_BYTES);
    if (!err)
        err = end_well(server, client);
    if (server >= 0)
        close(server);
    if (client >= 0)
        close(client);
    return err;
}

static void *work(void *context)
{
    long left;

    (void)context;
    while ((left = atomic_fetch_sub(&cycles_left, 1)) > 0) {
        int err = cycle((uint64_t)left * MESSAGE_BYTES);
        if (err && atomic_fetch_add(&cycles_failed, 1) < COMPLAINTS)
            fprintf(stderr, "cycles: %s\n", strerror(-err));
    }
    return NULL;
}

static int64_t run_ns(long cycles, pthread_t *threads, long workers)
{
    int64_t start_ns = clock_ns();

    atomic_store(&cycles_left, cycles);
    for (long i = 0; i < workers; i++)
        if (pthread_create(&threads[i], NULL, work, NULL))
            die("cycles: no thread");
    for (long i = 0; i < workers; i++)
        pthread_join(threads[i], NULL);
    return clock_ns() - start_ns;
}

int main(int count, char **arguments)
{
    pthread_t threads[64];
    long cycles, workers;

    if (count != 4)
        die("usage: cycles RPC_PORT CYCLES WORKERS | cycles listen:PORT CLIENT_PORT STREAMS");
    if (strchr(arguments[1], ':')) {
        listener = server_end_open(arguments[1]).listener;
        client_port = (uint16_t)number_argument(arguments[2], 1, UINT16_MAX);
        cycles = number_argument(arguments[3], PARTS, 100000000);
        workers = 1;                    /* who else could tell whose client has come? */
    } else {
        rpc_port = (uint16_t)number_argument(arguments[1], 1, UINT16_MAX);
        cycles = number_argument(arguments[2], PARTS, 100000000);
        workers = number_argument(arguments[3], 1, 64);
    }
    pattern_make();
    for (int part = 0; part < PARTS; part++) {
        int64_t took_ns = run_ns(cycles / PARTS, threads, workers);
        stage("part per_s=%.1f", (double)(cycles / PARTS) * 1e9 / (double)took_ns);
    }
    stage("done failed=%ld", atomic_load(&cycles_failed));
    return EXIT_SUCCESS;
}
