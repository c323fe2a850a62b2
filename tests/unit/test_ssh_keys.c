/* The proxy's own ssh key, and the file of keys that may open tunnels. */
#include "relay/ssh_authorized.h"
#include "relay/ssh_host_key.h"
#include "tests/unit/ssh_test_keys.h"
#include "tests/unit/unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define ED25519_LINE "ssh-ed25519 " ED25519_KEY

enum { PATH_BYTES = 100 };

static char folder[] = "/tmp/test_ssh_keys_XXXXXX";
static char state[PATH_BYTES];          /* a folder in it, not made yet */
static char key_path[PATH_BYTES + 30];  /* where the proxy's key is, in state */
static char path[PATH_BYTES];           /* the file of keys */
static char error[SSH_KEYS_ERROR_BYTES];
static struct host_key host_key;
static struct authorized_keys *keys;

static void write_bytes(const char *to, const char *bytes, size_t count, mode_t mode)
{
    FILE *file = fopen(to, "w");

    if (!file || fwrite(bytes, 1, count, file) != count || fclose(file) || chmod(to, mode))
        abort();
}

static void write_text(const char *to, const char *text, mode_t mode)
{
    write_bytes(to, text, strlen(text), mode);
}

/* How many files there are in the state folder; with is_emptied, they go. */
static unsigned count_files(bool is_emptied)
{
    DIR *stream = opendir(state);
    const struct dirent *entry;
    unsigned count = 0;

    if (!stream)
        return 0;
    while ((entry = readdir(stream))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        count++;
        if (is_emptied && unlinkat(dirfd(stream), entry->d_name, 0))
            abort();
    }
    closedir(stream);
    return count;
}

static void remove_state(void)
{
    count_files(true);
    rmdir(state);
}

static mode_t mode_of(const char *of)
{
    struct stat about;

    return lstat(of, &about) ? 0 : about.st_mode & 07777;
}

/* Whether error is the format with what it is about in the place of each %s. */
static bool error_is(const char *format, const char *about)
{
    char whole[SSH_KEYS_ERROR_BYTES];
    size_t used = 0;

    for (const char *at; (at = strstr(format, "%s")); format = at + 2)
        used += (size_t)snprintf(whole + used, sizeof whole - used, "%.*s%s", (int)(at - format),
                                 format, about);
    snprintf(whole + used, sizeof whole - used, "%s", format);
    if (!strcmp(error, whole))
        return true;
    fprintf(stderr, "\ngot:      %s\nexpected: %s\n", error, whole);
    return false;
}

/* Puts a key where the proxy looks for its own. */
static int open_with(const char *text, mode_t mode)
{
    remove_state();
    if (mkdir(state, 0700))
        abort();
    write_text(key_path, text, mode);
    return host_key_open(state, &host_key, error);
}

static void a_missing_key_is_made_for_its_owner_alone(void)
{
    mode_t mask = umask(0);

    remove_state();
    CU_ASSERT_EQUAL_FATAL(host_key_open(state, &host_key, error), 0);
    umask(mask);
    CU_ASSERT_TRUE(host_key.is_new);
    CU_ASSERT_EQUAL(ssh_key_type(host_key.key), SSH_KEYTYPE_ED25519);
    CU_ASSERT_TRUE(ssh_key_is_private(host_key.key));
    CU_ASSERT_EQUAL(mode_of(state), 0700);
    CU_ASSERT_EQUAL(mode_of(key_path), 0600);
    CU_ASSERT_EQUAL(count_files(false), 1);
    host_key_close(&host_key);
    host_key_close(&host_key);          /* of what is closed does nothing */
}

