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

static bool is_free(uint16_t port)
{
    struct sockaddr_in address = loopback("127.0.0.1", port);
    int socket_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    bool is_free;

    setsockopt(socket_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    is_free = bind(socket_fd, (struct sockaddr *)&address, sizeof address) == 0 &&
              listen(socket_fd, 1) == 0;
    close(socket_fd);
    return is_free;
}

/* Below the ports that the kernel gives to outgoing connections. */
uint16_t free_ports(unsigned count)
{
    for (unsigned tries = 0; tries < 1000; tries++) {
        uint16_t low = (uint16_t)(10000 + (getpid() * 64 + (int)tries * 128) % 20000) & ~1u;
        unsigned port = 0;

        while (port < count && is_free((uint16_t)(low + port)))
            port++;
        if (port == count)
            return low;
    }
    abort();
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

    set_timeouts(connected);
    if (bind(connected, (struct sockaddr *)&here, sizeof here) == 0 &&
        connect(connected, (struct sockaddr *)&there, sizeof there) == 0)
        return connected;
    close(connected);
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
    struct timeval timeout = { .tv_sec = 5 };

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
    for (int tries = 0; tries < 1000; tries++) {
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
