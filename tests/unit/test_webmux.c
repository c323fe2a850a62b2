/* The sessions of one end, which a test gives frames to. */
#include "tests/unit/unit.h"
#include "tests/unit/webmux_ends.h"

#include <string.h>

static struct webmux_end end;

/* --- opening */

static void the_first_frame_is_the_credit_of_all_sessions(void)
{
    static const uint8_t due[] = { 0, 0, 0, 0xD0, 0, 0, 0x10, 0 };
    uint8_t bytes[WEBMUX_OWED_BYTES_MAX];

    memset(&end, 0, sizeof end);
    webmux_init(&end.mux, true, WEBMUX_WINDOW, &end.growth);
    CU_ASSERT_TRUE(webmux_owes(&end.mux));
    CU_ASSERT_EQUAL_FATAL(webmux_write_owed(&end.mux, bytes), sizeof due);
    CU_ASSERT_EQUAL(memcmp(bytes, due, sizeof due), 0);
    CU_ASSERT_FALSE(webmux_owes(&end.mux));
}

static void a_session_is_opened_and_confirmed(void)
{
    end_start(&end, true);
    CU_ASSERT_EQUAL(webmux_open(&end.mux), 3);
    CU_ASSERT_STRING_EQUAL(end_says(&end), "S3");
    end_take_flags(&end, 3, "S", 0);
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_CONFIRMED, 3));
    CU_ASSERT_EQUAL(webmux_count(&end.mux), 1);
}

static void a_confirmation_may_bring_data_and_the_end(void)
{
    end_start(&end, true);
    webmux_open(&end.mux);
    end_says(&end);
    end_take_flags(&end, 3, "SF", 5);
    CU_ASSERT_EQUAL_FATAL(end.events_count, 3);
    CU_ASSERT_EQUAL(end.events[0].kind, WEBMUX_CONFIRMED);
    CU_ASSERT_EQUAL(end.events[1].kind, WEBMUX_DATA);
    CU_ASSERT_EQUAL(end.events[1].count, 5);
    CU_ASSERT_EQUAL(end.events[2].kind, WEBMUX_ENDED);
}

static void there_are_127_sessions_at_once_and_no_more(void)
{
    end_start(&end, true);
    for (unsigned id = 3; id < 256; id += 2) {
        CU_ASSERT_TRUE(webmux_has_room(&end.mux));
        CU_ASSERT_EQUAL(webmux_open(&end.mux), id);
    }
    CU_ASSERT_FALSE(webmux_has_room(&end.mux));
    CU_ASSERT_EQUAL(webmux_open(&end.mux), 0);
    CU_ASSERT_EQUAL(webmux_count(&end.mux), WEBMUX_SESSIONS);
}

static void who_takes_sessions_sends_nothing_before_it_confirms(void)
{
    end_start(&end, false);
    end_take_flags(&end, 3, "S", 0);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 3), 0);
    webmux_confirm(&end.mux, 3);
    webmux_confirm(&end.mux, 3);
    CU_ASSERT_STRING_EQUAL(end_says(&end), "S3");
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 3), WEBMUX_FIRST_CREDIT);
}

static void who_opens_may_send_at_once_and_is_sent_nothing_before_it_is_confirmed(void)
{
    end_start(&end, true);
    webmux_open(&end.mux);
    end_says(&end);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 3), WEBMUX_FIRST_CREDIT);
    end_take_flags(&end, 3, "", 100);
    CU_ASSERT_TRUE(end_failed(&end, "not confirmed"));
    end_start(&end, true);
    webmux_open(&end.mux);
    end_says(&end);
    end_take_flags(&end, 3, "F", 0);
    CU_ASSERT_TRUE(end_failed(&end, "not confirmed"));
}