static void a_second_open_gives_the_same_key(void)
{
    struct host_key again;

    remove_state();
    CU_ASSERT_EQUAL_FATAL(host_key_open(state, &host_key, error), 0);
    CU_ASSERT_EQUAL_FATAL(host_key_open(state, &again, error), 0);
    CU_ASSERT_FALSE(again.is_new);
    CU_ASSERT_EQUAL(ssh_key_cmp(host_key.key, again.key, SSH_KEY_CMP_PRIVATE), 0);
    CU_ASSERT_STRING_EQUAL(again.fingerprint, host_key.fingerprint);
    CU_ASSERT_STRING_EQUAL(again.public_key, host_key.public_key);
    host_key_close(&again);
    host_key_close(&host_key);
}

static void another_folder_has_another_key(void)
{
    char before[SSH_FINGERPRINT_BYTES];

    remove_state();
    CU_ASSERT_EQUAL_FATAL(host_key_open(state, &host_key, error), 0);
    strcpy(before, host_key.fingerprint);
    host_key_close(&host_key);
    remove_state();
    CU_ASSERT_EQUAL_FATAL(host_key_open(state, &host_key, error), 0);
    CU_ASSERT_STRING_NOT_EQUAL(host_key.fingerprint, before);
    host_key_close(&host_key);
}

static void a_key_that_OpenSSH_made_is_taken(void)
{
    CU_ASSERT_EQUAL_FATAL(open_with(ED25519_PRIVATE_KEY, 0400), 0);
    CU_ASSERT_FALSE(host_key.is_new);
    CU_ASSERT_STRING_EQUAL(host_key.fingerprint, ED25519_FINGERPRINT);
    CU_ASSERT_STRING_EQUAL(host_key.public_key, ED25519_LINE);
    host_key_close(&host_key);
}

static void a_key_that_others_may_use_is_refused(void)
{
    static const mode_t modes[] = { 0640, 0604, 0620, 0602, 0610, 0601, 0644, 0777 };

    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        CU_ASSERT_EQUAL(open_with(ED25519_PRIVATE_KEY, modes[i]), -EPERM);
        CU_ASSERT_TRUE(error_is("others may read or write %s, expected its owner alone; chmod 600 "
                                "%s", key_path));
        CU_ASSERT_PTR_NULL(host_key.key);
        CU_ASSERT_EQUAL(mode_of(key_path), modes[i]);
    }
}

static char *export_key(enum ssh_keytypes_e type, const char *passphrase)
{
    ssh_key key = NULL;
    char *text = NULL;

    if (ssh_pki_generate(type, 0, &key) != SSH_OK ||
        ssh_pki_export_privkey_base64(key, passphrase, NULL, NULL, &text) != SSH_OK)
        abort();
    ssh_key_free(key);
    return text;
}

static void a_key_with_a_passphrase_is_refused_without_asking_for_it(void)
{
    char *openssh = export_key(SSH_KEYTYPE_ED25519, "secret");
    char *pem = export_key(SSH_KEYTYPE_ECDSA_P256, "secret");

    CU_ASSERT_EQUAL(open_with(openssh, 0600), -EINVAL);
    CU_ASSERT_TRUE(error_is("%s has a passphrase, expected a key without; ssh-keygen -p -f %s "
                            "removes it", key_path));
    CU_ASSERT_PTR_NOT_NULL(strstr(pem, "ENCRYPTED"));
    CU_ASSERT_EQUAL(open_with(pem, 0600), -EINVAL);
    CU_ASSERT_TRUE(error_is("%s: expected an ed25519 key in OpenSSH's format, without a passphrase",
                            key_path));
    ssh_string_free_char(openssh);
    ssh_string_free_char(pem);
}

