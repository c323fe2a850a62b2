#include "relay/settings_file.h"

#include <errno.h>
#include <fcntl.h>
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

const char *settings_file_error(int err)
{
    return err == -ENXIO ? "expected a regular file" : strerror(-err);
}
