#include "relay/thread_stack.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t guard_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static int thread_stack_new(size_t bytes, void **stack)
{
    size_t guard = guard_bytes();
    char *area = mmap(NULL, guard + bytes, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);

    if (area == MAP_FAILED)
        return -errno;
    if (mprotect(area + guard, bytes, PROT_READ | PROT_WRITE) < 0) {
        int err = -errno;

        munmap(area, guard + bytes);
        return err;
    }
    *stack = area + guard;
    return 0;
}

int thread_stack_start(size_t bytes, void *(*run)(void *), void *argument, void **stack,
                       pthread_t *thread)
{
    pthread_attr_t attributes;
    int err = thread_stack_new(bytes, stack);

    if (err)
        return err;
    err = -pthread_attr_init(&attributes);
    if (err)
        goto out;
    err = -pthread_attr_setstack(&attributes, *stack, bytes);
    if (!err)
        err = -pthread_create(thread, &attributes, run, argument);
    pthread_attr_destroy(&attributes);
out:
    if (err)
        thread_stack_free(*stack, bytes);
    return err;
}

void thread_stack_free(void *stack, size_t bytes)
{
    size_t guard = guard_bytes();

    munmap((char *)stack - guard, guard + bytes);
}
