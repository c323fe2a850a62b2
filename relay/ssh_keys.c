#include "relay/ssh_keys.h"

#include "relay/settings_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int ssh_key_fingerprint(ssh_key key, char fingerprint[SSH_FINGERPRINT_BYTES])
{
    unsigned char *hash = NULL;
    char *text = NULL;
    size_t length;
    int err = -ENOMEM;

    if (ssh_get_publickey_hash(key, SSH_PUBLICKEY_HASH_SHA256, &hash, &length) == SSH_OK)
        text = ssh_get_fingerprint_hash(SSH_PUBLICKEY_HASH_SHA256, hash, length);
    if (text) {
        snprintf(fingerprint, SSH_FINGERPRINT_BYTES, "%s", text);
        err = 0;
    }
    ssh_string_free_char(text);
    ssh_clean_pubkey_hash(&hash);
    return err;
}

static int check_kind(int descriptor, const struct ssh_key_file *file, char *error)
{
    struct stat about;

    if (fstat(descriptor, &about) < 0)
        return -errno;
    if (!S_ISREG(about.st_mode)) {
        snprintf(error, SSH_KEYS_ERROR_BYTES, "can't read %s: expected a regular file",
                 file->shown);
        return -EINVAL;
    }
    if (about.st_mode & file->forbidden) {
        snprintf(error, SSH_KEYS_ERROR_BYTES,
                 "others may %s %s, expected its owner alone; chmod %s %s", file->others_may,
                 file->shown, file->mode, file->shown);
        return -EPERM;
    }
    return 0;
}

static void explain(const struct ssh_key_file *file, int err, char *error)
{
    int used = snprintf(error, SSH_KEYS_ERROR_BYTES, "can't read %s: ", file->shown);
    char *reason = error + used;
    size_t room = SSH_KEYS_ERROR_BYTES - (size_t)used;

    if (err == -EFBIG)
        snprintf(reason, room, "it has more than %zu bytes", file->bytes_max);
    else if (err == -EILSEQ)
        snprintf(reason, room, "it has a NUL byte, expected text");
    else if (err == -ELOOP && (file->open_flags & O_NOFOLLOW))
        snprintf(reason, room, "it is a symbolic link, expected a regular file");
    else
        snprintf(reason, room, "%s", strerror(-err));
}

int ssh_key_file_read(const struct ssh_key_file *file, char **text,
                      char error[SSH_KEYS_ERROR_BYTES])
{
    /* Without O_NONBLOCK a pipe would be waited for. */
    int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | file->open_flags;
    int descriptor = openat(file->folder, file->path, flags);
    int err = descriptor < 0 ? -errno : 0;

    error[0] = '\0';
    if (!err)
        err = check_kind(descriptor, file, error);
    if (!err)
        err = settings_file_read(descriptor, file->bytes_max, text);
    if (err && !error[0])
        explain(file, err, error);
    if (descriptor >= 0)
        close(descriptor);
    return err;
}
