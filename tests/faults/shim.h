/* What the shim and the test that steers it share; see shim.c and faults.py. */
#ifndef TESTS_FAULTS_SHIM_H
#define TESTS_FAULTS_SHIM_H

#include <stdatomic.h>
#include <stdint.h>

/* memory: malloc, calloc, realloc and what stands on them. */
#define FOR_EACH_FUNCTION(DO)                                                           \
    DO(none) DO(memory)                                                                 \
    DO(accept4) DO(bind) DO(clock_gettime) DO(dup2) DO(epoll_create1) DO(epoll_ctl)     \
    DO(epoll_pwait) DO(epoll_wait) DO(eventfd) DO(fcntl) DO(fdopen) DO(getpeername)     \
    DO(getrlimit) DO(getsockname) DO(ioctl) DO(listen) DO(mmap) DO(mprotect) DO(open)   \
    DO(pipe2) DO(poll) DO(ppoll) DO(pthread_attr_init) DO(pthread_attr_setstack)        \
    DO(pthread_attr_setstacksize) DO(pthread_create) DO(pthread_sigmask) DO(recv)       \
    DO(send) DO(sendmsg) DO(setrlimit) DO(setsockopt) DO(shutdown) DO(sigaction)        \
    DO(sigwaitinfo) DO(socket) DO(splice) DO(write)

enum function {
#define ENUMERATOR(name) F_##name,
    FOR_EACH_FUNCTION(ENUMERATOR)
#undef ENUMERATOR
    FUNCTIONS
};

struct faults {
    atomic_int_fast64_t function;       /* that is to fail; written last. 0: none */
    int64_t error;                      /* errno of the failure */
    int64_t first, last;                /* which of its calls fail, from 1 */
    atomic_int_fast64_t seen;           /* its calls since it was chosen */
    atomic_int_fast64_t failed;         /* of those */
    atomic_int_fast64_t blocks;         /* of memory in use */
    atomic_int_fast64_t bytes;          /* of memory in use */
    atomic_int_fast64_t most_bytes;     /* that may be in use; 0: no limit */
    atomic_int_fast64_t clock_s;        /* how wrong CLOCK_REALTIME is */
    atomic_int_fast64_t calls[FUNCTIONS];
};

#endif
