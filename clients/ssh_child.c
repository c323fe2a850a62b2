#include "clients/ssh_child.h"

#include "relay/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { GOAL_BYTES = 4200 };

/* In the child: nothing but what may be called after fork. Writes errno to failed. */
static void become_ssh(char *const arguments[], int connection, int errors, int failed, pid_t parent)
{
    struct sigaction usual = { .sa_handler = SIG_DFL };
    sigset_t none;
    int err;

    sigemptyset(&none);
    sigaction(SIGPIPE, &usual, NULL);
    setsid();                           /* Ctrl-C is for the parent, which ends it */
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 && getppid() == parent &&
        dup2(connection, STDIN_FILENO) >= 0 && dup2(connection, STDOUT_FILENO) >= 0 &&
        dup2(errors, STDERR_FILENO) >= 0 && !sigprocmask(SIG_SETMASK, &none, NULL))
        execvp(arguments[0], arguments);
    err = errno;
    if (write(failed, &err, sizeof err) < 0)
        _exit(126);
    _exit(127);
}

/* Forks. 0 or the negative errno of what failed there. */
static int spawn(struct ssh_child *child, char *const arguments[], int connection)
{
    pid_t parent = getpid();
    int errors[2] = { -1, -1 }, failed[2] = { -1, -1 };
    int err = 0;

    if (pipe2(errors, O_CLOEXEC | O_NONBLOCK) < 0 || pipe2(failed, O_CLOEXEC) < 0)
        err = errno;
    if (!err && fcntl(errors[1], F_SETFL, 0) < 0)
        err = errno;
    if (!err) {
        child->pid = fork();
        if (child->pid == 0)
            become_ssh(arguments, connection, errors[1], failed[1], parent);
        if (child->pid < 0)
            err = errno;
    }
    if (failed[1] >= 0)
        close(failed[1]);
    if (errors[1] >= 0)
        close(errors[1]);
    if (!err && read(failed[0], &err, sizeof err) == sizeof err)
        waitpid(child->pid, NULL, 0);
    if (failed[0] >= 0)
        close(failed[0]);
    if (err && errors[0] >= 0)
        close(errors[0]);
    child->errors = errors[0];
    return -err;
}

int ssh_child_start(struct ssh_child *child, int connection, const char *user, const char *goal,
                    const char *known_hosts, int timeout_s)
{
    char forward[GOAL_BYTES], file[GOAL_BYTES], timeout[48];
    const char *arguments[] = {
        "ssh", "-F", "none", "-N", "-T", "-a", "-x",
        "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes",
        "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3",
        "-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no", "-o", "CheckHostIP=no",
        "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", "IdentityFile=none", "-o", "IdentityAgent=none",      /* the token is enough */
        "-o", "ProxyCommand=-",         /* it has the connection, as standard input and output */
        "-o", file, "-o", timeout, "-R", forward,
        "-l", user, SSH_CHILD_HOST, NULL
    };

    *child = (struct ssh_child){ 0 };
    snprintf(forward, sizeof forward, "0:%s", goal);
    snprintf(file, sizeof file, "UserKnownHostsFile=\"%s\"", known_hosts);
    snprintf(timeout, sizeof timeout, "ConnectTimeout=%d", timeout_s);
    return spawn(child, (char *const *)arguments, connection);
}

bool ssh_child_hear(struct ssh_child *child, void (*take)(void *argument, const char *line),
                    void *argument)
{
    char bytes[512];
    ssize_t got = read(child->errors, bytes, sizeof bytes);

    for (ssize_t i = 0; i < got; i++) {
        char line[sizeof child->line];

        if (bytes[i] != '\n') {         /* what is too long for a line is left out */
            if (bytes[i] != '\r' && child->length < sizeof child->line)
                child->line[child->length++] = bytes[i];
            continue;
        }
        text_printable(child->line, child->length, line, sizeof line);
        child->length = 0;
        if (*line)
            take(argument, line);
    }
    return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

void ssh_child_end(struct ssh_child *child)
{
    kill(child->pid, SIGTERM);
    while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    close(child->errors);
}
