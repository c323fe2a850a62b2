/* crowd: many tunnels at once in one daemon.
 *     crowd RPC_PORT TUNNELS ROUNDS
 * Stages, all with every tunnel that was asked for:
 *     ready       nothing is open yet; the program's own memory is in use
 *     attached    open, each with its server, none with a client
 *                 first_ns=, last_ns=: median time of openTunnel and
 *                 getTunnelAddress together, of the first and the last hundred
 *     relaying    a byte each way has passed; nothing moves
 *     talked      ROUNDS messages each way have passed at once, and all closed
 *                 failed=, bytes=, ns=
 * The servers are in one process and the clients in another, since each may not
 * have more descriptors than the daemon. */
#include "tests/bench/open_tunnel.h"
#include "tests/bench/talk.h"
#include "tests/bench/wire.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST_TUNNELS = 32000, SAMPLE = 100 };

struct crowd {
    size_t count;
    unsigned rounds;
    int other;                          /* the other process */
    uint16_t *client_ports;
    int *sockets;
};

static void check(int err, const char *what)
{
    if (err < 0)
        die("crowd: %s: %s", what, strerror(-err));
}

/* Touched, so that it counts before the tunnels do. */
static void *memory(size_t count, size_t bytes)
{
    void *memory = malloc(count * bytes);

    if (!memory)
        die("crowd: no memory");
    return memset(memory, 1, count * bytes);
}

static void be_clients(struct crowd *crowd)
{
    size_t failed;
    char byte = '?';

    check(receive_exactly(crowd->other, crowd->client_ports,
                          crowd->count * sizeof *crowd->client_ports), "ports");
    for (size_t i = 0; i < crowd->count; i++) {
        crowd->sockets[i] = connect_to(crowd->client_ports[i]);
        check(crowd->sockets[i], "a client connects");
        check(send_exactly(crowd->sockets[i], "?", 1), "a client greets");
    }
    for (size_t i = 0; i < crowd->count; i++)
        check(receive_exactly(crowd->sockets[i], &byte, 1), "a client is greeted");
    check(send_exactly(crowd->other, &byte, 1), "all relay");
    check(receive_exactly(crowd->other, &byte, 1), "all talk");
    failed = talk(crowd->sockets, crowd->count, TALK_CLIENT, crowd->rounds);
    check(send_exactly(crowd->other, &failed, sizeof failed), "all talked");
}

static int64_t median(int64_t *values, size_t count)
{
    qsort(values, count, sizeof *values, compare_int64);
    return values[count / 2];
}

static void open_and_attach(struct crowd *crowd, uint16_t rpc_port, int64_t *times_ns)
{
    for (size_t i = 0; i < crowd->count; i++) {
        struct tunnel_ports ports;
        int64_t start_ns = clock_ns();

        check(open_tunnel(rpc_port, &ports), "a tunnel opens");
        times_ns[i] = clock_ns() - start_ns;
        crowd->client_ports[i] = ports.client;
        crowd->sockets[i] = connect_to(ports.server);
        check(crowd->sockets[i], "a server attaches");
    }
}

static void get_clients(struct crowd *crowd)
{
    char byte;

    check(send_exactly(crowd->other, crowd->client_ports,
                       crowd->count * sizeof *crowd->client_ports), "ports");
    for (size_t i = 0; i < crowd->count; i++) {
        check(receive_exactly(crowd->sockets[i], &byte, 1), "a server is greeted");
        check(send_exactly(crowd->sockets[i], &byte, 1), "a server greets");
    }
    check(receive_exactly(crowd->other, &byte, 1), "all relay");
}

static void talk_together(struct crowd *crowd)
{
    int64_t start_ns = clock_ns();
    size_t failed, failed_there;

    check(send_exactly(crowd->other, "t", 1), "all talk");
    failed = talk(crowd->sockets, crowd->count, TALK_SERVER, crowd->rounds);
    check(receive_exactly(crowd->other, &failed_there, sizeof failed_there), "all talked");
    stage("talked failed=%zu bytes=%llu ns=%lld", failed > failed_there ? failed : failed_there,
          2ull * crowd->count * crowd->rounds * TALK_MESSAGE_BYTES,
          (long long)(clock_ns() - start_ns));
}

static void be_servers(struct crowd *crowd, uint16_t rpc_port)
{
    int64_t *times_ns = memory(crowd->count, sizeof *times_ns);

    stage("ready");
    open_and_attach(crowd, rpc_port, times_ns);
    stage("attached first_ns=%lld last_ns=%lld", (long long)median(times_ns, SAMPLE),
          (long long)median(times_ns + crowd->count - SAMPLE, SAMPLE));
    get_clients(crowd);
    stage("relaying");
    talk_together(crowd);
    free(times_ns);
}

int main(int count, char **arguments)
{
    struct crowd crowd;
    uint16_t rpc_port;
    int ends[2];
    pid_t clients;

    if (count != 4)
        die("usage: crowd RPC_PORT TUNNELS ROUNDS");
    rpc_port = (uint16_t)number_argument(arguments[1], 1, UINT16_MAX);
    crowd.count = (size_t)number_argument(arguments[2], 2 * SAMPLE, MOST_TUNNELS);
    crowd.rounds = (unsigned)number_argument(arguments[3], 1, 10000);
    raise_descriptor_limit();
    pattern_make();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        die("crowd: no socket pair");
    clients = fork_side();
    crowd.other = ends[clients == 0];
    close(ends[clients != 0]);
    crowd.client_ports = memory(crowd.count, sizeof *crowd.client_ports);
    crowd.sockets = memory(crowd.count, sizeof *crowd.sockets);
    if (clients == 0) {
        be_clients(&crowd);
        return EXIT_SUCCESS;
    }
    be_servers(&crowd, rpc_port);
    join_side(clients);
    free(crowd.client_ports);
    free(crowd.sockets);
    return EXIT_SUCCESS;
}
