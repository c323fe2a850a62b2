/* tristero-tunneld: reads its configuration, starts the parts, reads it again
 * and ends them in order when signals say so. */
#include <config.h>

#include "relay/log.h"
#include "relay/net_address.h"
#include "relay/relay.h"
#include "relay/ssh_service.h"
#include "relay/waker.h"
#include "rpc/rpc_server.h"
#include "rpc/users.h"
#include "server/config.h"
#include "server/confine.h"
#include "server/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

enum {
    EXIT_USAGE = 2,
    DRAIN_LOOK_MS = 50,                 /* between looks for a second signal */
    DESCRIPTORS_LEAST = 64,             /* of tunnels with many clients, besides those of ports */
    END_MS = 20000                      /* what the end takes at most, beside draining */
};

/* All of it is the main thread's. */
struct service {
    int argc;                           /* the command line, for reading it again */
    char **argv;
    struct config config;               /* what holds now */
    struct relay *relay;
    struct ssh_service *ssh;            /* NULL: there is none */
    struct rpc_server *server;
};

__attribute__((format(printf, 1, 2)))
static void complain(const char *format, ...)
{
    va_list arguments;

    fputs("tristero-tunneld: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

/* A socket that got the number of a closed standard stream would be sent what
 * is meant for the stream. Open for reading, it fails writes as if closed. */
static int hold_standard_streams(void)
{
    for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; stream++)
        if (fcntl(stream, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != stream)
            return -errno;
    return 0;
}

/* The signals that say something are blocked, in this thread and all that it
 * will start, and fetched by it alone. nohup has SIGHUP ignored, which is meant
 * for programs that it would end. */
static int set_up_signals(sigset_t *endings)
{
    sigset_t blocked;
    int err;

    sigemptyset(endings);
    sigaddset(endings, SIGTERM);
    sigaddset(endings, SIGINT);
    blocked = *endings;
    sigaddset(&blocked, SIGHUP);
    err = -pthread_sigmask(SIG_BLOCK, &blocked, NULL);
    if (err)
        return err;
    /* A log that has grown to the limit of a file's size is no reason to die. */
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR || signal(SIGXFSZ, SIG_IGN) == SIG_ERR ||
        signal(SIGHUP, SIG_DFL) == SIG_ERR)
        return -errno;
    return 0;
}

static bool ending_came(const sigset_t *endings)
{
    return sigtimedwait(endings, NULL, &(struct timespec){ 0 }) > 0;
}

static int make_room(struct config *config, char error[CONFIG_ERROR_BYTES])
{
    struct limits_descriptors room;
    size_t tunnels = config_tunnels_at_once(config);
    size_t connections = config->rpc.listener.connections + DESCRIPTORS_LEAST;
    int err;

    if (config->ssh_listen_given)
        connections += config->ssh.handshakes;
    err = limits_make_room(tunnels, connections, &room);
    config->relay.descriptors = DESCRIPTORS_LEAST + room.spare;
    if (err == -EMFILE && room.fitting_tunnels)
        snprintf(error, CONFIG_ERROR_BYTES,
                 "%zu tunnels need %zu open descriptors, and the limit (ulimit -Hn) is %zu: "
                 "raise it, or give --max-tunnels %zu", tunnels, room.needed, room.available,
                 room.fitting_tunnels);
    else if (err == -EMFILE)
        snprintf(error, CONFIG_ERROR_BYTES,
                 "%zu tunnels need %zu open descriptors, and the limit (ulimit -Hn) is %zu, "
                 "too few for any: raise it", tunnels, room.needed, room.available);
    else if (err)
        snprintf(error, CONFIG_ERROR_BYTES, "can't raise the limit of open descriptors: %s",
                 strerror(-err));
    return err;
}

/* NULL for *users: there is no file of them. */
static int read_users(const struct config *config, struct users **users,
                      char error[CONFIG_ERROR_BYTES])
{
    *users = NULL;
    return *config->users ? users_read(config->users, users, error) : 0;
}

static void log_who_may_call(const struct config *config, const struct users *users)
{
    if (users)
        log_write(LOG_INFO, "%zu %s may call", users_count(users),
                  users_count(users) == 1 ? "user" : "users");
    else
        log_write(LOG_INFO, "everybody may call%s", config->open_to_all ? "" : " on this machine");
}

static void log_limits(const struct config *config)
{
    char address[NET_ADDRESS_TEXT_BYTES];
    size_t pairs = config_port_pairs(config);

    net_address_format_host(&config->relay.listen, address);
    log_write(LOG_INFO, "up to %zu tunnels, ports %u-%u of %s",
              config_tunnels_at_once(config), config->relay.port_low,
              config->relay.port_high, address);
    if (config->max_tunnels_given && config->relay.max_tunnels > pairs)
        log_write(LOG_WARNING, "max-tunnels is %zu, but ports %u-%u are only %zu pairs",
                  config->relay.max_tunnels, config->relay.port_low, config->relay.port_high,
                  pairs);
}

/* A library that prints later would write to whoever reads the announcement, and
 * wait for ever once nobody does: from here on nobody has standard output. What
 * it was, or a negative errno. */
static int take_standard_output(void)
{
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    int output = null < 0 ? -1 : fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
    int err = output < 0 || dup2(null, STDOUT_FILENO) < 0 ? -errno : 0;

    if (null >= 0)
        close(null);
    if (!err)
        return output;
    if (output >= 0)
        close(output);
    return err;
}

/* To a service manager that asked for it. If it does not hear it, it is for it to
 * act; who started the daemon by hand may have left the request behind. */
__attribute__((format(printf, 1, 2)))
static void notify(const char *format, ...)
{
    char state[256];
    va_list arguments;
    int sent;

    va_start(arguments, format);
    vsnprintf(state, sizeof state, format, arguments);
    va_end(arguments);
    sent = sd_notify(0, state);
    if (sent < 0)
        log_write(LOG_WARNING, "can't notify the service manager: %s", strerror(-sent));
}

/* Once it is announced, nothing keeps the service from serving. */
static int announce(const struct net_address *address)
{
    char text[NET_ADDRESS_TEXT_BYTES];
    int output = take_standard_output();
    int err = output < 0 ? output : 0;

    net_address_format(address, text);
    if (!err && dprintf(output, "serving http://%s/RPC2\n", text) < 0)
        err = -errno;
    if (output >= 0)
        close(output);
    if (err)
        complain("can't write to standard output: %s", strerror(-err));
    else
        notify("READY=1\nSTATUS=serving http://%s/RPC2", text);
    return err;
}

/* Calls go on being answered meanwhile, so that servers learn that no new
 * tunnels are to be had here. */
static void drain(const struct service *service, int64_t drain_ms, const sigset_t *endings)
{
    struct relay *relay = service->relay;
    int64_t deadline_ms = clock_ms() + drain_ms;
    bool hurried = false;
    size_t tunnels;

    relay_refuse_new(relay);
    if (service->ssh)
        ssh_service_drain(service->ssh);
    notify("STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=%lld",
           (long long)(drain_ms + END_MS) * 1000);
    tunnels = relay_counts(relay).tunnels;
    if (tunnels)
        log_write(LOG_INFO, "draining: %zu %s %lld s to finish; "
                  "a second signal ends them at once", tunnels,
                  tunnels == 1 ? "tunnel has" : "tunnels have", (long long)(drain_ms / 1000));
    while (!hurried && clock_ms() < deadline_ms &&
           relay_wait_until_empty(relay, DRAIN_LOOK_MS))
        hurried = ending_came(endings);
    tunnels = relay_counts(relay).tunnels;
    if (tunnels)
        log_write(LOG_WARNING, "cutting %zu %s: %s", tunnels,
                  tunnels == 1 ? "tunnel" : "tunnels",
                  hurried ? "a second signal came" : "the time to finish is over");
}

/* Makes the new configuration hold, none of which can fail, and says so once it does. Who
 * may do what is taken over. */
static void change(struct service *service, const struct config *config, struct users *users,
                   struct authorized_keys *keys)
{
    log_set_level(config->log_level);
    log_set_addresses(config->log_addresses);
    if (service->ssh)
        ssh_service_change(service->ssh, &config->ssh, keys);
    else
        ssh_service_free_keys(keys);
    rpc_server_change_users(service->server, users);
    rpc_server_change_limits(service->server, &config->rpc);
    service->config = *config;
    log_write(LOG_INFO, "the configuration was read again");
    log_limits(config);
    log_who_may_call(config, users);
}

/* Reads the configuration and the files of users again. Either all of it holds
 * from now on, or nothing has changed. */
static int reload(struct service *service, char error[CONFIG_ERROR_BYTES])
{
    struct authorized_keys *keys = NULL;
    struct users *users = NULL;
    enum config_wish wish;
    struct config config;
    const char *fixed;
    int err = config_read(service->argc, service->argv, &config, &wish, error);

    if (err)
        return err;
    fixed = config_fixed_difference(&service->config, &config);
    if (fixed) {
        snprintf(error, CONFIG_ERROR_BYTES, "%s can't change while the service runs; restart it",
                 fixed);
        return -EINVAL;
    }
    err = make_room(&config, error);
    if (!err)
        err = read_users(&config, &users, error);
    if (!err)
        err = ssh_service_read_keys(config.authorized_keys, &keys, error);
    if (err)
        goto out;
    err = relay_change_settings(service->relay, &config.relay);
    if (!err) {
        change(service, &config, users, keys);
        return 0;
    }
    snprintf(error, CONFIG_ERROR_BYTES, "%s", strerror(-err));
out:
    users_release(users);
    ssh_service_free_keys(keys);
    return err;
}

/* Until a signal says that the service has to end. */
static void heed_signals(struct service *service, const sigset_t *endings)
{
    char error[CONFIG_ERROR_BYTES];
    sigset_t awaited = *endings;
    int number;

    sigaddset(&awaited, SIGHUP);
    for (;;) {
        number = sigwaitinfo(&awaited, NULL);
        if (number == SIGHUP && reload(service, error))
            log_write(LOG_ERROR, "the configuration stays as it was: %s", error);
        else if (number > 0 && number != SIGHUP)
            return;                     /* or else stopped and continued */
    }
}

static int start_ssh(struct service *service, struct authorized_keys *keys)
{
    const struct config *config = &service->config;
    struct ssh_settings ssh = { .listen = config->ssh_listen, .state_dir = config->state_dir,
                                .host = *config->host ? config->host : NULL,
                                .keys = keys, .limits = config->ssh };
    char error[SSH_SERVICE_ERROR_BYTES];
    int err;

    if (!config->ssh_listen_given) {
        ssh_service_free_keys(keys);
        return 0;
    }
    err = ssh_service_start(&ssh, service->relay, &service->ssh, error);
    if (err)
        complain("%s", error);
    return err;
}

static int serve(struct service *service, struct users *users, struct authorized_keys *keys,
                 const sigset_t *endings)
{
    const struct config *config = &service->config;
    struct rpc_settings rpc = { .listen = config->listen, .users = users, .limits = config->rpc,
                                .host = *config->host ? config->host : NULL };
    char text[NET_ADDRESS_TEXT_BYTES];
    struct net_address address;
    int err = relay_new(&config->relay, &service->relay);

    if (err) {
        users_release(users);
        ssh_service_free_keys(keys);
        net_address_format_host(&config->relay.listen, text);
        complain("can't listen for tunnels on %s: %s", text, strerror(-err));
        return err;
    }
    err = start_ssh(service, keys);
    if (err) {
        users_release(users);
        goto out;
    }
    err = rpc_server_start(&rpc, service->relay, &service->server, &address);
    if (err) {
        net_address_format(&config->listen, text);
        complain("can't serve on %s: %s%s", text, strerror(-err), err == -EADDRINUSE ?
                 " (by another program, or by a tristero-tunneld that is about to end, but "
                 "gives its tunnels some time)" : "");
        goto out;
    }
    log_write(LOG_INFO, "tristero-tunneld " PACKAGE_VERSION);
    log_limits(config);
    log_who_may_call(config, users);
    err = announce(&address);
    if (!err) {
        heed_signals(service, endings);
        drain(service, config->drain_ms, endings);
    }
    rpc_server_stop(service->server);
out:
    ssh_service_stop(service->ssh);     /* as far as there is one, and tunnels, still */
    relay_end_all(service->relay);
    relay_free(service->relay);
    if (!err)
        log_write(LOG_INFO, "stopped");
    return err;
}

/* The exit status. */
static int run(struct service *service)
{
    char error[CONFIG_ERROR_BYTES];
    struct authorized_keys *keys;
    struct users *users;
    sigset_t endings;
    int err = set_up_signals(&endings);

    if (!err)
        err = waker_set_up_process();
    if (err) {
        complain("can't set up signals: %s", strerror(-err));
        return EXIT_FAILURE;
    }
    if (make_room(&service->config, error)) {
        complain("%s", error);
        return EXIT_FAILURE;
    }
    log_set_level(service->config.log_level);
    log_set_addresses(service->config.log_addresses);
    if (read_users(&service->config, &users, error)) {
        complain("%s", error);
        return EXIT_USAGE;
    }
    if (ssh_service_read_keys(service->config.authorized_keys, &keys, error)) {
        users_release(users);
        complain("%s", error);
        return EXIT_USAGE;
    }
    return serve(service, users, keys, &endings) ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* The exit status. */
static int show(enum config_wish wish)
{
    if (wish == CONFIG_SHOW_HELP)
        config_write_help(stdout);
    else
        puts("tristero-tunneld " PACKAGE_VERSION);
    if (!fflush(stdout) && !ferror(stdout))
        return EXIT_SUCCESS;
    complain("can't write to standard output: %s", strerror(errno));
    return EXIT_FAILURE;
}

/* Of each heap at most so much stays behind, and there are some for many threads. Left to
 * itself, the C library keeps twice the largest block that was ever given back. */
static void give_memory_back(void)
{
    mallopt(M_TRIM_THRESHOLD, 128 * 1024);
}

int main(int argc, char **argv)
{
    char error[CONFIG_ERROR_BYTES];
    struct service service = { .argc = argc, .argv = argv };
    enum config_wish wish;
    int err = hold_standard_streams();

    if (err) {
        complain("can't open /dev/null: %s", strerror(-err));
        return EXIT_FAILURE;
    }
    err = confine_process();
    if (err) {
        complain("can't confine itself: %s", strerror(-err));
        return EXIT_FAILURE;
    }
    give_memory_back();
    tzset();                            /* while there is one thread: dates need it */
    if (config_read(argc, argv, &service.config, &wish, error)) {
        complain("%s", error);
        return EXIT_USAGE;
    }
    return wish == CONFIG_SERVE ? run(&service) : show(wish);
}
