/* One direction of a relay, step by step, where a whole relay would need luck. */
#include "relay/buffer_pool.h"
#include "relay/flow.h"

#include "tests/unit/sockets.h"
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SHORT_BYTES = BUFFER_BYTES / 2, TURNS = 2000 };

static struct flow flow;
static int writer, reader;
static size_t sent, received;

static void set_up(void)
{
    int before[2], after[2];
    int room = BUFFER_BYTES;            /* fixed, or the kernel makes more of it meanwhile */

    sent = received = 0;
    connected_pair(before);
    connected_pair(after);
    writer = before[0];
    reader = after[1];
    for (int i = 0; i < 2; i++) {
        fcntl(before[i], F_SETFL, O_NONBLOCK);
        fcntl(after[i], F_SETFL, O_NONBLOCK);
    }
    setsockopt(after[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    setsockopt(after[1], SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    flow_init(&flow, before[1], after[0]);
}

static void tear_down(void)
{
    close(writer);
    close(flow.from);
    close(flow.to);
    close(reader);
    flow_release(&flow);
}

static size_t send_to(int socket, size_t bytes)
{
    static const char zeros[BUFFER_BYTES];
    ssize_t count = send(socket, zeros, bytes, MSG_NOSIGNAL);

    return count < 0 ? 0 : (size_t)count;
}

static void come(size_t bytes)
{
    sent += send_to(writer, bytes);
    usleep(20000);
}

static void read_all_there_is(void)
{
    static char bytes[BUFFER_BYTES];
    ssize_t count;

    while ((count = recv(reader, bytes, sizeof bytes, 0)) > 0)
        received += (size_t)count;
}

/* Until everything has arrived, or for some seconds. */
static void move_all(void)
{
    for (int i = 0; i < TURNS && received < sent; i++) {
        CU_ASSERT_EQUAL_FATAL(flow_move(&flow, true), 0);
        read_all_there_is();
        usleep(1000);
    }
}

/* Until it takes no more, also after what the other end may acknowledge late. */
static void fill(int socket)
{
    size_t before, count;

    do {
        before = sent;
        usleep(200000);
        while ((count = send_to(socket, BUFFER_BYTES)))
            sent += count;
    } while (sent != before);
}

/* The last read of bulk was short, so that the flow is bulk no more, but what came
 * by it is in the pipe still when more comes. */
static void what_follows_bulk_does_not_get_stuck_behind_an_empty_pipe(void)
{
    set_up();
    come(BUFFER_BYTES);
    move_all();
    CU_ASSERT_TRUE(flow.is_bulk);
    fill(flow.to);
    come(SHORT_BYTES);
    CU_ASSERT_EQUAL_FATAL(flow_move(&flow, true), 0);
    CU_ASSERT_FALSE(flow.is_bulk);
    CU_ASSERT(flow.pending > 0 && flow.pipe.in >= 0);
    usleep(20000);
    read_all_there_is();
    come(1000);
    move_all();
    CU_ASSERT_EQUAL(received, sent);
    tear_down();
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(what_follows_bulk_does_not_get_stuck_behind_an_empty_pipe),
        CU_TEST_INFO_NULL,
    };

    return unit_run("flow", tests);
}
