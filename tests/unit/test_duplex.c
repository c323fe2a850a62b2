/* A relay between two connections: bytes, ends and resets, and what they pass through. */
#include "relay/buffer_pool.h"
#include "relay/pipe_pool.h"
#include "relay/socket.h"
#include "tests/unit/relaying.h"
#include "tests/unit/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

static void bytes_pass_both_ways_and_are_counted(void)
{
    char bytes[16];

    start(5000, 0);
    CU_ASSERT_EQUAL(send(left, "question", 8, 0), 8);
    CU_ASSERT_EQUAL(recv(right, bytes, sizeof bytes, 0), 8);
    CU_ASSERT_EQUAL(send(right, "yes", 3, 0), 3);
    CU_ASSERT_EQUAL(recv(left, bytes, sizeof bytes, 0), 3);
    shutdown(left, SHUT_WR);
    shutdown(right, SHUT_WR);
    CU_ASSERT_EQUAL(finish(), DUPLEX_FINISHED);
    CU_ASSERT_EQUAL(relayed.result.bytes_from_a, 8);
    CU_ASSERT_EQUAL(relayed.result.bytes_from_b, 3);
}

static void an_end_travels_and_the_other_direction_goes_on(void)
{
    char bytes[16];

    start(5000, 0);
    CU_ASSERT_EQUAL(send(left, "all", 3, 0), 3);
    shutdown(left, SHUT_WR);
    CU_ASSERT_EQUAL(read_all(right, bytes, sizeof bytes), 3);
    CU_ASSERT_EQUAL(send(right, "answer", 6, 0), 6);
    shutdown(right, SHUT_WR);
    CU_ASSERT_EQUAL(read_all(left, bytes, sizeof bytes), 6);
    CU_ASSERT_EQUAL(finish(), DUPLEX_FINISHED);
}

static void the_end_follows_the_last_byte_whatever_the_amount(void)
{
    static char bytes[24 * BUFFER_BYTES];

    for (size_t amount = 0; amount < sizeof bytes; amount += BUFFER_BYTES) {
        size_t got = 0;
        ssize_t received;

        start(5000, 0);
        CU_ASSERT_EQUAL(send(left, bytes, amount, 0), (ssize_t)amount);
        shutdown(left, SHUT_WR);
        while ((received = recv(right, bytes, sizeof bytes, 0)) > 0)
            got += (size_t)received;
        CU_ASSERT(received == 0 && got == amount);
        shutdown(right, SHUT_WR);
        CU_ASSERT_EQUAL(finish(), DUPLEX_FINISHED);
    }
}

static void a_reset_reaches_the_other_side(void)
{
    char bytes[16];

    start(5000, 0);
    reset(left);
    CU_ASSERT_EQUAL(read_all(right, bytes, sizeof bytes), -ECONNRESET);
    left = -1;
    CU_ASSERT_EQUAL(finish(), DUPLEX_RESET);
}

static void a_reset_after_an_end_reaches_the_other_side(void)
{
    char bytes[16];

    start(5000, 0);
    shutdown(left, SHUT_WR);
    CU_ASSERT_EQUAL(read_all(right, bytes, sizeof bytes), 0);
    reset(left);
    left = -1;
    pthread_join(relayed.thread, NULL);
    CU_ASSERT_EQUAL(relayed.result.end, DUPLEX_RESET);
    CU_ASSERT(send(right, "x", 1, MSG_NOSIGNAL) < 0);
    close(right);
}

static void bytes_before_a_reset_are_passed_on(void)
{
    char bytes[16];

    start(5000, 0);
    CU_ASSERT_EQUAL(send(left, "last words", 10, 0), 10);
    CU_ASSERT_EQUAL(recv(right, bytes, sizeof bytes, MSG_PEEK), 10);
    reset(left);
    left = -1;
    CU_ASSERT_EQUAL(recv(right, bytes, sizeof bytes, 0), 10);
    CU_ASSERT_EQUAL(read_all(right, bytes, sizeof bytes), -ECONNRESET);
    CU_ASSERT_EQUAL(finish(), DUPLEX_RESET);
}

static void a_relay_that_is_asked_to_stop_resets_both_sides(void)
{
    char bytes[16];

    start(5000, 0);
    CU_ASSERT_EQUAL(send(left, "x", 1, 0), 1);
    CU_ASSERT_EQUAL(recv(right, bytes, 1, 0), 1);
    waker_ask(&relayed.waker);
    CU_ASSERT_EQUAL(read_all(left, bytes, sizeof bytes), -ECONNRESET);
    CU_ASSERT_EQUAL(read_all(right, bytes, sizeof bytes), -ECONNRESET);
    CU_ASSERT_EQUAL(finish(), DUPLEX_STOPPED);
}

static void a_slow_reader_stops_the_writer(void)
{
    static char block[65536];
    uint64_t sent = 0;
    ssize_t written;

    start(5000, 0);
    fcntl(left, F_SETFL, O_NONBLOCK);
    for (int quiet = 0; quiet < 20;) {  /* until nothing more is taken for a while */
        written = send(left, block, sizeof block, MSG_NOSIGNAL);
        if (written > 0) {
            sent += (uint64_t)written;
            quiet = 0;
        } else {
            usleep(10 * 1000);
            quiet++;
        }
        CU_ASSERT_FATAL(sent < 256u << 20);
    }
    for (uint64_t got = 0; got < sent;) {       /* what was taken is all there */
        ssize_t received = recv(right, block, sizeof block, 0);

        CU_ASSERT_FATAL(received > 0);
        got += (uint64_t)received;
    }
    shutdown(left, SHUT_WR);
    shutdown(right, SHUT_WR);
    CU_ASSERT_EQUAL(finish(), DUPLEX_FINISHED);
    CU_ASSERT_EQUAL(relayed.result.bytes_from_a, sent);
}