static void what_is_no_ed25519_key_is_refused_and_left_as_it_is(void)
{
    static const char mark[] = "-----BEGIN OPENSSH PRIVATE KEY-----\n";
    static const char *const wrong[] = { "", "\n", "secret", mark, ED25519_LINE,
                                         "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk=\n"
                                         "-----END OPENSSH PRIVATE KEY-----\n" };
    char half[] = ED25519_PRIVATE_KEY, got[sizeof half];
    FILE *file;

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CU_ASSERT_EQUAL(open_with(wrong[i], 0600), -EINVAL);
        CU_ASSERT_TRUE(error_is("%s: expected an ed25519 key in OpenSSH's format, without a "
                                "passphrase", key_path));
        CU_ASSERT_EQUAL(count_files(false), 1);
    }
    CU_ASSERT_EQUAL(open_with(P256_PRIVATE_KEY, 0600), -EINVAL);
    CU_ASSERT_TRUE(error_is("%s: expected an ed25519 key, got one of ecdsa-sha2-nistp256",
                            key_path));
    CU_ASSERT_PTR_NULL(host_key.key);
    while (strlen(half) > 1) {
        half[strlen(half) / 2] = '\0';
        CU_ASSERT_EQUAL(open_with(half, 0600), -EINVAL);
    }
    file = fopen(key_path, "r");
    CU_ASSERT_TRUE_FATAL(file && fgets(got, sizeof got, file));
    CU_ASSERT_STRING_EQUAL(got, "-");
    fclose(file);
}

static void what_is_no_file_is_refused(void)
{
    char large[16 * 1024 + 1];

    memset(large, '\n', sizeof large);
    CU_ASSERT_EQUAL(open_with("", 0600), -EINVAL);
    write_bytes(key_path, large, sizeof large, 0600);
    CU_ASSERT_EQUAL(host_key_open(state, &host_key, error), -EFBIG);
    CU_ASSERT_TRUE(error_is("can't read %s: it has more than 16384 bytes", key_path));
    write_bytes(key_path, "a\0", 2, 0600);
    CU_ASSERT_EQUAL(host_key_open(state, &host_key, error), -EILSEQ);
    CU_ASSERT_TRUE(error_is("can't read %s: it has a NUL byte, expected text", key_path));
    CU_ASSERT_EQUAL(unlink(key_path) | mkfifo(key_path, 0600), 0);
    CU_ASSERT_EQUAL(host_key_open(state, &host_key, error), -EINVAL);
    CU_ASSERT_TRUE(error_is("can't read %s: expected a regular file", key_path));
    CU_ASSERT_EQUAL(unlink(key_path) | symlink("elsewhere", key_path), 0);
    CU_ASSERT_EQUAL(host_key_open(state, &host_key, error), -ELOOP);
    CU_ASSERT_TRUE(error_is("can't read %s: it is a symbolic link, expected a regular file",
                            key_path));
    CU_ASSERT_EQUAL(count_files(false), 1);     /* not the link's target either */
}

static void a_folder_that_cannot_be_made_is_an_error(void)
{
    char below[2 * PATH_BYTES];

    remove_state();
    snprintf(below, sizeof below, "%s/below", state);
    CU_ASSERT_EQUAL(host_key_open(below, &host_key, error), -ENOENT);
    CU_ASSERT_TRUE(error_is("can't make or open the folder of the key %s/ssh_host_ed25519_key: No "
                            "such file or directory", below));
    write_text(state, "", 0600);
    CU_ASSERT_EQUAL(host_key_open(below, &host_key, error), -ENOTDIR);
    CU_ASSERT_TRUE(error_is("can't make or open the folder of the key %s/ssh_host_ed25519_key: Not "
                            "a directory", below));
    CU_ASSERT_EQUAL(host_key_open(state, &host_key, error), -ENOTDIR);
    CU_ASSERT_EQUAL(host_key_open("", &host_key, error), -ENOENT);
    host_key_close(&host_key);
    unlink(state);
}

