/* A relay between two connections: how long it may be silent or last, and its rate. */
#include "tests/unit/relaying.h"
#include "tests/unit/sockets.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void one_end_and_silence_is_cut_after_the_linger_time(void)
{
    char bytes[16];

    start(100, 0);
    shutdown(left, SHUT_WR);
    CU_ASSERT_EQUAL(read_all(left, bytes, sizeof bytes), -ECONNRESET);
    CU_ASSERT_EQUAL(finish(), DUPLEX_LINGERED);
}

static void bytes_that_still_flow_keep_a_half_closed_stream_alive(void)
{
    char bytes[16];

    start(1500, 0);
    shutdown(left, SHUT_WR);
    for (int i = 0; i < 6; i++) {
        usleep(300 * 1000);
        CU_ASSERT_EQUAL(send(right, "x", 1, MSG_NOSIGNAL), 1);
        CU_ASSERT_EQUAL(recv(left, bytes, 1, 0), 1);
    }
    shutdown(right, SHUT_WR);
    CU_ASSERT_EQUAL(finish(), DUPLEX_FINISHED);
}

static int unsent(int socket)
{
    int bytes = 0;

    ioctl(socket, SIOCOUTQ, &bytes);
    return bytes;
}

static bool all_was_sent(void *unused)
{
    (void)unused;
    return unsent(left) == 0;
}

/* More bytes than the right's buffers hold are on their way to it, and it does
 * not read; all ends have been sent, and the left's has arrived. */
