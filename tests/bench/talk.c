#include "tests/bench/talk.h"

#include "tests/bench/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    EVENTS = 256,
    STEP_BETWEEN_CONNECTIONS = 4099,    /* a prime: no two start at the same place */
    STEP_BETWEEN_SIDES = 2048
};

struct talker {
    int socket;                         /* -1: over */
    uint64_t sends_at, receives_at;     /* in the pattern */
    size_t total, sent, received;
    bool ended;                         /* told the other side that all was sent */
};

/* As much as this round allows, which is what has come, and one message more. */
static int send_some(struct talker *talker)
{
    size_t rounds = talker->received / TALK_MESSAGE_BYTES + 1;
    size_t allowed = rounds * TALK_MESSAGE_BYTES;

    if (allowed > talker->total)
        allowed = talker->total;
    while (talker->sent < allowed) {
        ssize_t now = send(talker->socket, pattern_at(talker->sends_at + talker->sent),
                           allowed - talker->sent, MSG_NOSIGNAL);
        if (now < 0)
            return errno == EAGAIN ? 0 : -errno;
        talker->sent += (size_t)now;
    }
    if (talker->sent == talker->total && !talker->ended) {
        talker->ended = true;
        return shutdown(talker->socket, SHUT_WR) < 0 ? -errno : 0;
    }
    return 0;
}

/* 1: more may have come. 0: nothing more for now. */
static int receive_some(struct talker *talker)
{
    char bytes[TALK_MESSAGE_BYTES];
    ssize_t now = recv(talker->socket, bytes, sizeof bytes, 0);

    if (now < 0)
        return errno == EAGAIN ? 0 : -errno;
    if (now == 0)
        return talker->received == talker->total ? -ESHUTDOWN : -EPIPE;
    if ((size_t)now > talker->total - talker->received ||
        memcmp(bytes, pattern_at(talker->receives_at + talker->received), (size_t)now))
        return -EBADMSG;
    talker->received += (size_t)now;
    return 1;
}

/* Until nothing more is possible: the events are edges. -ESHUTDOWN: all went well. */
static int go_on(struct talker *talker)
{
    int more;

    do {
        int err = send_some(talker);
        if (err)
            return err;
        more = receive_some(talker);
    } while (more > 0);
    if (more == -ESHUTDOWN && !talker->ended)
        return -EPIPE;
    return more;
}

static void begin(struct talker *talker, int epoll, int socket)
{
    struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = talker };

    talker->socket = socket;
    if (fcntl(socket, F_SETFL, O_NONBLOCK) < 0 ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, socket, &event) < 0)
        die("talk: %s", strerror(errno));
}

/* How many connections ended by these events, and, of them, how many badly. */
static size_t attend(struct epoll_event *events, int count, size_t *failed)
{
    size_t over = 0;

    for (int i = 0; i < count; i++) {
        struct talker *talker = events[i].data.ptr;
        int err = go_on(talker);

        if (!err)
            continue;
        *failed += err != -ESHUTDOWN;
        close(talker->socket);
        talker->socket = -1;
        over++;
    }
    return over;
}

size_t talk(const int *sockets, size_t count, enum talk_side side, unsigned rounds)
{
    struct talker *talkers = calloc(count, sizeof *talkers);
    struct epoll_event events[EVENTS];
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    size_t left = count, failed = 0;

    if (!talkers || epoll < 0)
        die("talk: no memory");
    for (size_t i = 0; i < count; i++) {
        uint64_t place = i * STEP_BETWEEN_CONNECTIONS;

        talkers[i].sends_at = place + (side == TALK_SERVER ? STEP_BETWEEN_SIDES : 0);
        talkers[i].receives_at = place + (side == TALK_SERVER ? 0 : STEP_BETWEEN_SIDES);
        talkers[i].total = (size_t)rounds * TALK_MESSAGE_BYTES;
        begin(&talkers[i], epoll, sockets[i]);
    }
    while (left) {
        int ready = epoll_wait(epoll, events, EVENTS, WAIT_S * 1000);
        if (ready <= 0)                 /* those that are left wait for bytes that don't come */
            break;
        left -= attend(events, ready, &failed);
    }
    for (size_t i = 0; i < count; i++)
        if (talkers[i].socket >= 0)
            close(talkers[i].socket);
    close(epoll);
    free(talkers);
    return failed + left;
}
