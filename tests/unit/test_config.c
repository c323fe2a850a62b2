/* The configuration of the daemon: what options and keys may say, and what is said
 * about mistakes in their values. */
#include "server/settings.h"
#include "tests/unit/files.h"
#include "tests/unit/reading.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *listen_text(const struct net_address *address)
{
    static char text[NET_ADDRESS_TEXT_BYTES];

    net_address_format(address, text);
    return text;
}

static void defaults_are_those_of_the_manual(void)
{
    CU_ASSERT_EQUAL_FATAL(read_line(), 0);
    CU_ASSERT_EQUAL(wish, CONFIG_SERVE);
    CU_ASSERT_STRING_EQUAL(listen_text(&config.listen), "127.0.0.1:8000");
    CU_ASSERT_STRING_EQUAL(config.users, "");
    CU_ASSERT_FALSE(config.open_to_all);
    CU_ASSERT_STRING_EQUAL(config.host, "");
    CU_ASSERT_STRING_EQUAL(listen_text(&config.relay.listen), "127.0.0.1:0");
    CU_ASSERT_EQUAL(config.relay.port_low, 8010);
    CU_ASSERT_EQUAL(config.relay.port_high, 10009);
    CU_ASSERT_EQUAL(config_port_pairs(&config), 1000);
    CU_ASSERT_EQUAL(config.relay.max_tunnels, 1000);
    CU_ASSERT_FALSE(config.max_tunnels_given);
    CU_ASSERT_EQUAL(config.relay.attach_timeout_ms, 60000);
    CU_ASSERT_EQUAL(config.relay.linger_ms, 30000);
    CU_ASSERT_EQUAL(config.relay.idle_timeout_ms, 0);
    CU_ASSERT_EQUAL(config.relay.keepalive_ms, 60000);
    CU_ASSERT_FALSE(config.relay.attach_from_any);
    CU_ASSERT_EQUAL(config.drain_ms, 10000);
    CU_ASSERT_EQUAL(config.log_level, LOG_INFO);
    CU_ASSERT_FALSE(config.log_addresses);
}

static void assert_everything_was_changed(void)
{
    CU_ASSERT_STRING_EQUAL(listen_text(&config.listen), "[::1]:0");
    CU_ASSERT_STRING_EQUAL(config.users, "no/such.file");
    CU_ASSERT_FALSE(config.open_to_all);
    CU_ASSERT_STRING_EQUAL(config.host, "proxy.example.org");
    CU_ASSERT_STRING_EQUAL(listen_text(&config.relay.listen), "127.0.0.2:0");
    CU_ASSERT_EQUAL(config.relay.port_low, 1);
    CU_ASSERT_EQUAL(config.relay.port_high, 65535);
    CU_ASSERT_EQUAL(config.relay.max_tunnels, 7);
    CU_ASSERT_TRUE(config.max_tunnels_given);
    CU_ASSERT_EQUAL(config.relay.attach_timeout_ms, 1000);
    CU_ASSERT_EQUAL(config.relay.linger_ms, 2000);
    CU_ASSERT_EQUAL(config.relay.idle_timeout_ms, 31622400000);
    CU_ASSERT_EQUAL(config.relay.keepalive_ms, 32767000);
    CU_ASSERT_TRUE(config.relay.attach_from_any);
    CU_ASSERT_EQUAL(config.drain_ms, 0);
    CU_ASSERT_EQUAL(config.log_level, LOG_DEBUG);
    CU_ASSERT_TRUE(config.log_addresses);
}

static void every_option_is_taken(void)
{
    CU_ASSERT_EQUAL_FATAL(
        read_line("--listen", "[::1]:0", "--users", "no/such.file", "--open-to-all=no",
                  "--host=Proxy.Example.org", "--relay-listen",
                  "127.0.0.2", "--ports", "1-65535", "--max-tunnels", "7",
                  "--attach-timeout=1", "--linger", "2", "--idle-timeout", "31622400", "--keepalive", "32767",
                  "--attach-from", "any", "--drain", "0", "--log-level", "debug",
                  "--log-addresses", "yes"), 0);
    assert_everything_was_changed();
}

