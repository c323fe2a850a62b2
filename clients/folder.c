#include "clients/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TRIES = 16 };                    /* while somebody renames what the path goes through */

static int open_beneath(int folder, const char *path, int flags)
{
    struct open_how how = {
        .flags = (uint64_t)(flags | O_CLOEXEC),
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };

    for (int left = TRIES;; left--) {
        long fd = syscall(SYS_openat2, folder, *path ? path : ".", &how, sizeof how);

        if (fd >= 0 || errno != EAGAIN || !left)
            return fd >= 0 ? (int)fd : -errno;
    }
}

/* Of a descriptor that is closed if it is something else. */
static int check_kind(int fd, struct stat *about)
{
    int err = 0;

    if (fd < 0)
        return fd;
    if (fstat(fd, about) < 0)
        err = -errno;
    else if (!S_ISREG(about->st_mode) && !S_ISDIR(about->st_mode))
        err = -ENOENT;
    if (!err)
        return fd;
    close(fd);
    return err;
}

int folder_look(int folder, const char *path, struct stat *about)
{
    int fd = check_kind(open_beneath(folder, path, O_PATH), about);

    if (fd < 0)
        return fd;
    close(fd);
    return 0;
}

int folder_open(const char *path)
{
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (folder < 0)
        return -errno;
    return folder;
}

int folder_check(const char *path)
{
    struct stat about;
    int folder = folder_open(path);
    int err = folder < 0 ? folder : folder_look(folder, "", &about);

    if (folder >= 0)
        close(folder);
    return err;
}

bool folder_has_none(int err)
{
    switch (-err) {
    case ENOENT: case ENOTDIR: case EXDEV: case ELOOP: case ENAMETOOLONG: return true;
    default: return false;
    }
}

int folder_open_inside(int folder, const char *path, struct stat *about)
{
    int err = folder_look(folder, path, about);

    if (err)
        return err;
    return check_kind(open_beneath(folder, path, O_RDONLY | O_NONBLOCK | O_NOCTTY), about);
}
