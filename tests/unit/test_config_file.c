/* The configuration's file: its lines, what is said about mistakes in them, and the
 * example that comes with the daemon. */
#include "server/settings.h"
#include "tests/unit/files.h"
#include "tests/unit/reading.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void an_unknown_key_names_file_and_line(void)
{
    CU_ASSERT_EQUAL(read_file("linger = 5\n\nprots = 1-2\n"), -EINVAL);
    CU_ASSERT(file_error_is(
        ":3: got the key \"prots\", expected one of listen, users, open-to-all, "
        "ssh-listen, ssh-authorized-keys, state-dir, host, relay-listen, ports, "
        "max-tunnels, tunnels-per-user, tunnels-per-address, opens-per-minute, lifetime, rate, "
        "connections, connections-per-address, request-timeout, request-size, trusted-proxy, "
        "attach-timeout, reserve, streams-per-tunnel, ssh-handshakes, ssh-handshakes-per-address, "
        "ssh-login-timeout, reveal-clients, linger, idle-timeout, keepalive, attach-from, drain, log-level, "
        "log-addresses"));
    CU_ASSERT_EQUAL(read_file("config = /etc/other\n"), -EINVAL);
    CU_ASSERT_EQUAL(read_file("--linger = 5\n"), -EINVAL);
    CU_ASSERT_EQUAL(read_file(" = 5\n"), -EINVAL);
}

static void a_key_in_a_section_is_an_error(void)
{
    CU_ASSERT_EQUAL(read_file("[relay]\nports = 1-2\n"), -EINVAL);
    CU_ASSERT(file_error_is(":2: got the key \"ports\" in a [section], expected no sections"));
}

static void a_line_without_key_and_value_is_an_error(void)
{
    CU_ASSERT_EQUAL(read_file("linger = 5\nnonsense\n"), -EINVAL);
    CU_ASSERT(file_error_is(":2: expected key = value"));
    CU_ASSERT_EQUAL(read_file("[relay\n"), -EINVAL);
    CU_ASSERT(file_error_is(":1: expected key = value"));
}

static void the_first_of_several_errors_is_told(void)
{
    CU_ASSERT_EQUAL(read_file("nonsense\nlinger = x\n"), -EINVAL);
    CU_ASSERT(file_error_is(":1: expected key = value"));
    CU_ASSERT_EQUAL(read_file("linger = 0\nnonsense\ndrain = x\n"), -EINVAL);
    CU_ASSERT(file_error_is(":1: key \"linger\": got \"0\", "
                            "expected a whole number from 1 to 31622400"));
}

static void an_indented_line_is_a_line_of_its_own(void)
{
    CU_ASSERT_EQUAL_FATAL(read_file("linger = 5\n  drain = 6\n"), 0);
    CU_ASSERT_EQUAL(config.relay.linger_ms, 5000);
    CU_ASSERT_EQUAL(config.drain_ms, 6000);
    CU_ASSERT_EQUAL(read_file("linger = 5\n  6\n"), -EINVAL);
    CU_ASSERT(file_error_is(":2: expected key = value"));
}

/* A key and value padded to length bytes. */
static void fill_line(char *line, size_t length)
{
    memset(line, ' ', length);
    memcpy(line, "linger = ", 9);
    line[length - 1] = '5';
}

static void a_line_is_taken_whole_or_refused(void)
{
    char line[10000];

    fill_line(line, 198);
    write_bytes(config_path, line, 198, 0600);
    CU_ASSERT_EQUAL_FATAL(read_line("--config", config_path), 0);
    CU_ASSERT_EQUAL(config.relay.linger_ms, 5000);
    fill_line(line, 199);
    write_bytes(config_path, line, 199, 0600);
    CU_ASSERT_EQUAL(read_line("--config", config_path), -EINVAL);
    CU_ASSERT(file_error_is(":1: got a longer line, expected at most 198 bytes"));
    memset(line, '#', sizeof line);
    write_bytes(config_path, line, sizeof line, 0600);
    CU_ASSERT_EQUAL(read_line("--config", config_path), -EINVAL);
}

static void a_nul_byte_is_an_error(void)
{
    const char text[] = "linger = 5\ndrain = 6\0000\n";

    write_bytes(config_path, text, sizeof text - 1, 0600);
    CU_ASSERT_EQUAL(read_line("--config", config_path), -EINVAL);
    CU_ASSERT(file_error_is(":2: got a NUL byte, expected text"));
}

static void an_empty_file_changes_nothing(void)
{
    struct config defaults;

    CU_ASSERT_EQUAL_FATAL(read_line(), 0);
    defaults = config;
    CU_ASSERT_EQUAL_FATAL(read_file(""), 0);
    CU_ASSERT_EQUAL(memcmp(&config, &defaults, sizeof config), 0);
    CU_ASSERT_EQUAL_FATAL(read_line("--config", "/dev/null"), 0);
    CU_ASSERT_EQUAL(memcmp(&config, &defaults, sizeof config), 0);
}

