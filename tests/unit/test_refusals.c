/* What limits refuse is counted, and told when it is due. */
#include "relay/log.h"
#include "relay/refusals.h"
#include "relay/waker.h"
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { MINUTE_MS = 60000 };

static char log_text[4000];

/* The log of what do_it does, in log_text. */
static void log_of(void (*do_it)(void))
{
    int standard_error = dup(STDERR_FILENO);
    int ends[2];
    ssize_t length;

    if (standard_error < 0 || pipe2(ends, O_NONBLOCK) || dup2(ends[1], STDERR_FILENO) < 0)
        abort();
    do_it();
    if (dup2(standard_error, STDERR_FILENO) < 0)
        abort();
    length = read(ends[0], log_text, sizeof log_text - 1);
    log_text[length > 0 ? length : 0] = '\0';
    close(standard_error);
    close(ends[0]);
    close(ends[1]);
}

static bool tells(const char *text)
{
    return strstr(log_text, text) != NULL;
}

static int64_t ahead_ms;                /* how much later it is than it is */
static int64_t next_ms;

static void pass_time(void)
{
    next_ms = refusals_log_due(clock_ms() + ahead_ms);
}

static void be_refused_thrice(void)
{
    for (int i = 0; i < 3; i++)
        refusals_count(LIMIT_CONNECTIONS);
}

static void the_first_is_told_at_once_and_the_rest_after_a_minute(void)
{
    log_of(be_refused_thrice);
    CU_ASSERT_TRUE(tells("the limit connections refused 1, 1 since the start"));
    CU_ASSERT_FALSE(tells("refused 2"));
    ahead_ms = MINUTE_MS / 2;
    log_of(pass_time);
    CU_ASSERT_STRING_EQUAL(log_text, "");
    CU_ASSERT(next_ms > 0 && next_ms <= MINUTE_MS / 2);
    ahead_ms = MINUTE_MS;
    log_of(pass_time);
    CU_ASSERT_TRUE(tells("the limit connections refused 2, 3 since the start"));
    CU_ASSERT_EQUAL(next_ms, MINUTE_MS);
    ahead_ms = 3 * MINUTE_MS;
    log_of(pass_time);
    CU_ASSERT_STRING_EQUAL(log_text, "");
    log_of(refusals_log_rest);
    CU_ASSERT_STRING_EQUAL(log_text, "");
}

static void the_rest_is_told_at_the_end(void)
{
    log_of(be_refused_thrice);          /* by the clock it is still the first minute */
    CU_ASSERT_STRING_EQUAL(log_text, "");
    log_of(refusals_log_rest);
    CU_ASSERT_TRUE(tells("the limit connections refused 3, 6 since the start"));
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(the_first_is_told_at_once_and_the_rest_after_a_minute),
        TEST(the_rest_is_told_at_the_end),
        CU_TEST_INFO_NULL,
    };

    log_set_level(LOG_DEBUG);
    return unit_run("refusals", tests);
}
