#include "relay/number.h"
#include "tests/unit/unit.h"

#include <string.h>

/* -1: refused */
static int64_t read_from(const char *text, int64_t lowest, int64_t highest)
{
    int64_t number;

    return number_parse(text, strlen(text), lowest, highest, &number) ? -1 : number;
}

static void numbers_within_the_bounds_are_read(void)
{
    CU_ASSERT_EQUAL(read_from("0", 0, 9), 0);
    CU_ASSERT_EQUAL(read_from("5", 5, 5), 5);
    CU_ASSERT_EQUAL(read_from("007", 1, 10), 7);
    CU_ASSERT_EQUAL(read_from("65535", 1, UINT16_MAX), UINT16_MAX);
    CU_ASSERT_EQUAL(read_from("9223372036854775807", 0, INT64_MAX), INT64_MAX);
}

static void numbers_beyond_the_bounds_are_refused(void)
{
    CU_ASSERT_EQUAL(read_from("4", 5, 9), -1);
    CU_ASSERT_EQUAL(read_from("10", 5, 9), -1);
    CU_ASSERT_EQUAL(read_from("9", 0, 3), -1);
    CU_ASSERT_EQUAL(read_from("9223372036854775808", 0, INT64_MAX), -1);
    CU_ASSERT_EQUAL(read_from("99999999999999999999999999", 0, INT64_MAX), -1);
}

static void whatever_else_than_digits_is_refused(void)
{
    static const char *const bad[] = { "", " 5", "5 ", "+5", "-5", "5.", "0x5", "5\n", "\xb2", "/", ":" };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CU_ASSERT_EQUAL(read_from(bad[i], 0, 100), -1);
}

static void no_more_than_the_length_is_looked_at(void)
{
    int64_t number;

    CU_ASSERT_EQUAL(number_parse("12-34", 2, 0, 100, &number), 0);
    CU_ASSERT_EQUAL(number, 12);
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(numbers_within_the_bounds_are_read),
        TEST(numbers_beyond_the_bounds_are_refused),
        TEST(whatever_else_than_digits_is_refused),
        TEST(no_more_than_the_length_is_looked_at),
        CU_TEST_INFO_NULL,
    };

    return unit_run("number", tests);
}
