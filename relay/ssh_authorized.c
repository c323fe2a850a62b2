#include "relay/ssh_authorized.h"

#include "relay/log.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum {
    FILE_BYTES_MAX = 1024 * 1024,
    KEYS_MAX = 10000,
    KEY_BYTES_MAX = 4096,               /* of a key, not in base 64; RSA's largest has 2071 */
    RSA_BITS_MIN = 2048, RSA_BITS_MAX = 16384,
    SHOWN_BYTES = 64                    /* of a wrong word, in its error */
};

/* Keys are told apart by their fingerprints: libssh's comparison writes to both keys,
 * and has a security key's application for the same as one that it starts with. */
struct authorized_key {
    char fingerprint[SSH_FINGERPRINT_BYTES];
    bool is_forbidden;
};

struct authorized_keys {
    atomic_size_t holds;
    size_t count;
    struct authorized_key list[KEYS_MAX];       /* in the order of the file */
};

/* What reading goes on with. */
struct reader {
    struct authorized_keys *keys;
    char path[SSH_KEYS_PATH_BYTES];     /* as errors show it */
    int line;
    char *error;
};

/* A part of a key, as sent over the wire. */
struct bytes {
    const unsigned char *at;
    size_t count;
};

__attribute__((format(printf, 2, 3)))
static int complain(const struct reader *reader, const char *format, ...)
{
    int used = snprintf(reader->error, SSH_KEYS_ERROR_BYTES, "%s:%d: ", reader->path,
                        reader->line);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(reader->error + used, SSH_KEYS_ERROR_BYTES - (size_t)used, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

/* A length of four bytes and as many bytes as it says. */
static bool take_string(struct bytes *from, struct bytes *string)
{
    size_t length;

    if (from->count < 4)
        return false;
    length = (size_t)from->at[0] << 24 | (size_t)from->at[1] << 16 | (size_t)from->at[2] << 8 |
             from->at[3];
    if (length > from->count - 4)
        return false;
    *string = (struct bytes){ from->at + 4, length };
    from->at += 4 + length;
    from->count -= 4 + length;
    return true;
}

/* Of what follows the type: the exponent, and the modulus, whose size it is. */
static size_t rsa_bits(struct bytes key)
{
    struct bytes exponent, modulus;
    size_t bits;

    if (!take_string(&key, &exponent) || !take_string(&key, &modulus))
        return 0;
    while (modulus.count && modulus.at[0] == 0) {
        modulus.at++;
        modulus.count--;
    }
    bits = 8 * modulus.count;
    for (unsigned first = bits ? modulus.at[0] : 0x80; !(first & 0x80); first <<= 1)
        bits--;
    return bits;
}

/* Of what follows the type: the curve's name, and a point, which at infinity has one
 * byte. Anybody can sign for that. */
static bool has_point(struct bytes key)
{
    struct bytes curve, point;

    return take_string(&key, &curve) && take_string(&key, &point) && point.count > 1;
}

static int complain_of_key(const struct reader *reader, const char *type)
{
    return complain(reader, "the key is cut or mangled, or not of the type %s", type);
}

/* What libssh does not: the key's own word on its type, its size, a point that is none. */
static int check_parts(const struct reader *reader, const char *type, const char *base64)
{
    unsigned char room[KEY_BYTES_MAX];
    struct bytes key = { .at = room }, name;
    size_t bits;

    if (sodium_base642bin(room, sizeof room, base64, strlen(base64), NULL, &key.count, NULL,
                          sodium_base64_VARIANT_ORIGINAL) < 0 ||
        !take_string(&key, &name) || name.count != strlen(type) ||
        memcmp(name.at, type, name.count) != 0 || (strstr(type, "ecdsa-") && !has_point(key)))
        return complain_of_key(reader, type);
    if (strcmp(type, "ssh-rsa") != 0)
        return 0;
    bits = rsa_bits(key);
    if (bits < RSA_BITS_MIN || bits > RSA_BITS_MAX)
        return complain(reader, "the RSA key has %zu bits, expected %d to %d", bits, RSA_BITS_MIN,
                        RSA_BITS_MAX);
    return 0;
}

/* Whether libssh has it for the key that was read, with nothing before or after it. */
static bool is_whole(ssh_key key, const char *base64)
{
    char *again = NULL;
    bool is_same = ssh_pki_export_pubkey_base64(key, &again) == SSH_OK &&
                   strcmp(again, base64) == 0;

    ssh_string_free_char(again);
    return is_same;
}

static int take_key(const struct reader *reader, const char *type, const char *base64,
                    bool is_forbidden)
{
    struct authorized_keys *keys = reader->keys;
    struct authorized_key *taken = &keys->list[keys->count];
    ssh_key key = NULL;
    int err;

    if (keys->count == KEYS_MAX)
        return complain(reader, "expected at most %d keys", KEYS_MAX);
    err = check_parts(reader, type, base64);
    if (err)
        return err;
    if (ssh_pki_import_pubkey_base64(base64, ssh_key_type_from_name(type), &key) == SSH_OK &&
        is_whole(key, base64))
        err = ssh_key_fingerprint(key, taken->fingerprint);
    else
        err = complain_of_key(reader, type);
    ssh_key_free(key);
    if (err)
        return err;
    taken->is_forbidden = is_forbidden;
    keys->count++;
    return 0;
}

/* In the order of the line, as OpenSSH has it: the last one that speaks of tunnels
 * decides. */
static int take_options(const struct reader *reader, const char *options, bool *is_forbidden)
{
    static const struct { const char *name; enum { NOTHING, FORBIDS, ALLOWS } effect; } known[] = {
        { "no-agent-forwarding", NOTHING }, { "no-port-forwarding", FORBIDS },
        { "no-pty", NOTHING }, { "no-user-rc", NOTHING }, { "no-x11-forwarding", NOTHING },
        { "port-forwarding", ALLOWS }, { "restrict", FORBIDS },
    };
    const size_t count = sizeof known / sizeof known[0];

    for (const char *name = options; name; ) {
        size_t length = strcspn(name, ",=\""), i = 0;
        char end = name[length], shown[SHOWN_BYTES];

        if (length == 0)
            return complain(reader, "expected an option on each side of each comma");
        while (i < count && (strlen(known[i].name) != length ||
                             strncasecmp(name, known[i].name, length) != 0))
            i++;
        if (i == count || (end != ',' && end != '\0'))
            return complain(reader, "the option \"%s\" is not supported, and without it the "
                            "key might be allowed too much",
                            text_printable(name, length, shown, sizeof shown));
        if (known[i].effect != NOTHING)
            *is_forbidden = known[i].effect == FORBIDS;
        name = end ? name + length + 1 : NULL;
    }
    return 0;
}

/* Cuts off what stands before the first blank that is not quoted, and goes on after it;
 * NULL where a quotation mark is missing. */
static char *take_word(char **text)
{
    char *word = *text + strspn(*text, " \t"), *end = word;
    bool is_quoted = false;

    for (; *end && (is_quoted || (*end != ' ' && *end != '\t')); end++) {
        if (end[0] == '\\' && end[1] == '"')
            end++;
        else if (*end == '"')
            is_quoted = !is_quoted;
    }
    *text = *end ? end + 1 : end;
    *end = '\0';
    return is_quoted ? NULL : word;
}

/* Also of such as are not taken. No option's name starts as they do. */
static bool is_type(const char *word)
{
    return strncmp(word, "ssh-", 4) == 0 || strncmp(word, "ecdsa-", 6) == 0 ||
           strncmp(word, "sk-", 3) == 0;
}

static int check_type(const struct reader *reader, const char *type)
{
    static const char *const taken[] = {
        "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
        "ssh-rsa", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
    };
    char shown[SHOWN_BYTES];

    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++)
        if (strcmp(type, taken[i]) == 0)
            return 0;
    return complain(reader, "keys of the type %s are not accepted; make one with ssh-keygen -t "
                    "ed25519", text_printable(type, strlen(type), shown, sizeof shown));
}

static int take_line(const struct reader *reader, char *line)
{
    const char *options = NULL, *type = take_word(&line), *base64;
    bool is_forbidden = false;
    int err = 0;

    if (!type)
        return complain(reader, "a quotation mark is missing");
    if (!is_type(type)) {
        options = type;
        type = take_word(&line);
    }
    base64 = take_word(&line);
    if (!type || !is_type(type) || !base64 || !*base64)
        return complain(reader, "expected options or none, the type of a key, and the key in "
                        "base 64");
    if (options)
        err = take_options(reader, options, &is_forbidden);
    if (!err)
        err = check_type(reader, type);
    if (!err)
        err = take_key(reader, type, base64, is_forbidden);
    return err;
}

static int take_text(struct reader *reader, char *text)
{
    int err = 0;

    for (char *line; !err && (line = strsep(&text, "\n")); ) {
        size_t length = strlen(line);

        reader->line++;
        while (length && strchr(" \t\r", line[length - 1]))
            line[--length] = '\0';
        line += strspn(line, " \t");
        if (*line && *line != '#')
            err = take_line(reader, line);
    }
    return err;
}

static struct authorized_keys *keys_new(void)
{
    struct authorized_keys *keys = malloc(sizeof *keys);

    if (!keys)
        return NULL;
    atomic_init(&keys->holds, 1);
    keys->count = 0;
    return keys;
}

int authorized_keys_read(const char *path, struct authorized_keys **out,
                         char error[SSH_KEYS_ERROR_BYTES])
{
    struct reader reader = { .keys = keys_new(), .error = error };
    const struct ssh_key_file file = {
        .folder = AT_FDCWD, .path = path, .shown = reader.path,
        .forbidden = S_IWGRP | S_IWOTH, .others_may = "write to", .mode = "go-w",
        .bytes_max = FILE_BYTES_MAX,
    };
    char *text = NULL;
    int err = reader.keys ? 0 : -ENOMEM;

    text_printable(path, strlen(path), reader.path, sizeof reader.path);
    if (!err)
        err = ssh_key_file_read(&file, &text, error);
    if (!err)
        err = take_text(&reader, text);
    if (err == -ENOMEM)
        snprintf(error, SSH_KEYS_ERROR_BYTES, "can't read %s: %s", reader.path, strerror(ENOMEM));
    free(text);
    if (err) {
        authorized_keys_release(reader.keys);
        return err;
    }
    if (reader.keys->count == 0)
        log_write(LOG_WARNING, "%s has no keys: nobody's key is accepted", reader.path);
    *out = reader.keys;
    return 0;
}

struct authorized_keys *authorized_keys_hold(struct authorized_keys *keys)
{
    if (keys)
        atomic_fetch_add(&keys->holds, 1);
    return keys;
}

void authorized_keys_release(struct authorized_keys *keys)
{
    if (!keys || atomic_fetch_sub(&keys->holds, 1) > 1)
        return;
    free(keys);
}

size_t authorized_keys_count(const struct authorized_keys *keys)
{
    return keys->count;
}

bool authorized_keys_allow(const struct authorized_keys *keys, ssh_key key)
{
    char fingerprint[SSH_FINGERPRINT_BYTES];

    if (!keys || !key || ssh_key_fingerprint(key, fingerprint))
        return false;
    for (size_t i = 0; i < keys->count; i++)
        if (strcmp(fingerprint, keys->list[i].fingerprint) == 0)
            return !keys->list[i].is_forbidden;
    return false;
}
