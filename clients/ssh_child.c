#include "clients/ssh_child.h"

#include "relay/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { END_MS = 1000, GOAL_BYTES = 512 };

/* What may fail of it, until there is nothing but ssh. */
static void become_ssh(char *const arguments[], int connection, int folder, int errors, pid_t parent)
{
    sigset_t none;

    sigemptyset(&none);
    close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);   /* others' may lack it */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent && fchdir(folder) == 0 &&
        dup2(connection, STDIN_FILENO) >= 0 && dup2(connection, STDOUT_FILENO) >= 0 &&
        dup2(errors, STDERR_FILENO) >= 0 && !sigprocmask(SIG_SETMASK, &none, NULL))
        execvp(arguments[0], arguments);
}

/* In the child: nothing but what may be called after fork. Writes errno to failed. */
static void run_child(char *const arguments[], int connection, int folder, int errors, int failed,
                      pid_t parent)
{
    struct sigaction usual = { .sa_handler = SIG_DFL };
    int err;

    sigaction(SIGPIPE, &usual, NULL);
    sigaction(SIGTERM, &usual, NULL);   /* it has to heed ours, whatever the parent ignores */
    setsid();                           /* Ctrl-C is for the parent, which ends it */
    become_ssh(arguments, connection, folder, errors, parent);
    err = errno;
    if (write(failed, &err, sizeof err) < 0)
        _exit(126);
    _exit(127);
}

/* Forks. 0 or the negative errno of what failed there. */
static int spawn(struct ssh_child *child, char *const arguments[], int connection, int folder)
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
            run_child(arguments, connection, folder, errors[1], failed[1], parent);
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

int ssh_child_start(struct ssh_child *child, int connection, int folder, const char *goal)
{
    static const char file[] = "UserKnownHostsFile=" SSH_CHILD_KNOWN_HOSTS;
    char forward[GOAL_BYTES];
    const char *arguments[] = {
        "ssh", "-F", SSH_CHILD_CONFIG, "-N", "-T", "-a", "-x",
        "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes",
        "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3",
        "-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no", "-o", "CheckHostIP=no",
        "-o", file, "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", "IdentityFile=none", "-o", "IdentityAgent=none",      /* the token is enough */
        "-o", "ProxyCommand=-",         /* it has the connection, as standard input and output */
        "-R", forward, SSH_CHILD_HOST, NULL
    };

    *child = (struct ssh_child){ 0 };
    snprintf(forward, sizeof forward, "0:%s", goal);
    return spawn(child, (char *const *)arguments, connection, folder);
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

/* One that stands still, or can't be waited for, is not asked. */
int ssh_child_end(struct ssh_child *child)
{
    struct pollfd polled = { .fd = pidfd_open(child->pid, 0), .events = POLLIN };
    int status = 0;

    kill(child->pid, SIGTERM);
    if (polled.fd < 0 || poll(&polled, 1, END_MS) <= 0)
        kill(child->pid, SIGKILL);
    while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (polled.fd >= 0)
        close(polled.fd);
    close(child->errors);
    return status;
}
