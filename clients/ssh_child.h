/* ssh_child: the installed ssh as a child process that carries a tunnel. It ends with
 * the thread that started it, and so with the process. That thread's alone. */
#ifndef CLIENTS_SSH_CHILD_H
#define CLIENTS_SSH_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* The files of the folder that it runs in: of configuration, with the user that it says it
 * is, whom others don't see there as they would among its arguments; and of the proxy's key,
 * where the proxy is called so. */
#define SSH_CHILD_CONFIG "config"
#define SSH_CHILD_KNOWN_HOSTS "known_hosts"
#define SSH_CHILD_HOST "tristero-proxy"

struct ssh_child {
    pid_t pid;
    int errors;                         /* to be polled: what it writes to standard error */
    char line[512];                     /* as far as it has come */
    size_t length;
};

/* connection leads to the proxy already, so that ssh goes the way that the calls go; it and
 * the folder stay the caller's. Clients are connected to goal, as in -R 0:GOAL. The user's
 * own configuration of ssh is not read. 0 or a negative errno. */
int ssh_child_start(struct ssh_child *child, int connection, int folder, const char *goal);

/* After poll: gives each line that has come whole to take, in printable ASCII. False when
 * there will be no more, since it has ended. */
bool ssh_child_hear(struct ssh_child *child, void (*take)(void *argument, const char *line),
                    void *argument);

/* Ends it, if it has not ended by itself. How it ended, as by waitpid. */
int ssh_child_end(struct ssh_child *child);

#endif
