#include "relay/tunnel.h"

#include "relay/backend.h"
#include "relay/log.h"
#include "relay/socket.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void fill_uri(struct tunnel_uri *uri, const char *scheme, const char *host, uint16_t port)
{
    memset(uri, 0, sizeof *uri);
    snprintf(uri->scheme, sizeof uri->scheme, "%s", scheme);
    snprintf(uri->host, sizeof uri->host, "%s", host);
    uri->port = port;
}

void tunnel_server_uri(const struct tunnel *tunnel, struct tunnel_uri *uri)
{
    fill_uri(uri, tunnel->backend->scheme, tunnel->host, tunnel->server_port);
    snprintf(uri->user, sizeof uri->user, "%s", tunnel->owner);
}

void tunnel_client_uri(const struct tunnel *tunnel, struct tunnel_uri *uri)
{
    fill_uri(uri, "tcp", tunnel->host, (uint16_t)(tunnel->pair.server_port + 1));
}

void tunnel_end(struct tunnel *tunnel, const char *why)
{
    tunnel_close_listener(&tunnel->pair.server_listener);
    tunnel_close_listener(&tunnel->pair.client_listener);
    if (tunnel->turned_away > 1)
        log_write(LOG_WARNING, "tunnel %lu turned away %lu strangers in all",
                  (unsigned long)tunnel->id, tunnel->turned_away);
    log_write(LOG_INFO, "tunnel %lu closed: %s", (unsigned long)tunnel->id, why);
}

int64_t tunnel_until_ms(const struct tunnel *tunnel)
{
    int64_t lifetime_ms = tunnel->settings->lifetime_ms;

    return lifetime_ms ? tunnel->opened_ms + lifetime_ms : INT64_MAX;
}

int tunnel_accept(const struct tunnel *tunnel, int listener, struct net_address *peer)
{
    int socket = net_address_accept(listener, peer);
    int err;

    switch (socket) {
    case -EMFILE: case -ENFILE: case -ENOBUFS: case -ENOMEM:
        return socket;
    }
    if (socket < 0)                     /* whatever it was, it concerns that one connection */
        return -EAGAIN;
    err = socket_prepare_to_relay(socket, tunnel->settings->keepalive_ms);
    if (!err)
        return socket;
    socket_reset(socket);
    return -EAGAIN;
}

bool tunnel_admits(const struct tunnel *tunnel, const struct net_address *peer)
{
    return tunnel->settings->attach_from_any || net_address_same_host(peer, &tunnel->opener);
}

void tunnel_turn_away(struct tunnel *tunnel, int socket, const struct net_address *peer)
{
    char text[NET_ADDRESS_TEXT_BYTES];

    socket_reset(socket);
    if (tunnel->turned_away++ == 0)     /* one may knock without end */
        log_write(LOG_WARNING, "tunnel %lu turned away %s, which did not open it",
                  (unsigned long)tunnel->id, log_address(peer, text));
}

bool descriptors_take(atomic_size_t *taken, size_t most)
{
    if (atomic_fetch_add(taken, 1) < most)
        return true;
    descriptors_give(taken);
    return false;
}

void descriptors_give(atomic_size_t *taken)
{
    atomic_fetch_sub(taken, 1);
}

bool tunnel_take_descriptor(struct tunnel *tunnel)
{
    return descriptors_take(tunnel->descriptors, tunnel->settings->descriptors);
}

void tunnel_give_descriptor(struct tunnel *tunnel)
{
    descriptors_give(tunnel->descriptors);
}

int tunnel_accept_client(struct tunnel *tunnel, struct net_address *peer)
{
    int socket;

    if (!tunnel_take_descriptor(tunnel))
        return -EMFILE;
    socket = tunnel_accept(tunnel, tunnel->pair.client_listener, peer);
    if (socket < 0)
        tunnel_give_descriptor(tunnel);
    return socket;
}

void tunnel_close_listener(int *listener)
{
    if (*listener >= 0)
        close(*listener);
    *listener = -1;
}
