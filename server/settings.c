#include "server/settings.h"

#include "relay/number.h"
#include "relay/socket.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define MOST_BYTES_PER_S 1000000000000LL        /* whoever wants more means any number */

/* A number of an enum or macro, as text. */
#define STRING_OF(text) #text
#define STRING(macro) STRING_OF(macro)

enum {
    MOST_SECONDS = 366 * 24 * 3600,     /* a year: whoever wants more means "never" */
    MOST_TUNNELS = 1000000,
    MOST_OPENS = 60000,                 /* a minute: one a millisecond */
    MOST_CONNECTIONS = 16384,
    MOST_STREAMS = 16384,
    LEAST_REQUEST_BYTES = 1024,         /* the longest URI, and some XML around it */
    VALUE_SHOWN_BYTES = 100             /* of a wrong value, in its error */
};

static int parse_choice(const char *text, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(text, names[i]))
            return (int)i;
    return -EINVAL;
}

static bool is_same_address(const struct net_address *a, const struct net_address *b)
{
    return net_address_same_host(a, b) && net_address_port(a) == net_address_port(b);
}

static int set_listen(const struct setting *setting, const char *value, struct config *config)
{
    (void)setting;
    return net_address_parse_with_port(value, &config->listen);
}

static bool is_same_listen(const struct config *a, const struct config *b)
{
    return is_same_address(&a->listen, &b->listen);
}

static int set_path(const struct setting *setting, const char *value, struct config *config)
{
    size_t length = strlen(value);

    if (!length || length >= CONFIG_PATH_BYTES)
        return -EINVAL;
    strcpy((char *)config + setting->path_at, value);
    return 0;
}

static int set_ssh_listen(const struct setting *setting, const char *value,
                          struct config *config)
{
    int err = net_address_parse_with_port(value, &config->ssh_listen);

    (void)setting;
    if (!err)
        config->ssh_listen_given = true;
    return err;
}

static bool is_same_ssh_listen(const struct config *a, const struct config *b)
{
    return a->ssh_listen_given == b->ssh_listen_given &&
           (!a->ssh_listen_given || is_same_address(&a->ssh_listen, &b->ssh_listen));
}

static bool is_same_state_dir(const struct config *a, const struct config *b)
{
    return !strcmp(a->state_dir, b->state_dir);
}

static int set_host(const struct setting *setting, const char *value, struct config *config)
{
    char host[URI_HOST_BYTES];
    size_t length = strlen(value);
    int parsed = uri_host_parse(value, length, host);

    (void)setting;
    if (parsed < 0 || (size_t)parsed != length)
        return -EINVAL;
    memcpy(config->host, host, sizeof host);
    return 0;
}

static bool is_same_host(const struct config *a, const struct config *b)
{
    return !strcmp(a->host, b->host);
}

static int set_relay_listen(const struct setting *setting, const char *value,
                            struct config *config)
{
    int err = net_address_parse(value, 0, &config->relay.listen);

    (void)setting;
    if (!err)
        config->relay_listen_given = true;
    return err;
}

static bool is_same_relay_listen(const struct config *a, const struct config *b)
{
    return is_same_address(&a->relay.listen, &b->relay.listen);
}

static int set_ports(const struct setting *setting, const char *value, struct config *config)
{
    const char *dash = strchr(value, '-');
    int64_t low, high;

    if (!dash)
        return -EINVAL;
    if (number_parse(value, (size_t)(dash - value), setting->lowest, setting->highest, &low))
        return -EINVAL;
    if (number_parse(dash + 1, strlen(dash + 1), low + 1, setting->highest, &high))
        return -EINVAL;
    config->relay.port_low = (uint16_t)low;
    config->relay.port_high = (uint16_t)high;
    return 0;
}

static bool is_same_ports(const struct config *a, const struct config *b)
{
    return a->relay.port_low == b->relay.port_low && a->relay.port_high == b->relay.port_high;
}

static int set_max_tunnels(const struct setting *setting, const char *value,
                           struct config *config)
{
    int64_t number;
    int err = number_parse(value, strlen(value), setting->lowest, setting->highest, &number);

