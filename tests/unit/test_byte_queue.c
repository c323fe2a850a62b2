#include "relay/byte_queue.h"
#include "tests/unit/unit.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static struct byte_queue queue;

static void an_empty_queue_holds_nothing(void)
{
    size_t count = 1;

    CU_ASSERT_PTR_NULL(byte_queue_look(&queue, &count));
    CU_ASSERT_EQUAL(count, 0);
    byte_queue_drop(&queue, 0);
    byte_queue_clear(&queue);
    CU_ASSERT_EQUAL(byte_queue_put(&queue, "", 0), 0);
    CU_ASSERT_PTR_NULL(queue.first);
}

static uint8_t byte_at(size_t position)
{
    return (uint8_t)(position % 251);
}

static bool put(size_t position, size_t count)
{
    static uint8_t bytes[100000];

    for (size_t i = 0; i < count; i++)
        bytes[i] = byte_at(position + i);
    return byte_queue_put(&queue, bytes, count) == 0;
}

/* Whether what is shown is what was put there; drops so much of it at most. */
static bool take(size_t *position, size_t at_most)
{
    size_t count;
    const uint8_t *bytes = byte_queue_look(&queue, &count);

    if (count > at_most)
        count = at_most;
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] != byte_at(*position + i))
            return false;
    }
    byte_queue_drop(&queue, count);
    *position += count;
    return true;
}

static void bytes_leave_in_the_order_in_which_they_came(void)
{
    static const size_t sizes[] = { 1, 32768, 3, 65536, 32767, 100000, 7, 1 };
    size_t in = 0, out = 0;

    for (size_t round = 0; round < 80; round++) {
        size_t size = sizes[round % 8];

        CU_ASSERT_TRUE_FATAL(put(in, size));
        in += size;
        for (size_t taken = 0; taken < round % 5; taken++)
            CU_ASSERT_TRUE_FATAL(take(&out, 1 + round * 977));
        CU_ASSERT_EQUAL(queue.count, in - out);
    }
    while (queue.count)
        CU_ASSERT_TRUE_FATAL(take(&out, 5000));
    CU_ASSERT_EQUAL(out, in);
    CU_ASSERT_PTR_NULL(queue.first);
    CU_ASSERT_PTR_NULL(queue.last);
}

static void clearing_drops_all_and_leaves_a_queue(void)
{
    size_t out = 0;

    CU_ASSERT_TRUE(put(0, 70000));
    CU_ASSERT_TRUE(take(&out, 10));
    byte_queue_clear(&queue);
    CU_ASSERT_EQUAL(queue.count, 0);
    CU_ASSERT_PTR_NULL(queue.first);
    CU_ASSERT_TRUE(put(0, 5));
    out = 0;
    CU_ASSERT_TRUE(take(&out, 5));
    CU_ASSERT_EQUAL(out, 5);
    CU_ASSERT_PTR_NULL(queue.first);
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(an_empty_queue_holds_nothing),
        TEST(bytes_leave_in_the_order_in_which_they_came),
        TEST(clearing_drops_all_and_leaves_a_queue),
        CU_TEST_INFO_NULL,
    };

    return unit_run("byte_queue", tests);
}
