/* Fields of HTTP that expose --dir reads and writes: dates, tags of versions, what is made
 * depend on them, and the range of a part. */
#include "clients/http_condition.h"
#include "clients/http_date.h"
#include "clients/http_etag.h"
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

static void a_date_of_old_is_read(void)
{
    static const char *const dates[] = {
        "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
    };

    for (size_t i = 0; i < sizeof dates / sizeof dates[0]; i++) {
        time_t time_s = 0;

        CU_ASSERT_TRUE(http_date_read(dates[i], &time_s));
        CU_ASSERT_EQUAL(time_s, 784111777);
    }
}

static void what_is_no_such_date_is_refused(void)
{
    static const char *const wrong[] = {
        "", "now", "784111777", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 GMT+1",
        "Sun, 06 Nov 1994 08:49:37 CET", "06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 25:00:00 GMT",
        "\"Sun, 06 Nov 1994 08:49:37 GMT\"", "Sunday, 06-Nov-94 08:49:37", "Sun Nov  6 08:49:37",
    };

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        time_t time_s = 1;

        CU_ASSERT_FALSE(http_date_read(wrong[i], &time_s));
        CU_ASSERT_EQUAL(time_s, 1);
    }
}

static const struct stat some_file = {
    .st_dev = 1, .st_ino = 2, .st_size = 3, .st_mtim = { 1000, 4 }, .st_ctim = { 2000, 5 },
};

static void a_tag_changes_with_whatever_is_known_of_a_file(void)
{
    struct stat others[] = { some_file, some_file, some_file, some_file, some_file, some_file, some_file };
    const struct timespec now = { 3000, 0 };
    char tags[8][HTTP_ETAG_BYTES];

    others[0].st_dev++;
    others[1].st_ino++;
    others[2].st_size++;
    others[3].st_mtim.tv_sec++;
    others[4].st_mtim.tv_nsec++;
    others[5].st_ctim.tv_sec++;
    others[6].st_ctim.tv_nsec++;
    http_etag_format(&some_file, &now, tags[7]);
    CU_ASSERT_EQUAL(strlen(tags[7]), 34);
    for (size_t i = 0; i < 7; i++) {
        http_etag_format(&others[i], &now, tags[i]);
        for (size_t other = i + 1; other < 8; other++)
            CU_ASSERT_STRING_NOT_EQUAL(tags[i], tags[other]);
    }
}

static void a_tag_is_weak_for_a_second_after_a_change(void)
{
    static const struct { struct timespec now; bool is_weak; } times[] = {
        { { 2000, 5 }, true }, { { 2001, 999999999 }, true }, { { 2002, 0 }, false },
        { { 1999, 0 }, true },          /* the clock was set back */
        { { 1000000, 0 }, false },
    };
    char strong[HTTP_ETAG_BYTES], etag[HTTP_ETAG_BYTES];

    http_etag_format(&some_file, &times[4].now, strong);
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        http_etag_format(&some_file, &times[i].now, etag);
        CU_ASSERT_EQUAL(!strncmp(etag, "W/", 2), times[i].is_weak);
        CU_ASSERT_STRING_EQUAL(etag + 2 * times[i].is_weak, strong);
    }
}

static void a_tag_is_found_in_a_list(void)
{
    static const struct { const char *field, *etag; bool weakly, strongly; } lists[] = {
        { "\"a\"", "\"a\"", true, true },
        { "*", "\"a\"", true, true },
        { "*", "W/\"a\"", true, true },
        { "W/\"a\"", "\"a\"", true, false },
        { "\"a\"", "W/\"a\"", true, false },
        { "W/\"a\"", "W/\"a\"", true, false },
        { "\"x\", W/\"y\",\t\"a\"", "\"a\"", true, true },
        { " ,,\"x\" , \"a\",", "\"a\"", true, true },
        { "\"a,\", \"\"", "\"a\"", false, false },
        { "\"x,\"a\",y\"", "\"a\"", false, false },
        { "\"\"", "\"a\"", false, false },
        { "\"aa\"", "\"a\"", false, false },
        { "\"a", "\"a\"", false, false },
        { "a", "\"a\"", false, false },
        { "w/\"a\"", "\"a\"", false, false },
        { "W/", "\"a\"", false, false },
        { "W/ \"a\"", "\"a\"", false, false },
        { "x, \"a\"", "\"a\"", false, false },
        { "*, \"a\"", "\"a\"", false, false },
        { "\"*\"", "\"a\"", false, false },
        { "", "\"a\"", false, false },
    };

    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        CU_ASSERT_EQUAL(http_etag_is_in(lists[i].field, lists[i].etag, false), lists[i].weakly);
        CU_ASSERT_EQUAL(http_etag_is_in(lists[i].field, lists[i].etag, true), lists[i].strongly);
    }
}

