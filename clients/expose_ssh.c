/* tristero-tunnel expose --backend ssh: has the installed ssh carry the tunnel, and
 * starts it again when it ends. */
#include "clients/backoff.h"
#include "clients/directory.h"
#include "clients/report.h"
#include "clients/ssh_child.h"
#include "clients/ssh_folder.h"

#include "relay/uri.h"
#include "relay/waker.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    REST_MS = 100                       /* of a listener that can't be accepted from */
};

struct ssh_exposure {
    struct exposure *exposure;
    char *server_uri, *client_uri;      /* of the tunnel; NULL: not known yet */
    char *key_line;                     /* of the proxy's key, as in known_hosts */
    bool has_other_key;                 /* than before, and this is not told yet */
    char attached_uri[URI_TEXT_BYTES];  /* the server's, of the tunnel that was attached to last */
    struct ssh_folder folder;
    int64_t listener_rests_ms;          /* until then */
    int stop_fd;                        /* an eventfd; no longer empty once it is to stop */
    bool is_attached;
    struct backoff backoff;
    char why[512];                      /* the last that ssh said, or what failed */
};

/* --- the tunnel, and the proxy's key */

static enum tristero_status ask_address(struct ssh_exposure *ssh, struct tristero_error *error)
{
    char *client_uri;
    enum tristero_status status = tristero_address(ssh->exposure->proxy, ssh->server_uri,
                                                   &client_uri, error);

    if (status)
        return status;
    free(ssh->client_uri);
    ssh->client_uri = client_uri;
    return TRISTERO_OK;
}

/* The one that there was, if the proxy has kept it, also if it was never attached to: another
 * would leave it at the proxy. */
static enum tristero_status find_tunnel(struct ssh_exposure *ssh, struct tristero_error *error)
{
    enum tristero_status status;

    if (ssh->server_uri && !backoff_gives_up(&ssh->backoff, clock_ms())) {
        status = ask_address(ssh, error);
        if (status != TRISTERO_FAULT)
            return status;              /* only the proxy can say that it is no more */
    }
    free(ssh->server_uri);
    ssh->server_uri = NULL;
    backoff_not_refused(&ssh->backoff);
    status = tristero_open(ssh->exposure->proxy, "ssh", &ssh->server_uri, error);
    return status ? status : ask_address(ssh, error);
}

/* Not once it is to stop, when the folder is taken away. */
static int write_files(struct ssh_exposure *ssh, const char *key_line)
{
    struct exposure *exposure = ssh->exposure;
    struct tunnel_uri uri;
    int err = -ECANCELED;

    tunnel_uri_parse(ssh->server_uri, strlen(ssh->server_uri), &uri, NULL);
    pthread_mutex_lock(&exposure->lock);
    if (!exposure->stopping)
        err = ssh_folder_write(&ssh->folder, uri.user, key_line);
    pthread_mutex_unlock(&exposure->lock);
    return err;
}

/* The key may be another each time: the proxy may have been set up anew. */
static bool find_key(struct ssh_exposure *ssh, struct tristero_error *error)
{
    char *line;
    int err;

    if (tristero_host_key(ssh->exposure->proxy, &line, error))
        return false;
    err = write_files(ssh, line);
    if (err) {
        snprintf(error->text, sizeof error->text, "can't write a file for ssh in %.300s: %s",
                 ssh->folder.path, strerrordesc_np(-err));
        free(line);
        return false;
    }
    if (ssh->key_line && strcmp(strchrnul(ssh->key_line, ' '), strchrnul(line, ' ')) != 0)
        ssh->has_other_key = true;
    free(ssh->key_line);
    ssh->key_line = line;
    return true;
}

/* Asks for all that ssh needs, each time: what was asked for before may be so no more. */
static bool prepare(struct ssh_exposure *ssh)
{
    struct tristero_error error;

    if (!find_tunnel(ssh, &error) && find_key(ssh, &error))
        return true;
    snprintf(ssh->why, sizeof ssh->why, "%s", error.text);
    return false;
}

/* --- a life of ssh */

static void tell(struct ssh_exposure *ssh, enum tristero_event_kind kind, const char *text,
                 int wait_ms)
{
    struct tristero_event event = { .kind = kind, .address = ssh->client_uri, .text = text,
                                    .wait_ms = wait_ms };

    if (!event.address)
        event.address = "";
    report_event(ssh->exposure, &event);
}

