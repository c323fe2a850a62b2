#include "relay/thread_stack.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t guard_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

int thread_stack_new(void **stack)
{
    size_t guard = guard_bytes();
    char *area = mmap(NULL, guard + THREAD_STACK_BYTES, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);

    if (area == MAP_FAILED)
        return -errno;
    if (mprotect(area + guard, THREAD_STACK_BYTES, PROT_READ | PROT_WRITE) < 0) {
        int err = -errno;

        munmap(area, guard + THREAD_STACK_BYTES);
        return err;
    }
    *stack = area + guard;
    return 0;
}

void thread_stack_free(void *stack)
{
    size_t guard = guard_bytes();

    munmap((char *)stack - guard, guard + THREAD_STACK_BYTES);
}