static void every_key_is_taken(void)
{
    CU_ASSERT_EQUAL_FATAL(
        read_file("# a comment\n; another\n\n"
                  "listen = [::1]:0\n"
                  "users = no/such.file\n"
                  "open-to-all = no\n"
                  "host=Proxy.Example.org\n"
                  "  relay-listen   =   127.0.0.2  \n"
                  "\tports = 1-65535\n"
                  "max-tunnels = 7 ; explained here\n"
                  "attach-timeout = 1\r\n"
                  "linger = 2\n"
                  "idle-timeout = 31622400\n"
                  "keepalive = 32767\n"
                  "attach-from = any\n"
                  "drain = 0\n"
                  "log-level = debug\n"
                  "log-addresses = yes"), 0);
    assert_everything_was_changed();
}

static void the_command_line_wins_over_the_file_wherever_config_stands(void)
{
    const char text[] = "linger = 5\ndrain = 6\n";

    write_bytes(config_path, text, strlen(text), 0600);
    CU_ASSERT_EQUAL_FATAL(read_line("--config", config_path, "--linger", "7"), 0);
    CU_ASSERT_EQUAL(config.relay.linger_ms, 7000);
    CU_ASSERT_EQUAL(config.drain_ms, 6000);
    CU_ASSERT_EQUAL_FATAL(read_line("--linger", "7", "--config", config_path), 0);
    CU_ASSERT_EQUAL(config.relay.linger_ms, 7000);
    CU_ASSERT_EQUAL(config.drain_ms, 6000);
}

static void the_last_of_a_repeated_option_or_key_wins(void)
{
    CU_ASSERT_EQUAL_FATAL(read_line("--linger", "5", "--linger", "6"), 0);
    CU_ASSERT_EQUAL(config.relay.linger_ms, 6000);
    CU_ASSERT_EQUAL_FATAL(read_file("linger = 5\nlinger = 6\n"), 0);
    CU_ASSERT_EQUAL(config.relay.linger_ms, 6000);
}

static void port_pairs_listen_where_xml_rpc_does_unless_told(void)
{
    CU_ASSERT_EQUAL_FATAL(read_line("--listen", "[::1]:8000"), 0);
    CU_ASSERT_STRING_EQUAL(listen_text(&config.relay.listen), "[::1]:0");
    CU_ASSERT_EQUAL_FATAL(read_line("--listen", "[::1]:8000", "--relay-listen", "[::]"), 0);
    CU_ASSERT_STRING_EQUAL(listen_text(&config.relay.listen), "[::]:0");
    CU_ASSERT_EQUAL_FATAL(read_line("--relay-listen", "::1"), 0);
    CU_ASSERT_STRING_EQUAL(listen_text(&config.relay.listen), "[::1]:0");
}

static void an_address_that_others_reach_needs_users_or_a_word(void)
{
    static char *const reached[] = { "0.0.0.0:8000", "[::]:8000", "192.0.2.1:0", "[2001:db8::1]:1" };

    for (size_t i = 0; i < sizeof reached / sizeof reached[0]; i++) {
        CU_ASSERT_EQUAL(read_line("--listen", reached[i]), -EINVAL);
        CU_ASSERT_NSTRING_EQUAL(config_error, "listen: others than this machine reach ", 39);
        CU_ASSERT_PTR_NOT_NULL(strstr(config_error, reached[i]));
        CU_ASSERT_PTR_NOT_NULL(strstr(config_error, "--users FILE"));
        CU_ASSERT_PTR_NOT_NULL(strstr(config_error, "--open-to-all"));
        CU_ASSERT_EQUAL(read_line("--listen", reached[i], "--open-to-all=no"), -EINVAL);
        CU_ASSERT_EQUAL(read_line("--listen", reached[i], "--users", "file"), 0);
        CU_ASSERT_EQUAL(read_line("--listen", reached[i], "--open-to-all"), 0);
        CU_ASSERT_TRUE(config.open_to_all);
    }
    CU_ASSERT_EQUAL(read_line("--listen", "127.9.9.9:1"), 0);
    CU_ASSERT_EQUAL(read_line("--relay-listen", "192.0.2.1"), 0);
    CU_ASSERT_EQUAL(read_file("listen = 0.0.0.0:8000\n"), -EINVAL);
    CU_ASSERT_EQUAL(read_file("listen = 0.0.0.0:8000\nopen-to-all = yes\n"), 0);
}

