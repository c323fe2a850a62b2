#include "tests/bench/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void die(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(EXIT_FAILURE);
}

long number_argument(const char *text, long lowest, long highest)
{
    char *end;
    long number;

    errno = 0;
    number = strtol(text, &end, 10);
    if (errno || end == text || *end || number < lowest || number > highest)
        die("got \"%s\", expected a number from %ld to %ld", text, lowest, highest);
    return number;
}

void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        die("the limit of descriptors: %s", strerror(errno));
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        die("the limit of descriptors: %s", strerror(errno));
}

pid_t fork_side(void)
{
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid < 0)
        die("fork: %s", strerror(errno));
    if (pid == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent))
        _exit(EXIT_FAILURE);
    return pid;
}

void join_side(pid_t pid)
{
    int status;

    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status))
        die("the other side failed");
}

void stage(const char *format, ...)
{
    va_list arguments;
    int character;

    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
    do {
        character = getchar();
        if (character == EOF)
            die("nobody measures any more");
    } while (character != '\n');
}

int64_t clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int compare_int64(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
}

static void set_up(int socket)
{
    struct timeval timeout = { .tv_sec = WAIT_S };
    int on = 1;

    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

int listen_on(uint16_t port)
{
    return listen_at(htonl(INADDR_LOOPBACK), port);
}

int listen_at(in_addr_t host, uint16_t port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port),
                                   .sin_addr.s_addr = host };
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1, err;

    if (listener < 0)
        return -errno;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    set_up(listener);                   /* for a bounded accept */
    if (bind(listener, (struct sockaddr *)&address, sizeof address) == 0 &&
        listen(listener, SOMAXCONN) == 0)
        return listener;
    err = -errno;
    close(listener);
    return err;
}

int accept_from(int listener)
{
    int accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

    if (accepted < 0)
        return -errno;
    set_up(accepted);
    return accepted;
}

int connect_to(uint16_t port)
{
    struct sockaddr_in address = loopback(port);
    int connected = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int err;

    if (connected < 0)
        return -errno;
    set_up(connected);
    if (connect(connected, (struct sockaddr *)&address, sizeof address) == 0)
        return connected;
    err = -errno;
    close(connected);
    return err;
}

int send_exactly(int socket, const void *bytes, size_t count)
{
    size_t sent = 0;

    while (sent < count) {
        ssize_t now = send(socket, (const char *)bytes + sent, count - sent, MSG_NOSIGNAL);
        if (now < 0)
            return -errno;
        sent += (size_t)now;
    }
    return 0;
}

int receive_exactly(int socket, void *bytes, size_t count)
{
    size_t received = 0;

    while (received < count) {
        ssize_t now = recv(socket, (char *)bytes + received, count - received, 0);
        if (now < 0)
            return -errno;
        if (now == 0)
            return -EPIPE;
        received += (size_t)now;
    }
    return 0;
}

int receive_end(int socket)
{
    char byte;
    ssize_t received = recv(socket, &byte, 1, 0);

    if (received < 0)
        return -errno;
    return received ? -EBADMSG : 0;
}

struct server_end server_end_open(const char *where)
{
    struct server_end end = { -1, -1 };
    const char *colon = strchr(where, ':');
    uint16_t port;
    int opened;

    if (!colon)
        die("got \"%s\", expected attach:PORT or listen:PORT", where);
    port = (uint16_t)number_argument(colon + 1, 1, UINT16_MAX);
    if (!strncmp(where, "attach:", 7))
        opened = end.socket = connect_to(port);
    else
        opened = end.listener = listen_on(port);
    if (opened < 0)
        die("%s: %s", where, strerror(-opened));
    return end;
}

int server_end_connection(struct server_end *end)
{
    if (end->socket < 0)
        end->socket = accept_from(end->listener);
    if (end->socket < 0)
        die("the client does not arrive at the server: %s", strerror(-end->socket));
    return end->socket;
}

static char pattern[PATTERN_BYTES + PATTERN_RUN_BYTES];

void pattern_make(void)
{
    uint64_t state = 88172645463325252u;        /* xorshift64 */

    for (size_t i = 0; i < PATTERN_BYTES; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        pattern[i] = (char)(state >> 32);
    }
    for (size_t i = PATTERN_BYTES; i < sizeof pattern; i++)
        pattern[i] = pattern[i - PATTERN_BYTES];
}

const char *pattern_at(uint64_t offset)
{
    return pattern + offset % PATTERN_BYTES;
}
