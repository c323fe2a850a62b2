/* The file of users, who gets in, and what is remembered of it. */
#include "relay/waker.h"
#include "rpc/users.h"
#include "rpc/verified.h"
#include "tests/unit/files.h"
#include "tests/unit/unit.h"

#include <crypt.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHA512_HASH "$6$rounds=1000$saltsalt$" HASH_OF_86
#define HASH_OF_86 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" \
                   "0123456789abcdef012345"
#define BCRYPT_HASH "$2y$04$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"

static char path[] = "/tmp/test_users_XXXXXX";
static char error[USERS_ERROR_BYTES];
static struct users *users;
static struct crypt_data work;

static int read_text(const char *text)
{
    write_text(path, text, 0600);
    users = NULL;
    strcpy(error, "");
    return users_read(path, &users, error);
}

static void make_line(const char *name, const char *password, const char *kind, char *line,
                      size_t room)
{
    struct crypt_data data = { 0 };
    char setting[CRYPT_GENSALT_OUTPUT_SIZE];
    unsigned long cost = strcmp(kind, "$6$") == 0 ? 1000 : 4;

    if (!crypt_gensalt_rn(kind, cost, NULL, 0, setting, sizeof setting))
        abort();
    snprintf(line, room, "%s:%s", name, crypt_r(password, setting, &data));
}

static bool verify(const char *name, const char *password)
{
    struct credentials credentials = { 0 };

    strcpy(credentials.name, name);
    strcpy(credentials.password, password);
    return users_verify(users, &credentials, clock_ms(), &work);
}

static bool remember(const char *name, const char *password, int64_t now_ms)
{
    struct credentials credentials = { 0 };

    strcpy(credentials.name, name);
    strcpy(credentials.password, password);
    return users_remember(users, &credentials, now_ms);
}

/* expected is what follows the name of the file. */
static bool error_is(const char *expected)
{
    char format[USERS_ERROR_BYTES];

    snprintf(format, sizeof format, "%%s%s", expected);
    return is_said_of(path, format, error);
}

static void every_kind_of_hash_is_verified(void)
{
    static const char *const kinds[] = { "$2y$", "$2a$", "$2b$", "$6$" };

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        char line[300];

        make_line("jo", "p:w \xc3\xa9", kinds[i], line, sizeof line);
        CU_ASSERT_EQUAL_FATAL(read_text(line), 0);
        CU_ASSERT_EQUAL(users_count(users), 1);
        CU_ASSERT_TRUE(verify("jo", "p:w \xc3\xa9"));
        CU_ASSERT_FALSE(verify("jo", "p:w \xc3\xa8"));
        CU_ASSERT_FALSE(verify("jo", ""));
        CU_ASSERT_FALSE(verify("j", "p:w \xc3\xa9"));
        CU_ASSERT_FALSE(verify("joo", "p:w \xc3\xa9"));
        CU_ASSERT_FALSE(verify("", "p:w \xc3\xa9"));
        users_release(users);
    }
}

static void each_user_has_its_own_password(void)
{
    char text[3000] = "# comment\n\n";
    char line[300];

    for (char name = 'z'; name >= 'a'; name -= 5) {
        make_line((char[]){ name, '\0' }, (char[]){ name, name, '\0' }, "$2b$", line, sizeof line);
        strcat(strcat(text, line), name > 'm' ? "\n" : " \r\n");
    }
    CU_ASSERT_EQUAL_FATAL(read_text(text), 0);
    CU_ASSERT_EQUAL(users_count(users), 6);
    for (char name = 'z'; name >= 'a'; name -= 5) {
        CU_ASSERT_TRUE(users_know(users, (char[]){ name, '\0' }));
        CU_ASSERT_TRUE(verify((char[]){ name, '\0' }, (char[]){ name, name, '\0' }));
        CU_ASSERT_FALSE(verify((char[]){ name, '\0' }, (char[]){ name, '\0' }));
    }
    CU_ASSERT_FALSE(users_know(users, "b"));
    CU_ASSERT_FALSE(verify("b", "bb"));
    CU_ASSERT_FALSE(verify("b", "zz"));         /* whoever stands in for it */
    users_release(users);
}