static void *send_bulk(void *argument)
{
    static char block[65536];

    for (int i = 0; i < *(int *)argument; i++) {
        for (size_t j = 0; j < sizeof block; j++)
            block[j] = (char)(i + (int)(j % 251));
        if (send(left, block, sizeof block, MSG_NOSIGNAL | MSG_WAITALL) != sizeof block)
            return argument;
    }
    shutdown(left, SHUT_WR);
    return NULL;
}

/* Whether all blocks of send_bulk arrive at the right. */
static bool receive_bulk(int blocks)
{
    static char block[65536];

    for (int i = 0; i < blocks; i++) {
        if (recv(right, block, sizeof block, MSG_WAITALL) != sizeof block)
            return false;
        for (size_t j = 0; j < sizeof block; j++) {
            if (block[j] != (char)(i + (int)(j % 251)))
                return false;
        }
    }
    return recv(right, block, sizeof block, 0) == 0;
}

static void pass_bulk(void)
{
    int blocks = 200;
    pthread_t sender;
    void *failure;

    start(5000, 0);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&sender, NULL, send_bulk, &blocks), 0);
    CU_ASSERT_TRUE(receive_bulk(blocks));
    pthread_join(sender, &failure);
    CU_ASSERT_PTR_NULL(failure);
    shutdown(right, SHUT_WR);
    CU_ASSERT_EQUAL(finish(), DUPLEX_FINISHED);
}

static void bulk_arrives_exactly_and_leaves_no_pipe(void)
{
    unsigned descriptors;

    pipe_pool_close_resting();          /* what earlier tests left */
    descriptors = count_descriptors();
    pass_bulk();
    pipe_pool_close_resting();
    CU_ASSERT_EQUAL(count_descriptors(), descriptors);
}

static void bulk_arrives_exactly_without_a_pipe_too(void)
{
    struct pipe_ends pipes[PIPES_MAX];
    struct pipe_ends none;
    unsigned descriptors;

    for (size_t i = 0; i < PIPES_MAX; i++)
        CU_ASSERT_TRUE(pipe_pool_take(&pipes[i]));
    CU_ASSERT_FALSE(pipe_pool_take(&none));
    descriptors = count_descriptors();
    pass_bulk();
    CU_ASSERT_EQUAL(count_descriptors(), descriptors);
    for (size_t i = 0; i < PIPES_MAX; i++)
        pipe_pool_give(&pipes[i], true);
    pipe_pool_close_resting();
}

static void a_connection_within_the_machine_is_not_paced(void)
{
    char control[16] = "";
    socklen_t length = sizeof control;
    int ends[2];

    connected_pair(ends);
    setsockopt(ends[0], IPPROTO_TCP, TCP_CONGESTION, "bbr", 3);     /* where there is one */
    CU_ASSERT_EQUAL_FATAL(socket_prepare_to_relay(ends[0], SOCKET_KEEPALIVE_MS), 0);
    CU_ASSERT_EQUAL(getsockopt(ends[0], IPPROTO_TCP, TCP_CONGESTION, control, &length), 0);
    CU_ASSERT_STRING_EQUAL(control, "reno");
    close(ends[0]);
    close(ends[1]);
}

static void a_pipe_with_bytes_in_it_is_not_handed_out_again(void)
{
    struct pipe_ends used, next;
    char byte = 'x';

    CU_ASSERT_TRUE_FATAL(pipe_pool_take(&used));
    CU_ASSERT_EQUAL(write(used.in, &byte, 1), 1);
    pipe_pool_give(&used, false);
    CU_ASSERT_TRUE_FATAL(pipe_pool_take(&next));
    CU_ASSERT_EQUAL(read(next.out, &byte, 1), -1);
    CU_ASSERT_EQUAL(errno, EAGAIN);
    pipe_pool_give(&next, true);
    pipe_pool_close_resting();
}

static CU_TestInfo tests[] = {
    TEST(bytes_pass_both_ways_and_are_counted),
    TEST(an_end_travels_and_the_other_direction_goes_on),
    TEST(the_end_follows_the_last_byte_whatever_the_amount),
    TEST(a_reset_reaches_the_other_side),
    TEST(a_reset_after_an_end_reaches_the_other_side),
    TEST(bytes_before_a_reset_are_passed_on),
    TEST(a_relay_that_is_asked_to_stop_resets_both_sides),
    TEST(a_slow_reader_stops_the_writer),
    TEST(bulk_arrives_exactly_and_leaves_no_pipe),
    TEST(bulk_arrives_exactly_without_a_pipe_too),
    TEST(a_connection_within_the_machine_is_not_paced),
    TEST(a_pipe_with_bytes_in_it_is_not_handed_out_again),
    CU_TEST_INFO_NULL,
};

int main(void)
{
    return relaying_run("duplex", tests);
}
