#include "relay/settings_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* As open(2) has it for sockets. */
static int check_kind(int descriptor)
{
    struct stat about;

    if (fstat(descriptor, &about) < 0)
        return -errno;
    if (S_ISDIR(about.st_mode))
        return -EISDIR;
    return S_ISREG(about.st_mode) || S_ISCHR(about.st_mode) ? 0 : -ENXIO;
}

int settings_file_open(const char *path, FILE **file)
{
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    int err = descriptor < 0 ? -errno : check_kind(descriptor);

    if (!err) {
        *file = fdopen(descriptor, "r");
        err = *file ? 0 : -errno;
    }
    if (err && descriptor >= 0)
        close(descriptor);
    return err;
}

/* All there is, or as much as there is room for. */
static int read_bytes(int descriptor, char *bytes, size_t room, size_t *length)
{
    ssize_t got;

    do {
        got = read(descriptor, bytes + *length, room - *length);
        if (got > 0)
            *length += (size_t)got;
    } while (got > 0 || (got < 0 && errno == EINTR));
    return got < 0 ? -errno : 0;
}

int settings_file_read(int descriptor, size_t bytes_max, char **out)
{
    char *text = malloc(bytes_max + 2);
    size_t length = 0;
    int err = text ? read_bytes(descriptor, text, bytes_max + 1, &length) : -ENOMEM;

    if (!err && length > bytes_max)
        err = -EFBIG;
    else if (!err && memchr(text, '\0', length))
        err = -EILSEQ;
    if (err) {
        if (text)
            explicit_bzero(text, length);       /* it may be a private key */
        free(text);
        return err;
    }
    text[length] = '\0';
    *out = text;
    return 0;
}

const char *settings_file_error(int err)
{
    return err == -ENXIO ? "expected a regular file" : strerror(-err);
}
