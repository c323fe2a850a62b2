#include "server/limits.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <sys/resource.h>

static void tunnels_that_need_too_many_descriptors_are_refused(void)
{
    struct limits_descriptors room;
    struct rlimit limit = { .rlim_cur = 20, .rlim_max = 740 };

    CU_ASSERT_EQUAL_FATAL(setrlimit(RLIMIT_NOFILE, &limit), 0);
    CU_ASSERT_EQUAL(limits_make_room(50, 512, &room), 0);
    CU_ASSERT_EQUAL(room.available, 740);
    CU_ASSERT_EQUAL(getrlimit(RLIMIT_NOFILE, &limit), 0);
    CU_ASSERT_EQUAL(limit.rlim_cur, 740);
    CU_ASSERT_EQUAL(limits_make_room(51, 512, &room), -EMFILE);
    CU_ASSERT_EQUAL(room.needed, 742);
    CU_ASSERT_EQUAL(room.fitting_tunnels, 50);

    limit = (struct rlimit){ .rlim_cur = 100, .rlim_max = 100 };
    CU_ASSERT_EQUAL_FATAL(setrlimit(RLIMIT_NOFILE, &limit), 0);
    CU_ASSERT_EQUAL(limits_make_room(1, 512, &room), -EMFILE);
    CU_ASSERT_EQUAL(room.fitting_tunnels, 0);
}

static CU_TestInfo tests[] = {
    TEST(tunnels_that_need_too_many_descriptors_are_refused),
    CU_TEST_INFO_NULL,
};

int main(void)
{
    return unit_run("limits", tests);
}
