#include "relay/address_table.h"
#include "tests/unit/unit.h"

#include <stdio.h>

static struct address_table *table;

/* Five at once, and then one a second. */
static void set_up(void)
{
    CU_ASSERT_EQUAL_FATAL(address_table_new(5, 1000, &table), 0);
}

static int64_t take(const char *text, int64_t now_ms)
{
    struct net_address address;

    CU_ASSERT_EQUAL_FATAL(net_address_parse(text, 1000, &address), 0);
    return address_table_take(table, &address, now_ms);
}

static void an_address_has_its_tokens_and_then_one_at_a_time(void)
{
    set_up();
    for (int i = 0; i < 5; i++)
        CU_ASSERT_EQUAL(take("192.0.2.1", 10000), 0);
    CU_ASSERT_EQUAL(take("192.0.2.1", 10000), 1000);
    CU_ASSERT_EQUAL(take("192.0.2.1", 10400), 600);
    CU_ASSERT_EQUAL(take("192.0.2.1", 11000), 0);
    CU_ASSERT_EQUAL(take("192.0.2.1", 11000), 1000);
    for (int i = 0; i < 5; i++)
        CU_ASSERT_EQUAL(take("192.0.2.1", 60000), 0);
    CU_ASSERT_EQUAL(take("192.0.2.1", 60000), 1000);
    address_table_free(table);
}

static void looking_takes_nothing_and_giving_undoes_taking(void)
{
    struct net_address address;

    set_up();
    CU_ASSERT_EQUAL_FATAL(net_address_parse("192.0.2.1", 0, &address), 0);
    address_table_give(table, &address);        /* of an address that has all: nothing more */
    for (int i = 0; i < 20; i++)
        CU_ASSERT_EQUAL(address_table_look(table, &address, 10000), 0);
    for (int i = 0; i < 20; i++) {
        CU_ASSERT_EQUAL(take("192.0.2.1", 10000), 0);
        address_table_give(table, &address);
    }
    for (int i = 0; i < 5; i++)
        CU_ASSERT_EQUAL(take("192.0.2.1", 10000), 0);
    CU_ASSERT_EQUAL(address_table_look(table, &address, 10000), 1000);
    address_table_free(table);
}

static void addresses_do_not_count_for_each_other(void)
{
    set_up();
    for (int i = 0; i < 6; i++)
        take("192.0.2.1", 10000);
    CU_ASSERT_EQUAL(take("192.0.2.2", 10000), 0);
    CU_ASSERT_EQUAL(take("2001:db8::1", 10000), 0);
    CU_ASSERT_EQUAL(take("c000:201::1", 10000), 0);     /* the same first bytes */
    address_table_free(table);
}

static void a_network_of_ipv6_counts_as_one_address(void)
{
    char text[40];

    set_up();
    for (int i = 0; i < 5; i++) {
        snprintf(text, sizeof text, "2001:db8:0:1:%x::%x", i, i);
        CU_ASSERT_EQUAL(take(text, 10000), 0);
    }
    CU_ASSERT_EQUAL(take("2001:db8:0:1:ffff:ffff:ffff:ffff", 10000), 1000);
    CU_ASSERT_EQUAL(take("2001:db8:0:2::", 10000), 0);
    address_table_free(table);
}

static bool are_one(const char *a_text, const char *b_text)
{
    struct net_address a, b;

    CU_ASSERT_EQUAL_FATAL(net_address_parse(a_text, 1000, &a), 0);
    CU_ASSERT_EQUAL_FATAL(net_address_parse(b_text, 2000, &b), 0);
    return address_table_are_one(&a, &b);
}

static void what_counts_as_one_address_is_told(void)
{
    CU_ASSERT_TRUE(are_one("192.0.2.1", "192.0.2.1"));
    CU_ASSERT_FALSE(are_one("192.0.2.1", "192.0.2.2"));
    CU_ASSERT_TRUE(are_one("2001:db8:0:1::1", "2001:db8:0:1:ffff::"));
    CU_ASSERT_FALSE(are_one("2001:db8:0:1::1", "2001:db8:0:2::1"));
    CU_ASSERT_FALSE(are_one("192.0.2.1", "c000:201::"));
}

static void who_lacks_most_is_kept_whoever_else_comes(void)
{
    char text[40];

    set_up();
    for (int i = 0; i < 5; i++)
        CU_ASSERT_EQUAL(take("192.0.2.1", 10000), 0);
    for (int i = 0; i < 100000; i++) {
        snprintf(text, sizeof text, "10.%d.%d.%d", i >> 16, i >> 8 & 255, i & 255);
        CU_ASSERT_EQUAL(take(text, 10000), 0);
    }
    CU_ASSERT_EQUAL(take("192.0.2.1", 10000), 1000);
    address_table_free(table);
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(an_address_has_its_tokens_and_then_one_at_a_time),
        TEST(looking_takes_nothing_and_giving_undoes_taking),
        TEST(addresses_do_not_count_for_each_other),
        TEST(a_network_of_ipv6_counts_as_one_address),
        TEST(what_counts_as_one_address_is_told),
        TEST(who_lacks_most_is_kept_whoever_else_comes),
        CU_TEST_INFO_NULL,
    };

    return unit_run("address_table", tests);
}
