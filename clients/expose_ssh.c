/* tristero-tunnel expose --backend ssh: has the installed ssh carry the tunnel, and
 * starts it again when it ends. What it needs is in a temporary folder: the proxy's
 * key as a known_hosts file, and under the name "service" the Unix socket that it is to
 * connect clients to, if that is no port. */
#include "clients/backoff.h"
#include "clients/directory.h"
#include "clients/report.h"
#include "clients/ssh_child.h"

#include "relay/net_address.h"
#include "relay/uri.h"
#include "relay/waker.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    BACKLOG = 128,
    ACCEPT_PAUSE_MS = 100               /* with no descriptor left to accept with */
};

struct carrier {
    struct exposure *exposure;
    char *server_uri, *client_uri;
    char folder[PATH_MAX - 32];
    int listener;                       /* for the clients of a folder; -1 */
    int64_t accept_again_ms;            /* by clock_ms; the listener is not polled until then */
    int stop_fd;                        /* an eventfd; no longer empty once it is to stop */
    bool is_new;                        /* the tunnel, since an address was reported */
    bool is_attached;
    struct backoff backoff;
    char why[512];                      /* the last that ssh said */
};

static void path_in(const struct carrier *carrier, const char *name, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/%s", carrier->folder, name);
}

/* --- the tunnel, and what ssh needs */

/* Under a name that does not depend on how the proxy is called. */
static int write_known_hosts(const struct carrier *carrier, const char *line)
{
    const char *key = strchr(line, ' ');
    char path[PATH_MAX];
    FILE *file;
    int err = 0;

    path_in(carrier, "known_hosts", path);
    file = fopen(path, "we");
    if (!file || !key)
        err = file ? -EINVAL : -errno;
    else if (fprintf(file, "%s%s\n", SSH_CHILD_HOST, key) < 0)
        err = -EIO;
    if (file && fclose(file) && !err)
        err = -errno;
    return err;
}

static bool open_tunnel(struct carrier *carrier, struct tristero_error *error)
{
    struct tristero_proxy *proxy = carrier->exposure->proxy;
    char *line = NULL;
    int err = 0;

    free(carrier->server_uri);
    free(carrier->client_uri);
    carrier->server_uri = carrier->client_uri = NULL;
    carrier->is_new = true;
    if (tristero_open(proxy, "ssh", &carrier->server_uri, error) ||
        tristero_address(proxy, carrier->server_uri, &carrier->client_uri, error) ||
        tristero_host_key(proxy, &line, error))
        return false;
    err = write_known_hosts(carrier, line);
    free(line);
    if (err)
        snprintf(error->text, sizeof error->text, "can't write to %.300s: %s", carrier->folder,
                 strerrordesc_np(-err));
    return !err;
}

/* The one that there was, if the proxy has kept it. */
static bool find_tunnel(struct carrier *carrier)
{
    struct tristero_error error;
    char *client_uri;

    if (carrier->client_uri) {
        if (!tristero_address(carrier->exposure->proxy, carrier->server_uri, &client_uri, &error)) {
            free(client_uri);
            return true;
        }
        if (error.status != TRISTERO_FAULT) {
            snprintf(carrier->why, sizeof carrier->why, "%s", error.text);
            return false;
        }
    }
    if (open_tunnel(carrier, &error))
        return true;
    snprintf(carrier->why, sizeof carrier->why, "%s", error.text);
    return false;
}

/* --- the service as ssh finds it */

static int link_socket(const struct target *target, const char *path)
{
    const char *socket = target->addresses[0].local.sun_path;
    char here[PATH_MAX / 2] = "";
    char whole[PATH_MAX];

    if (*socket != '/' && !getcwd(here, sizeof here))
        return -errno;
    snprintf(whole, sizeof whole, "%s%s%s", here, *here ? "/" : "", socket);
    return symlink(whole, path) < 0 ? -errno : 0;
}