static void attached(struct ssh_exposure *ssh)
{
    bool is_first = !*ssh->attached_uri;
    bool has_moved = strcmp(ssh->attached_uri, ssh->server_uri) != 0;

    ssh->is_attached = true;
    backoff_not_refused(&ssh->backoff);
    ssh->why[0] = '\0';
    backoff_attached(&ssh->backoff, clock_ms());
    snprintf(ssh->attached_uri, sizeof ssh->attached_uri, "%s", ssh->server_uri);
    if (is_first)
        report_address(ssh->exposure, ssh->client_uri);
    else
        tell(ssh, has_moved ? TRISTERO_MOVED : TRISTERO_ATTACHED,
             ssh->has_other_key ? "the proxy has another ssh key than before" : "", 0);
    ssh->has_other_key = false;
}

/* A line that ssh has written. Who it says it is, and so the token, stands before a denial. */
static void take_line(void *argument, const char *line)
{
    struct ssh_exposure *ssh = argument;
    const char *denial = ssh->is_attached ? NULL : strstr(line, "Permission denied");

    if (denial) {
        backoff_refused(&ssh->backoff, clock_ms());
        line = denial;
    }
    if (!ssh->is_attached && !strncmp(line, "Allocated port ", strlen("Allocated port ")))
        attached(ssh);
    else if (!ssh->is_attached || strncmp(line, "connect", strlen("connect")) != 0)
        snprintf(ssh->why, sizeof ssh->why, "%s", line);
    else
        tell(ssh, TRISTERO_CLIENT_REFUSED, line, 0);
}

/* Without descriptors or memory the client waits. */
static void take_client(struct ssh_exposure *ssh)
{
    struct sockaddr_un nobody;
    socklen_t length = sizeof nobody;
    int client = accept4(ssh->folder.listener, (struct sockaddr *)&nobody, &length,
                         SOCK_CLOEXEC);

    if (client >= 0)
        directory_take(ssh->exposure->target.directory, client);
    else if (errno != EAGAIN)
        ssh->listener_rests_ms = clock_ms() + REST_MS;
}

/* Once it has ended by itself. */
static void note_end(struct ssh_exposure *ssh, int status)
{
    if (WIFSIGNALED(status))
        snprintf(ssh->why, sizeof ssh->why, "ssh was ended by signal %d", WTERMSIG(status));
    else if (!*ssh->why)
        snprintf(ssh->why, sizeof ssh->why, "ssh ended without a word, with status %d",
                 WEXITSTATUS(status));
}

/* Whether it has ended by itself, or has to be ended. */
enum life { GOES_ON, ENDED, TOO_LATE, STOPPED };

static enum life look(struct ssh_exposure *ssh, struct ssh_child *child, int64_t attach_until_ms)
{
    int64_t until_ms = ssh->is_attached ? INT64_MAX : attach_until_ms;
    int64_t rests_ms = ssh->listener_rests_ms;
    bool rests = rests_ms > clock_ms();
    struct pollfd polled[] = {
        { .fd = ssh->stop_fd, .events = POLLIN },
        { .fd = child->errors, .events = POLLIN },
        { .fd = rests ? -1 : ssh->folder.listener, .events = POLLIN },
    };

    waker_poll(NULL, polled, 3, rests ? clock_earlier(until_ms, rests_ms) : until_ms);
    if (polled[0].revents)
        return STOPPED;
    if (polled[1].revents && !ssh_child_hear(child, take_line, ssh))
        return ENDED;
    if (polled[2].revents)
        take_client(ssh);
    return !ssh->is_attached && clock_ms() >= attach_until_ms ? TOO_LATE : GOES_ON;
}

static int start_ssh(struct ssh_exposure *ssh, struct ssh_child *child)
{
    char goal[SSH_FOLDER_GOAL_BYTES];
    struct tristero_error error;
    int connection;
    int err;

    if (tristero_attach(ssh->exposure->proxy, ssh->server_uri, &connection, &error)) {
        snprintf(ssh->why, sizeof ssh->why, "%s", error.text);
        return -ENOTCONN;
    }
    ssh_folder_goal(&ssh->exposure->target, goal);
    err = ssh_child_start(child, connection, ssh->folder.fd, goal);
    close(connection);
    if (err)
        snprintf(ssh->why, sizeof ssh->why, "can't start ssh: %s", strerrordesc_np(-err));
    return err;
}

