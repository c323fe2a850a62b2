#include "relay/net_address.h"
#include "tests/unit/unit.h"

#include <string.h>

static struct net_address address;
static char text[NET_ADDRESS_TEXT_BYTES];

static const char *round_trip(const char *from)
{
    if (net_address_parse_with_port(from, &address) < 0)
        return "refused";
    net_address_format(&address, text);
    return text;
}

static void addresses_with_ports_read_and_write_alike(void)
{
    CU_ASSERT_STRING_EQUAL(round_trip("127.0.0.1:8000"), "127.0.0.1:8000");
    CU_ASSERT_STRING_EQUAL(round_trip("[::1]:0"), "[::1]:0");
    CU_ASSERT_STRING_EQUAL(round_trip("[2001:db8::1]:65535"), "[2001:db8::1]:65535");
}

static void what_is_not_an_address_with_a_port_is_refused(void)
{
    static const char *const bad[] = {
        "", ":", "127.0.0.1", "127.0.0.1:", ":8000", "127.0.0.1:65536", "127.0.0.1:80a",
        "127.0.0.1:-1", "127.0.0.1: 1", "127.0.0.1:000001", "::1:8000", "[::1]", "[::1:8000",
        "[127.0.0.1]:80", "localhost:80", "127.1:80",
        "[::1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111]:80",
    };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CU_ASSERT_STRING_EQUAL(round_trip(bad[i]), "refused");
}

static void loopback_is_all_of_127_and_one_address_of_ip6(void)
{
    static const char *const loopback[] = { "127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.2" };
    static const char *const others[] = { "126.0.0.1", "128.0.0.1", "0.0.0.0", "::", "::2",
                                          "::ffff:10.0.0.1", "::127.0.0.1" };
    struct net_address address;

    for (size_t i = 0; i < sizeof loopback / sizeof loopback[0]; i++) {
        CU_ASSERT(net_address_parse(loopback[i], 1, &address) == 0);
        CU_ASSERT_TRUE(net_address_is_loopback(&address));
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        CU_ASSERT(net_address_parse(others[i], 1, &address) == 0);
        CU_ASSERT_FALSE(net_address_is_loopback(&address));
    }
}

static void a_mapped_ip4_address_is_the_ip4_address(void)
{
    struct net_address mapped, plain;

    CU_ASSERT(net_address_parse("::ffff:192.0.2.1", 7, &mapped) == 0);
    CU_ASSERT(net_address_parse("192.0.2.1", 7, &plain) == 0);
    CU_ASSERT_TRUE(net_address_same_host(&mapped, &plain));
    CU_ASSERT_EQUAL(net_address_port(&mapped), 7);
}

static void a_host_is_the_same_whatever_its_port(void)
{
    struct net_address other;

    CU_ASSERT(net_address_parse("192.0.2.1", 1, &address) == 0);
    CU_ASSERT(net_address_parse("192.0.2.1", 2, &other) == 0);
    CU_ASSERT_TRUE(net_address_same_host(&address, &other));
    CU_ASSERT(net_address_parse("192.0.2.2", 1, &other) == 0);
    CU_ASSERT_FALSE(net_address_same_host(&address, &other));
    CU_ASSERT(net_address_parse("2001:db8::1", 1, &address) == 0);
    CU_ASSERT_FALSE(net_address_same_host(&address, &other));
    /* They differ in the last bytes only, which a short comparison would miss. */
    CU_ASSERT(net_address_parse("2001:db8::2", 1, &other) == 0);
    CU_ASSERT_FALSE(net_address_same_host(&address, &other));
}

static void loopback_is_known_however_it_is_written(void)
{
    static const char *const loopback[] = { "127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1" };
    static const char *const reached_by_others[] = {
        "0.0.0.0", "::", "128.0.0.1", "126.255.255.255", "192.0.2.1", "2001:db8::1", "fe80::1",
        "::ffff:192.0.2.1", "::127.0.0.1",
    };

    for (size_t i = 0; i < sizeof loopback / sizeof loopback[0]; i++) {
        CU_ASSERT_EQUAL_FATAL(net_address_parse(loopback[i], 80, &address), 0);
        CU_ASSERT_TRUE(net_address_is_loopback(&address));
    }
    for (size_t i = 0; i < sizeof reached_by_others / sizeof reached_by_others[0]; i++) {
        CU_ASSERT_EQUAL_FATAL(net_address_parse(reached_by_others[i], 80, &address), 0);
        CU_ASSERT_FALSE(net_address_is_loopback(&address));
    }
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(addresses_with_ports_read_and_write_alike),
        TEST(what_is_not_an_address_with_a_port_is_refused),
        TEST(loopback_is_all_of_127_and_one_address_of_ip6),
        TEST(a_mapped_ip4_address_is_the_ip4_address),
        TEST(a_host_is_the_same_whatever_its_port),
        TEST(loopback_is_known_however_it_is_written),
        CU_TEST_INFO_NULL,
    };

    return unit_run("net_address", tests);
}