static void users_and_openness_contradict_each_other(void)
{
    CU_ASSERT_EQUAL(read_line("--users", "file", "--open-to-all"), -EINVAL);
    CU_ASSERT_NSTRING_EQUAL(config_error, "expected either users, or open-to-all", 37);
    CU_ASSERT_EQUAL(read_file("users = file\nopen-to-all = yes\n"), -EINVAL);
}

static void what_is_fixed_is_told_apart_from_what_may_change(void)
{
    static char *const fixed[][2] = {
        { "listen", "--listen=127.0.0.1:8001" }, { "listen", "--listen=[::1]:8000" },
        { "host", "--host=other.example" }, { "relay-listen", "--relay-listen=127.0.0.2" },
        { "ports", "--ports=8010-8019" }, { "ports", "--ports=8012-10009" },
    };
    struct config defaults;

    CU_ASSERT_EQUAL_FATAL(read_line(), 0);
    defaults = config;
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) {
        CU_ASSERT_EQUAL(read_line(fixed[i][1]), 0);
        CU_ASSERT_PTR_NOT_NULL_FATAL(config_fixed_difference(&defaults, &config));
        CU_ASSERT_STRING_EQUAL(config_fixed_difference(&defaults, &config), fixed[i][0]);
    }
    CU_ASSERT_EQUAL(read_line("--users=file", "--max-tunnels=7", "--attach-timeout=1",
                              "--linger=2", "--idle-timeout=3", "--keepalive=4", "--attach-from=any", "--drain=0",
                              "--log-level=debug", "--log-addresses=yes",
                              "--relay-listen=127.0.0.1"), 0);
    CU_ASSERT_PTR_NULL(config_fixed_difference(&defaults, &config));
}

static void an_ipv6_host_loses_its_brackets(void)
{
    CU_ASSERT_EQUAL_FATAL(read_line("--host", "[2001:DB8::1]"), 0);
    CU_ASSERT_STRING_EQUAL(config.host, "2001:db8::1");
}

static void an_odd_last_port_makes_no_pair(void)
{
    CU_ASSERT_EQUAL_FATAL(read_line("--ports", "8010-8014"), 0);
    CU_ASSERT_EQUAL(config_port_pairs(&config), 2);
    CU_ASSERT_EQUAL_FATAL(read_line("--ports", "1-65535"), 0);
    CU_ASSERT_EQUAL(config_port_pairs(&config), 32767);
}

static void tunnels_are_limited_by_both_the_number_and_the_pairs(void)
{
    CU_ASSERT_EQUAL_FATAL(read_line("--ports", "8010-8013", "--max-tunnels", "9"), 0);
    CU_ASSERT_EQUAL(config_tunnels_at_once(&config), 2);
    CU_ASSERT_EQUAL_FATAL(read_line("--ports", "8010-8013", "--max-tunnels", "1"), 0);
    CU_ASSERT_EQUAL(config_tunnels_at_once(&config), 1);
}

static void help_and_version_come_before_any_file_is_read(void)
{
    CU_ASSERT_EQUAL(read_line("--config", "/nonexistent", "--help"), 0);
    CU_ASSERT_EQUAL(wish, CONFIG_SHOW_HELP);
    CU_ASSERT_EQUAL(read_line("--version"), 0);
    CU_ASSERT_EQUAL(wish, CONFIG_SHOW_VERSION);
}

