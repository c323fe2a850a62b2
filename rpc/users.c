#include "rpc/users.h"

#include "relay/log.h"
#include "relay/number.h"
#include "relay/settings_file.h"
#include "rpc/verified.h"

#include <crypt.h>
#include <errno.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    FILE_BYTES_MAX = 1024 * 1024,
    USERS_MAX = 10000,
    HASH_BYTES = 128,                   /* the longest of SHA-512 has 123 */
    BCRYPT_COST_MIN = 4, BCRYPT_COST_MAX = 15,          /* the latter takes seconds */
    SHA512_ROUNDS_MIN = 1000, SHA512_ROUNDS_MAX = 1000000,
    SHOWN_BYTES = 24,                   /* of a wrong hash, in its error: not all of it */
    PATH_SHOWN_BYTES = 300
};

/* Of base 64 as crypt(3) has it. */
static const char hash_characters[] =
    "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

struct user {
    char name[USERS_NAME_BYTES];
    char hash[HASH_BYTES];
    int line;
};

struct users {
    atomic_size_t holds;
    struct user *list;                  /* by name, once it is read */
    size_t count;
    unsigned char key[crypto_shorthash_KEYBYTES];
    struct verified *verified;
};

/* What reading goes on with. */
struct reader {
    struct users *users;
    char path[PATH_SHOWN_BYTES];        /* as errors show it */
    int line;
    char *error;
};

__attribute__((format(printf, 2, 3)))
static int complain(const struct reader *reader, const char *format, ...)
{
    int used = snprintf(reader->error, USERS_ERROR_BYTES, "%s:%d: ", reader->path, reader->line);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(reader->error + used, USERS_ERROR_BYTES - (size_t)used, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

/* count characters of a hash, and nothing after them. */
static bool is_end_of_hash(const char *text, size_t count)
{
    return strlen(text) == count && strspn(text, hash_characters) == count;
}

/* "10$" and salt and hash, after "$2y$". */
static int check_bcrypt(const struct reader *reader, const char *rest)
{
    int cost;

    if (strspn(rest, "0123456789") != 2 || rest[2] != '$' || !is_end_of_hash(rest + 3, 53))
        return complain(reader, "the hash of bcrypt is cut or mangled; make the line with "
                        "htpasswd -B");
    cost = (rest[0] - '0') * 10 + rest[1] - '0';
    if (cost < BCRYPT_COST_MIN || cost > BCRYPT_COST_MAX)
        return complain(reader, "bcrypt has the cost %d, expected one from %d to %d", cost,
                        BCRYPT_COST_MIN, BCRYPT_COST_MAX);
    return 0;
}

/* "rounds=5000$", which may be missing, salt, "$" and hash, after "$6$". */
static int check_sha512(const struct reader *reader, const char *rest)
{
    static const char mark[] = "rounds=";
    size_t salt;

    if (strncmp(rest, mark, sizeof mark - 1) == 0) {
        const char *digits = rest + sizeof mark - 1;
        size_t count = strspn(digits, "0123456789");
        int64_t rounds;

        if (digits[count] != '$' ||
            number_parse(digits, count, SHA512_ROUNDS_MIN, SHA512_ROUNDS_MAX, &rounds))
            return complain(reader, "SHA-512 has a wrong number of rounds, expected one from %d "
                            "to %d", SHA512_ROUNDS_MIN, SHA512_ROUNDS_MAX);
        rest = digits + count + 1;
    }
    salt = strcspn(rest, "$");
    if (salt < 1 || salt > 16 || rest[salt] != '$' || !is_end_of_hash(rest + salt + 1, 86))
        return complain(reader, "the hash of SHA-512 is cut or mangled; make it with "
                        "mkpasswd -m sha-512");
    return 0;
}

static int check_hash(const struct reader *reader, const char *hash)
{
    static const struct { const char *start, *name; } unsafe[] = {
        { "$apr1$", "MD5" }, { "$1$", "MD5" }, { "{SHA}", "SHA-1" }, { "$5$", "SHA-256" },
    };
    const char *dollar;

    if (strncmp(hash, "$2y$", 4) == 0 || strncmp(hash, "$2a$", 4) == 0 ||
        strncmp(hash, "$2b$", 4) == 0)
        return check_bcrypt(reader, hash + 4);
    if (strncmp(hash, "$6$", 3) == 0)
        return check_sha512(reader, hash + 3);
    for (size_t i = 0; i < sizeof unsafe / sizeof unsafe[0]; i++)
        if (strncmp(hash, unsafe[i].start, strlen(unsafe[i].start)) == 0)
            return complain(reader, "%s (%s) is not accepted; make the line with htpasswd -B",
                            unsafe[i].start, unsafe[i].name);
    dollar = hash[0] == '$' ? strchr(hash + 1, '$') : NULL;
    if (dollar && dollar - hash < SHOWN_BYTES) {
        char shown[SHOWN_BYTES];

        return complain(reader, "%s is not accepted; make the line with htpasswd -B",
                        text_printable(hash, (size_t)(dollar - hash) + 1, shown, sizeof shown));
    }
    /* What it is may be a password: it is not shown. */
    return complain(reader, "expected a hash of bcrypt ($2y$) or SHA-512 ($6$) after the colon; "
                    "make the line with htpasswd -B");
}

static bool is_name(const char *name, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)name[i] < ' ' || name[i] == 0x7f)
            return false;
    return length > 0 && length < USERS_NAME_BYTES;
}

