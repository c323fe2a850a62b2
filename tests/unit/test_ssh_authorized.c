/* The file of ssh keys that may open tunnels. */
#include "relay/ssh_authorized.h"
#include "tests/unit/files.h"
#include "tests/unit/ssh_test_keys.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char path[] = "/tmp/test_ssh_authorized_XXXXXX";
static char error[SSH_KEYS_ERROR_BYTES];
static struct authorized_keys *keys;

/* Whether error is the format with what it is about in the place of each %s. */
static bool error_is(const char *format, const char *about)
{
    return is_said_of(about, format, error);
}

static int read_lines(const char *text)
{
    write_text(path, text, 0644);
    keys = NULL;
    strcpy(error, "");
    return authorized_keys_read(path, &keys, error);
}

static bool allows(const char *type, const char *base64)
{
    ssh_key key = NULL;
    bool is_allowed;

    if (ssh_pki_import_pubkey_base64(base64, ssh_key_type_from_name(type), &key) != SSH_OK)
        abort();
    is_allowed = authorized_keys_allow(keys, key);
    ssh_key_free(key);
    return is_allowed;
}

/* Whether a line of these options is taken, and the key may open tunnels. */
static bool is_allowed_with(const char *options)
{
    char text[300];
    bool is_allowed;

    snprintf(text, sizeof text, "%s %s\n", options, ED25519_LINE);
    CU_ASSERT_EQUAL(read_lines(text), 0);
    if (!keys)
        return false;
    CU_ASSERT_EQUAL(authorized_keys_count(keys), 1);
    CU_ASSERT_FALSE(allows("ssh-ed25519", OTHER_ED25519_KEY));
    is_allowed = allows("ssh-ed25519", ED25519_KEY);
    authorized_keys_release(keys);
    return is_allowed;
}

static void a_key_of_every_type_is_allowed_and_no_other(void)
{
    static const struct { const char *type, *key; } all[] = {
        { "ssh-ed25519", ED25519_KEY }, { "ecdsa-sha2-nistp256", P256_KEY },
        { "ecdsa-sha2-nistp384", P384_KEY }, { "ecdsa-sha2-nistp521", P521_KEY },
        { "ssh-rsa", RSA_2048_KEY }, { "sk-ssh-ed25519@openssh.com", SK_ED25519_KEY },
        { "sk-ecdsa-sha2-nistp256@openssh.com", SK_P256_KEY },
    };
    const size_t count = sizeof all / sizeof all[0];

    for (size_t i = 0; i < count; i++) {
        char text[1000];

        snprintf(text, sizeof text, "%s %s jo@example.org, at home\n", all[i].type, all[i].key);
        CU_ASSERT_EQUAL_FATAL(read_lines(text), 0);
        CU_ASSERT_EQUAL(authorized_keys_count(keys), 1);
        for (size_t j = 0; j < count; j++)
            CU_ASSERT_EQUAL(allows(all[j].type, all[j].key), i == j);
        CU_ASSERT_FALSE(allows("ssh-ed25519", OTHER_ED25519_KEY));
        CU_ASSERT_FALSE(allows("sk-ssh-ed25519@openssh.com", SK_ED25519_OTHER_KEY));
        authorized_keys_release(keys);
    }
    CU_ASSERT_EQUAL_FATAL(read_lines("sk-ssh-ed25519@openssh.com " SK_ED25519_OTHER_KEY), 0);
    CU_ASSERT_FALSE(allows("sk-ssh-ed25519@openssh.com", SK_ED25519_KEY));
    authorized_keys_release(keys);
}

static void a_private_key_is_allowed_as_its_public_one_is(void)
{
    ssh_key key;

    if (ssh_pki_import_privkey_base64(ED25519_PRIVATE_KEY, NULL, NULL, NULL, &key) != SSH_OK)
        abort();
    CU_ASSERT_EQUAL_FATAL(read_lines(ED25519_LINE), 0);
    CU_ASSERT_TRUE(authorized_keys_allow(keys, key));
    CU_ASSERT_FALSE(authorized_keys_allow(NULL, key));
    CU_ASSERT_FALSE(authorized_keys_allow(keys, NULL));
    authorized_keys_release(keys);
    ssh_key_free(key);
}

