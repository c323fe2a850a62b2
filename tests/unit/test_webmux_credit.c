/* The credit of one end's sessions: what each side may send. */
#include "tests/unit/unit.h"
#include "tests/unit/webmux_ends.h"

#include <string.h>

enum { QUARTER = WEBMUX_WINDOW / 4 };

static struct webmux_end end;

static void who_sends_beyond_its_credit_breaks_the_rules(void)
{
    end_start_with_own(&end);
    end_take_flags(&end, 3, "", WEBMUX_WINDOW);
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_DATA, 3));
    end_take_flags(&end, 3, "", 0);
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_NOTHING, 0));
    end_take_flags(&end, 3, "", 1);
    CU_ASSERT_TRUE(end_failed(&end, "credit"));
}

static void the_data_of_an_opening_spend_credit_too(void)
{
    end_start(&end, false);
    end_take_flags(&end, 3, "S", WEBMUX_WINDOW + 1);
    CU_ASSERT_TRUE(end_failed(&end, "credit"));
}

static void credit_comes_back_in_quarters_of_the_window(void)
{
    end_start_with_theirs(&end);
    end_take_flags(&end, 3, "", WEBMUX_WINDOW);
    webmux_took(&end.mux, 3, QUARTER - 1, false);
    CU_ASSERT_FALSE(webmux_owes(&end.mux));
    webmux_took(&end.mux, 3, 1, false);
    CU_ASSERT_STRING_EQUAL(end_says(&end), "C3:262144");
    end_take_flags(&end, 3, "", QUARTER);
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_DATA, 3));
    end_take_flags(&end, 3, "", 1);
    CU_ASSERT_TRUE(end_failed(&end, "credit"));
}

static void credit_that_is_not_written_yet_is_none(void)
{
    end_start_with_theirs(&end);
    end_take_flags(&end, 3, "", WEBMUX_WINDOW);
    webmux_took(&end.mux, 3, QUARTER, false);
    end_take_flags(&end, 3, "", 1);
    CU_ASSERT_TRUE(end_failed(&end, "credit"));
}

static void a_reader_that_keeps_up_gets_a_larger_window(void)
{
    size_t most = 0;

    end_start_with_theirs(&end);
    for (int i = 0; i < 2000; i++) {
        size_t count = (size_t)end.mux.sessions[3].their_credit;

        end_take_flags(&end, 3, "", (uint32_t)count);
        CU_ASSERT_PTR_NULL_FATAL(end.error);
        most = count > most ? count : most;
        webmux_took(&end.mux, 3, count, true);
        end_says(&end);
        CU_ASSERT_EQUAL(end.growth.bytes, end.mux.sessions[3].window - WEBMUX_WINDOW);
    }
    CU_ASSERT_TRUE(most <= WEBMUX_WINDOW_MAX);
    CU_ASSERT_TRUE(most > WEBMUX_WINDOW_MAX / 2);
}

static void windows_grow_by_so_much_in_all_and_give_it_back(void)
{
    end_start_with_theirs(&end);
    end.growth.bytes_max = QUARTER;
    for (int i = 0; i < 10; i++) {
        end_take_flags(&end, 3, "", QUARTER);
        webmux_took(&end.mux, 3, QUARTER, true);
        end_says(&end);
    }
    CU_ASSERT_EQUAL(end.growth.bytes, QUARTER);
    end_take_flags(&end, 3, "R", 0);
    CU_ASSERT_EQUAL(end.growth.bytes, 0);
}

static void a_connection_that_ends_gives_its_growth_back(void)
{
    end_start_with_theirs(&end);
    end_take_flags(&end, 3, "", QUARTER);
    webmux_took(&end.mux, 3, QUARTER, true);
    CU_ASSERT_EQUAL(end.growth.bytes, WEBMUX_WINDOW);
    webmux_end_all(&end.mux);
    CU_ASSERT_EQUAL(end.growth.bytes, 0);
    CU_ASSERT_EQUAL(webmux_count(&end.mux), 0);
}

