/* ssh_folder: the temporary folder that ssh runs in, with what it needs as files: as
 * ssh_child.h says, and a socket to connect clients to, if the service is no port. ssh is given
 * names that are relative to it, so that nothing in its path means anything to ssh. */
#ifndef CLIENTS_SSH_FOLDER_H
#define CLIENTS_SSH_FOLDER_H

#include "clients/target.h"

#include <limits.h>

enum { SSH_FOLDER_GOAL_BYTES = URI_HOST_BYTES + 16 };

struct ssh_folder {
    char path[PATH_MAX];                /* "": there is none */
    int fd;
    int listener;                       /* for the clients of a folder, non-blocking; or -1 */
};

/* In TMPDIR, or /tmp. 0; or a negative errno, and in error what can't be made. The caller
 * ends it with ssh_folder_end in either case. */
int ssh_folder_make(struct ssh_folder *folder, const struct target *target,
                    char error[TARGET_ERROR_BYTES]);

/* Has ssh say that it is user, and know the proxy by the key of this line of a known_hosts
 * file, and by no other. 0 or a negative errno; each file is as it was, or as it should be. */
int ssh_folder_write(const struct ssh_folder *folder, const char *user, const char *line);

/* What stands after -R, without the public port. */
void ssh_folder_goal(const struct target *target, char goal[SSH_FOLDER_GOAL_BYTES]);

/* Takes it away: nothing can be written any more. By any thread, but not beside
 * ssh_folder_write. Again does nothing. */
void ssh_folder_remove(const struct ssh_folder *folder);

/* The same, and closes what is open. */
void ssh_folder_end(struct ssh_folder *folder);

#endif
