/* shim: makes a chosen call fail, in a program that it is preloaded into.
 *
 * FAULTS names a file of the size of struct faults, which the test and the
 * program share: the test writes which call of which function is to fail, and
 * reads what happened, while the program runs. What fails is not carried out.
 * Calls that the C library makes to itself are not seen, but for its memory. */
#include "tests/faults/shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char *const names[FUNCTIONS] = {
#define NAME(name) #name,
    FOR_EACH_FUNCTION(NAME)
#undef NAME
};

static void *reals[FUNCTIONS];
static struct faults *faults;           /* NULL: nothing fails, nothing is counted */

/* For the test, which loads this file too. */
int fault_function(const char *name)
{
    for (int i = 0; i < FUNCTIONS; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

static void *real(enum function function)
{
    if (!reals[function])
        reals[function] = dlsym(RTLD_NEXT, names[function]);
    return reals[function];
}

__attribute__((constructor))
static void set_up(void)
{
    const char *path = getenv("FAULTS");
    int file = path ? ((int (*)(const char *, int, ...))real(F_open))(path, O_RDWR | O_CLOEXEC) : -1;
    void *page;

    for (int i = 0; i < FUNCTIONS; i++)
        real((enum function)i);
    if (file < 0)
        return;
    page = ((void *(*)(void *, size_t, int, int, int, off_t))real(F_mmap))(
        NULL, sizeof *faults, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED)
        faults = page;
}

/* Counts the call. Whether it is to fail; errno says how. */
static bool fails(enum function function)
{
    int64_t number;

    if (!faults)
        return false;
    atomic_fetch_add(&faults->calls[function], 1);
    if (atomic_load(&faults->function) != (int64_t)function)
        return false;
    number = atomic_fetch_add(&faults->seen, 1) + 1;
    if (number < faults->first || number > faults->last)
        return false;
    atomic_fetch_add(&faults->failed, 1);
    errno = (int)faults->error;
    return true;
}

#define WRAP(type, name, failure, parameters, arguments)                \
    type name parameters                                                \
    {                                                                   \
        if (fails(F_##name))                                            \
            return failure;                                             \
        return ((type (*) parameters)real(F_##name)) arguments;         \
    }

/* For functions that return an error instead of setting errno. */
#define WRAP_ERROR(name, parameters, arguments) WRAP(int, name, errno, parameters, arguments)

WRAP(int, accept4, -1, (int fd, struct sockaddr *address, socklen_t *length, int flags),
     (fd, address, length, flags))
WRAP(int, bind, -1, (int fd, const struct sockaddr *address, socklen_t length),
     (fd, address, length))
WRAP(int, dup2, -1, (int from, int to), (from, to))
WRAP(int, epoll_create1, -1, (int flags), (flags))
WRAP(int, epoll_pwait, -1,
     (int epoll, struct epoll_event *events, int most, int timeout_ms, const sigset_t *mask),
     (epoll, events, most, timeout_ms, mask))
WRAP(int, epoll_wait, -1, (int epoll, struct epoll_event *events, int most, int timeout_ms),
     (epoll, events, most, timeout_ms))
WRAP(int, eventfd, -1, (unsigned initial, int flags), (initial, flags))
WRAP(FILE *, fdopen, NULL, (int fd, const char *mode), (fd, mode))
WRAP(int, getpeername, -1, (int fd, struct sockaddr *address, socklen_t *length),
     (fd, address, length))
WRAP(int, getrlimit, -1, (__rlimit_resource_t what, struct rlimit *limit), (what, limit))
WRAP(int, getsockname, -1, (int fd, struct sockaddr *address, socklen_t *length),
     (fd, address, length))
WRAP(int, listen, -1, (int fd, int backlog), (fd, backlog))
WRAP(void *, mmap, MAP_FAILED,
     (void *at, size_t length, int access, int flags, int fd, off_t offset),
     (at, length, access, flags, fd, offset))
WRAP(int, mprotect, -1, (void *at, size_t length, int access), (at, length, access))
WRAP(int, pipe2, -1, (int ends[2], int flags), (ends, flags))
WRAP(int, poll, -1, (struct pollfd *polled, nfds_t count, int timeout_ms),
     (polled, count, timeout_ms))
WRAP(int, ppoll, -1,
     (struct pollfd *polled, nfds_t count, const struct timespec *timeout, const sigset_t *mask),
     (polled, count, timeout, mask))
WRAP_ERROR(pthread_attr_init, (pthread_attr_t *attributes), (attributes))
WRAP_ERROR(pthread_attr_setstack, (pthread_attr_t *attributes, void *stack, size_t bytes),
           (attributes, stack, bytes))
WRAP_ERROR(pthread_attr_setstacksize, (pthread_attr_t *attributes, size_t bytes),
           (attributes, bytes))
WRAP_ERROR(pthread_create, (pthread_t *thread, const pthread_attr_t *attributes,
                            void *(*start)(void *), void *argument),
           (thread, attributes, start, argument))
WRAP_ERROR(pthread_sigmask, (int how, const sigset_t *mask, sigset_t *before), (how, mask, before))
WRAP(ssize_t, recv, -1, (int fd, void *bytes, size_t count, int flags), (fd, bytes, count, flags))
WRAP(ssize_t, send, -1, (int fd, const void *bytes, size_t count, int flags),
     (fd, bytes, count, flags))
WRAP(ssize_t, sendmsg, -1, (int fd, const struct msghdr *message, int flags),
     (fd, message, flags))
WRAP(int, setrlimit, -1, (__rlimit_resource_t what, const struct rlimit *limit), (what, limit))
WRAP(int, shutdown, -1, (int fd, int how), (fd, how))
WRAP(int, sigaction, -1,
     (int number, const struct sigaction *action, struct sigaction *before),
     (number, action, before))
WRAP(int, sigwaitinfo, -1, (const sigset_t *awaited, siginfo_t *came), (awaited, came))
WRAP(int, socket, -1, (int family, int type, int protocol), (family, type, protocol))
WRAP(ssize_t, splice, -1,
     (int in, off64_t *in_at, int out, off64_t *out_at, size_t count, unsigned flags),
     (in, in_at, out, out_at, count, flags))
WRAP(ssize_t, write, -1, (int fd, const void *bytes, size_t count), (fd, bytes, count))

/* To delete takes nothing that there may be too little of. */
int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    if (operation != EPOLL_CTL_DEL && fails(F_epoll_ctl))
        return -1;
    return ((int (*)(int, int, int, struct epoll_event *))real(F_epoll_ctl))(epoll, operation, fd,
                                                                             event);
}

/* No kernel refuses a TCP socket its SO_LINGER, and without it there are no resets. */
int setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
    if ((level != SOL_SOCKET || option != SO_LINGER) && fails(F_setsockopt))
        return -1;
    return ((int (*)(int, int, int, const void *, socklen_t))real(F_setsockopt))(fd, level, option,
                                                                                 value, length);
}

/* Those that take a pointer or a number where the last parameter may stand. */
static void *last_argument(va_list arguments)
{
    return va_arg(arguments, void *);
}

int fcntl(int fd, int command, ...)
{
    va_list arguments;
    void *argument;

    va_start(arguments, command);
    argument = last_argument(arguments);
    va_end(arguments);
    return fails(F_fcntl) ? -1 : ((int (*)(int, int, ...))real(F_fcntl))(fd, command, argument);
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    void *argument;

    va_start(arguments, request);
    argument = last_argument(arguments);
    va_end(arguments);
    return fails(F_ioctl) ? -1
                          : ((int (*)(int, unsigned long, ...))real(F_ioctl))(fd, request, argument);
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    void *argument;

    va_start(arguments, flags);
    argument = last_argument(arguments);
    va_end(arguments);
    return fails(F_open) ? -1 : ((int (*)(const char *, int, ...))real(F_open))(path, flags, argument);
}

/* --- memory: glibc's own names for it, since dlsym needs some itself */

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *block, size_t bytes);
void __libc_free(void *block);

static void count_memory(int sign, void *block)
{
    if (!faults || !block)
        return;
    atomic_fetch_add(&faults->blocks, sign);
    atomic_fetch_add(&faults->bytes, sign * (int64_t)malloc_usable_size(block));
}

static bool memory_fails(size_t bytes)
{
    int64_t most = faults ? atomic_load(&faults->most_bytes) : 0;

    if (fails(F_memory))
        return true;
    if (!most || atomic_load(&faults->bytes) + (int64_t)bytes <= most)
        return false;
    atomic_fetch_add(&faults->failed, 1);
    errno = ENOMEM;
    return true;
}

void *malloc(size_t bytes)
{
    void *block = memory_fails(bytes) ? NULL : __libc_malloc(bytes);

    count_memory(1, block);
    return block;
}

void *calloc(size_t count, size_t bytes)
{
    void *block = memory_fails(count * bytes) ? NULL : __libc_calloc(count, bytes);

    count_memory(1, block);
    return block;
}

void *realloc(void *block, size_t bytes)
{
    void *moved;

    if (memory_fails(bytes))
        return NULL;
    count_memory(-1, block);
    moved = __libc_realloc(block, bytes);
    count_memory(1, moved ? moved : block);
    return moved;
}

void free(void *block)
{
    count_memory(-1, block);
    __libc_free(block);
}

/* --- the clock that people read, which the test may set */

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = ((int (*)(clockid_t, struct timespec *))real(F_clock_gettime))(clock, now);

    if (!failed && faults && clock == CLOCK_REALTIME)
        now->tv_sec += atomic_load(&faults->clock_s);
    return failed;
}

time_t time(time_t *out)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}