static void stall_with_bytes_waiting(int64_t linger_ms, int64_t idle_ms)
{
    static char block[200 * 1000];
    int small = 32 * 1024;

    start(linger_ms, idle_ms);
    setsockopt(right, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    setsockopt(relayed.b, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    CU_ASSERT_EQUAL(send(left, block, sizeof block, 0), sizeof block);
    CU_ASSERT_TRUE(comes_true(all_was_sent, NULL));
    shutdown(left, SHUT_WR);
    shutdown(right, SHUT_WR);
}

static void bytes_that_wait_for_a_slow_reader_are_no_silence(void)
{
    static char block[65536];
    ssize_t received;

    stall_with_bytes_waiting(1000, 0);
    usleep(2500 * 1000);
    while ((received = recv(right, block, sizeof block, 0)) > 0)
        ;
    CU_ASSERT_EQUAL(received, 0);
    CU_ASSERT_EQUAL(finish(), DUPLEX_FINISHED);
}

static bool end_was_passed_on(void *unused)
{
    struct tcp_info info;
    socklen_t length = sizeof info;

    (void)unused;
    return getsockopt(relayed.b, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 &&
           info.tcpi_state == TCP_FIN_WAIT1;
}

/* All that the left sent, and its end, is in the socket's buffer for the right,
 * which does not read: the relay itself has nothing left to do. */
static void stall_with_bytes_in_the_socket(int64_t linger_ms)
{
    static char block[200 * 1000];
    int small = 32 * 1024;

    start(linger_ms, 0);
    setsockopt(right, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    CU_ASSERT_EQUAL(send(left, block, sizeof block, 0), sizeof block);
    shutdown(left, SHUT_WR);
    CU_ASSERT_TRUE(comes_true(end_was_passed_on, NULL));
}

static void read_everything(void)
{
    static char block[65536];
    ssize_t received;
    size_t got = 0;

    while ((received = recv(right, block, sizeof block, 0)) > 0)
        got += (size_t)received;
    CU_ASSERT_EQUAL(received, 0);
    CU_ASSERT_EQUAL(got, 200 * 1000);
}

static void bytes_in_a_socket_for_a_slow_reader_are_no_silence_either(void)
{
    stall_with_bytes_in_the_socket(1000);
    usleep(2500 * 1000);
    read_everything();
    shutdown(right, SHUT_WR);
    CU_ASSERT_EQUAL(finish(), DUPLEX_FINISHED);
}

static void a_slow_reader_has_the_whole_linger_time_for_its_answer(void)
{
    char bytes[16];

    stall_with_bytes_in_the_socket(2000);
    usleep(3500 * 1000);                /* bytes were seen to wait after 2000 ms */
    read_everything();
    usleep(1000 * 1000);
    CU_ASSERT_EQUAL(send(right, "answer", 6, MSG_NOSIGNAL), 6);
    shutdown(right, SHUT_WR);
    CU_ASSERT_EQUAL(read_all(left, bytes, sizeof bytes), 6);
    CU_ASSERT_EQUAL(finish(), DUPLEX_FINISHED);
}

static void a_slow_reader_costs_no_processor_time_and_no_time_limit(void)
{
    struct timespec before, after;

    stall_with_bytes_waiting(5000, 600);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    pthread_join(relayed.thread, NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    CU_ASSERT_EQUAL(relayed.result.end, DUPLEX_IDLE);
    CU_ASSERT((after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000
              < 300);
    close(left);
    close(right);
}

static void silence_is_cut_after_the_idle_time_if_there_is_one(void)
{
    char bytes[16];

    start(5000, 100);
    CU_ASSERT_EQUAL(read_all(left, bytes, sizeof bytes), -ECONNRESET);
    CU_ASSERT_EQUAL(finish(), DUPLEX_IDLE);
}

static void a_lifetime_ends_a_silent_relay(void)
{
    start_with(&(struct duplex_limits){ .linger_ms = 5000, .until_ms = clock_ms() + 100 });
    CU_ASSERT_EQUAL(finish(), DUPLEX_EXPIRED);
}

/* Until the connection breaks. */
static void *send_without_end(void *socket)
{
    static const char bytes[65536];

    while (send(*(int *)socket, bytes, sizeof bytes, MSG_NOSIGNAL) > 0)
        continue;
    return NULL;
}

static void a_lifetime_ends_a_busy_relay_too(void)
{
    char bytes[65536];
    pthread_t sender;

    start_with(&(struct duplex_limits){ .linger_ms = 5000, .until_ms = clock_ms() + 200 });
    CU_ASSERT_EQUAL_FATAL(pthread_create(&sender, NULL, send_without_end, &left), 0);
    while (recv(right, bytes, sizeof bytes, 0) > 0)
        continue;
    CU_ASSERT_EQUAL(errno, ECONNRESET);
    pthread_join(sender, NULL);
    CU_ASSERT_EQUAL(finish(), DUPLEX_EXPIRED);
}

/* 60,000 bytes at 40,000 a second, of which a second's worth comes at once. */
static void a_rate_holds_for_both_directions_together(void)
{
    static const char bytes[30000];
    char received[30000];
    int64_t began_ms = clock_ms();

    start_with(&(struct duplex_limits){ .linger_ms = 5000, .until_ms = INT64_MAX,
                                        .bytes_per_s = 40000 });
    CU_ASSERT_EQUAL(send(left, bytes, sizeof bytes, 0), sizeof bytes);
    CU_ASSERT_EQUAL(send(right, bytes, sizeof bytes, 0), sizeof bytes);
    CU_ASSERT_EQUAL(recv(left, received, sizeof received, MSG_WAITALL), sizeof received);
    CU_ASSERT_EQUAL(recv(right, received, sizeof received, MSG_WAITALL), sizeof received);
    CU_ASSERT(clock_ms() - began_ms >= 480);
    shutdown(left, SHUT_WR);
    shutdown(right, SHUT_WR);
    CU_ASSERT_EQUAL(recv(left, received, 1, 0), 0);
    CU_ASSERT_EQUAL(finish(), DUPLEX_FINISHED);
}

static void a_rate_is_shared_by_a_busy_and_a_quiet_direction(void)
{
    pthread_t sender;
    char byte;

    start_with(&(struct duplex_limits){ .linger_ms = 5000, .until_ms = INT64_MAX,
                                        .bytes_per_s = 200000 });
    CU_ASSERT_EQUAL_FATAL(pthread_create(&sender, NULL, send_without_end, &left), 0);
    usleep(300000);
    CU_ASSERT_EQUAL(send(right, "x", 1, 0), 1);
    CU_ASSERT_EQUAL(recv(left, &byte, 1, 0), 1);
    waker_ask(&relayed.waker);
    pthread_join(sender, NULL);
    CU_ASSERT_EQUAL(finish(), DUPLEX_STOPPED);
}

static void a_relay_that_has_used_up_its_rate_sleeps(void)
{
    static const char bytes[1000];
    clockid_t clock;
    struct timespec used;

    start_with(&(struct duplex_limits){ .linger_ms = 5000, .until_ms = INT64_MAX,
                                        .bytes_per_s = 1 });
    CU_ASSERT_EQUAL(send(left, bytes, sizeof bytes, 0), sizeof bytes);
    CU_ASSERT_EQUAL(pthread_getcpuclockid(relayed.thread, &clock), 0);
    usleep(500000);
    CU_ASSERT_EQUAL(clock_gettime(clock, &used), 0);
    CU_ASSERT(used.tv_sec == 0 && used.tv_nsec < 20000000);
    waker_ask(&relayed.waker);
    CU_ASSERT_EQUAL(finish(), DUPLEX_STOPPED);
}

/* Each byte waits for a second. */
static void bytes_that_wait_for_their_rate_are_no_silence(void)
{
    char bytes[4];

    start_with(&(struct duplex_limits){ .linger_ms = 500, .idle_ms = 700, .until_ms = INT64_MAX,
                                        .bytes_per_s = 1 });
    shutdown(right, SHUT_WR);
    CU_ASSERT_EQUAL(send(left, "abc", 3, 0), 3);
    shutdown(left, SHUT_WR);
    CU_ASSERT_EQUAL(recv(right, bytes, sizeof bytes, MSG_WAITALL), 3);
    CU_ASSERT_EQUAL(finish(), DUPLEX_FINISHED);
}

static CU_TestInfo tests[] = {
    TEST(one_end_and_silence_is_cut_after_the_linger_time),
    TEST(bytes_that_still_flow_keep_a_half_closed_stream_alive),
    TEST(bytes_that_wait_for_a_slow_reader_are_no_silence),
    TEST(bytes_in_a_socket_for_a_slow_reader_are_no_silence_either),
    TEST(a_slow_reader_has_the_whole_linger_time_for_its_answer),
    TEST(a_slow_reader_costs_no_processor_time_and_no_time_limit),
    TEST(silence_is_cut_after_the_idle_time_if_there_is_one),
    TEST(a_lifetime_ends_a_silent_relay),
    TEST(a_lifetime_ends_a_busy_relay_too),
    TEST(a_rate_holds_for_both_directions_together),
    TEST(a_rate_is_shared_by_a_busy_and_a_quiet_direction),
    TEST(a_relay_that_has_used_up_its_rate_sleeps),
    TEST(bytes_that_wait_for_their_rate_are_no_silence),
    CU_TEST_INFO_NULL,
};

int main(void)
{
    return relaying_run("duplex_limits", tests);
}