    if (err)
        return err;
    config->relay.max_tunnels = (size_t)number;
    config->max_tunnels_given = true;
    return 0;
}

static int set_number(const struct setting *setting, const char *value, struct config *config)
{
    return number_parse(value, strlen(value), setting->lowest, setting->highest,
                        (int64_t *)((char *)config + setting->number_at));
}

static int set_count(const struct setting *setting, const char *value, struct config *config)
{
    int64_t number;
    int err = number_parse(value, strlen(value), setting->lowest, setting->highest, &number);

    if (err)
        return err;
    *(size_t *)((char *)config + setting->count_at) = (size_t)number;
    return 0;
}

static int set_trusted_proxy(const struct setting *setting, const char *value,
                             struct config *config)
{
    int err = net_address_parse(value, 0, &config->rpc.listener.trusted_proxy);

    (void)setting;
    if (!err)
        config->rpc.listener.has_trusted_proxy = true;
    return err;
}

static int set_seconds(const struct setting *setting, const char *value, struct config *config)
{
    int64_t seconds;
    int err = number_parse(value, strlen(value), setting->lowest, setting->highest, &seconds);

    if (err)
        return err;
    *(int64_t *)((char *)config + setting->milliseconds_at) = seconds * 1000;
    return 0;
}

static int set_attach_from(const struct setting *setting, const char *value,
                           struct config *config)
{
    static const char *const names[] = { "opener", "any" };
    int choice = parse_choice(value, names, 2);

    (void)setting;
    if (choice < 0)
        return choice;
    config->relay.attach_from_any = choice;
    return 0;
}

static int set_log_level(const struct setting *setting, const char *value,
                         struct config *config)
{
    static const char *const names[] = { "error", "warning", "info", "debug" };
    static const enum log_level levels[] = { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };
    int choice = parse_choice(value, names, 4);

    (void)setting;
    if (choice < 0)
        return choice;
    config->log_level = levels[choice];
    return 0;
}

static int set_switch(const struct setting *setting, const char *value, struct config *config)
{
    static const char *const names[] = { "no", "yes" };
    int choice = parse_choice(value, names, 2);

    if (choice < 0)
        return choice;
    *(bool *)((char *)config + setting->switch_at) = choice;
    return 0;
}

#define COUNT(lowest_count, highest_count, field) \
    .lowest = (lowest_count), .highest = (highest_count), \
    .count_at = offsetof(struct config, field), .set = set_count

#define SECONDS(lowest_seconds, field) \
    .lowest = (lowest_seconds), .highest = MOST_SECONDS, \
    .milliseconds_at = offsetof(struct config, field), .set = set_seconds

#define PATH(field) .path_at = offsetof(struct config, field), .set = set_path

