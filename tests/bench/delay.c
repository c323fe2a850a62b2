/* delay: a link that is long: relays TCP, each byte later than it came, and no more of
 * them than the link has room for.
 *     delay ADDRESS PORT TO_PORT ONE_WAY_MS MIB_PER_S
 * From ADDRESS, an IPv4 address of this machine, to 127.0.0.1. The rate is that of
 * each connection and direction. What is on the way is held in memory; what the link
 * has no room for is not read yet, so that the sender has to wait. */
#include "tests/bench/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    PACKET_BYTES = 16 * 1024,
    EVENTS = 64,
    SMALL_PACKETS = 256,                /* besides the full ones that fill the link */
    WAITS_NS = 2000000                  /* how long bytes wait at the link's beginning, at most */
};

struct packet {
    int64_t due_ns;
    size_t start, count;                /* of its bytes, those that are left; none: the end */
    char bytes[PACKET_BYTES];
};

/* One direction of a connection. */
struct way {
    int from, to;
    bool can_read, can_write;           /* as far as is known */
    bool ended, end_passed_on, broke;
    int64_t free_ns;                    /* when the link has taken all that was read */
    struct packet *packets;             /* a ring */
    size_t first, count;
};

struct connection {
    LIST_ENTRY(connection) entry;
    int sockets[2];
    struct way ways[2];                 /* the first is from the first socket */
};

static LIST_HEAD(connections, connection) connections;
static int64_t one_way_ns, byte_ps;     /* picoseconds that a byte takes */
static size_t packets_max;
static int epoll;

static void watch(int fd, uint32_t events, void *what)
{
    struct epoll_event event = { .events = events, .data.ptr = what };

    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die("delay: epoll: %s", strerror(errno));
}

static void way_init(struct way *way, int from, int to)
{
    *way = (struct way){ .from = from, .to = to, .can_read = true, .can_write = true };
    way->packets = malloc(packets_max * sizeof *way->packets);
    if (!way->packets)
        die("delay: no memory");
}

static void accept_one(int listener, uint16_t to_port)
{
    struct connection *connection = malloc(sizeof *connection);
    int from = accept_from(listener);
    int to = connect_to(to_port);

    if (from < 0 || to < 0 || !connection) {
        close(from);
        close(to);
        free(connection);
        return;
    }
    *connection = (struct connection){ .sockets = { from, to } };
    for (int i = 0; i < 2; i++) {
        int socket = connection->sockets[i];

        way_init(&connection->ways[i], socket, connection->sockets[1 - i]);
        if (fcntl(socket, F_SETFL, O_NONBLOCK) < 0)
            die("delay: %s", strerror(errno));
        watch(socket, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, connection);
    }
    LIST_INSERT_HEAD(&connections, connection, entry);
}

static void connection_free(struct connection *connection)
{
    LIST_REMOVE(connection, entry);
    for (int i = 0; i < 2; i++) {
        close(connection->sockets[i]);
        free(connection->ways[i].packets);
    }
    free(connection);
}

static bool has_room(const struct way *way, int64_t now_ns)
{
    return way->count < packets_max && way->free_ns <= now_ns + WAITS_NS;
}

static void take(struct way *way, int64_t now_ns)
{
    while (way->can_read && !way->ended && has_room(way, now_ns)) {
        struct packet *packet = &way->packets[(way->first + way->count) % packets_max];
        ssize_t received = recv(way->from, packet->bytes, PACKET_BYTES, 0);

        if (received < 0) {
            way->can_read = false;
            way->broke |= errno != EAGAIN;
            return;
        }
        way->ended = received == 0;
        if (way->free_ns < now_ns)
            way->free_ns = now_ns;
        way->free_ns += received * byte_ps / 1000;
        packet->due_ns = way->free_ns + one_way_ns;
        packet->start = 0;
        packet->count = (size_t)received;
        way->count++;
    }
}

