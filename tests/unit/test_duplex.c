#include "relay/duplex.h"
#include "relay/buffer_pool.h"
#include "relay/pipe_pool.h"
#include "relay/socket.h"
#include "tests/unit/sockets.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* left <-> (a, b relayed by a thread) <-> right */
static int left, right;
static struct waker waker;
static pthread_t thread;
static struct duplex_limits limits;
static struct duplex_result result;

static struct { int a, b; } relayed;

static void *relay_thread(void *unused)
{
    waker_own(&waker);
    result = duplex_run(relayed.a, relayed.b, &limits, &waker);
    if (result.end == DUPLEX_FINISHED) {
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

static void start_with(const struct duplex_limits *wanted)
{
    int ends[2];

    limits = *wanted;
    memset(&waker, 0, sizeof waker);
    connected_pair(ends);
    left = ends[0];
    relayed.a = ends[1];
    connected_pair(ends);
    right = ends[0];
    relayed.b = ends[1];
    prepare(relayed.a);
    prepare(relayed.b);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, relay_thread, NULL), 0);
}

static void start(int64_t linger_ms, int64_t idle_ms)
{
    start_with(&(struct duplex_limits){ .linger_ms = linger_ms, .idle_ms = idle_ms,
                                        .until_ms = INT64_MAX });
}

static enum duplex_end finish(void)
{
    pthread_join(thread, NULL);
    close(left);
    close(right);
    return result.end;
}

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
    CU_ASSERT_EQUAL(result.bytes_from_a, 8);
    CU_ASSERT_EQUAL(result.bytes_from_b, 3);
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
    pthread_join(thread, NULL);
    CU_ASSERT_EQUAL(result.end, DUPLEX_RESET);
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

    start(200, 0);
    shutdown(left, SHUT_WR);
    for (int i = 0; i < 6; i++) {
        usleep(100 * 1000);
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

    stall_with_bytes_waiting(100, 0);
    usleep(400 * 1000);
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
    stall_with_bytes_in_the_socket(100);
    usleep(400 * 1000);
    read_everything();
    shutdown(right, SHUT_WR);
    CU_ASSERT_EQUAL(finish(), DUPLEX_FINISHED);
}

static void a_slow_reader_has_the_whole_linger_time_for_its_answer(void)
{
    char bytes[16];

    stall_with_bytes_in_the_socket(400);
    usleep(700 * 1000);                 /* bytes were seen to wait after 400 ms */
    read_everything();
    usleep(250 * 1000);
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
    pthread_join(thread, NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    CU_ASSERT_EQUAL(result.end, DUPLEX_IDLE);
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

static void a_relay_that_is_asked_to_stop_resets_both_sides(void)
{
    char bytes[16];

    start(5000, 0);
    CU_ASSERT_EQUAL(send(left, "x", 1, 0), 1);
    CU_ASSERT_EQUAL(recv(right, bytes, 1, 0), 1);
    waker_ask(&waker);
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
    CU_ASSERT_EQUAL(result.bytes_from_a, sent);
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

    start_with(&(struct duplex_limits){ .linger_ms = 5000, .until_ms = clock_ms() + 1500,
                                        .bytes_per_s = 200000 });
    CU_ASSERT_EQUAL_FATAL(pthread_create(&sender, NULL, send_without_end, &left), 0);
    usleep(300000);
    CU_ASSERT_EQUAL(send(right, "x", 1, 0), 1);
    CU_ASSERT_EQUAL(recv(left, &byte, 1, 0), 1);
    pthread_join(sender, NULL);
    CU_ASSERT_EQUAL(finish(), DUPLEX_EXPIRED);
}

static void a_relay_that_has_used_up_its_rate_sleeps(void)
{
    static const char bytes[1000];
    clockid_t clock;
    struct timespec used;

    start_with(&(struct duplex_limits){ .linger_ms = 5000, .until_ms = clock_ms() + 1000,
                                        .bytes_per_s = 1 });
    CU_ASSERT_EQUAL(send(left, bytes, sizeof bytes, 0), sizeof bytes);
    CU_ASSERT_EQUAL(pthread_getcpuclockid(thread, &clock), 0);
    usleep(500000);
    CU_ASSERT_EQUAL(clock_gettime(clock, &used), 0);
    CU_ASSERT(used.tv_sec == 0 && used.tv_nsec < 20000000);
    CU_ASSERT_EQUAL(finish(), DUPLEX_EXPIRED);
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

static void a_connection_within_the_machine_is_not_paced(void)
{
    char control[16] = "";
    socklen_t length = sizeof control;
    int ends[2];

    connected_pair(ends);
    setsockopt(ends[0], IPPROTO_TCP, TCP_CONGESTION, "bbr", 3);     /* where there is one */
    prepare(ends[0]);
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

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(bytes_pass_both_ways_and_are_counted),
        TEST(an_end_travels_and_the_other_direction_goes_on),
        TEST(the_end_follows_the_last_byte_whatever_the_amount),
        TEST(a_reset_reaches_the_other_side),
        TEST(a_reset_after_an_end_reaches_the_other_side),
        TEST(bytes_before_a_reset_are_passed_on),
        TEST(one_end_and_silence_is_cut_after_the_linger_time),
        TEST(bytes_that_still_flow_keep_a_half_closed_stream_alive),
        TEST(bytes_that_wait_for_a_slow_reader_are_no_silence),
        TEST(bytes_in_a_socket_for_a_slow_reader_are_no_silence_either),
        TEST(a_slow_reader_has_the_whole_linger_time_for_its_answer),
        TEST(a_slow_reader_costs_no_processor_time_and_no_time_limit),
        TEST(silence_is_cut_after_the_idle_time_if_there_is_one),
        TEST(a_relay_that_is_asked_to_stop_resets_both_sides),
        TEST(a_slow_reader_stops_the_writer),
        TEST(bulk_arrives_exactly_and_leaves_no_pipe),
        TEST(bulk_arrives_exactly_without_a_pipe_too),
        TEST(a_lifetime_ends_a_silent_relay),
        TEST(a_lifetime_ends_a_busy_relay_too),
        TEST(a_rate_holds_for_both_directions_together),
        TEST(a_rate_is_shared_by_a_busy_and_a_quiet_direction),
        TEST(a_relay_that_has_used_up_its_rate_sleeps),
        TEST(bytes_that_wait_for_their_rate_are_no_silence),
        TEST(a_connection_within_the_machine_is_not_paced),
        TEST(a_pipe_with_bytes_in_it_is_not_handed_out_again),
        CU_TEST_INFO_NULL,
    };
    int status;

    if (waker_set_up_process() < 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        return EXIT_FAILURE;
    status = unit_run("duplex", tests);
    buffer_pool_free_resting();
    pipe_pool_close_resting();
    return status;
}