static int listen_for_folder(struct carrier *carrier, const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    carrier->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (carrier->listener < 0 ||
        bind(carrier->listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(carrier->listener, BACKLOG) < 0)
        return -errno;
    return 0;
}

/* Makes the temporary folder. 0 or a negative errno. */
static int make_folder(struct carrier *carrier)
{
    const struct target *target = &carrier->exposure->target;
    const char *top = getenv("TMPDIR");
    char path[PATH_MAX];
    int length = snprintf(carrier->folder, sizeof carrier->folder, "%s/tristero-tunnel-XXXXXX",
                          top && *top ? top : "/tmp");

    if (length >= (int)sizeof carrier->folder || !mkdtemp(carrier->folder)) {
        int err = length >= (int)sizeof carrier->folder ? -ENAMETOOLONG : -errno;

        carrier->folder[0] = '\0';
        return err;
    }
    path_in(carrier, "service", path);
    switch (target->kind) {
    case TARGET_SOCKET: return link_socket(target, path);
    case TARGET_FOLDER: return listen_for_folder(carrier, path);
    default: return 0;
    }
}

static void remove_folder(struct carrier *carrier)
{
    char path[PATH_MAX];

    if (!*carrier->folder)
        return;
    path_in(carrier, "known_hosts", path);
    unlink(path);
    path_in(carrier, "service", path);
    unlink(path);
    rmdir(carrier->folder);
}

/* What stands after -R, without the public port. */
static void format_goal(const struct carrier *carrier, char goal[PATH_MAX])
{
    const struct target *target = &carrier->exposure->target;

    if (target->kind != TARGET_PORT)
        path_in(carrier, "service", goal);
    else
        snprintf(goal, PATH_MAX, strchr(target->host, ':') ? "[%s]:%u" : "%s:%u", target->host,
                 target->port);
}

/* --- a life of ssh */

static void tell(struct carrier *carrier, enum tristero_event_kind kind, const char *text,
                 int wait_ms)
{
    struct tristero_event event = { .kind = kind, .address = carrier->client_uri,
                                    .text = text, .wait_ms = wait_ms };

    if (!event.address)
        event.address = "";
    report_event(carrier->exposure, &event);
}

static void attached(struct carrier *carrier)
{
    carrier->is_attached = true;
    backoff_attached(&carrier->backoff, clock_ms());
    if (!carrier->exposure->has_address)
        report_address(carrier->exposure, carrier->client_uri);
    else
        tell(carrier, carrier->is_new ? TRISTERO_MOVED : TRISTERO_ATTACHED, "", 0);
    carrier->is_new = false;
}

/* A line that ssh has written. */
static void take_line(void *argument, const char *line)
{
    struct carrier *carrier = argument;

    if (!strncmp(line, "Allocated port ", strlen("Allocated port ")))
        attached(carrier);
    else if (!carrier->is_attached || strncmp(line, "connect", strlen("connect")) != 0)
        snprintf(carrier->why, sizeof carrier->why, "%s", line);
    else
        tell(carrier, TRISTERO_CLIENT_REFUSED, line, 0);
}

static void take_client(struct carrier *carrier)
{
    struct sockaddr_un address;
    socklen_t length = sizeof address;
    int client = accept4(carrier->listener, (struct sockaddr *)&address, &length, SOCK_CLOEXEC);

    if (client >= 0)
        directory_take(carrier->exposure->target.directory, client);
    else
        carrier->accept_again_ms = clock_ms() + ACCEPT_PAUSE_MS;
}

/* Until ssh ends, or all is to end, which is true then. */
static bool run_ssh(struct carrier *carrier)
{
    char goal[PATH_MAX], known_hosts[PATH_MAX];
    struct tunnel_uri uri;
    struct ssh_child child;
    struct tristero_error error;
    bool stopped = false;
    int connection;
    int err;

    carrier->is_attached = false;
    if (tristero_attach(carrier->exposure->proxy, carrier->server_uri, &connection, &error)) {
        snprintf(carrier->why, sizeof carrier->why, "%s", error.text);
        return false;
    }
    tunnel_uri_parse(carrier->server_uri, strlen(carrier->server_uri), &uri, NULL);
    format_goal(carrier, goal);
    path_in(carrier, "known_hosts", known_hosts);
    snprintf(carrier->why, sizeof carrier->why, "ssh ended without a word");
    err = ssh_child_start(&child, connection, uri.user, goal, known_hosts,
                          carrier->exposure->timeout_s);
    close(connection);
    if (err) {
        snprintf(carrier->why, sizeof carrier->why, "can't start ssh: %s", strerrordesc_np(-err));
        return false;
    }
    while (!stopped) {
        bool is_pausing = clock_ms() < carrier->accept_again_ms;
        struct pollfd polled[] = {
            { .fd = carrier->stop_fd, .events = POLLIN },
            { .fd = child.errors, .events = POLLIN },
            { .fd = is_pausing ? -1 : carrier->listener, .events = POLLIN },
        };

        if (poll(polled, 3, is_pausing ? ACCEPT_PAUSE_MS : -1) < 0)
            continue;
        stopped = polled[0].revents;
        if (polled[1].revents && !ssh_child_hear(&child, take_line, carrier))
            break;
        if (polled[2].revents)
            take_client(carrier);
    }
    ssh_child_end(&child);
    return stopped;
}

static bool wait_stopped(struct carrier *carrier, int64_t until_ms)
{
    struct pollfd polled = { .fd = carrier->stop_fd, .events = POLLIN };

    return waker_poll(NULL, &polled, 1, until_ms) > 0;
}

/* In the place of the one that has ended, or could not be had. */
static void tell_next(struct carrier *carrier)
{
    int64_t now_ms = clock_ms();

    if (carrier->is_attached)
        tell(carrier, TRISTERO_LOST, carrier->why, backoff_lost(&carrier->backoff, now_ms));
    else
        tell(carrier, TRISTERO_RETRYING, carrier->why, backoff_failed(&carrier->backoff, now_ms));
}

/* One ssh after the other. */
static int carry(struct carrier *carrier)
{
    struct exposure *exposure = carrier->exposure;

    while (!wait_stopped(carrier, carrier->backoff.next_ms)) {
        carrier->is_attached = false;
        if (find_tunnel(carrier) && run_ssh(carrier))
            break;
        if (!exposure->has_address) {
            complain("%s%scan't attach by ssh: %s", exposure->name, *exposure->name ? ": " : "",
                     carrier->why);
            return STATUS_FAILED;
        }
        tell_next(carrier);
    }
    return STATUS_OK;
}

/* From the moment that it is known to stop_ssh, until it is no longer. */
static void make_known(struct exposure *exposure, struct carrier *carrier)
{
    pthread_mutex_lock(&exposure->lock);
    exposure->serving = carrier;
    if (carrier && exposure->stopping)
        eventfd_write(carrier->stop_fd, 1);
    pthread_mutex_unlock(&exposure->lock);
}

static int run_exposure(struct exposure *exposure)
{
    struct carrier carrier = { .exposure = exposure, .listener = -1 };
    int status = STATUS_FAILED;
    int err = 0;

    carrier.stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (carrier.stop_fd < 0)
        err = -errno;
    if (!err)
        err = make_folder(&carrier);
    if (err) {
        complain("can't make a folder for temporary files, in TMPDIR or /tmp: %s",
                 strerrordesc_np(-err));
    } else {
        make_known(exposure, &carrier);
        status = carry(&carrier);
        make_known(exposure, NULL);
    }
    remove_folder(&carrier);
    if (carrier.listener >= 0)
        close(carrier.listener);
    if (carrier.stop_fd >= 0)
        close(carrier.stop_fd);
    free(carrier.server_uri);
    free(carrier.client_uri);
    return status;
}

/* It may be in a call to the proxy that lasts longer than the process. */
static void stop_exposure(struct exposure *exposure)
{
    pthread_mutex_lock(&exposure->lock);
    exposure->stopping = true;
    if (exposure->serving) {
        struct carrier *carrier = exposure->serving;

        eventfd_write(carrier->stop_fd, 1);
        remove_folder(carrier);
    }
    pthread_mutex_unlock(&exposure->lock);
}

const struct backend backend_ssh = {
    .name = "ssh", .is_probed = true, .has_one_address = true,
    .run = run_exposure, .stop = stop_exposure,
};
