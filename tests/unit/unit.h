/* unit: what each unit test program's main does. */
#ifndef TESTS_UNIT_H
#define TESTS_UNIT_H

#include <CUnit/Basic.h>
#include <stdlib.h>

/* A test's name says what must hold. */
#define TEST(function) { #function, function }

/* Runs the tests, whose table ends with CU_TEST_INFO_NULL, and returns main's
 * exit status. */
static inline int unit_run(const char *subject, CU_TestInfo *tests)
{
    CU_SuiteInfo suites[] = { { .pName = subject, .pTests = tests }, CU_SUITE_INFO_NULL };
    unsigned failures = 1;

    if (!CU_initialize_registry() && !CU_register_suites(suites)) {
        CU_basic_set_mode(CU_BRM_VERBOSE);
        CU_basic_run_tests();
        failures = CU_get_number_of_failures();
    }
    CU_cleanup_registry();
    return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
