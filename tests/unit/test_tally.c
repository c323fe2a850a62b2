#include "relay/tally.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <stdio.h>

static struct tally tally;

static struct net_address address(const char *text)
{
    struct net_address parsed;

    CU_ASSERT_EQUAL_FATAL(net_address_parse(text, 0, &parsed), 0);
    return parsed;
}

static int add(const char *text, size_t max, struct tally_entry **entry)
{
    struct net_address parsed = address(text);

    return tally_add_address(&tally, &parsed, max, entry);
}

static void each_address_has_its_own_count(void)
{
    struct tally_entry *first, *second, *other, *none;

    CU_ASSERT_EQUAL(add("192.0.2.1", 2, &first), 0);
    CU_ASSERT_EQUAL(add("192.0.2.1", 2, &second), 0);
    CU_ASSERT_EQUAL(add("192.0.2.1", 2, &none), -EDQUOT);
    CU_ASSERT_EQUAL(add("192.0.2.2", 2, &other), 0);
    tally_remove(&tally, first);
    CU_ASSERT_EQUAL(add("192.0.2.1", 2, &first), 0);
    tally_remove(&tally, first);
    tally_remove(&tally, second);
    tally_remove(&tally, other);
    CU_ASSERT_PTR_NULL(tally.by_key);
}

static void a_network_of_ip6_is_one_address(void)
{
    struct tally_entry *first, *other, *none;

    CU_ASSERT_EQUAL(add("2001:db8::1", 1, &first), 0);
    CU_ASSERT_EQUAL(add("2001:db8::ffff:2", 1, &none), -EDQUOT);
    CU_ASSERT_EQUAL(add("2001:db8:0:1::1", 1, &other), 0);
    tally_remove(&tally, first);
    tally_remove(&tally, other);
    CU_ASSERT_PTR_NULL(tally.by_key);
}

static void zero_allows_any_number(void)
{
    struct tally_entry *entries[100];

    for (size_t i = 0; i < 100; i++)
        CU_ASSERT_EQUAL(add("192.0.2.1", 0, &entries[i]), 0);
    for (size_t i = 0; i < 100; i++)
        tally_remove(&tally, entries[i]);
    CU_ASSERT_PTR_NULL(tally.by_key);
}

static void names_are_counted_whole(void)
{
    struct tally_entry *first, *longer, *empty, *none;

    CU_ASSERT_EQUAL(tally_add_name(&tally, "jo", 1, &first), 0);
    CU_ASSERT_EQUAL(tally_add_name(&tally, "joe", 1, &longer), 0);
    CU_ASSERT_EQUAL(tally_add_name(&tally, "", 1, &empty), 0);
    CU_ASSERT_EQUAL(tally_add_name(&tally, "jo", 1, &none), -EDQUOT);
    tally_remove(&tally, longer);
    tally_remove(&tally, first);
    tally_remove(&tally, empty);
    tally_remove(&tally, NULL);
    CU_ASSERT_PTR_NULL(tally.by_key);
}

static void thousands_come_and_go_and_leave_nothing(void)
{
    enum { ADDRESSES = 5000 };
    static struct tally_entry *entries[ADDRESSES];
    char text[32];

    for (unsigned i = 0; i < ADDRESSES; i++) {
        snprintf(text, sizeof text, "10.0.%u.%u", i >> 8, i & 255);
        CU_ASSERT_EQUAL(add(text, 1, &entries[i]), 0);
    }
    for (unsigned i = 0; i < ADDRESSES; i++)
        tally_remove(&tally, entries[i]);
    CU_ASSERT_PTR_NULL(tally.by_key);
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(each_address_has_its_own_count),
        TEST(a_network_of_ip6_is_one_address),
        TEST(zero_allows_any_number),
        TEST(names_are_counted_whole),
        TEST(thousands_come_and_go_and_leave_nothing),
        CU_TEST_INFO_NULL,
    };

    return unit_run("tally", tests);
}
