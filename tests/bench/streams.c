/* streams: many bytes over many connections at once, one way.
 *     streams PORT CLIENT_PORT STREAMS MIB down|up|stalled
 * The server listens at PORT; down is from it to the clients. MIB is for all of
 * them together. At the stage "moved", ns= is the time from the word to begin to
 * the last byte of the last connection, compared. stalled is down, and there is one
 * more, first of all, whose client reads nothing until the others have moved. */
#include "tests/bench/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    MOST_STREAMS = 4000,
    EVENTS = 256,
    STEP_BETWEEN_STREAMS = 4099         /* a prime: no two start at the same place */
};

struct side {
    int *sockets;                       /* by the number that the client gave */
    size_t count;
    size_t stalled;                     /* of them, the first ones */
    uint64_t total;                     /* bytes of each */
    int other;                          /* the other process */
    bool sends;
};

static void check(int err, const char *what)
{
    if (err < 0)
        die("streams: %s: %s", what, strerror(-err));
}

static void set_nonblocking(int socket, bool nonblocking)
{
    if (fcntl(socket, F_SETFL, nonblocking ? O_NONBLOCK : 0) < 0)
        die("streams: %s", strerror(errno));
}

/* --- bytes */

/* How many went; done is how many had before. */
static size_t send_some(int socket, size_t number, uint64_t done, uint64_t total)
{
    uint64_t rest = total - done;
    size_t most = rest < PATTERN_RUN_BYTES ? (size_t)rest : PATTERN_RUN_BYTES;
    ssize_t now = send(socket, pattern_at(number * STEP_BETWEEN_STREAMS + done), most,
                       MSG_NOSIGNAL);

    if (now < 0 && errno != EAGAIN)
        die("streams: sending: %s", strerror(errno));
    return now < 0 ? 0 : (size_t)now;
}

static size_t receive_some(int socket, size_t number, uint64_t done, uint64_t total)
{
    static char bytes[PATTERN_RUN_BYTES];
    ssize_t now = recv(socket, bytes, sizeof bytes, 0);

    if (now < 0 && errno == EAGAIN)
        return 0;
    if (now <= 0)
        die("streams: number %zu ended after %llu bytes", number, (unsigned long long)done);
    if ((uint64_t)now > total - done ||
        memcmp(bytes, pattern_at(number * STEP_BETWEEN_STREAMS + done), (size_t)now))
        die("streams: wrong bytes in number %zu after %llu", number, (unsigned long long)done);
    return (size_t)now;
}

/* All bytes of the streams from a first one on, as each is ready for some. */
static void move(const struct side *side, size_t first, size_t end)
{
    uint64_t *done = calloc(side->count, sizeof *done);
    struct epoll_event events[EVENTS];
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    size_t left = end - first;

    if (!done || epoll < 0)
        die("streams: no memory");
    for (size_t i = first; i < end; i++) {
        struct epoll_event event = { .events = side->sends ? EPOLLOUT : EPOLLIN, .data.u64 = i };

        set_nonblocking(side->sockets[i], true);
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, side->sockets[i], &event) < 0)
            die("streams: epoll: %s", strerror(errno));
    }
    while (left) {
        int ready = epoll_wait(epoll, events, EVENTS, WAIT_S * 1000);
        if (ready <= 0)
            die("streams: %zu of them stand still", left);
        for (int i = 0; i < ready; i++) {
            size_t number = events[i].data.u64;
            int socket = side->sockets[number];

            done[number] += (side->sends ? send_some : receive_some)(socket, number, done[number],
                                                                     side->total);
            if (done[number] < side->total)
                continue;
            epoll_ctl(epoll, EPOLL_CTL_DEL, socket, NULL);
            set_nonblocking(socket, false);
            left--;
        }
    }
    close(epoll);
    free(done);
}