static int take_line(struct reader *reader, char *line)
{
    struct users *users = reader->users;
    char *colon = strchr(line, ':');
    struct user *user = &users->list[users->count];
    int err;

    if (!colon)
        return complain(reader, "expected user:hash");
    if (!is_name(line, (size_t)(colon - line)))
        return complain(reader, "expected a user's name of 1 to %d bytes before the colon",
                        USERS_NAME_BYTES - 1);
    if (strlen(colon + 1) >= HASH_BYTES)
        return complain(reader, "the hash is longer than any of bcrypt or SHA-512");
    err = check_hash(reader, colon + 1);
    if (err)
        return err;
    if (users->count == USERS_MAX)
        return complain(reader, "expected at most %d users", USERS_MAX);
    memcpy(user->name, line, (size_t)(colon - line));
    strcpy(user->hash, colon + 1);
    user->line = reader->line;
    users->count++;
    return 0;
}

static int take_text(struct reader *reader, char *text)
{
    int err = 0;

    for (char *line; !err && (line = strsep(&text, "\n")); ) {
        size_t length = strlen(line);

        reader->line++;
        while (length && strchr(" \t\r", line[length - 1]))
            line[--length] = '\0';
        if (length && line[0] != '#')
            err = take_line(reader, line);
    }
    return err;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct user *)a)->name, ((const struct user *)b)->name);
}

static int sort_users(struct reader *reader)
{
    struct users *users = reader->users;
    const struct user *list = users->list;

    if (users->count == 0) {
        snprintf(reader->error, USERS_ERROR_BYTES, "%s: expected at least one user, got none",
                 reader->path);
        return -EINVAL;
    }
    qsort(users->list, users->count, sizeof users->list[0], compare_names);
    for (size_t i = 1; i < users->count; i++) {
        const struct user *a = &list[i - 1], *b = &list[i];
        char shown[USERS_NAME_BYTES];

        if (strcmp(a->name, b->name) != 0)
            continue;
        reader->line = a->line > b->line ? a->line : b->line;
        return complain(reader, "the user \"%s\" is in line %d already",
                        text_printable(a->name, strlen(a->name), shown, sizeof shown),
                        a->line < b->line ? a->line : b->line);
    }
    return 0;
}

