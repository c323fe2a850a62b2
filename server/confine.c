#include "server/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where the system hands cores to a program, it does so whatever the limit of
 * their size. Without the kinds of memory that this file chooses, see core(5),
 * such a core has none. */
static int keep_memory_out_of_cores(void)
{
    int file = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);
    int err = 0;

    /* Without /proc only being undumpable is left. It isn't the first choice,
     * since it also keeps the daemon's own user from debugging it. */
    if (file < 0)
        return prctl(PR_SET_DUMPABLE, 0L, 0L, 0L, 0L) < 0 ? -errno : 0;
    if (write(file, "0", 1) != 1)
        err = -errno;
    close(file);
    return err;
}

int confine_process(void)
{
    umask(S_IRWXG | S_IRWXO);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L) < 0)
        return -errno;
    if (setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 }) < 0)
        return -errno;
    return keep_memory_out_of_cores();
}