static void lines_may_be_empty_or_comments_or_end_as_those_of_Windows(void)
{
    CU_ASSERT_EQUAL_FATAL(read_lines("# keys\r\n\r\n \t\n  # more\n"
                                     "\t ssh-ed25519 \t " ED25519_KEY "\r\n"
                                     "restrict,port-forwarding  ssh-rsa " RSA_2048_KEY " \t\r\n"
                                     "ssh-ed25519 " OTHER_ED25519_KEY " \"no end"), 0);
    CU_ASSERT_EQUAL(authorized_keys_count(keys), 3);
    CU_ASSERT_TRUE(allows("ssh-ed25519", ED25519_KEY));
    CU_ASSERT_TRUE(allows("ssh-ed25519", OTHER_ED25519_KEY));
    CU_ASSERT_TRUE(allows("ssh-rsa", RSA_2048_KEY));
    authorized_keys_release(keys);
    CU_ASSERT_EQUAL_FATAL(read_lines(""), 0);
    CU_ASSERT_EQUAL(authorized_keys_count(keys), 0);
    CU_ASSERT_FALSE(allows("ssh-ed25519", ED25519_KEY));
    authorized_keys_release(keys);
}

static void options_that_take_what_is_never_given_change_nothing(void)
{
    CU_ASSERT_TRUE(is_allowed_with(""));
    CU_ASSERT_TRUE(is_allowed_with("no-pty"));
    CU_ASSERT_TRUE(is_allowed_with("no-agent-forwarding"));
    CU_ASSERT_TRUE(is_allowed_with("no-x11-forwarding"));
    CU_ASSERT_TRUE(is_allowed_with("no-user-rc"));
    CU_ASSERT_TRUE(is_allowed_with("port-forwarding"));
    CU_ASSERT_TRUE(is_allowed_with("No-PTY,no-X11-forwarding,NO-AGENT-FORWARDING,no-user-rc"));
}

static void options_that_forbid_tunnels_forbid_the_key(void)
{
    CU_ASSERT_FALSE(is_allowed_with("restrict"));
    CU_ASSERT_FALSE(is_allowed_with("Restrict,no-pty"));
    CU_ASSERT_FALSE(is_allowed_with("no-port-forwarding"));
    CU_ASSERT_FALSE(is_allowed_with("port-forwarding,no-port-forwarding"));
    CU_ASSERT_FALSE(is_allowed_with("port-forwarding,restrict"));
    CU_ASSERT_TRUE(is_allowed_with("restrict,port-forwarding"));
    CU_ASSERT_TRUE(is_allowed_with("no-port-forwarding,no-pty,PORT-forwarding"));
}

static void of_a_key_that_is_there_twice_the_first_line_decides(void)
{
    CU_ASSERT_EQUAL_FATAL(read_lines("restrict " ED25519_LINE "\n" ED25519_LINE), 0);
    CU_ASSERT_EQUAL(authorized_keys_count(keys), 2);
    CU_ASSERT_FALSE(allows("ssh-ed25519", ED25519_KEY));
    authorized_keys_release(keys);
    CU_ASSERT_EQUAL_FATAL(read_lines(ED25519_LINE "\nrestrict " ED25519_LINE), 0);
    CU_ASSERT_TRUE(allows("ssh-ed25519", ED25519_KEY));
    authorized_keys_release(keys);
}

#define UNKNOWN(option) ":1: the option \"" option "\" is not supported, and without it the " \
                        "key might be allowed too much"
#define MANGLED(type) ":1: the key is cut or mangled, or not of the type " type
#define REFUSED(type) ":1: keys of the type " type " are not accepted; make one with ssh-keygen " \
                      "-t ed25519"
#define INCOMPLETE "expected options or none, the type of a key, and the key in base 64"