static void frames_are_as_short_as_they_want_them(void)
{
    end_start_with_own(&end);
    CU_ASSERT_EQUAL(end_open_confirmed(&end), 5);
    end_take_control(&end, WEBMUX_SET_MSS, 0, 1000);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 3), 1000);
    end_take_control(&end, WEBMUX_SET_MSS, 5, 100);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 5), 100);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 3), 1000);
    end_take_control(&end, WEBMUX_SET_MSS, 0, 0);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 3), WEBMUX_FIRST_CREDIT);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 5), 100);
}

/* --- ends and resets */

static void a_session_is_over_when_both_have_ended_it(void)
{
    end_start_with_own(&end);
    end_take_flags(&end, 3, "F", 3);
    CU_ASSERT_EQUAL(end.events_count, 2);
    CU_ASSERT_EQUAL(end.events[1].kind, WEBMUX_ENDED);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 3), WEBMUX_FIRST_CREDIT);
    webmux_end(&end.mux, 3);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 3), 0);
    CU_ASSERT_EQUAL(webmux_count(&end.mux), 1);
    CU_ASSERT_STRING_EQUAL(end_says(&end), "F3");
    CU_ASSERT_EQUAL(webmux_count(&end.mux), 0);
    webmux_end(&end.mux, 3);
    webmux_reset(&end.mux, 3);
    CU_ASSERT_STRING_EQUAL(end_says(&end), "");
}

static void their_reset_ends_a_session_and_is_not_answered(void)
{
    end_start_with_own(&end);
    webmux_end(&end.mux, 3);
    end_take_flags(&end, 3, "R", 0);
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_RESET, 3));
    CU_ASSERT_STRING_EQUAL(end_says(&end), "");
    CU_ASSERT_EQUAL(webmux_count(&end.mux), 0);
}

static void what_comes_after_an_end_resets_the_session(void)
{
    end_start_with_own(&end);
    end_take_flags(&end, 3, "F", 0);
    end_take_flags(&end, 3, "", 1);
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_RESET, 3));
    CU_ASSERT_STRING_EQUAL(end_says(&end), "R3");
}

static void what_they_have_not_heard_of_needs_no_reset(void)
{
    end_start(&end, true);
    webmux_open(&end.mux);
    webmux_reset(&end.mux, 3);
    CU_ASSERT_STRING_EQUAL(end_says(&end), "");
    CU_ASSERT_EQUAL(webmux_count(&end.mux), 0);
}

static void what_comes_late_after_our_reset_is_dropped_and_counted(void)
{
    end_start_with_own(&end);
    webmux_reset(&end.mux, 3);
    CU_ASSERT_STRING_EQUAL(end_says(&end), "R3");
    end_take_flags(&end, 3, "", WEBMUX_WINDOW);
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_NOTHING, 0));
    end_take_flags(&end, 3, "F", 0);
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_NOTHING, 0));
    CU_ASSERT_STRING_EQUAL(end_says(&end), "");
    end_take_flags(&end, 3, "", 1);
    CU_ASSERT_TRUE(end_failed(&end, "credit"));
}

static void data_of_what_is_not_open_are_answered_by_a_reset(void)
{
    end_start(&end, true);
    end_take_flags(&end, 7, "", 10);
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_NOTHING, 0));
    CU_ASSERT_STRING_EQUAL(end_says(&end), "R7");
    end_take_flags(&end, 7, "F", 0);
    end_take_flags(&end, 7, "R", 0);
    CU_ASSERT_STRING_EQUAL(end_says(&end), "");
}

static void what_may_not_be_opened_is_refused(void)
{
    end_start(&end, true);
    end_take_flags(&end, 4, "S", 10);
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_NOTHING, 0));
    CU_ASSERT_STRING_EQUAL(end_says(&end), "R4");
    end_start(&end, false);
    end_take_flags(&end, 4, "S", 0);
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_NOTHING, 0));
    CU_ASSERT_STRING_EQUAL(end_says(&end), "R4");
}

