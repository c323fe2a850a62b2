#include "relay/ssh_host_key.h"

#include "relay/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_NAME "ssh_host_ed25519_key"

enum { FILE_BYTES_MAX = 16 * 1024 };    /* an RSA key of 16384 bits is told what it is */

/* Where the key is kept. */
struct place {
    int folder;
    char path[SSH_KEYS_PATH_BYTES + sizeof FILE_NAME];  /* of the key, as errors show it */
    char *error;
};

/* The caller closes its folder. */
static int open_place(const char *state_dir, struct place *place)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    char shown[SSH_KEYS_PATH_BYTES];
    int err;

    text_printable(state_dir, strlen(state_dir), shown, sizeof shown);
    snprintf(place->path, sizeof place->path, "%s/%s", shown, FILE_NAME);
    place->folder = open(state_dir, flags);
    if (place->folder < 0 && errno == ENOENT && (mkdir(state_dir, 0700) == 0 || errno == EEXIST))
        place->folder = open(state_dir, flags);
    if (place->folder >= 0)
        return 0;
    err = -errno;
    snprintf(place->error, SSH_KEYS_ERROR_BYTES, "can't make or open the folder of the key %s: %s",
             place->path, strerror(-err));
    return err;
}

/* Instead of asking at the terminal for a passphrase. */
static int note_passphrase(const char *prompt, char *answer, size_t room, int echo, int verify,
                           void *is_asked)
{
    (void)prompt, (void)answer, (void)room, (void)echo, (void)verify;
    *(bool *)is_asked = true;
    return -1;
}

static int parse_key(const struct place *place, const char *text, ssh_key *key)
{
    static const char start[] = "-----BEGIN OPENSSH PRIVATE KEY-----";
    bool has_passphrase = false;

    /* Of other formats it would let OpenSSL ask for passphrases. */
    if (strncmp(text, start, sizeof start - 1) == 0)
        ssh_pki_import_privkey_base64(text, NULL, note_passphrase, &has_passphrase, key);
    if (has_passphrase)
        snprintf(place->error, SSH_KEYS_ERROR_BYTES, "%s has a passphrase, expected a key without; "
                 "ssh-keygen -p -f %s removes it", place->path, place->path);
    else if (!*key)
        snprintf(place->error, SSH_KEYS_ERROR_BYTES, "%s: expected an ed25519 key in OpenSSH's "
                 "format, without a passphrase", place->path);
    else if (ssh_key_type(*key) != SSH_KEYTYPE_ED25519)
        snprintf(place->error, SSH_KEYS_ERROR_BYTES, "%s: expected an ed25519 key, got one of %s",
                 place->path, ssh_key_type_to_char(ssh_key_type(*key)));
    else
        return 0;
    ssh_key_free(*key);
    *key = NULL;
    return -EINVAL;
}

static int read_key(const struct place *place, ssh_key *key)
{
    const struct ssh_key_file file = {
        .folder = place->folder, .path = FILE_NAME, .shown = place->path,
        .open_flags = O_NOFOLLOW, .forbidden = S_IRWXG | S_IRWXO,
        .others_may = "read or write", .mode = "600", .bytes_max = FILE_BYTES_MAX,
    };
    char *text = NULL;
    int err = ssh_key_file_read(&file, &text, place->error);

    if (err)
        return err;
    err = parse_key(place, text, key);
    explicit_bzero(text, strlen(text));
    free(text);
    return err;
}

static int write_text(int file, const char *text)
{
    for (size_t left = strlen(text); left; ) {
        ssize_t written = write(file, text, left);

        if (written < 0 && errno != EINTR)
            return -errno;
        if (written > 0) {
            text += written;
            left -= (size_t)written;
        }
    }
    return fsync(file) < 0 ? -errno : 0;
}

/* A link replaces nothing: -EEXIST where there is a key already. */
static int store(int folder, const char *text)
{
    char temporary[sizeof FILE_NAME + 20];
    uint64_t number;
    int file, err;

    if (getrandom(&number, sizeof number, 0) != sizeof number)
        return -EIO;
    snprintf(temporary, sizeof temporary, "." FILE_NAME ".%016llx", (unsigned long long)number);
    file = openat(folder, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0)
        return -errno;
    err = write_text(file, text);
    if (close(file) < 0 && !err)
        err = -errno;
    if (!err && linkat(folder, temporary, folder, FILE_NAME, 0) < 0)
        err = -errno;
    unlinkat(folder, temporary, 0);
    if (!err && fsync(folder) < 0 && errno != EINVAL)   /* which some file systems say to it */
        err = -errno;
    return err;
}

static int make_key(const struct place *place, ssh_key *key)
{
    char *text = NULL;
    int err = -ENOMEM;

    if (ssh_pki_generate(SSH_KEYTYPE_ED25519, 0, key) == SSH_OK &&
        ssh_pki_export_privkey_base64(*key, NULL, NULL, NULL, &text) == SSH_OK) {
        err = store(place->folder, text);
        explicit_bzero(text, strlen(text));
    }
    if (err) {
        snprintf(place->error, SSH_KEYS_ERROR_BYTES, "can't make the key %s: %s", place->path,
                 strerror(-err));
        ssh_key_free(*key);
        *key = NULL;
    }
    ssh_string_free_char(text);
    return err;
}

static int read_or_make(const struct place *place, struct host_key *host_key)
{
    int err = read_key(place, &host_key->key);

    if (err != -ENOENT)
        return err;
    err = make_key(place, &host_key->key);
    host_key->is_new = !err;
    if (err == -EEXIST)                 /* another daemon was faster */
        err = read_key(place, &host_key->key);
    return err;
}

static int describe(struct host_key *host_key)
{
    char *base64 = NULL;

    if (ssh_pki_export_pubkey_base64(host_key->key, &base64) != SSH_OK)
        return -ENOMEM;
    snprintf(host_key->public_key, sizeof host_key->public_key, "ssh-ed25519 %s", base64);
    ssh_string_free_char(base64);
    return ssh_key_fingerprint(host_key->key, host_key->fingerprint);
}

int host_key_open(const char *state_dir, struct host_key *host_key,
                  char error[SSH_KEYS_ERROR_BYTES])
{
    struct place place = { .error = error };
    int err = open_place(state_dir, &place);

    *host_key = (struct host_key){ .key = NULL };
    if (err)
        return err;
    err = read_or_make(&place, host_key);
    if (!err) {
        err = describe(host_key);
        if (err)
            snprintf(error, SSH_KEYS_ERROR_BYTES, "%s: %s", place.path, strerror(-err));
    }
    if (err)
        host_key_close(host_key);
    close(place.folder);
    return err;
}

void host_key_close(struct host_key *host_key)
{
    ssh_key_free(host_key->key);
    host_key->key = NULL;
}