static void help_tells_every_option_and_default(void)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);

    config_write_help(out);
    fclose(out);
    for (size_t i = 0; i < SETTINGS_COUNT; i++) {
        char option[40];

        CU_ASSERT_PTR_NOT_NULL_FATAL(settings[i].name);
        snprintf(option, sizeof option, settings[i].implied ? "--%s[=%s]" : "--%s %s",
                 settings[i].name, settings[i].argument);
        CU_ASSERT_PTR_NOT_NULL(strstr(text, option));
        CU_ASSERT_PTR_NOT_NULL(strstr(text, settings[i].initial ? settings[i].initial
                                                                : settings[i].otherwise));
    }
    for (const char *line = text; (line = strchr(line, '\n')) != NULL && line[1]; )
        CU_ASSERT(strcspn(++line, "\n") < 100);
    free(text);
}

/* Each is taken neither on the command line nor from a file. */
static void a_wrong_value_names_its_option_or_key_and_what_was_expected(void)
{
    static const struct { const char *name, *value, *expected; } wrong[] = {
        { "listen", "8000", "a numeric address and a port" },
        { "listen", "127.0.0.1", "a numeric address and a port" },
        { "listen", "127.0.0.1:", "a numeric address and a port" },
        { "listen", "127.0.0.1:65536", "a numeric address and a port" },
        { "listen", "127.0.0.1:80x", "a numeric address and a port" },
        { "listen", "::1:8000", "a numeric address and a port" },
        { "listen", "localhost:8000", "a numeric address and a port" },
        { "listen", "", "a numeric address and a port" },
        { "users", "", "the name of a file" },
        { "open-to-all", "1", "yes or no" },
        { "open-to-all", "", "yes or no" },
        { "host", "a_b!", "a host name" },
        { "host", "proxy.example.org:80", "a host name" },
        { "host", "2001:db8::1", "a host name" },
        { "host", "http://proxy.example.org", "a host name" },
        { "host", "", "a host name" },
        { "relay-listen", "127.0.0.1:8000", "a numeric address without a port" },
        { "relay-listen", "proxy.example.org", "a numeric address without a port" },
        { "relay-listen", "", "a numeric address without a port" },
        { "ports", "8010", "LO-HI, two ports from 1 to 65535 with LO below HI" },
        { "ports", "8010-8010", "LO-HI" },
        { "ports", "8011-8010", "LO-HI" },
        { "ports", "0-8010", "LO-HI" },
        { "ports", "8010-65536", "LO-HI" },
        { "ports", "8010-", "LO-HI" },
        { "ports", "-8010", "LO-HI" },
        { "ports", "8010-8019-8029", "LO-HI" },
        { "ports", "8010 - 8019", "LO-HI" },
        { "ports", "8010:8019", "LO-HI" },
        { "ports", "", "LO-HI" },
        { "max-tunnels", "0", "a whole number from 1 to 1000000" },
        { "max-tunnels", "1000001", "a whole number from 1 to 1000000" },
        { "max-tunnels", "18446744073709551617", "a whole number" },
        { "max-tunnels", "-1", "a whole number" },
        { "max-tunnels", "+1", "a whole number" },
        { "max-tunnels", "1k", "a whole number" },
        { "max-tunnels", "", "a whole number" },
        { "attach-timeout", "0", "a whole number from 1 to 31622400" },
        { "attach-timeout", "1.5", "a whole number from 1 to 31622400" },
        { "linger", "0", "a whole number from 1 to 31622400" },
        { "linger", "30s", "a whole number from 1 to 31622400" },
        { "idle-timeout", "-1", "a whole number from 0 to 31622400" },
        { "idle-timeout", "31622401", "a whole number from 0 to 31622400" },
        { "idle-timeout", "99999999999999999999999", "a whole number from 0" },
        { "idle-timeout", "", "a whole number from 0" },
        { "attach-from", "Opener", "opener or any" },
        { "attach-from", "", "opener or any" },
        { "keepalive", "0", "a whole number from 1 to 32767" },
        { "keepalive", "32768", "a whole number from 1 to 32767" },
        { "drain", "0x10", "a whole number from 0 to 31622400" },
        { "log-level", "loud", "error, warning, info or debug" },
        { "log-level", "", "error, warning, info or debug" },
        { "log-addresses", "1", "yes or no" },
        { "log-addresses", "", "yes or no" },
    };

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char text[200], whole[300];

        snprintf(text, sizeof text, "--%s=%s", wrong[i].name, wrong[i].value);
        snprintf(whole, sizeof whole, "--%s: got \"%s\", expected %s", wrong[i].name,
                 wrong[i].value, wrong[i].expected);
        CU_ASSERT_EQUAL(read_line(text), -EINVAL);
        CU_ASSERT_NSTRING_EQUAL(config_error, whole, strlen(whole));

        snprintf(text, sizeof text, "# one\n%s = %s\n", wrong[i].name, wrong[i].value);
        snprintf(whole, sizeof whole, "%s:2: key \"%s\": got \"%s\", expected %s", config_path,
                 wrong[i].name, wrong[i].value, wrong[i].expected);
        CU_ASSERT_EQUAL(read_file(text), -EINVAL);
        CU_ASSERT_NSTRING_EQUAL(config_error, whole, strlen(whole));
    }
}