/* Until ssh ends, or all is to end, which is true then. */
static bool run_ssh(struct ssh_exposure *ssh)
{
    int timeout_s = ssh->exposure->timeout_s;
    struct ssh_child child;
    int64_t attach_until_ms;
    enum life life = GOES_ON;
    int status;

    if (start_ssh(ssh, &child) < 0)
        return false;
    ssh->why[0] = '\0';
    attach_until_ms = clock_ms() + timeout_s * INT64_C(1000);
    while (life == GOES_ON)
        life = look(ssh, &child, attach_until_ms);
    status = ssh_child_end(&child);
    if (life == ENDED)
        note_end(ssh, status);
    if (life == TOO_LATE)
        snprintf(ssh->why, sizeof ssh->why, "timed out: ssh has got no tunnel within %d s",
                 timeout_s);
    return life == STOPPED;
}

static bool wait_stopped(struct ssh_exposure *ssh, int64_t until_ms)
{
    struct pollfd polled = { .fd = ssh->stop_fd, .events = POLLIN };

    return waker_poll(NULL, &polled, 1, until_ms) > 0;
}

/* In the place of the one that has ended, or could not be had. */
static void tell_next(struct ssh_exposure *ssh)
{
    int64_t now_ms = clock_ms();

    if (ssh->is_attached)
        tell(ssh, TRISTERO_LOST, ssh->why, backoff_lost(&ssh->backoff, now_ms));
    else
        tell(ssh, TRISTERO_RETRYING, ssh->why, backoff_failed(&ssh->backoff, now_ms));
}

/* One ssh after the other. */
static int carry(struct ssh_exposure *ssh)
{
    struct exposure *exposure = ssh->exposure;

    while (!wait_stopped(ssh, ssh->backoff.next_ms)) {
        ssh->is_attached = false;
        if ((prepare(ssh) && run_ssh(ssh)) || wait_stopped(ssh, 0))
            break;
        if (!exposure->has_address) {
            complain("%s%scan't expose by ssh: %s", exposure->name, *exposure->name ? ": " : "",
                     ssh->why);
            return STATUS_FAILED;
        }
        tell_next(ssh);
    }
    return STATUS_OK;
}

/* From the moment that it is known to stop_ssh, until it is no longer. */
static void make_known(struct exposure *exposure, struct ssh_exposure *ssh)
{
    pthread_mutex_lock(&exposure->lock);
    exposure->serving = ssh;
    if (ssh && exposure->stopping)
        eventfd_write(ssh->stop_fd, 1);
    pthread_mutex_unlock(&exposure->lock);
}

static int start(struct ssh_exposure *ssh)
{
    struct exposure *exposure = ssh->exposure;
    char error[TARGET_ERROR_BYTES];

    ssh->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (ssh->stop_fd < 0)
        snprintf(error, sizeof error, "can't have an eventfd: %s", strerrordesc_np(errno));
    else if (!ssh_folder_make(&ssh->folder, &exposure->target, error))
        return STATUS_OK;
    complain("%s%s%s", exposure->name, *exposure->name ? ": " : "", error);
    return STATUS_FAILED;
}

static int run_exposure(struct exposure *exposure)
{
    struct ssh_exposure ssh = { .exposure = exposure, .folder = { .fd = -1, .listener = -1 } };
    int status = start(&ssh);

    if (!status) {
        make_known(exposure, &ssh);
        status = carry(&ssh);
        make_known(exposure, NULL);
    }
    ssh_folder_end(&ssh.folder);
    if (ssh.stop_fd >= 0)
        close(ssh.stop_fd);
    free(ssh.server_uri);
    free(ssh.client_uri);
    free(ssh.key_line);
    return status;
}

/* The lookup of a name may last longer than the process. */
static void stop_exposure(struct exposure *exposure)
{
    pthread_mutex_lock(&exposure->lock);
    exposure->stopping = true;
    tristero_proxy_cancel(exposure->proxy);
    if (exposure->serving) {
        struct ssh_exposure *ssh = exposure->serving;

        eventfd_write(ssh->stop_fd, 1);
        ssh_folder_remove(&ssh->folder);
    }
    pthread_mutex_unlock(&exposure->lock);
}

const struct exposure_backend exposure_by_ssh = {
    .name = "ssh", .is_probed = true, .has_one_address = true,
    .run = run_exposure, .stop = stop_exposure,
};