static void what_is_wrong_is_told_with_file_and_line(void)
{
    static const struct { const char *text, *error; } wrong[] = {
        { "from=\"*.example.org,!a b\" " ED25519_LINE, UNKNOWN("from") },
        { "no-pty,command=\"echo \\\"a b\\\", c\",restrict " ED25519_LINE, UNKNOWN("command") },
        { "permitlisten=\"8010\" " ED25519_LINE, UNKNOWN("permitlisten") },
        { "cert-authority " ED25519_LINE, UNKNOWN("cert-authority") },
        { "verify-required " ED25519_LINE, UNKNOWN("verify-required") },
        { "pty " ED25519_LINE, UNKNOWN("pty") },
        { "no-p " ED25519_LINE, UNKNOWN("no-p") },
        { "no-pty=\"x\" " ED25519_LINE, UNKNOWN("no-pty") },
        { "restrict\"x\" " ED25519_LINE, UNKNOWN("restrict") },
        { "\x01\xff " ED25519_LINE, UNKNOWN("??") },
        { "no-pty, " ED25519_LINE, ":1: expected an option on each side of each comma" },
        { ",no-pty " ED25519_LINE, ":1: expected an option on each side of each comma" },
        { "no-pty,,restrict " ED25519_LINE, ":1: expected an option on each side of each comma" },
        { "=\"x\" " ED25519_LINE, ":1: expected an option on each side of each comma" },
        { "command=\"a b " ED25519_LINE, ":1: a quotation mark is missing" },
        { "command=\"a b\\\" " ED25519_LINE, ":1: a quotation mark is missing" },
        { "ssh-dss AAAAB3NzaC1kc3M=", REFUSED("ssh-dss") },
        { "no-pty ssh-dss AAAAB3NzaC1kc3M=", REFUSED("ssh-dss") },
        { "ssh-ed25519-cert-v01@openssh.com AAAA", REFUSED("ssh-ed25519-cert-v01@openssh.com") },
        { "ssh-new\x01 AAAA", REFUSED("ssh-new?") },
        { "ssh-ed25519", ":1: " INCOMPLETE },
        { "no-pty ssh-ed25519", ":1: " INCOMPLETE },
        { "no-pty", ":1: " INCOMPLETE },
        { "no-pty AAAA ssh-ed25519", ":1: " INCOMPLETE },
        { "-----BEGIN OPENSSH PRIVATE KEY-----", ":1: " INCOMPLETE },
        { "# one\n\n" ED25519_LINE "\r\n\nhunter2\n", ":5: " INCOMPLETE },
        { "ssh-ed25519 AAAA", MANGLED("ssh-ed25519") },
        { "ssh-ed25519 ====", MANGLED("ssh-ed25519") },
        { "ssh-ed25519 \xff", MANGLED("ssh-ed25519") },
        { ED25519_LINE "AAAA", MANGLED("ssh-ed25519") },
        { ED25519_LINE "=", MANGLED("ssh-ed25519") },
        { ED25519_LINE "\" x\"", MANGLED("ssh-ed25519") },
        { "ssh-ed25519 " SK_ED25519_KEY, MANGLED("ssh-ed25519") },
        { "ssh-rsa " ED25519_KEY, MANGLED("ssh-rsa") },
        { "ecdsa-sha2-nistp256 " P384_KEY, MANGLED("ecdsa-sha2-nistp256") },
        { "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAAABAA==",
          MANGLED("ecdsa-sha2-nistp256") },
        { "sk-ssh-ed25519@openssh.com " ED25519_KEY, MANGLED("sk-ssh-ed25519@openssh.com") },
        { "ssh-rsa " RSA_1024_KEY, ":1: the RSA key has 1024 bits, expected 2048 to 16384" },
        { "ssh-rsa AAAAB3NzaC1yc2E=", ":1: the RSA key has 0 bits, expected 2048 to 16384" },
    };

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char expected[300];

        CU_ASSERT_EQUAL(read_lines(wrong[i].text), -EINVAL);
        snprintf(expected, sizeof expected, "%%s%s", wrong[i].error);
        CU_ASSERT_TRUE(error_is(expected, path));
        CU_ASSERT_PTR_NULL(keys);
    }
}

static void a_file_that_cannot_be_read_is_an_error(void)
{
    static char large[1024 * 1024 + 1];

    CU_ASSERT_EQUAL(authorized_keys_read("/nonexistent", &keys, error), -ENOENT);
    CU_ASSERT_STRING_EQUAL(error, "can't read /nonexistent: No such file or directory");
    CU_ASSERT_EQUAL(authorized_keys_read("/", &keys, error), -EINVAL);
    CU_ASSERT_STRING_EQUAL(error, "can't read /: expected a regular file");
    memset(large, '\n', sizeof large);
    write_bytes(path, large, sizeof large - 1, 0600);
    CU_ASSERT_EQUAL_FATAL(authorized_keys_read(path, &keys, error), 0);
    authorized_keys_release(keys);
    write_bytes(path, large, sizeof large, 0600);
    CU_ASSERT_EQUAL(authorized_keys_read(path, &keys, error), -EFBIG);
    CU_ASSERT_TRUE(error_is("can't read %s: it has more than 1048576 bytes", path));
    write_bytes(path, ED25519_LINE "\n\0", sizeof ED25519_LINE "\n", 0600);
    CU_ASSERT_EQUAL(authorized_keys_read(path, &keys, error), -EILSEQ);
}