static void nothing_is_left_of_a_key_that_could_not_be_written(void)
{
    struct rlimit before, none;

    remove_state();
    CU_ASSERT_EQUAL_FATAL(getrlimit(RLIMIT_FSIZE, &before), 0);
    none = (struct rlimit){ .rlim_cur = 100, .rlim_max = before.rlim_max };
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &none);
    CU_ASSERT_EQUAL(host_key_open(state, &host_key, error), -EFBIG);
    setrlimit(RLIMIT_FSIZE, &before);
    CU_ASSERT_TRUE(error_is("can't make the key %s: File too large", key_path));
    CU_ASSERT_PTR_NULL(host_key.key);
    CU_ASSERT_EQUAL(mode_of(state), 0700);
    CU_ASSERT_EQUAL(count_files(false), 0);
    CU_ASSERT_EQUAL(host_key_open(state, &host_key, error), 0);
    host_key_close(&host_key);
}

struct opener {
    pthread_barrier_t *start;
    struct host_key host_key;
    int err;
};

static void *open_at_once(void *argument)
{
    struct opener *opener = argument;
    char why[SSH_KEYS_ERROR_BYTES];

    pthread_barrier_wait(opener->start);
    opener->err = host_key_open(state, &opener->host_key, why);
    return NULL;
}

static void all_who_open_an_empty_folder_at_once_agree(void)
{
    enum { OPENERS = 4, ROUNDS = 50 };
    struct opener openers[OPENERS];
    pthread_t threads[OPENERS];
    pthread_barrier_t start;

    pthread_barrier_init(&start, NULL, OPENERS);
    for (int round = 0; round < ROUNDS; round++) {
        unsigned made = 0;

        remove_state();
        for (int i = 0; i < OPENERS; i++) {
            openers[i].start = &start;
            if (pthread_create(&threads[i], NULL, open_at_once, &openers[i]))
                abort();
        }
        for (int i = 0; i < OPENERS; i++) {
            pthread_join(threads[i], NULL);
            CU_ASSERT_EQUAL_FATAL(openers[i].err, 0);
            CU_ASSERT_STRING_EQUAL(openers[i].host_key.fingerprint,
                                   openers[0].host_key.fingerprint);
            made += openers[i].host_key.is_new;
        }
        for (int i = 0; i < OPENERS; i++)
            host_key_close(&openers[i].host_key);
        CU_ASSERT_EQUAL(made, 1);
        CU_ASSERT_EQUAL(count_files(false), 1);
    }
    pthread_barrier_destroy(&start);
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
    CU_ASSERT_EQUAL_FATAL(open_with(ED25519_PRIVATE_KEY, 0600), 0);
    CU_ASSERT_EQUAL_FATAL(read_lines(ED25519_LINE), 0);
    CU_ASSERT_TRUE(authorized_keys_allow(keys, host_key.key));
    CU_ASSERT_FALSE(authorized_keys_allow(NULL, host_key.key));
    CU_ASSERT_FALSE(authorized_keys_allow(keys, NULL));
    authorized_keys_release(keys);
    host_key_close(&host_key);
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
    TEST(a_missing_key_is_made_for_its_owner_alone),
    TEST(a_second_open_gives_the_same_key),
    TEST(another_folder_has_another_key),
    TEST(a_key_that_OpenSSH_made_is_taken),
    TEST(a_key_that_others_may_use_is_refused),
    TEST(a_key_with_a_passphrase_is_refused_without_asking_for_it),
    TEST(what_is_no_ed25519_key_is_refused_and_left_as_it_is),
    TEST(what_is_no_file_is_refused),
    TEST(a_folder_that_cannot_be_made_is_an_error),
    TEST(nothing_is_left_of_a_key_that_could_not_be_written),
    TEST(all_who_open_an_empty_folder_at_once_agree),
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
    int status;

    if (!mkdtemp(folder))
        return EXIT_FAILURE;
    snprintf(state, sizeof state, "%s/state", folder);
    snprintf(key_path, sizeof key_path, "%s/ssh_host_ed25519_key", state);
    snprintf(path, sizeof path, "%s/authorized_keys", folder);
    status = unit_run("ssh_keys", tests);
    remove_state();
    unlink(path);
    rmdir(folder);
    return status;
}