/* The whole of a file, with a NUL after it; the caller frees it. */
static int read_file(const struct reader *reader, const char *path, char **out)
{
    struct stat about;
    FILE *file = NULL;
    int err = settings_file_open(path, &file);

    if (!err && fstat(fileno(file), &about) < 0)
        err = -errno;
    if (!err && (about.st_mode & S_IROTH) && S_ISREG(about.st_mode))
        log_write(LOG_WARNING, "everybody on this machine may read %s; chmod o-r keeps it from "
                  "who guesses passwords", reader->path);
    if (!err)
        err = settings_file_read(fileno(file), FILE_BYTES_MAX, out);
    if (file)
        fclose(file);
    if (err)
        snprintf(reader->error, USERS_ERROR_BYTES, "can't read %s: %s", reader->path,
                 err == -EFBIG ? "it has more than a mebibyte" :
                 err == -EILSEQ ? "it has a NUL byte, expected text" : settings_file_error(err));
    return err;
}

static struct users *users_new(void)
{
    struct users *users = sodium_init() < 0 ? NULL : calloc(1, sizeof *users);

    if (!users)
        return NULL;
    atomic_init(&users->holds, 1);
    crypto_shorthash_keygen(users->key);
    users->verified = verified_new();
    if (users->verified)
        return users;
    free(users);
    return NULL;
}

/* Room for as many users as there are lines. */
static int make_list(struct users *users, const char *text)
{
    size_t lines = 1;

    for (; (text = strchr(text, '\n')); text++)
        lines++;
    users->list = calloc(lines < USERS_MAX ? lines : USERS_MAX, sizeof users->list[0]);
    return users->list ? 0 : -ENOMEM;
}

int users_read(const char *path, struct users **out, char error[USERS_ERROR_BYTES])
{
    struct reader reader = { .users = users_new(), .error = error };
    char *text = NULL;
    int err = reader.users ? 0 : -ENOMEM;

    text_printable(path, strlen(path), reader.path, sizeof reader.path);
    if (!err)
        err = read_file(&reader, path, &text);
    if (!err)
        err = make_list(reader.users, text);
    if (!err)
        err = take_text(&reader, text);
    if (!err)
        err = sort_users(&reader);
    if (err == -ENOMEM)
        snprintf(error, USERS_ERROR_BYTES, "can't read %s: %s", reader.path, strerror(ENOMEM));
    free(text);
    if (err)
        users_release(reader.users);
    else
        *out = reader.users;
    return err;
}

struct users *users_hold(struct users *users)
{
    if (users)
        atomic_fetch_add(&users->holds, 1);
    return users;
}

void users_release(struct users *users)
{
    if (!users || atomic_fetch_sub(&users->holds, 1) > 1)
        return;
    verified_free(users->verified);
    free(users->list);
    free(users);
}

size_t users_count(const struct users *users)
{
    return users->count;
}

static const struct user *find(const struct users *users, const char *name)
{
    struct user wanted = { .name = "" };

    strcpy(wanted.name, name);
    return bsearch(&wanted, users->list, users->count, sizeof users->list[0], compare_names);
}

bool users_know(const struct users *users, const char *name)
{
    return find(users, name) != NULL;
}

bool users_remember(struct users *users, const struct credentials *credentials, int64_t now_ms)
{
    return verified_has(users->verified, credentials->name, credentials->password, now_ms);
}

/* For a name that there is not: somebody's hash, always the same one's, so that
 * the work is as much as for a name that there is. */
static const struct user *stand_in(const struct users *users, const char *name)
{
    unsigned char hash[crypto_shorthash_BYTES];
    uint64_t number;

    crypto_shorthash(hash, (const unsigned char *)name, strlen(name), users->key);
    memcpy(&number, hash, sizeof number);
    return &users->list[number % users->count];
}

bool users_verify(struct users *users, const struct credentials *credentials, int64_t now_ms,
                  struct crypt_data *work)
{
    const struct user *known = find(users, credentials->name);
    const struct user *user = known ? known : stand_in(users, credentials->name);
    const char *hash = crypt_r(credentials->password, user->hash, work);
    size_t length = strlen(user->hash);
    bool is_right = hash && strlen(hash) == length &&
                    sodium_memcmp(hash, user->hash, length) == 0;

    if (!is_right || !known)
        return false;
    verified_add(users->verified, credentials->name, credentials->password, now_ms);
    return true;
}