static void a_file_that_others_may_write_to_is_refused(void)
{
    static const mode_t modes[] = { 0620, 0602, 0664, 0666 };

    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        write_text(path, ED25519_LINE, modes[i]);
        CU_ASSERT_EQUAL(authorized_keys_read(path, &keys, error), -EPERM);
        CU_ASSERT_TRUE(error_is("others may write to %s, expected its owner alone; chmod go-w %s",
                                path));
    }
}

static void there_may_be_ten_thousand_keys(void)
{
    static char text[1000 * 1024];
    size_t used = 0;

    for (int i = 0; i < 9999; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s\n", ED25519_LINE);
    used += (size_t)snprintf(text + used, sizeof text - used, "ssh-ed25519 %s\n",
                             OTHER_ED25519_KEY);
    CU_ASSERT_EQUAL_FATAL(read_lines(text), 0);
    CU_ASSERT_EQUAL(authorized_keys_count(keys), 10000);
    CU_ASSERT_TRUE(allows("ssh-ed25519", OTHER_ED25519_KEY));
    authorized_keys_release(keys);
    snprintf(text + used, sizeof text - used, "%s\n", ED25519_LINE);
    CU_ASSERT_EQUAL(read_lines(text), -EINVAL);
    CU_ASSERT_TRUE(error_is("%s:10001: expected at most 10000 keys", path));
}

static void keys_last_until_the_last_hold_is_let_go_of(void)
{
    struct authorized_keys *held;

    CU_ASSERT_EQUAL_FATAL(read_lines(ED25519_LINE), 0);
    held = authorized_keys_hold(keys);
    authorized_keys_release(keys);
    CU_ASSERT_EQUAL(authorized_keys_count(held), 1);
    authorized_keys_release(held);
    CU_ASSERT_PTR_NULL(authorized_keys_hold(NULL));
    authorized_keys_release(NULL);
}

static void *ask_often(void *argument)
{
    const bool *is_other = argument;

    for (int i = 0; i < 200; i++)
        if (allows("sk-ssh-ed25519@openssh.com",
                   *is_other ? SK_ED25519_OTHER_KEY : SK_ED25519_KEY) == *is_other)
            return argument;
    return NULL;
}

static void any_thread_may_ask(void)
{
    pthread_t threads[4];
    bool is_other[4] = { false, true, false, true };

    CU_ASSERT_EQUAL_FATAL(read_lines("sk-ssh-ed25519@openssh.com " SK_ED25519_KEY), 0);
    for (int i = 0; i < 4; i++)
        if (pthread_create(&threads[i], NULL, ask_often, &is_other[i]))
            abort();
    for (int i = 0; i < 4; i++) {
        void *failed;

        pthread_join(threads[i], &failed);
        CU_ASSERT_PTR_NULL(failed);
    }
    authorized_keys_release(keys);
}

static CU_TestInfo tests[] = {
    TEST(a_key_of_every_type_is_allowed_and_no_other),
    TEST(a_private_key_is_allowed_as_its_public_one_is),
    TEST(lines_may_be_empty_or_comments_or_end_as_those_of_Windows),
    TEST(options_that_take_what_is_never_given_change_nothing),
    TEST(options_that_forbid_tunnels_forbid_the_key),
    TEST(of_a_key_that_is_there_twice_the_first_line_decides),
    TEST(what_is_wrong_is_told_with_file_and_line),
    TEST(a_file_that_cannot_be_read_is_an_error),
    TEST(a_file_that_others_may_write_to_is_refused),
    TEST(there_may_be_ten_thousand_keys),
    TEST(keys_last_until_the_last_hold_is_let_go_of),
    TEST(any_thread_may_ask),
    CU_TEST_INFO_NULL,
};

int main(void)
{
    return unit_run_with_file("ssh_authorized", tests, path);
}
