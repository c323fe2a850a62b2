#include "clients/ssh_folder.h"

#include "clients/ssh_child.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BACKLOG = 128 };

#define SERVICE "service"
#define NEW "new"                       /* what becomes another file once it is whole */

/* The lock has systemd-tmpfiles leave it alone, however old it gets. */
static int make_folder(struct ssh_folder *folder, const char *top)
{
    int length = snprintf(folder->path, sizeof folder->path, "%s/tristero-tunnel-XXXXXX", top);

    if (length >= (int)sizeof folder->path || !mkdtemp(folder->path)) {
        int err = length >= (int)sizeof folder->path ? -ENAMETOOLONG : -errno;

        folder->path[0] = '\0';
        return err;
    }
    folder->fd = open(folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return folder->fd < 0 || flock(folder->fd, LOCK_SH) < 0 ? -errno : 0;
}

static int link_socket(const struct ssh_folder *folder, const struct target *target)
{
    const char *socket = target->addresses[0].local.sun_path;
    char here[PATH_MAX / 2] = "";
    char whole[PATH_MAX];

    if (*socket != '/' && !getcwd(here, sizeof here))
        return -errno;
    snprintf(whole, sizeof whole, "%s%s%s", here, *here ? "/" : "", socket);
    return symlinkat(whole, folder->fd, SERVICE) < 0 ? -errno : 0;
}

/* By a name that is short enough for a socket. */
static int listen_for_folder(struct ssh_folder *folder)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/" SERVICE, folder->fd);
    folder->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (folder->listener < 0 ||
        bind(folder->listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(folder->listener, BACKLOG) < 0)
        return -errno;
    return 0;
}

static int fail(int err, const char *what, const char *where, char error[TARGET_ERROR_BYTES])
{
    snprintf(error, TARGET_ERROR_BYTES, "%s in %.400s: %s", what, where, strerrordesc_np(-err));
    return err;
}

int ssh_folder_make(struct ssh_folder *folder, const struct target *target,
                    char error[TARGET_ERROR_BYTES])
{
    const char *given = getenv("TMPDIR");
    const char *top = given && *given ? given : "/tmp";
    int err;

    *folder = (struct ssh_folder){ .fd = -1, .listener = -1 };
    err = make_folder(folder, top);
    if (err)
        return fail(err, "can't make a folder for temporary files", top, error);
    if (target->kind == TARGET_SOCKET)
        err = link_socket(folder, target);
    if (err)
        return fail(err, "can't make a link to the service's socket", folder->path, error);
    if (target->kind == TARGET_FOLDER)
        err = listen_for_folder(folder);
    return err ? fail(err, "can't listen for clients", folder->path, error) : 0;
}

static int write_file(const struct ssh_folder *folder, const char *name, const char *begin,
                      const char *rest)
{
    int fd = openat(folder->fd, NEW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int err = 0;

    if (fd < 0)
        return -errno;
    if (dprintf(fd, "%s%s\n", begin, rest) < 0)
        err = -errno;
    if (close(fd) < 0 && !err)
        err = -errno;
    if (!err && renameat(folder->fd, NEW, folder->fd, name) < 0)
        err = -errno;
    return err;
}

int ssh_folder_write(const struct ssh_folder *folder, const char *user, const char *line)
{
    const char *key = strchrnul(line, ' ');
    int err = write_file(folder, SSH_CHILD_CONFIG, "User ", user);

    return err ? err : write_file(folder, SSH_CHILD_KNOWN_HOSTS, SSH_CHILD_HOST, key);
}

void ssh_folder_goal(const struct target *target, char goal[SSH_FOLDER_GOAL_BYTES])
{
    if (target->kind != TARGET_PORT)
        snprintf(goal, SSH_FOLDER_GOAL_BYTES, "/proc/self/cwd/" SERVICE);
    else
        snprintf(goal, SSH_FOLDER_GOAL_BYTES, strchr(target->host, ':') ? "[%s]:%u" : "%s:%u",
                 target->host, target->port);
}

void ssh_folder_remove(const struct ssh_folder *folder)
{
    static const char *const names[] = { SSH_CHILD_CONFIG, SSH_CHILD_KNOWN_HOSTS, NEW, SERVICE };

    if (!*folder->path)
        return;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unlinkat(folder->fd, names[i], 0);
    rmdir(folder->path);
}

void ssh_folder_end(struct ssh_folder *folder)
{
    ssh_folder_remove(folder);
    if (folder->listener >= 0)
        close(folder->listener);
    if (folder->fd >= 0)
        close(folder->fd);
}
