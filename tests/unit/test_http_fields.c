/* Fields of HTTP that expose --dir reads and writes: dates, and the range of a part. */
#include "clients/http_date.h"
#include "clients/http_range.h"
#include "tests/unit/unit.h"

static void a_date_is_read_as_it_is_written(void)
{
    static const time_t times_s[] = { 0, 784111777, 951782400, 4102444799, -1 };
    char text[HTTP_DATE_BYTES];

    http_date_format(784111777, text);
    CU_ASSERT_STRING_EQUAL(text, "Sun, 06 Nov 1994 08:49:37 GMT");
    for (size_t i = 0; i < sizeof times_s / sizeof times_s[0]; i++) {
        time_t read_s = 1;

        http_date_format(times_s[i], text);
        CU_ASSERT_TRUE(http_date_read(text, &read_s));
        CU_ASSERT_EQUAL(read_s, times_s[i]);
    }
}

static void what_is_no_such_date_is_refused(void)
{
    static const char *const wrong[] = {
        "", "now", "784111777", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 GMT+1",
        "Sun, 06 Nov 1994 08:49:37 CET", "06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 25:00:00 GMT",
        "\"Sun, 06 Nov 1994 08:49:37 GMT\"", "Sunday, 06-Nov-94 08:49:37 GMT",
    };

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        time_t time_s = 1;

        CU_ASSERT_FALSE(http_date_read(wrong[i], &time_s));
        CU_ASSERT_EQUAL(time_s, 1);
    }
}

static void a_range_is_a_part_of_what_is_there(void)
{
    static const struct { const char *field; uint64_t size, first, length; } parts[] = {
        { "bytes=0-0", 100, 0, 1 },
        { "bytes=0-99", 100, 0, 100 },
        { "bytes=0-100", 100, 0, 100 },
        { "bytes=10-", 100, 10, 90 },
        { "bytes=99-", 100, 99, 1 },
        { "bytes=-1", 100, 99, 1 },
        { "bytes=-100", 100, 0, 100 },
        { "bytes=-101", 100, 0, 100 },
        { "Bytes=007-8", 100, 7, 2 },
        { "bytes=0-18446744073709551615", 100, 0, 100 },
        { "bytes=0-99999999999999999999999", 100, 0, 100 },
        { "bytes=-99999999999999999999999", 100, 0, 100 },
        { "bytes=5000000000-5000000001", 5000000002, 5000000000, 2 },
    };

    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        uint64_t first = 0, length = 0;

        CU_ASSERT_EQUAL(http_range_read(parts[i].field, parts[i].size, &first, &length),
                        HTTP_RANGE_PART);
        CU_ASSERT_EQUAL(first, parts[i].first);
        CU_ASSERT_EQUAL(length, parts[i].length);
    }
}

static void what_is_not_there_is_outside(void)
{
    static const struct { const char *field; uint64_t size; } outside[] = {
        { "bytes=100-", 100 }, { "bytes=100-200", 100 }, { "bytes=-0", 100 }, { "bytes=0-", 0 },
        { "bytes=-5", 0 }, { "bytes=99999999999999999999999-", 100 },
    };

    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        uint64_t first, length;

        CU_ASSERT_EQUAL(http_range_read(outside[i].field, outside[i].size, &first, &length),
                        HTTP_RANGE_OUTSIDE);
    }
}

static void several_ranges_or_nonsense_are_none(void)
{
    static const char *const fields[] = {
        "", "b", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5", "bytes=5-4", "bytes=0-1,3-4",
        "bytes=0-1 ", "bytes= 0-1", "bytes=+1-2", "bytes=0x0-1", "bytes=--1", "items=0-1",
        "bytes=1-2-3",
    };

    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        uint64_t first, length;

        CU_ASSERT_EQUAL(http_range_read(fields[i], 100, &first, &length), HTTP_RANGE_ALL);
    }
}

static CU_TestInfo tests[] = {
    TEST(a_date_is_read_as_it_is_written),
    TEST(what_is_no_such_date_is_refused),
    TEST(a_range_is_a_part_of_what_is_there),
    TEST(what_is_not_there_is_outside),
    TEST(several_ranges_or_nonsense_are_none),
    CU_TEST_INFO_NULL,
};

int main(void)
{
    return unit_run("http_fields", tests);
}