/* Each side ends its streams, and waits for the other's end. */
static void end_all(const struct side *side)
{
    for (size_t i = 0; i < side->count; i++)
        if (shutdown(side->sockets[i], SHUT_WR) < 0)
            die("streams: an end: %s", strerror(errno));
    for (size_t i = 0; i < side->count; i++) {
        check(receive_end(side->sockets[i]), "the other side's end");
        close(side->sockets[i]);
    }
}

/* --- sides */

static void accept_all(struct side *side, int listener)
{
    for (size_t i = 0; i < side->count; i++) {
        uint16_t number;
        int socket = accept_from(listener);

        check(socket, "a client arrives at the server");
        check(receive_exactly(socket, &number, sizeof number), "a greeting");
        if (number >= side->count)
            die("streams: a wrong greeting");
        check(send_exactly(socket, &number, sizeof number), "an answer to a greeting");
        side->sockets[number] = socket;
    }
}

static void be_server(struct side *side, int listener)
{
    char byte;

    accept_all(side, listener);
    check(receive_exactly(side->other, &byte, 1), "the word to begin");
    move(side, 0, side->count);
    check(send_exactly(side->other, &byte, 1), "the end is told");
    end_all(side);
}

/* All paths are there once it returns. */
static void connect_all(struct side *side, uint16_t port)
{
    uint16_t answer;

    for (size_t i = 0; i < side->count; i++) {
        uint16_t number = (uint16_t)i;

        side->sockets[i] = connect_to(port);
        check(side->sockets[i], "a client connects");
        check(send_exactly(side->sockets[i], &number, sizeof number), "a client greets");
    }
    for (size_t i = 0; i < side->count; i++) {
        check(receive_exactly(side->sockets[i], &answer, sizeof answer), "a client is greeted");
        if (answer != i)
            die("streams: number %u got what was for %zu", answer, i);
    }
}

static void be_client(struct side *side, uint16_t port)
{
    int64_t start_ns;
    char byte;

    connect_all(side, port);
    stage("ready");
    start_ns = clock_ns();
    check(send_exactly(side->other, "b", 1), "the word to begin");
    move(side, side->stalled, side->count);
    if (side->sends)
        check(receive_exactly(side->other, &byte, 1), "the server has everything");
    stage("moved ns=%lld bytes=%llu", (long long)(clock_ns() - start_ns),
          (unsigned long long)((side->count - side->stalled) * side->total));
    move(side, 0, side->stalled);
    end_all(side);
}

int main(int count, char **arguments)
{
    struct side side = { 0 };
    uint16_t client_port;
    bool up;
    int ends[2], listener;
    pid_t server;

    if (count != 6 || (strcmp(arguments[5], "down") && strcmp(arguments[5], "up") &&
                       strcmp(arguments[5], "stalled")))
        die("usage: streams PORT CLIENT_PORT STREAMS MIB down|up|stalled");
    client_port = (uint16_t)number_argument(arguments[2], 1, UINT16_MAX);
    side.count = (size_t)number_argument(arguments[3], 1, MOST_STREAMS);
    side.total = ((uint64_t)number_argument(arguments[4], 1, 1 << 24) << 20) / side.count;
    side.stalled = !strcmp(arguments[5], "stalled");
    side.count += side.stalled;
    up = !strcmp(arguments[5], "up");
    side.sockets = calloc(side.count, sizeof *side.sockets);
    if (!side.sockets || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        die("streams: no memory");
    raise_descriptor_limit();
    pattern_make();
    listener = listen_on((uint16_t)number_argument(arguments[1], 1, UINT16_MAX));
    check(listener, "the server listens");
    server = fork_side();
    side.other = ends[server == 0];
    close(ends[server != 0]);
    side.sends = up == (server != 0);
    if (server == 0) {
        be_server(&side, listener);
        return EXIT_SUCCESS;
    }
    close(listener);
    be_client(&side, client_port);
    join_side(server);
    free(side.sockets);
    return EXIT_SUCCESS;
}