static void a_reset_that_is_owed_is_forgotten_when_they_open_anew(void)
{
    end_start_with_theirs(&end);
    webmux_reset(&end.mux, 3);
    end_take_flags(&end, 3, "R", 0);
    end_take_flags(&end, 3, "S", 0);
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_OPENED, 3));
    CU_ASSERT_STRING_EQUAL(end_says(&end), "");
    CU_ASSERT_EQUAL(webmux_count(&end.mux), 1);
}

static void a_reset_that_is_owed_is_forgotten_when_they_reset_too(void)
{
    end_start_with_theirs(&end);
    webmux_reset(&end.mux, 3);
    end_take_flags(&end, 3, "R", 0);
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_NOTHING, 0));
    CU_ASSERT_STRING_EQUAL(end_says(&end), "");
}

/* --- ids that are used again */

static void finish(uint8_t id)
{
    webmux_end(&end.mux, id);
    end_says(&end);
    end_take_flags(&end, id, "F", 0);
}

static void start_with_all_open(void)
{
    end_start(&end, true);
    for (unsigned id = 3; id < 256; id += 2)
        CU_ASSERT_EQUAL_FATAL(end_open_confirmed(&end), id);
}

static void ids_are_used_again_in_the_order_in_which_they_rested(void)
{
    start_with_all_open();
    end_take_flags(&end, 9, "R", 0);
    end_take_flags(&end, 3, "R", 0);
    end_take_flags(&end, 201, "R", 0);
    CU_ASSERT_EQUAL(end_open_confirmed(&end), 9);
    CU_ASSERT_EQUAL(end_open_confirmed(&end), 3);
    CU_ASSERT_EQUAL(end_open_confirmed(&end), 201);
    CU_ASSERT_EQUAL(webmux_open(&end.mux), 0);
}

/* They may have reset it, or given back credit, when they had not read of its end yet. */
static void an_id_rests_after_its_end_until_they_answer_something_newer(void)
{
    start_with_all_open();
    finish(9);
    CU_ASSERT_STRING_EQUAL(end_says(&end), "p9");       /* they are asked, since none is clean */
    CU_ASSERT_EQUAL(webmux_open(&end.mux), 0);
    end_take_control(&end, WEBMUX_ADD_CREDIT, 9, 1 << 20);
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_NOTHING, 0));
    end_take_flags(&end, 3, "R", 0);
    CU_ASSERT_EQUAL(webmux_open(&end.mux), 3);
    CU_ASSERT_EQUAL(webmux_open(&end.mux), 0);
    CU_ASSERT_STRING_EQUAL(end_says(&end), "S3");
    end_take_flags(&end, 3, "S", 0);
    CU_ASSERT_EQUAL(webmux_open(&end.mux), 9);
    CU_ASSERT_EQUAL(webmux_may_send(&end.mux, 9), WEBMUX_FIRST_CREDIT);
}

static void a_reset_after_their_end_makes_an_id_clean(void)
{
    start_with_all_open();
    finish(9);
    end_says(&end);
    end_take_flags(&end, 9, "R", 0);
    CU_ASSERT_EQUAL(webmux_open(&end.mux), 9);
    CU_ASSERT_STRING_EQUAL(end_says(&end), "S9");
}

/* What they answer is to tell that they have read what was owed before. */
static void an_opening_goes_after_all_that_is_owed_already(void)
{
    start_with_all_open();
    end_take_flags(&end, 3, "", WEBMUX_WINDOW / 4);
    webmux_took(&end.mux, 3, WEBMUX_WINDOW / 4, false);      /* owes credit: it is listed */
    end_take_flags(&end, 3, "R", 0);
    webmux_reset(&end.mux, 5);
    CU_ASSERT_EQUAL(webmux_open(&end.mux), 3);
    CU_ASSERT_STRING_EQUAL(end_says(&end), "R5 p5 S3");
}

/* All ids but 5 and 7 are taken. */
static void start_with_two_that_rest(void)
{
    start_with_all_open();
    end_take_flags(&end, 5, "R", 0);
    end_take_flags(&end, 7, "R", 0);
}