static void what_is_sent_spends_credit_until_they_add_some(void)
{
    uint8_t header[WEBMUX_SHORT_BYTES];

    end_start_with_own(&end);
    webmux_send(&end.mux, 3, WEBMUX_FIRST_CREDIT - 1, header);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 3), 1);
    webmux_send(&end.mux, 3, 1, header);
    CU_ASSERT_EQUAL(memcmp(header, "\x01\x00\x0C\x00", 4), 0);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 3), 0);
    end_take_control(&end, WEBMUX_ADD_CREDIT, 3, 0);
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_NOTHING, 0));
    end_take_control(&end, WEBMUX_ADD_CREDIT, 3, 5000);
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_CREDIT, 3));
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 3), 5000);
}

static void credit_that_is_added_without_end_does_no_harm(void)
{
    end_start_with_own(&end);
    for (int i = 0; i < 1000; i++)
        end_take_control(&end, WEBMUX_ADD_CREDIT, 3, UINT32_MAX);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 3), 65536);
    end_take_control(&end, WEBMUX_ADD_CREDIT, 5, 5000);
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_NOTHING, 0));
}

static void the_default_credit_is_that_of_sessions_which_are_not_confirmed(void)
{
    uint8_t header[WEBMUX_SHORT_BYTES];

    end_start_with_own(&end);
    webmux_open(&end.mux);
    end_says(&end);
    webmux_send(&end.mux, 5, 10000, header);
    end_take_control(&end, WEBMUX_SET_DEFAULT_CREDIT, 0, 30000);
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_CREDIT, 0));
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 3), WEBMUX_FIRST_CREDIT);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 5), 20000);
    webmux_open(&end.mux);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 7), 30000);
    end_take_control(&end, WEBMUX_SET_DEFAULT_CREDIT, 0, 5000);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 5), 0);
    end_take_control(&end, WEBMUX_ADD_CREDIT, 5, 5001);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 5), 1);
}

static void a_default_credit_of_zero_is_no_limit(void)
{
    uint8_t header[WEBMUX_SHORT_BYTES];

    end_start(&end, true);
    end_take_control(&end, WEBMUX_SET_DEFAULT_CREDIT, 0, 0);
    CU_ASSERT_EQUAL(end_open_confirmed(&end), 3);
    for (int i = 0; i < 100000; i++)
        webmux_send(&end.mux, 3, 65536, header);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 3), 65536);
    end_take_control(&end, WEBMUX_ADD_CREDIT, 3, UINT32_MAX);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 3), 65536);
}

static void what_was_sent_without_a_limit_counts_when_there_is_one_again(void)
{
    uint8_t header[WEBMUX_SHORT_BYTES];

    end_start(&end, true);
    end_take_control(&end, WEBMUX_SET_DEFAULT_CREDIT, 0, 0);
    webmux_open(&end.mux);
    webmux_send(&end.mux, 3, 10000, header);
    end_take_control(&end, WEBMUX_SET_DEFAULT_CREDIT, 0, 12000);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 3), 2000);
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(who_sends_beyond_its_credit_breaks_the_rules),
        TEST(the_data_of_an_opening_spend_credit_too),
        TEST(credit_comes_back_in_quarters_of_the_window),
        TEST(credit_that_is_not_written_yet_is_none),
        TEST(a_reader_that_keeps_up_gets_a_larger_window),
        TEST(windows_grow_by_so_much_in_all_and_give_it_back),
        TEST(a_connection_that_ends_gives_its_growth_back),
        TEST(what_is_sent_spends_credit_until_they_add_some),
        TEST(credit_that_is_added_without_end_does_no_harm),
        TEST(the_default_credit_is_that_of_sessions_which_are_not_confirmed),
        TEST(a_default_credit_of_zero_is_no_limit),
        TEST(what_was_sent_without_a_limit_counts_when_there_is_one_again),
        CU_TEST_INFO_NULL,
    };

    return unit_run("webmux_credit", tests);
}
