/* When to try again, by a clock that the tests turn. */
#include "clients/backoff.h"

#include "tests/unit/unit.h"

#include <stdbool.h>

enum { NOW_MS = 5000000 };

static void assert_within(int64_t wait_ms, int64_t whole_ms)
{
    CU_ASSERT(wait_ms >= whole_ms / 2);
    CU_ASSERT(wait_ms <= whole_ms);
}

static void waits_grow_while_tries_fail(void)
{
    static const int whole_ms[] = { 1000, 2000, 4000, 8000, 16000, 30000, 30000 };
    struct backoff backoff = { 0 };
    int64_t now_ms = NOW_MS;

    for (size_t i = 0; i < sizeof whole_ms / sizeof whole_ms[0]; i++) {
        int wait_ms = backoff_failed(&backoff, now_ms);

        assert_within(wait_ms, whole_ms[i]);
        CU_ASSERT_EQUAL(backoff.next_ms, now_ms + wait_ms);
        now_ms = backoff.next_ms;
    }
}

static void waits_grow_while_connections_don_t_last(void)
{
    struct backoff backoff = { 0 };
    int64_t now_ms = NOW_MS;

    for (int whole_ms = 1000; whole_ms <= 16000; whole_ms *= 2) {
        backoff_attached(&backoff, now_ms);
        now_ms += BACKOFF_LAST_MS - 1;
        assert_within(backoff_lost(&backoff, now_ms), whole_ms);
        now_ms = backoff.next_ms;
    }
}

static void waits_start_anew_after_a_connection_that_lasted(void)
{
    struct backoff backoff = { 0 };

    backoff_failed(&backoff, NOW_MS);
    backoff_failed(&backoff, backoff.next_ms);
    backoff_attached(&backoff, backoff.next_ms);
    assert_within(backoff_lost(&backoff, backoff.next_ms + BACKOFF_LAST_MS), 1000);
    assert_within(backoff_failed(&backoff, backoff.next_ms), 2000);
}

/* Another connection may be well all the time. */
static void a_try_that_fails_is_none_that_lasted(void)
{
    struct backoff backoff = { 0 };

    backoff_attached(&backoff, NOW_MS);
    backoff_failed(&backoff, NOW_MS + 2 * BACKOFF_LAST_MS);
    assert_within(backoff_failed(&backoff, backoff.next_ms), 2000);
}

static void several_that_are_lost_together_wait_together(void)
{
    struct backoff backoff = { 0 };
    int64_t next_ms;

    backoff_attached(&backoff, NOW_MS - BACKOFF_LAST_MS);
    next_ms = NOW_MS + backoff_lost(&backoff, NOW_MS);
    CU_ASSERT_EQUAL(NOW_MS + 100 + backoff_lost(&backoff, NOW_MS + 100), next_ms);
    CU_ASSERT_EQUAL(NOW_MS + 200 + backoff_failed(&backoff, NOW_MS + 200), next_ms);
    CU_ASSERT_EQUAL(backoff.next_ms, next_ms);
    assert_within(backoff_failed(&backoff, next_ms), 2000);
}

static void waits_are_not_all_the_same(void)
{
    struct backoff first = { 0 };
    int wait_ms = backoff_failed(&first, NOW_MS);
    bool differ = false;

    for (int i = 0; i < 50 && !differ; i++) {
        struct backoff backoff = { 0 };

        differ = backoff_failed(&backoff, NOW_MS) != wait_ms;
    }
    CU_ASSERT(differ);
}

static void a_tunnel_is_given_up_after_a_minute_of_refusals(void)
{
    struct backoff backoff = { 0 };

    for (int i = 0; i < 30; i++) {
        backoff_refused(&backoff, NOW_MS + 2000 * i);
        CU_ASSERT(!backoff_gives_up(&backoff, NOW_MS + 2000 * i));
    }
    CU_ASSERT(!backoff_gives_up(&backoff, NOW_MS + BACKOFF_PATIENCE_MS));
    CU_ASSERT(backoff_gives_up(&backoff, NOW_MS + BACKOFF_PATIENCE_MS + 1));
}

static void a_few_refusals_are_too_few_however_long_ago_they_began(void)
{
    struct backoff backoff = { 0 };
    int64_t late_ms = NOW_MS + 60 * BACKOFF_PATIENCE_MS;

    CU_ASSERT(!backoff_gives_up(&backoff, NOW_MS));
    backoff_refused(&backoff, NOW_MS);
    for (int i = 2; i < BACKOFF_REFUSALS; i++)
        backoff_refused(&backoff, late_ms);
    CU_ASSERT(!backoff_gives_up(&backoff, late_ms));
    backoff_refused(&backoff, late_ms);
    CU_ASSERT(backoff_gives_up(&backoff, late_ms));
}

static void who_is_not_refused_has_patience_anew(void)
{
    struct backoff backoff = { 0 };
    int64_t late_ms = NOW_MS + 60 * BACKOFF_PATIENCE_MS;

    for (int i = 0; i < BACKOFF_REFUSALS; i++)
        backoff_refused(&backoff, NOW_MS);
    backoff_not_refused(&backoff);
    for (int i = 0; i < BACKOFF_REFUSALS; i++)
        backoff_refused(&backoff, late_ms);
    CU_ASSERT(!backoff_gives_up(&backoff, late_ms));
    CU_ASSERT(backoff_gives_up(&backoff, late_ms + BACKOFF_PATIENCE_MS + 1));
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(waits_grow_while_tries_fail),
        TEST(waits_grow_while_connections_don_t_last),
        TEST(waits_start_anew_after_a_connection_that_lasted),
        TEST(a_try_that_fails_is_none_that_lasted),
        TEST(several_that_are_lost_together_wait_together),
        TEST(waits_are_not_all_the_same),
        TEST(a_tunnel_is_given_up_after_a_minute_of_refusals),
        TEST(a_few_refusals_are_too_few_however_long_ago_they_began),
        TEST(who_is_not_refused_has_patience_anew),
        CU_TEST_INFO_NULL,
    };

    return unit_run("backoff", tests);
}