static void an_id_rests_after_a_reset_until_they_answer_something_newer(void)
{
    start_with_two_that_rest();
    webmux_reset(&end.mux, 9);
    end_says(&end);
    end_take_flags(&end, 11, "R", 0);
    CU_ASSERT_EQUAL(end_open_confirmed(&end), 5);       /* is answered, and is newer */
    CU_ASSERT_EQUAL(end_open_confirmed(&end), 7);
    CU_ASSERT_EQUAL(end_open_confirmed(&end), 9);
    CU_ASSERT_EQUAL(end_open_confirmed(&end), 11);
}

static void an_id_is_passed_over_while_they_may_not_know_of_its_reset(void)
{
    start_with_two_that_rest();
    CU_ASSERT_EQUAL(webmux_open(&end.mux), 5);
    end_says(&end);
    webmux_reset(&end.mux, 5);
    end_says(&end);
    end_take_flags(&end, 3, "", 1);     /* is no answer to anything */
    CU_ASSERT_EQUAL(webmux_open(&end.mux), 7);
    end_take_flags(&end, 11, "R", 0);
    CU_ASSERT_EQUAL(webmux_open(&end.mux), 11);
}

/* Else their late confirmation, with its data, would be taken for that of the next. */
static void no_id_is_used_again_while_a_confirmation_may_be_under_way(void)
{
    start_with_two_that_rest();
    webmux_open(&end.mux);
    CU_ASSERT_STRING_EQUAL(end_says(&end), "S5");
    webmux_reset(&end.mux, 5);
    CU_ASSERT_STRING_EQUAL(end_says(&end), "R5");
    webmux_open(&end.mux);              /* the last that is clean, so that they are asked */
    CU_ASSERT_STRING_EQUAL(end_says(&end), "S7 p5");
    webmux_reset(&end.mux, 7);
    CU_ASSERT_STRING_EQUAL(end_says(&end), "R7 p7");
    CU_ASSERT_FALSE(webmux_has_room(&end.mux));
    CU_ASSERT_EQUAL(webmux_open(&end.mux), 0);
    CU_ASSERT_STRING_EQUAL(end_says(&end), "");
    end_take_flags(&end, 5, "S", 100);
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_NOTHING, 0));
    CU_ASSERT_EQUAL(webmux_open(&end.mux), 0);
    end_take_flags(&end, 5, "R", 0);    /* the answer to the question */
    CU_ASSERT_TRUE(end_told(&end, WEBMUX_NOTHING, 0));
    CU_ASSERT_TRUE(webmux_has_room(&end.mux));
    CU_ASSERT_EQUAL(webmux_open(&end.mux), 5);
    CU_ASSERT_STRING_EQUAL(end_says(&end), "S5");
}

static void a_question_is_answered_once_whatever_it_crosses(void)
{
    static const char *const answers[] = { "R3", "" };

    for (int is_written = 0; is_written < 2; is_written++) {
        end_start_with_theirs(&end);
        webmux_reset(&end.mux, 3);
        if (is_written)
            CU_ASSERT_STRING_EQUAL(end_says(&end), "R3");
        end_take_flags(&end, 3, "R", 0);
        end_take_flags(&end, 3, "", 1);
        CU_ASSERT_TRUE(end_told(&end, WEBMUX_NOTHING, 0));
        CU_ASSERT_STRING_EQUAL(end_says(&end), answers[is_written]);
    }
}

/* --- what breaks the rules */

static void control_frames_that_there_are_not_break_the_rules(void)
{
    for (unsigned opcode = WEBMUX_OPCODES; opcode < 16; opcode++) {
        end_start(&end, true);
        end_take_control(&end, (uint8_t)opcode, 0, 0);
        CU_ASSERT_TRUE(end_failed(&end, "control frame that there is not"));
    }
}