static void what_is_wrong_is_told_with_file_and_line(void)
{
    static const struct { const char *text, *error; } wrong[] = {
        { "# one\n\njo:$apr1$abc$def\n",
          ":3: $apr1$ (MD5) is not accepted; make the line with htpasswd -B" },
        { "jo:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
          ":1: {SHA} (SHA-1) is not accepted; make the line with htpasswd -B" },
        { "jo:$5$a$b", ":1: $5$ (SHA-256) is not accepted; make the line with htpasswd -B" },
        { "jo:$1$a$b", ":1: $1$ (MD5) is not accepted; make the line with htpasswd -B" },
        { "jo:$y$a$b", ":1: $y$ is not accepted; make the line with htpasswd -B" },
        { "jo:$2x$04$a", ":1: $2x$ is not accepted; make the line with htpasswd -B" },
        { "jo:secret", ":1: expected a hash of bcrypt ($2y$) or SHA-512 ($6$) after the colon; "
          "make the line with htpasswd -B" },
        { "jo:", ":1: expected a hash of bcrypt ($2y$) or SHA-512 ($6$) after the colon; "
          "make the line with htpasswd -B" },
        { BCRYPT_HASH, ":1: expected user:hash" },
        { "a:" BCRYPT_HASH "\n jo", ":2: expected user:hash" },
        { ":" BCRYPT_HASH, ":1: expected a user's name of 1 to 63 bytes before the colon" },
        { "j\to:" BCRYPT_HASH, ":1: expected a user's name of 1 to 63 bytes before the colon" },
        { "0123456789012345678901234567890123456789012345678901234567890123:" BCRYPT_HASH,
          ":1: expected a user's name of 1 to 63 bytes before the colon" },
        { "jo:" BCRYPT_HASH "x",
          ":1: the hash of bcrypt is cut or mangled; make the line with htpasswd -B" },
        { "jo:" BCRYPT_HASH ":more",
          ":1: the hash of bcrypt is cut or mangled; make the line with htpasswd -B" },
        { "jo:$2y$4$abc",
          ":1: the hash of bcrypt is cut or mangled; make the line with htpasswd -B" },
        { "jo:$2y$16$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234",
          ":1: bcrypt has the cost 16, expected one from 4 to 15" },
        { "jo:$6$salt$" HASH_OF_86 "x",
          ":1: the hash of SHA-512 is cut or mangled; make it with mkpasswd -m sha-512" },
        { "jo:$6$$" HASH_OF_86,
          ":1: the hash of SHA-512 is cut or mangled; make it with mkpasswd -m sha-512" },
        { "jo:$6$rounds=999$salt$" HASH_OF_86,
          ":1: SHA-512 has a wrong number of rounds, expected one from 1000 to 1000000" },
        { "jo:$6$rounds=99999999999$salt$" HASH_OF_86,
          ":1: SHA-512 has a wrong number of rounds, expected one from 1000 to 1000000" },
        { "jo:$6$" HASH_OF_86 HASH_OF_86,
          ":1: the hash is longer than any of bcrypt or SHA-512" },
        { "jo:" BCRYPT_HASH "\nal:" BCRYPT_HASH "\njo:" SHA512_HASH "\n",
          ":3: the user \"jo\" is in line 1 already" },
        { "", ": expected at least one user, got none" },
        { "# nobody\n\n", ": expected at least one user, got none" },
    };

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CU_ASSERT_EQUAL(read_text(wrong[i].text), -EINVAL);
        CU_ASSERT_TRUE(error_is(wrong[i].error));
        CU_ASSERT_PTR_NULL(users);
    }
    CU_ASSERT_EQUAL_FATAL(read_text("jo:" BCRYPT_HASH "\nal:" SHA512_HASH), 0);
    users_release(users);
}

static void what_may_be_a_password_is_not_shown(void)
{
    CU_ASSERT_EQUAL(read_text("jo:$ecret-without-a-second-dollar"), -EINVAL);
    CU_ASSERT_PTR_NULL(strstr(error, "ecret"));
    CU_ASSERT_EQUAL(read_text("hunter2"), -EINVAL);
    CU_ASSERT_PTR_NULL(strstr(error, "hunter2"));
}

static void a_pipe_is_refused_and_not_waited_for(void)
{
    char expected[200];

    unlink(path);
    CU_ASSERT_EQUAL_FATAL(mkfifo(path, 0600), 0);
    alarm(10);
    CU_ASSERT_EQUAL(users_read(path, &users, error), -ENXIO);
    alarm(0);
    snprintf(expected, sizeof expected, "can't read %s: expected a regular file", path);
    CU_ASSERT_STRING_EQUAL(error, expected);
    unlink(path);
}

static void a_file_that_cannot_be_read_is_an_error(void)
{
    static char large[1024 * 1024 + 1];

    CU_ASSERT_EQUAL(users_read("/nonexistent", &users, error), -ENOENT);
    CU_ASSERT_STRING_EQUAL(error, "can't read /nonexistent: No such file or directory");
    CU_ASSERT_EQUAL(users_read("/", &users, error), -EISDIR);
    memset(large, '\n', sizeof large);
    write_bytes(path, large, sizeof large, 0600);
    CU_ASSERT_EQUAL(users_read(path, &users, error), -EFBIG);
    CU_ASSERT_PTR_NOT_NULL(strstr(error, "more than a mebibyte"));
    CU_ASSERT_EQUAL(users_read("/dev/zero", &users, error), -EFBIG);
    write_bytes(path, "jo:" BCRYPT_HASH "\n\0", sizeof "jo:" BCRYPT_HASH "\n", 0600);
    CU_ASSERT_EQUAL(users_read(path, &users, error), -EILSEQ);
}

