#include "tests/unit/sockets.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static struct sockaddr_in loopback(const char *host, uint16_t port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };

    inet_pton(AF_INET, host, &address.sin_addr);
    return address;
}

/* Below the ranges of the end-to-end tests, which begin at 12032. */
enum { FIRST_PORT = 10048, PLACE_PORTS = 64, PLACES = (12032 - FIRST_PORT) / PLACE_PORTS };

/* A listener there, or -1. */
static int listen_at(uint16_t port, int reuses)
{
    struct sockaddr_in address = loopback("127.0.0.1", port);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &reuses, sizeof reuses);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) == 0 &&
        listen(listener, 1) == 0)
        return listener;
    close(listener);
    return -1;
}

static bool is_free(uint16_t port)
{
    int listener = listen_at(port, 1);

    if (listener >= 0)
        close(listener);
    return listener >= 0;
}

/* Whoever listens on the first port of a place owns it: this program does until its end. */
static bool owns(unsigned place)
{
    static int guards[PLACES];          /* 0: none */

    if (!guards[place]) {
        int guard = listen_at((uint16_t)(FIRST_PORT + place * PLACE_PORTS), 0);

        guards[place] = guard > 0 ? guard : 0;
    }
    return guards[place];
}

uint16_t free_ports(unsigned count)
{
    for (unsigned tries = 0; tries < PLACES && count <= PLACE_PORTS - 2; tries++) {
        unsigned place = ((unsigned)getpid() + tries) % PLACES;
        uint16_t low = (uint16_t)(FIRST_PORT + place * PLACE_PORTS + 2);
        unsigned port = 0;

        while (owns(place) && port < count && is_free((uint16_t)(low + port)))
            port++;
        if (port == count)
            return low;
    }
    abort();
}

uint16_t closed_port(void)
{
    struct sockaddr_in address = loopback("127.0.0.1", 0);
    socklen_t length = sizeof address;
    int taken = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (bind(taken, (struct sockaddr *)&address, length) < 0 ||
        getsockname(taken, (struct sockaddr *)&address, &length) < 0)
        abort();
    return ntohs(address.sin_port);
}

int listen_on_loopback(uint16_t *port)
{
    struct sockaddr_in address = loopback("127.0.0.1", 0);
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 16) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        return -1;
    *port = ntohs(address.sin_port);
    return listener;
}

int connect_from(const char *from, uint16_t port)
{
    struct sockaddr_in here = loopback(from, 0);
    struct sockaddr_in there = loopback("127.0.0.1", port);
    int connected = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int err;

    set_timeouts(connected);
    if (bind(connected, (struct sockaddr *)&here, sizeof here) == 0 &&
        connect(connected, (struct sockaddr *)&there, sizeof there) == 0)
        return connected;
    err = errno;
    close(connected);
    errno = err;
    return -1;
}

int connect_to(uint16_t port)
{
    return connect_from("127.0.0.1", port);
}

void connected_pair(int ends[2])
{
    uint16_t port;
    int listener = listen_on_loopback(&port);

    ends[0] = connect_to(port);
    ends[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    close(listener);
    if (ends[0] < 0 || ends[1] < 0)
        abort();
    set_timeouts(ends[1]);
}

void set_timeouts(int socket)
{
    struct timeval timeout = { .tv_sec = WAIT_S };

    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
}

long read_all(int socket, char *bytes, size_t room)
{
    size_t used = 0;

    for (;;) {
        ssize_t received = recv(socket, bytes + used, room - used, 0);
        if (received < 0)
            return -errno;
        if (received == 0 || used == room)
            return (long)used;
        used += (size_t)received;
    }
}

void reset(int socket)
{
    struct linger linger = { .l_onoff = 1, .l_linger = 0 };

    setsockopt(socket, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(socket);
}

bool comes_true(bool (*condition)(void *context), void *context)
{
    for (int tries = 0; tries < WAIT_S * 200; tries++) {
        if (condition(context))
            return true;
        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
    }
    return false;
}

static unsigned count_entries(const char *path)
{
    DIR *directory = opendir(path);
    unsigned count = 0;

    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

unsigned count_descriptors(void)
{
    return count_entries("/proc/self/fd");
}

unsigned count_threads(void)
{
    return count_entries("/proc/self/task");
}
