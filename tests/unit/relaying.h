/* relaying: two connections and a thread that relays between them, for the tests:
 * left <-> (a, b) <-> right. */
#ifndef TESTS_RELAYING_H
#define TESTS_RELAYING_H

#include "relay/duplex.h"
#include "tests/unit/unit.h"

#include <pthread.h>
#include <stdint.h>

extern int left, right;                 /* -1: finish has nothing to close */

extern struct relayed {
    int a, b;                           /* the thread's */
    pthread_t thread;
    struct waker waker;                 /* the thread's */
    struct duplex_result result;        /* once the thread has ended */
} relayed;

void start_with(const struct duplex_limits *wanted);

/* Without a lifetime or a rate. */
void start(int64_t linger_ms, int64_t idle_ms);

/* Waits for the thread, closes left and right, and says how it ended. */
enum duplex_end finish(void);

/* What main does. */
int relaying_run(const char *subject, CU_TestInfo *tests);

#endif