static void there_may_be_ten_thousand_users(void)
{
    static char text[900 * 1024];
    size_t used = 0;

    for (int i = 0; i < 10000; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "u%d:%s\n", i, BCRYPT_HASH);
    CU_ASSERT_EQUAL_FATAL(read_text(text), 0);
    CU_ASSERT_EQUAL(users_count(users), 10000);
    CU_ASSERT_TRUE(users_know(users, "u9999"));
    users_release(users);
    snprintf(text + used, sizeof text - used, "more:%s\n", BCRYPT_HASH);
    CU_ASSERT_EQUAL(read_text(text), -EINVAL);
    CU_ASSERT_TRUE(error_is(":10001: expected at most 10000 users"));
}

static void only_what_was_verified_is_remembered_and_not_for_ever(void)
{
    int64_t now_ms = clock_ms();
    char line[300];

    make_line("jo", "word", "$2b$", line, sizeof line);
    CU_ASSERT_EQUAL_FATAL(read_text(line), 0);
    CU_ASSERT_FALSE(remember("jo", "word", now_ms));
    CU_ASSERT_FALSE(verify("jo", "other"));
    CU_ASSERT_FALSE(verify("no", "word"));
    CU_ASSERT_FALSE(remember("jo", "other", now_ms));
    CU_ASSERT_FALSE(remember("no", "word", now_ms));
    CU_ASSERT_TRUE(verify("jo", "word"));
    CU_ASSERT_TRUE(remember("jo", "word", clock_ms()));
    CU_ASSERT_FALSE(remember("jow", "ord", now_ms));
    CU_ASSERT_FALSE(remember("jo", "wor", now_ms));
    CU_ASSERT_FALSE(remember("jo", "word", clock_ms() + VERIFIED_FOR_MS));
    users_release(users);
    CU_ASSERT_EQUAL_FATAL(users_read(path, &users, error), 0);
    CU_ASSERT_FALSE(remember("jo", "word", now_ms));     /* read again, it knows nothing */
    users_release(users);
}

static void the_memory_is_bounded_and_forgets_the_oldest(void)
{
    struct verified *verified = verified_new();
    unsigned kept = 0;

    CU_ASSERT_PTR_NOT_NULL_FATAL(verified);
    for (int i = 0; i < 10000; i++) {
        char name[20];

        snprintf(name, sizeof name, "u%d", i);
        verified_add(verified, name, "word", i);
        CU_ASSERT_TRUE(verified_has(verified, name, "word", i));
    }
    for (int i = 0; i < 10000; i++) {
        char name[20];

        snprintf(name, sizeof name, "u%d", i);
        kept += verified_has(verified, name, "word", 10000);
    }
    CU_ASSERT(kept > 900 && kept <= 1024);
    verified_free(verified);
}

/* The least of several, which nothing else has lengthened. */
static int64_t time_to_refuse_ns(const char *name)
{
    int64_t least_ns = INT64_MAX;

    for (int i = 0; i < 5; i++) {
        struct timespec from, to;
        int64_t took_ns;

        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
        CU_ASSERT_FALSE(verify(name, "wrong"));
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
        took_ns = (to.tv_sec - from.tv_sec) * 1000000000 + to.tv_nsec - from.tv_nsec;
        if (took_ns < least_ns)
            least_ns = took_ns;
    }
    return least_ns;
}

static void unknown_names_take_as_long_as_known_ones(void)
{
    char line[300];
    int64_t known_ns, unknown_ns;

    make_line("jo", "word", "$2b$", line, sizeof line);
    memcpy(strstr(line, "$04$"), "$07$", 4);
    CU_ASSERT_EQUAL_FATAL(read_text(line), 0);
    known_ns = time_to_refuse_ns("jo");
    unknown_ns = time_to_refuse_ns("somebody");
    CU_ASSERT(known_ns < 2 * unknown_ns);
    CU_ASSERT(unknown_ns < 2 * known_ns);
    users_release(users);
}

static CU_TestInfo tests[] = {
    TEST(every_kind_of_hash_is_verified),
    TEST(each_user_has_its_own_password),
    TEST(what_is_wrong_is_told_with_file_and_line),
    TEST(what_may_be_a_password_is_not_shown),
    TEST(a_pipe_is_refused_and_not_waited_for),
    TEST(a_file_that_cannot_be_read_is_an_error),
    TEST(there_may_be_ten_thousand_users),
    TEST(only_what_was_verified_is_remembered_and_not_for_ever),
    TEST(the_memory_is_bounded_and_forgets_the_oldest),
    TEST(unknown_names_take_as_long_as_known_ones),
    CU_TEST_INFO_NULL,
};

int main(void)
{
    return unit_run_with_file("users", tests, path);
}
