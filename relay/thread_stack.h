/* thread_stack: small stacks for threads that come by the thousand.
 *
 * The C library would keep the stacks of some hundreds of ended threads for
 * later ones, with the pages that they have touched; these are given back. A
 * guard page lies below each. Any thread. */
#ifndef RELAY_THREAD_STACK_H
#define RELAY_THREAD_STACK_H

#include <pthread.h>
#include <stddef.h>

#ifdef __has_feature                    /* clang's way to ask */
#if __has_feature(thread_sanitizer)
#define THREAD_STACK_SANITIZED
#endif
#elif defined __SANITIZE_THREAD__       /* gcc's */
#define THREAD_STACK_SANITIZED
#endif

/* A tunnel's thread keeps its buffers elsewhere and calls nothing deep; but the
 * thread sanitizer wants a megabyte of each stack for itself. */
#ifdef THREAD_STACK_SANITIZED
enum { THREAD_STACK_BYTES = 2 * 1024 * 1024 };
#else
enum { THREAD_STACK_BYTES = 64 * 1024 };
#endif

/* Starts a thread that has so many bytes, in whole pages, as its stack. *stack is set
 * before the thread runs, and is the caller's to free. 0 or a negative errno, and then there
 * is neither. */
int thread_stack_start(size_t bytes, void *(*run)(void *), void *argument, void **stack,
                       pthread_t *thread);

/* Once its thread has been joined, or has never been. */
void thread_stack_free(void *stack, size_t bytes);

#endif
