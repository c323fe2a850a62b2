/* The proxy's own ssh key. */
#include "relay/ssh_host_key.h"
#include "tests/unit/files.h"
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

enum { PATH_BYTES = 100 };

static char folder[] = "/tmp/test_ssh_host_key_XXXXXX";
static char state[PATH_BYTES];          /* a folder in it, not made yet */
static char key_path[PATH_BYTES + 30];  /* where the proxy's key is, in state */
static char error[SSH_KEYS_ERROR_BYTES];
static struct host_key host_key;

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
    return is_said_of(about, format, error);
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
    CU_TEST_INFO_NULL,
};

int main(void)
{
    int status;

    if (!mkdtemp(folder))
        return EXIT_FAILURE;
    snprintf(state, sizeof state, "%s/state", folder);
    snprintf(key_path, sizeof key_path, "%s/ssh_host_ed25519_key", state);
    status = unit_run("ssh_host_key", tests);
    remove_state();
    rmdir(folder);
    return status;
}