static void control_frames_of_the_wrong_form_break_the_rules(void)
{
    for (uint8_t opcode = 0; opcode < WEBMUX_OPCODES; opcode++) {
        bool is_short = opcode == WEBMUX_SET_MSS || opcode == WEBMUX_NO_OP;

        end_start(&end, true);
        end_take_frame(&end, (struct webmux_header){ .is_control = true, .opcode = opcode,
                                                     .is_long = is_short });
        CU_ASSERT_TRUE(end_failed(&end, "wrong length"));
    }
}

static void sessions_0_and_1_break_the_rules(void)
{
    static const char *const flags[] = { "", "S", "F", "R" };

    for (size_t i = 0; i < 8; i++) {
        end_start(&end, i < 4);
        end_take_flags(&end, i % 2, flags[i % 4], 0);
        CU_ASSERT_TRUE(end_failed(&end, "reserved"));
    }
}

static void a_session_that_is_open_is_not_opened_again(void)
{
    end_start_with_own(&end);
    end_take_flags(&end, 3, "S", 0);
    CU_ASSERT_TRUE(end_failed(&end, "open"));
    end_start_with_theirs(&end);
    end_take_flags(&end, 3, "S", 0);
    CU_ASSERT_TRUE(end_failed(&end, "open"));
}

static void nobody_needs_atoms_stacks_and_nothing(void)
{
    static const uint8_t opcodes[] = { WEBMUX_INTERN_ATOM, WEBMUX_DEFINE_STACK, WEBMUX_NO_OP };

    end_start_with_own(&end);
    for (size_t i = 0; i < 3; i++) {
        end_take_control(&end, opcodes[i], 0, opcodes[i] == WEBMUX_NO_OP ? 0 : 3001);
        CU_ASSERT_TRUE(end_told(&end, WEBMUX_NOTHING, 0));
        end_take_flags(&end, 3, "", 1);
        CU_ASSERT_TRUE(end_told(&end, WEBMUX_DATA, 3));
    }
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(the_first_frame_is_the_credit_of_all_sessions),
        TEST(a_session_is_opened_and_confirmed),
        TEST(a_confirmation_may_bring_data_and_the_end),
        TEST(there_are_127_sessions_at_once_and_no_more),
        TEST(who_takes_sessions_sends_nothing_before_it_confirms),
        TEST(who_opens_may_send_at_once_and_is_sent_nothing_before_it_is_confirmed),
        TEST(frames_are_as_short_as_they_want_them),
        TEST(a_session_is_over_when_both_have_ended_it),
        TEST(their_reset_ends_a_session_and_is_not_answered),
        TEST(what_comes_after_an_end_resets_the_session),
        TEST(what_they_have_not_heard_of_needs_no_reset),
        TEST(what_comes_late_after_our_reset_is_dropped_and_counted),
        TEST(data_of_what_is_not_open_are_answered_by_a_reset),
        TEST(what_may_not_be_opened_is_refused),
        TEST(a_reset_that_is_owed_is_forgotten_when_they_open_anew),
        TEST(a_reset_that_is_owed_is_forgotten_when_they_reset_too),
        TEST(ids_are_used_again_in_the_order_in_which_they_rested),
        TEST(an_id_rests_after_its_end_until_they_answer_something_newer),
        TEST(a_reset_after_their_end_makes_an_id_clean),
        TEST(an_opening_goes_after_all_that_is_owed_already),
        TEST(an_id_rests_after_a_reset_until_they_answer_something_newer),
        TEST(an_id_is_passed_over_while_they_may_not_know_of_its_reset),
        TEST(no_id_is_used_again_while_a_confirmation_may_be_under_way),
        TEST(a_question_is_answered_once_whatever_it_crosses),
        TEST(control_frames_that_there_are_not_break_the_rules),
        TEST(control_frames_of_the_wrong_form_break_the_rules),
        TEST(sessions_0_and_1_break_the_rules),
        TEST(a_session_that_is_open_is_not_opened_again),
        TEST(nobody_needs_atoms_stacks_and_nothing),
        CU_TEST_INFO_NULL,
    };

    return unit_run("webmux", tests);
}