static void a_wrong_value_is_shown_cut_and_printable(void)
{
    char value[500];

    memset(value, '\n', sizeof value);
    value[sizeof value - 1] = '\0';
    CU_ASSERT_EQUAL(read_line("--host", value), -EINVAL);
    CU_ASSERT_PTR_NULL(strchr(config_error, '\n'));
    CU_ASSERT_PTR_NOT_NULL(strstr(config_error, "?...\", expected a host name"));
}

static void words_that_are_no_options_are_errors(void)
{
    CU_ASSERT_EQUAL(read_line("8000"), -EINVAL);
    CU_ASSERT(error_is("8000: expected only options; see --help"));
    CU_ASSERT_EQUAL(read_line("--linger", "5", "--", "--drain"), -EINVAL);
    CU_ASSERT(error_is("--drain: expected only options; see --help"));
    CU_ASSERT_EQUAL(read_line(""), -EINVAL);
}

static void options_that_there_are_not_are_errors(void)
{
    CU_ASSERT_EQUAL(read_line("--prots", "1-2"), -EINVAL);
    CU_ASSERT(error_is("--prots: there is no such option; see --help"));
    CU_ASSERT_EQUAL(read_line("--log", "debug"), -EINVAL);
    CU_ASSERT(error_is("--log: there is no such option; see --help"));
    CU_ASSERT_EQUAL(read_line("-vx"), -EINVAL);
    CU_ASSERT(error_is("-v: there is no such option; see --help"));
}

static void options_want_their_value_and_no_other(void)
{
    CU_ASSERT_EQUAL(read_line("--ports"), -EINVAL);
    CU_ASSERT(error_is("--ports: expected a value after it; see --help"));
    CU_ASSERT_EQUAL(read_line("--config"), -EINVAL);
    CU_ASSERT(error_is("--config: expected a value after it; see --help"));
    CU_ASSERT_EQUAL(read_line("--help=ports"), -EINVAL);
    CU_ASSERT(error_is("--help=ports: expected no value; see --help"));
}

static CU_TestInfo tests[] = {
    TEST(defaults_are_those_of_the_manual),
    TEST(every_option_is_taken),
    TEST(every_key_is_taken),
    TEST(the_command_line_wins_over_the_file_wherever_config_stands),
    TEST(the_last_of_a_repeated_option_or_key_wins),
    TEST(port_pairs_listen_where_xml_rpc_does_unless_told),
    TEST(an_address_that_others_reach_needs_users_or_a_word),
    TEST(users_and_openness_contradict_each_other),
    TEST(what_is_fixed_is_told_apart_from_what_may_change),
    TEST(an_ipv6_host_loses_its_brackets),
    TEST(an_odd_last_port_makes_no_pair),
    TEST(tunnels_are_limited_by_both_the_number_and_the_pairs),
    TEST(help_and_version_come_before_any_file_is_read),
    TEST(help_tells_every_option_and_default),
    TEST(a_wrong_value_names_its_option_or_key_and_what_was_expected),
    TEST(a_wrong_value_is_shown_cut_and_printable),
    TEST(words_that_are_no_options_are_errors),
    TEST(options_that_there_are_not_are_errors),
    TEST(options_want_their_value_and_no_other),
    CU_TEST_INFO_NULL,
};

int main(void)
{
    return reading_run("config", tests);
}