static void deliver(struct way *way, int64_t now_ns)
{
    while (way->count && way->can_write) {
        struct packet *packet = &way->packets[way->first];
        ssize_t sent;

        if (packet->due_ns > now_ns)
            return;
        if (way->count == 1 && way->ended) {
            way->end_passed_on = shutdown(way->to, SHUT_WR) == 0;
            way->broke |= !way->end_passed_on;
            way->count = 0;
            return;
        }
        sent = send(way->to, packet->bytes + packet->start, packet->count, MSG_NOSIGNAL);
        if (sent < 0) {
            way->can_write = false;
            way->broke |= errno != EAGAIN;
            return;
        }
        packet->start += (size_t)sent;
        packet->count -= (size_t)sent;
        if (packet->count)
            continue;
        way->first = (way->first + 1) % packets_max;
        way->count--;
    }
}

/* When it has to be looked at again, if nothing happens before. */
static int64_t way_move(struct way *way, int64_t now_ns)
{
    int64_t next_ns = INT64_MAX;

    deliver(way, now_ns);
    take(way, now_ns);
    if (way->count && way->can_write)
        next_ns = way->packets[way->first].due_ns;
    if (way->can_read && !way->ended && way->count < packets_max &&
        way->free_ns - WAITS_NS < next_ns)
        next_ns = way->free_ns - WAITS_NS;
    return next_ns;
}

static int64_t move_all(void)
{
    struct connection *connection, *next;
    int64_t now_ns = clock_ns();
    int64_t next_ns = INT64_MAX;

    for (connection = LIST_FIRST(&connections); connection; connection = next) {
        struct way *ways = connection->ways;

        next = LIST_NEXT(connection, entry);
        for (int i = 0; i < 2; i++) {
            int64_t way_next_ns = way_move(&ways[i], now_ns);

            if (way_next_ns < next_ns)
                next_ns = way_next_ns;
        }
        if (ways[0].broke || ways[1].broke || (ways[0].end_passed_on && ways[1].end_passed_on))
            connection_free(connection);
    }
    return next_ns;
}

static int wait_for_events(struct epoll_event *events, int64_t until_ns)
{
    int64_t wait_ns = until_ns - clock_ns();
    struct timespec wait = { 0 };

    if (wait_ns > 0)
        wait = (struct timespec){ wait_ns / 1000000000, wait_ns % 1000000000 };
    return epoll_pwait2(epoll, events, EVENTS, until_ns == INT64_MAX ? NULL : &wait, NULL);
}

static void note(struct connection *connection, uint32_t events)
{
    for (int i = 0; i < 2; i++) {       /* which socket it was does not matter: one tries */
        connection->ways[i].can_read |= (events & ~(uint32_t)EPOLLOUT) != 0;
        connection->ways[i].can_write |= (events & EPOLLOUT) != 0;
    }
}

int main(int count, char **arguments)
{
    struct epoll_event events[EVENTS];
    int64_t next_ns = INT64_MAX;
    uint16_t to_port;
    long mib_per_s;
    int listener;

    if (count != 6)
        die("usage: delay ADDRESS PORT TO_PORT ONE_WAY_MS MIB_PER_S");
    listener = listen_at(inet_addr(arguments[1]),
                         (uint16_t)number_argument(arguments[2], 1, UINT16_MAX));
    if (listener < 0)
        die("delay: %s, port %s: %s", arguments[1], arguments[2], strerror(-listener));
    to_port = (uint16_t)number_argument(arguments[3], 1, UINT16_MAX);
    one_way_ns = number_argument(arguments[4], 0, 10000) * 1000000;
    mib_per_s = number_argument(arguments[5], 1, 10000);
    byte_ps = INT64_C(1000000000000) / (mib_per_s << 20);
    packets_max = SMALL_PACKETS + (size_t)(one_way_ns / byte_ps * 1000 / PACKET_BYTES);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(listener, EPOLLIN, NULL);
    for (;;) {
        int ready = wait_for_events(events, next_ns);

        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr)
                note(events[i].data.ptr, events[i].events);
            else
                accept_one(listener, to_port);
        }
        next_ns = move_all();
    }
}
