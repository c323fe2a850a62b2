/* ssh_child: the installed ssh as a child process that carries a tunnel. It ends with
 * the thread that started it, and so with the process. That thread's alone. */
#ifndef CLIENTS_SSH_CHILD_H
#define CLIENTS_SSH_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* How the proxy is called, also in the file of its key. */
#define SSH_CHILD_HOST "tristero-proxy"

struct ssh_child {
    pid_t pid;
    int errors;                         /* to be polled: what it writes to standard error */
    char line[512];                     /* as far as it has come */
    size_t length;
};

/* connection leads to the proxy already, and stays the caller's: so ssh goes the way that
 * the calls go. user is who it says it is, goal what clients are connected to, as in -R 0:GOAL.
 * The user's own configuration of ssh is not read. 0 or a negative errno. */
int ssh_child_start(struct ssh_child *child, int connection, const char *user, const char *goal,
                    const char *known_hosts, int timeout_s);

/* After poll: gives each line that has come whole to take, in printable ASCII. False when
 * there will be no more, since it has ended. */
bool ssh_child_hear(struct ssh_child *child, void (*take)(void *argument, const char *line),
                    void *argument);

/* Ends it, if it has not ended by itself. */
void ssh_child_end(struct ssh_child *child);

#endif
