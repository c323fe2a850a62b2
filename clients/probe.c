/* Asking a service whether it speaks HTTP. */
#include "clients/target.h"

#include "relay/waker.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PROBE_MS = 1000 };

static const char QUESTION[] = "HEAD / HTTP/1.0\r\n\r\n";
static const char ANSWER[] = "HTTP/";

/* What else it says does not matter: one that speaks first has said something else. */
static bool answers(int connection)
{
    size_t wanted = strlen(ANSWER), length = 0;
    int64_t deadline_ms = clock_ms() + PROBE_MS;
    char answer[sizeof ANSWER];

    if (send(connection, QUESTION, strlen(QUESTION), MSG_NOSIGNAL) < 0)
        return false;
    while (length < wanted) {
        struct pollfd polled = { .fd = connection, .events = POLLIN };
        ssize_t got;

        if (waker_poll(NULL, &polled, 1, deadline_ms) <= 0)
            return false;
        got = recv(connection, answer + length, wanted - length, 0);
        if (got < 0 && errno == EAGAIN)
            continue;
        if (got <= 0)
            return false;
        length += (size_t)got;
        if (memcmp(answer, ANSWER, length) != 0)
            return false;
    }
    return true;
}

bool target_probe_http(struct target *target)
{
    unsigned which = 0;
    bool speaks_http;
    int connection;

    if (target->kind == TARGET_FOLDER)
        return true;
    connection = target_connect_in_time(target, PROBE_MS, &which);
    if (connection < 0)
        return false;
    speaks_http = answers(connection);
    close(connection);
    if (which) {
        struct net_address first = target->addresses[which].net;

        target->addresses[which].net = target->addresses[0].net;
        target->addresses[0].net = first;
    }
    return speaks_http;
}
