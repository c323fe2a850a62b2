/* Tunnel.openTunnel and Tunnel.getTunnelAddress, the Tristero interface. */
#include "rpc/methods.h"

#include "relay/address_table.h"
#include "relay/log.h"
#include "relay/uri.h"
#include "relay/waker.h"
#include "rpc/faults.h"
#include "relay/refusals.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN_BYTES = 100 };

/* A string parameter; the copy is the caller's to free. NULL and a fault. */
static char *string_parameter(xmlrpc_env *env, xmlrpc_value *parameters, unsigned index,
                              size_t *length)
{
    xmlrpc_value *value;
    const char *text = NULL;

    xmlrpc_array_read_item(env, parameters, index, &value);
    if (env->fault_occurred)
        return NULL;
    xmlrpc_read_string_lp(env, value, length, &text);
    xmlrpc_DECREF(value);
    return env->fault_occurred ? NULL : (char *)text;
}

static xmlrpc_value *uri_value(xmlrpc_env *env, const struct tunnel_uri *uri)
{
    char text[URI_TEXT_BYTES];

    tunnel_uri_format(uri, text);
    return xmlrpc_string_new(env, text);
}

/* "limit reached: max-tunnels (1000): the proxy has as many tunnels as it allows" */
static void limit_reached(xmlrpc_env *env, enum limit limit, size_t allowed, const char *what)
{
    refusals_count(limit);
    fault_set(env, FAULT_LIMIT_REACHED, "%s (%zu): %s", limit_name(limit), allowed, what);
}

static void open_failed(xmlrpc_env *env, int err, const char *backend, struct relay *relay)
{
    struct relay_settings settings = relay_settings(relay);
    char shown[SHOWN_BYTES];
    char names[SHOWN_BYTES];

    switch (-err) {
    case EPROTONOSUPPORT:
        relay_backend_names(relay, names, sizeof names);
        fault_set(env, FAULT_UNKNOWN_BACKEND, "got \"%s\", this proxy has %s",
                  text_printable(backend, strlen(backend), shown, sizeof shown), names);
        break;
    case EDQUOT:
        limit_reached(env, LIMIT_MAX_TUNNELS, settings.max_tunnels,
                      "this proxy has as many tunnels open as it allows");
        break;
    case EUSERS:
        limit_reached(env, LIMIT_TUNNELS_PER_USER, settings.tunnels_per_user,
                      "this user has as many tunnels open as one may");
        break;
    case ETOOMANYREFS:
        limit_reached(env, LIMIT_TUNNELS_PER_ADDRESS, settings.tunnels_per_address,
                      "this address has as many tunnels open as one may");
        break;
    case EADDRNOTAVAIL:
        fault_set(env, FAULT_NO_PORT_PAIR, "every pair from %u to %u is in use",
                  settings.port_low, settings.port_high);
        break;
    case ESHUTDOWN:
        fault_set(env, FAULT_SHUTTING_DOWN, "this proxy opens no more tunnels");
        break;
    default:
        fault_set(env, FAULT_OUT_OF_RESOURCES, "the proxy could not open a tunnel: %s",
                  strerrordesc_np(-err));
        log_write(LOG_ERROR, "a tunnel could not be opened: %s", strerrordesc_np(-err));
    }
}

static bool may_open(xmlrpc_env *env, const struct rpc_call *call)
{
    char what[100];
    int64_t wait_ms;

    if (!call->opens_per_minute)
        return true;
    wait_ms = address_table_take(call->opens, &call->caller, clock_ms());
    if (wait_ms == 0)
        return true;
    snprintf(what, sizeof what, "this address has opened too many tunnels; try again in %lld s",
             (long long)(wait_ms + 999) / 1000);
    limit_reached(env, LIMIT_OPENS_PER_MINUTE, call->opens_per_minute, what);
    return false;
}