static void a_pipe_is_refused_and_not_waited_for(void)
{
    char expected[200];

    unlink(config_path);
    CU_ASSERT_EQUAL_FATAL(mkfifo(config_path, 0600), 0);
    alarm(10);
    CU_ASSERT_EQUAL(read_line("--config", config_path), -ENXIO);
    alarm(0);
    snprintf(expected, sizeof expected, "can't read %s: expected a regular file", config_path);
    CU_ASSERT_STRING_EQUAL(config_error, expected);
    unlink(config_path);
}

static void a_file_that_cannot_be_read_is_an_error(void)
{
    CU_ASSERT_EQUAL(read_line("--config", "/nonexistent"), -ENOENT);
    CU_ASSERT(error_is("can't read /nonexistent: No such file or directory"));
    CU_ASSERT_EQUAL(read_line("--config", "/"), -EISDIR);
    CU_ASSERT(error_is("can't read /: Is a directory"));
    CU_ASSERT_EQUAL(read_line("--config", ""), -ENOENT);
}

/* "#key = value" is a key; what is prose has a blank after its #. */
static void uncomment_example(char *text, bool seen[SETTINGS_COUNT])
{
    for (char *line = text; line; line = strchr(line, '\n')) {
        char key[40];

        line += *line == '\n';
        if (sscanf(line, "#%39[a-z-] =", key) != 1)
            continue;
        CU_ASSERT_PTR_NOT_NULL_FATAL(settings_find(key));
        CU_ASSERT_FALSE(seen[settings_find(key) - settings]);
        seen[settings_find(key) - settings] = true;
        *line = ' ';
    }
}

static void the_example_file_holds_every_key_with_its_default(void)
{
    const char *source = getenv("srcdir");
    char text[8192] = "", name[1024];
    bool seen[SETTINGS_COUNT] = { false };
    struct config defaults;
    FILE *file;

    snprintf(name, sizeof name, "%s/doc/tristero-tunneld.conf.example", source ? source : ".");
    file = fopen(name, "r");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    CU_ASSERT(fread(text, 1, sizeof text - 1, file) > 0);
    CU_ASSERT(feof(file));
    fclose(file);
    CU_ASSERT_EQUAL_FATAL(read_line(), 0);
    defaults = config;
    CU_ASSERT_EQUAL(read_file(text), 0);
    CU_ASSERT_EQUAL(memcmp(&config, &defaults, sizeof config), 0);

    uncomment_example(text, seen);
    for (size_t i = 0; i < SETTINGS_COUNT; i++)
        CU_ASSERT_TRUE(seen[i]);
    CU_ASSERT_EQUAL(read_file(text), 0);
    CU_ASSERT_STRING_EQUAL(config.host, "proxy.example.org");
    CU_ASSERT_STRING_EQUAL(config.users, "/etc/tristero-tunnel/users.htpasswd");
    memset(config.host, 0, sizeof config.host);
    memset(config.users, 0, sizeof config.users);
    CU_ASSERT_TRUE(config.ssh_listen_given);
    CU_ASSERT_STRING_EQUAL(config.authorized_keys, "/etc/tristero-tunnel/authorized_keys");
    CU_ASSERT_FALSE(config.ssh.open_to_all);
    config.ssh_listen_given = false;
    memset(&config.ssh_listen, 0, sizeof config.ssh_listen);
    memset(config.authorized_keys, 0, sizeof config.authorized_keys);
    config.ssh.open_to_all = true;
    CU_ASSERT_TRUE(config.rpc.listener.has_trusted_proxy);
    config.rpc.listener.has_trusted_proxy = false;
    memset(&config.rpc.listener.trusted_proxy, 0, sizeof config.rpc.listener.trusted_proxy);
    config.relay_listen_given = config.max_tunnels_given = false;
    CU_ASSERT_EQUAL(memcmp(&config, &defaults, sizeof config), 0);
}

static CU_TestInfo tests[] = {
    TEST(an_unknown_key_names_file_and_line),
    TEST(a_key_in_a_section_is_an_error),
    TEST(a_line_without_key_and_value_is_an_error),
    TEST(the_first_of_several_errors_is_told),
    TEST(an_indented_line_is_a_line_of_its_own),
    TEST(a_line_is_taken_whole_or_refused),
    TEST(a_nul_byte_is_an_error),
    TEST(an_empty_file_changes_nothing),
    TEST(a_pipe_is_refused_and_not_waited_for),
    TEST(a_file_that_cannot_be_read_is_an_error),
    TEST(the_example_file_holds_every_key_with_its_default),
    CU_TEST_INFO_NULL,
};

int main(void)
{
    return reading_run("config_file", tests);
}