const struct setting settings[SETTINGS_COUNT] = {
    { .name = "listen", .argument = "ADDR:PORT", .initial = "127.0.0.1:8000",
      .meaning = "where XML-RPC is served; port 0 takes a free one",
      .expected = "a numeric address and a port, as 127.0.0.1:8000 or [::1]:8000",
      .set = set_listen, .is_same = is_same_listen },
    { .name = "users", .argument = "FILE", .otherwise = "none; whoever reaches the proxy may call",
      .meaning = "an htpasswd file of those who may call: bcrypt or SHA-512",
      .expected = "the name of a file", PATH(users) },
    { .name = "open-to-all", .argument = "yes|no", .implied = "yes", .initial = "no",
      .meaning = "serves everybody, even on an address that others reach",
      .expected = "yes or no",
      .switch_at = offsetof(struct config, open_to_all), .set = set_switch },
    { .name = "ssh-listen", .argument = "ADDR:PORT", .otherwise = "none; there is no ssh",
      .meaning = "where servers attach by ssh; port 0 takes a free one",
      .expected = "a numeric address and a port, as 127.0.0.1:8022 or [::1]:8022",
      .set = set_ssh_listen, .is_same = is_same_ssh_listen },
    { .name = "ssh-authorized-keys", .argument = "FILE",
      .otherwise = "none; where there are no users, everybody may",
      .meaning = "the keys of those who may open tunnels by ssh, as OpenSSH's file",
      .expected = "the name of a file", PATH(authorized_keys) },
    { .name = "state-dir", .argument = "DIR", .initial = "/var/lib/tristero-tunneld",
      .meaning = "where the proxy's ssh key is kept; made if it is missing",
      .expected = "the name of a folder", PATH(state_dir), .is_same = is_same_state_dir },
    { .name = "host", .argument = "NAME", .otherwise = "as each caller addressed the proxy",
      .meaning = "the host in the URIs that are given out",
      .expected = "a host name, an IPv4 address or an IPv6 address in brackets",
      .set = set_host, .is_same = is_same_host },
    { .name = "relay-listen", .argument = "ADDR", .otherwise = "the address of --listen",
      .meaning = "where port pairs listen",
      .expected = "a numeric address without a port, as 192.0.2.1 or [2001:db8::1]",
      .set = set_relay_listen, .is_same = is_same_relay_listen },
    { .name = "ports", .argument = "LO-HI", .initial = "8010-10009",
      .meaning = "the range of port pairs, both ends in it",
      .expected = "LO-HI, two ports from 1 to 65535 with LO below HI, as 8010-10009",
      .lowest = 1, .highest = UINT16_MAX, .set = set_ports, .is_same = is_same_ports },
    { .name = "max-tunnels", .argument = "N", .initial = "1000",
      .meaning = "tunnels alive at once",
      .lowest = 1, .highest = MOST_TUNNELS, .set = set_max_tunnels },
    { .name = "tunnels-per-user", .argument = "N", .initial = "100",
      .meaning = "tunnels alive at once that one user opened; 0: any number",
      COUNT(0, MOST_TUNNELS, relay.tunnels_per_user) },
    { .name = "tunnels-per-address", .argument = "N",
      .otherwise = STRING(DEFAULT_TUNNELS_PER_ADDRESS) "; 0 where nobody comes from elsewhere",
      .meaning = "tunnels alive at once that one address opened; 0: any number",
      COUNT(0, MOST_TUNNELS, relay.tunnels_per_address) },
    { .name = "opens-per-minute", .argument = "N",
      .otherwise = STRING(DEFAULT_OPENS_PER_MINUTE) "; 0 where nobody comes from elsewhere",
      .meaning = "tunnels that one address opens in a minute; 0: any number",
      COUNT(0, MOST_OPENS, rpc.opens_per_minute) },
    { .name = "lifetime", .argument = "S", .initial = "0",
      .meaning = "seconds that a tunnel lives from its opening; 0: for ever",
      SECONDS(0, relay.lifetime_ms) },
    { .name = "rate", .argument = "BYTES", .initial = "0",
      .meaning = "bytes a second through a tunnel, both ways together; 0: any",
      .lowest = 0, .highest = MOST_BYTES_PER_S,
      .number_at = offsetof(struct config, relay.bytes_per_s), .set = set_number },
    { .name = "connections", .argument = "N", .initial = "512",
      .meaning = "HTTP connections at once; then the one that waited longest goes",
      COUNT(8, MOST_CONNECTIONS, rpc.listener.connections) },
    { .name = "connections-per-address", .argument = "N", .initial = "128",
      .meaning = "HTTP connections at once from one address; 0: any number",
      COUNT(0, MOST_CONNECTIONS, rpc.listener.connections_per_address) },
    { .name = "request-timeout", .argument = "S", .initial = "10",
      .meaning = "seconds in which a whole request must arrive",
      SECONDS(1, rpc.listener.request_timeout_ms) },
    { .name = "request-size", .argument = "BYTES", .initial = "65536",
      .meaning = "bytes of a request's body",
      COUNT(LEAST_REQUEST_BYTES, HTTP_BODY_BYTES, rpc.listener.request_bytes) },
    { .name = "trusted-proxy", .argument = "ADDR", .otherwise = "none",
      .meaning = "the reverse proxy whose X-Forwarded-For tells who calls",
      .expected = "a numeric address without a port, as 192.0.2.1 or [2001:db8::1]",
      .set = set_trusted_proxy },
    { .name = "attach-timeout", .argument = "S", .initial = "60",
      .meaning = "seconds in which a tunnel's server must connect",
      SECONDS(1, relay.attach_timeout_ms) },
    { .name = "reserve", .argument = "S", .initial = "300",
      .meaning = "seconds that a tunnel of many clients waits for a lost server",
      SECONDS(0, relay.reserve_ms) },
    { .name = "streams-per-tunnel", .argument = "N", .initial = "256",
      .meaning = "clients at once of an ssh or webmux tunnel; more have to wait",
      COUNT(1, MOST_STREAMS, relay.streams_per_tunnel) },
    { .name = "ssh-handshakes", .argument = "N", .initial = "64",
      .meaning = "ssh connections at once that have no tunnel, or not yet",
      COUNT(1, SSH_HANDSHAKES_MAX, ssh.handshakes) },
    { .name = "ssh-handshakes-per-address", .argument = "N", .initial = "8",
      .meaning = "the same, from one address; 0: any number",
      COUNT(0, SSH_HANDSHAKES_MAX, ssh.handshakes_per_address) },
    { .name = "ssh-login-timeout", .argument = "S", .initial = "10",
      .meaning = "seconds in which an ssh connection must log in",
      SECONDS(1, ssh.login_timeout_ms) },
    { .name = "reveal-clients", .argument = "yes|no", .implied = "yes", .initial = "no",
      .meaning = "whether ssh servers are told their clients' addresses",
      .expected = "yes or no",
      .switch_at = offsetof(struct config, ssh.reveal_clients), .set = set_switch },
    { .name = "linger", .argument = "S", .initial = "30",
      .meaning = "seconds that a half-closed, silent tunnel lives",
      SECONDS(1, relay.linger_ms) },
    { .name = "idle-timeout", .argument = "S", .initial = "0",
      .meaning = "seconds that a relaying tunnel lives without a byte; 0: for ever",
      SECONDS(0, relay.idle_timeout_ms) },
    { .name = "keepalive", .argument = "S", .initial = "60",
      .meaning = "silent seconds before a peer is probed; five times that end it",
      .lowest = 1, .highest = SOCKET_KEEPALIVE_MAX_S,
      .milliseconds_at = offsetof(struct config, relay.keepalive_ms), .set = set_seconds },
    { .name = "attach-from", .argument = "opener|any", .initial = "opener",
      .meaning = "who may attach: the address that opened the tunnel, or anyone",
      .expected = "opener or any", .set = set_attach_from },
    { .name = "drain", .argument = "S", .initial = "10",
      .meaning = "seconds that live tunnels get to finish at the end",
      SECONDS(0, drain_ms) },
    { .name = "log-level", .argument = "LEVEL", .initial = "info",
      .meaning = "the least that is logged: error, warning, info or debug",
      .expected = "error, warning, info or debug", .set = set_log_level },
    { .name = "log-addresses", .argument = "yes|no", .initial = "no",
      .meaning = "whether addresses of peers come into the log",
      .expected = "yes or no",
      .switch_at = offsetof(struct config, log_addresses), .set = set_switch },
};

const struct setting *settings_find(const char *name)
{
    for (size_t i = 0; i < SETTINGS_COUNT; i++)
        if (!strcmp(settings[i].name, name))
            return &settings[i];
    return NULL;
}

int settings_apply(const struct setting *setting, const char *value, struct config *config)
{
    return setting->set(setting, value, config);
}

void settings_explain(const struct setting *setting, const char *where, const char *value,
                      char error[CONFIG_ERROR_BYTES])
{
    char shown[VALUE_SHOWN_BYTES];

    text_printable(value, strlen(value), shown, sizeof shown);
    if (setting->expected)
        snprintf(error, CONFIG_ERROR_BYTES, "%s: got \"%s\", expected %s", where, shown,
                 setting->expected);
    else
        snprintf(error, CONFIG_ERROR_BYTES,
                 "%s: got \"%s\", expected a whole number from %lld to %lld", where, shown,
                 (long long)setting->lowest, (long long)setting->highest);
}
