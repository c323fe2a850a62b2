#include "tests/unit/relaying.h"

#include "relay/buffer_pool.h"
#include "relay/pipe_pool.h"
#include "relay/socket.h"
#include "tests/unit/sockets.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int left, right;
struct relayed relayed;
static struct duplex_limits limits;

static void *relay_thread(void *unused)
{
    waker_own(&relayed.waker);
    relayed.result = duplex_run(relayed.a, relayed.b, &limits, &relayed.waker);
    if (relayed.result.end == DUPLEX_FINISHED) {
        socket_close(relayed.a);
        socket_close(relayed.b);
    } else {
        socket_reset(relayed.a);
        socket_reset(relayed.b);
    }
    return unused;
}

static void prepare(int socket)
{
    CU_ASSERT_EQUAL_FATAL(socket_prepare_to_relay(socket, SOCKET_KEEPALIVE_MS), 0);
    fcntl(socket, F_SETFL, O_NONBLOCK);
}

void start_with(const struct duplex_limits *wanted)
{
    int ends[2];

    limits = *wanted;
    memset(&relayed.waker, 0, sizeof relayed.waker);
    connected_pair(ends);
    left = ends[0];
    relayed.a = ends[1];
    connected_pair(ends);
    right = ends[0];
    relayed.b = ends[1];
    prepare(relayed.a);
    prepare(relayed.b);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&relayed.thread, NULL, relay_thread, NULL), 0);
}

void start(int64_t linger_ms, int64_t idle_ms)
{
    start_with(&(struct duplex_limits){ .linger_ms = linger_ms, .idle_ms = idle_ms,
                                        .until_ms = INT64_MAX });
}

enum duplex_end finish(void)
{
    pthread_join(relayed.thread, NULL);
    close(left);
    close(right);
    return relayed.result.end;
}

int relaying_run(const char *subject, CU_TestInfo *tests)
{
    int status;

    if (waker_set_up_process() < 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        return EXIT_FAILURE;
    status = unit_run(subject, tests);
    buffer_pool_free_resting();
    pipe_pool_close_resting();
    return status;
}