/* Of RFC 9110, 13.2.2, in its order. */
static void a_tag_decides_before_a_date_does(void)
{
    static const char before[] = "Thu, 01 Jan 1970 00:16:39 GMT", then[] = "Thu, 01 Jan 1970 00:16:40 GMT";
    static const struct { struct http_conditions conditions; enum http_verdict verdict; } cases[] = {
        { { 0 }, HTTP_WANTED },
        { { .match = "\"a\"" }, HTTP_WANTED },
        { { .match = "W/\"a\"" }, HTTP_FAILED },
        { { .match = "\"x\"", .none_match = "\"a\"" }, HTTP_FAILED },
        { { .match = "\"a\"", .unmodified_since = before }, HTTP_WANTED },
        { { .match = "\"x\"", .unmodified_since = then }, HTTP_FAILED },
        { { .unmodified_since = before }, HTTP_FAILED },
        { { .unmodified_since = then }, HTTP_WANTED },
        { { .unmodified_since = "x" }, HTTP_WANTED },
        { { .unmodified_since = before, .modified_since = then }, HTTP_FAILED },
        { { .none_match = "\"a\"" }, HTTP_NOT_MODIFIED },
        { { .none_match = "W/\"a\"", .modified_since = before }, HTTP_NOT_MODIFIED },
        { { .none_match = "\"x\"", .modified_since = then }, HTTP_WANTED },
        { { .none_match = "", .modified_since = then }, HTTP_WANTED },
        { { .modified_since = before }, HTTP_WANTED },
        { { .modified_since = then }, HTTP_NOT_MODIFIED },
        { { .modified_since = "x" }, HTTP_WANTED },
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CU_ASSERT_EQUAL(http_conditions_judge(&cases[i].conditions, "\"a\"", 1000), cases[i].verdict);
}

static void a_part_fits_to_the_same_strong_tag_alone(void)
{
    CU_ASSERT_TRUE(http_condition_allows_part(NULL, "\"a\""));
    CU_ASSERT_TRUE(http_condition_allows_part(NULL, "W/\"a\""));
    CU_ASSERT_TRUE(http_condition_allows_part("\"a\"", "\"a\""));
    CU_ASSERT_FALSE(http_condition_allows_part("\"x\"", "\"a\""));
    CU_ASSERT_FALSE(http_condition_allows_part("W/\"a\"", "\"a\""));
    CU_ASSERT_FALSE(http_condition_allows_part("W/\"a\"", "W/\"a\""));
    CU_ASSERT_FALSE(http_condition_allows_part("\"a\"", "W/\"a\""));
    CU_ASSERT_FALSE(http_condition_allows_part("*", "\"a\""));
    CU_ASSERT_FALSE(http_condition_allows_part("Thu, 01 Jan 1970 00:16:40 GMT", "\"a\""));
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
        { "bytes=100-", 100 }, { "bytes=100-200", 100 }, { "bytes=-0", 100 },
        { "bytes=99999999999999999999999-", 100 },
    };

    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        uint64_t first, length;

        CU_ASSERT_EQUAL(http_range_read(outside[i].field, outside[i].size, &first, &length),
                        HTTP_RANGE_OUTSIDE);
    }
}

static void nothing_has_no_parts(void)
{
    static const char *const fields[] = { "bytes=0-", "bytes=-5", "bytes=-0", "bytes=0-0", "bytes=5-" };

    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        uint64_t first, length;

        CU_ASSERT_EQUAL(http_range_read(fields[i], 0, &first, &length), HTTP_RANGE_ALL);
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
    TEST(a_date_of_old_is_read),
    TEST(what_is_no_such_date_is_refused),
    TEST(a_tag_changes_with_whatever_is_known_of_a_file),
    TEST(a_tag_is_weak_for_a_second_after_a_change),
    TEST(a_tag_is_found_in_a_list),
    TEST(a_tag_decides_before_a_date_does),
    TEST(a_part_fits_to_the_same_strong_tag_alone),
    TEST(a_range_is_a_part_of_what_is_there),
    TEST(what_is_not_there_is_outside),
    TEST(nothing_has_no_parts),
    TEST(several_ranges_or_nonsense_are_none),
    CU_TEST_INFO_NULL,
};

int main(void)
{
    return unit_run("http_fields", tests);
}