static xmlrpc_value *open_tunnel(xmlrpc_env *env, xmlrpc_value *parameters, struct rpc_call *call)
{
    struct tunnel_opener opener = { .address = call->caller, .user = call->user };
    struct tunnel_uri server_uri;
    char *backend = NULL;
    size_t length;
    int err;

    if (!may_open(env, call))
        return NULL;
    if (xmlrpc_array_size(env, parameters) == 1)
        backend = string_parameter(env, parameters, 0, &length);
    if (env->fault_occurred)
        return NULL;
    err = relay_open_tunnel(call->relay, backend ? backend : "tcp", call->host, &opener,
                            &server_uri);
    if (err)
        open_failed(env, err, backend ? backend : "tcp", call->relay);
    free(backend);
    return err ? NULL : uri_value(env, &server_uri);
}

static xmlrpc_value *get_tunnel_address(xmlrpc_env *env, xmlrpc_value *parameters,
                                        struct rpc_call *call)
{
    struct tunnel_uri server_uri, client_uri;
    const char *expected = "";
    char shown[SHOWN_BYTES];
    size_t length;
    char *text = string_parameter(env, parameters, 0, &length);

    if (!text)
        return NULL;
    text_printable(text, length, shown, sizeof shown);
    if (tunnel_uri_parse(text, length, &server_uri, &expected) < 0)
        fault_set(env, FAULT_MALFORMED_URI, "got \"%s\", expected %s", shown, expected);
    else if (relay_tunnel_address(call->relay, &server_uri, &client_uri) < 0)
        fault_set(env, FAULT_UNKNOWN_TUNNEL, "no tunnel is open at \"%s\"", shown);
    free(text);
    return env->fault_occurred ? NULL : uri_value(env, &client_uri);
}

/* As a line of OpenSSH's known_hosts: "[proxy.example.org]:8022 ssh-ed25519 AAAA..." */
static xmlrpc_value *get_host_key(xmlrpc_env *env, xmlrpc_value *parameters, struct rpc_call *call)
{
    struct relay_ssh ssh = relay_ssh(call->relay);

    (void)parameters;
    if (!ssh.port) {
        fault_set(env, FAULT_UNKNOWN_BACKEND, "this proxy has no ssh, and so no key of it");
        return NULL;
    }
    if (ssh.port == 22)
        return xmlrpc_string_new_f(env, "%s %s", call->host, ssh.public_key);
    return xmlrpc_string_new_f(env, "[%s]:%u %s", call->host, ssh.port, ssh.public_key);
}

const struct method tunnel_methods[] = {
    {
        .name = "Tunnel.openTunnel",
        .signatures = { "s", "ss" },
        .help = "Opens a tunnel and returns the URI where the server, the program behind the NAT, "
                "connects out to, such as tcp://proxy.example.org:8010. The parameter names the "
                "backend, the way to connect; without it, it is tcp: one connection from the "
                "server, one from a client. The others are for any number of clients: webmux, "
                "streams of WebMUX over connections of the server, and ssh, where the proxy has it: "
                "ssh -N -R 0:HOST:PORT URI connects. Connect soon, and from the address that this "
                "call came from; ask getTunnelAddress for the address to advertise.",
        .run = open_tunnel,
    }, {
        .name = "Tunnel.getTunnelAddress",
        .signatures = { "ss" },
        .help = "Takes a URI that openTunnel returned, and returns the one where clients reach the "
                "server through the tunnel, such as tcp://proxy.example.org:8011. A server that "
                "speaks HTTP advertises it as http://proxy.example.org:8011/.",
        .run = get_tunnel_address,
    }, {
        .name = "Tunnel.getHostKey",
        .signatures = { "s" },
        .help = "Returns the key by which ssh knows this proxy, as a line of OpenSSH's known_hosts, "
                "such as [proxy.example.org]:8022 ssh-ed25519 AAAA... It is as much to be trusted as "
                "the way by which it came.",
        .run = get_host_key,
    },
    { .name = NULL },
};
