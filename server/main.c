/* tristero-tunneld: reads its configuration, starts the parts, and ends them
 * in order when a signal says so. */
#include <config.h>

#include "relay/log.h"
#include "relay/net_address.h"
#include "relay/relay.h"
#include "relay/waker.h"
#include "rpc/rpc_server.h"
#include "server/config.h"
#include "server/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    EXIT_USAGE = 2,
    DRAIN_LOOK_MS = 50                  /* between looks for a second signal */
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

/* The signals that end the service are blocked, in this thread and all that it
 * will start, and fetched by it alone. SIGHUP stays ignored under nohup. */
static int set_up_signals(sigset_t *endings)
{
    struct sigaction hangup;

    sigemptyset(endings);
    sigaddset(endings, SIGTERM);
    sigaddset(endings, SIGINT);
    if (sigaction(SIGHUP, NULL, &hangup) < 0)
        return -errno;
    if (hangup.sa_handler != SIG_IGN)
        sigaddset(endings, SIGHUP);
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        return -errno;
    return -pthread_sigmask(SIG_BLOCK, endings, NULL);
}

static void wait_for_ending(const sigset_t *endings)
{
    while (sigwaitinfo(endings, NULL) < 0)
        continue;                       /* stopped and continued */
}

static bool ending_came(const sigset_t *endings)
{
    return sigtimedwait(endings, NULL, &(struct timespec){ 0 }) > 0;
}

static int make_room(const struct config *config)
{
    struct limits_descriptors room;
    size_t tunnels = config_tunnels_at_once(config);
    int err = limits_make_room(tunnels, &room);

    if (err == -EMFILE && room.fitting_tunnels)
        complain("%zu tunnels need %zu open descriptors, and the limit (ulimit -Hn) is %zu: "
                 "raise it, or give --max-tunnels %zu", tunnels, room.needed, room.available,
                 room.fitting_tunnels);
    else if (err == -EMFILE)
        complain("%zu tunnels need %zu open descriptors, and the limit (ulimit -Hn) is %zu, "
                 "too few for any: raise it", tunnels, room.needed, room.available);
    else if (err)
        complain("can't raise the limit of open descriptors: %s", strerror(-err));
    return err;
}

static void log_start(const struct config *config)
{
    char address[NET_ADDRESS_TEXT_BYTES];
    size_t pairs = config_port_pairs(config);

    net_address_format_host(&config->relay.listen, address);
    log_write(LOG_INFO, "tristero-tunneld %s: up to %zu tunnels, ports %u-%u of %s",
              PACKAGE_VERSION, config_tunnels_at_once(config), config->relay.port_low,
              config->relay.port_high, address);
    if (config->max_tunnels_given && config->relay.max_tunnels > pairs)
        log_write(LOG_WARNING, "max-tunnels is %zu, but ports %u-%u are only %zu pairs",
                  config->relay.max_tunnels, config->relay.port_low, config->relay.port_high,
                  pairs);
}

/* A library that prints later would write to whoever reads the announcement, and
 * wait for ever once nobody does. */
static int silence_standard_output(void)
{
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    int err = null < 0 || dup2(null, STDOUT_FILENO) < 0 ? -errno : 0;

    if (null >= 0)
        close(null);
    return err;
}

static int announce(const struct net_address *address)
{
    char text[NET_ADDRESS_TEXT_BYTES];
    int err;

    net_address_format(address, text);
    if (printf("serving http://%s/RPC2\n", text) < 0 || fflush(stdout)) {
        complain("can't write to standard output: %s", strerror(errno));
        return -EIO;
    }
    err = silence_standard_output();
    if (err)
        complain("can't open /dev/null: %s", strerror(-err));
    return err;
}

/* Calls go on being answered meanwhile, so that servers learn that no new
 * tunnels are to be had here. */
static void drain(struct relay *relay, int64_t drain_ms, const sigset_t *endings)
{
    int64_t deadline_ms = clock_ms() + drain_ms;
    bool hurried = false;
    size_t tunnels;

    relay_refuse_new(relay);
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

static int serve(const struct config *config, const sigset_t *endings)
{
    struct rpc_settings rpc = { .listen = config->listen,
                                .host = *config->host ? config->host : NULL };
    char text[NET_ADDRESS_TEXT_BYTES];
    struct net_address address;
    struct rpc_server *server;
    struct relay *relay;
    int err = relay_new(&config->relay, &relay);

    if (err) {
        net_address_format_host(&config->relay.listen, text);
        complain("can't listen for tunnels on %s: %s", text, strerror(-err));
        return err;
    }
    err = rpc_server_start(&rpc, relay, &server, &address);
    if (err) {
        net_address_format(&config->listen, text);
        complain("can't serve on %s: %s", text, strerror(-err));
        goto out;
    }
    log_start(config);
    err = announce(&address);
    if (!err) {
        wait_for_ending(endings);
        drain(relay, config->drain_ms, endings);
    }
    rpc_server_stop(server);
    relay_end_all(relay);
    if (!err)
        log_write(LOG_INFO, "stopped");
out:
    relay_free(relay);
    return err;
}

static int run(const struct config *config)
{
    sigset_t endings;
    int err = set_up_signals(&endings);

    if (!err)
        err = waker_set_up_process();
    if (err) {
        complain("can't set up signals: %s", strerror(-err));
        return err;
    }
    err = make_room(config);
    if (err)
        return err;
    log_set_level(config->log_level);
    log_set_addresses(config->log_addresses);
    return serve(config, &endings);
}

static int show(enum config_wish wish)
{
    if (wish == CONFIG_SHOW_HELP)
        config_write_help(stdout);
    else
        puts("tristero-tunneld " PACKAGE_VERSION);
    if (!fflush(stdout) && !ferror(stdout))
        return 0;
    complain("can't write to standard output: %s", strerror(errno));
    return -EIO;
}

int main(int argc, char **argv)
{
    char error[CONFIG_ERROR_BYTES];
    enum config_wish wish;
    struct config config;
    int err;

    if (hold_standard_streams())
        return EXIT_FAILURE;
    tzset();                            /* while there is one thread: dates need it */
    if (config_read(argc, argv, &config, &wish, error)) {
        complain("%s", error);
        return EXIT_USAGE;
    }
    err = wish == CONFIG_SERVE ? run(&config) : show(wish);
    return err ? EXIT_FAILURE : EXIT_SUCCESS;
}
