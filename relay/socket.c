#include "relay/socket.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

static int set_option(int socket, int level, int option, int value)
{
    return setsockopt(socket, level, option, &value, sizeof value) < 0 ? -errno : 0;
}

static int set_linger(int socket, bool reset_on_close)
{
    struct linger linger = { .l_onoff = reset_on_close, .l_linger = 0 };

    return setsockopt(socket, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) < 0 ? -errno : 0;
}

int socket_listen(const struct net_address *address, int backlog)
{
    int family = address->any.sa_family;
    int listener = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int err;

    if (listener < 0)
        return -errno;
    /* Lets a port be used again while its last connections rest in TIME_WAIT. */
    err = set_option(listener, SOL_SOCKET, SO_REUSEADDR, 1);
    if (!err && family == AF_INET6)     /* [::] takes IPv4 too, whatever the machine's default */
        err = set_option(listener, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    if (!err && bind(listener, &address->any, address->length) < 0)
        err = -errno;
    if (!err && listen(listener, backlog) < 0)
        err = -errno;
    if (!err)
        return listener;
    close(listener);
    return err;
}

static bool stays_on_this_machine(int socket)
{
    struct net_address own, peer;

    if (net_address_of_socket(socket, &own) || net_address_of_peer(socket, &peer))
        return false;
    return net_address_is_loopback(&peer) || net_address_same_host(&own, &peer);
}

/* The machine's own choice may be BBR, which paces what it sends to suit a network;
 * where there is none, it only makes both ends wait. Reno paces nothing, is in
 * every kernel, and any user may have it; without it the relay is only slower. */
static void dont_pace_within_this_machine(int socket)
{
    static const char unpaced[] = "reno";

    if (stays_on_this_machine(socket))
        setsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, unpaced, sizeof unpaced - 1);
}

/* The user timeout decides alone when the peer is gone; the kernel then does not
 * count probes. */
static int notice_dead_peer(int socket, int keepalive_s)
{
    int err = set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);

    if (!err)
        err = set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, keepalive_s);
    if (!err)
        err = set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, (keepalive_s + 2) / 3);
    if (!err)
        err = set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, 5 * keepalive_s * 1000);
    return err;
}

int socket_prepare_carrier(int socket, int64_t keepalive_ms)
{
    int err = set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);

    if (!err)
        err = notice_dead_peer(socket, (int)(keepalive_ms / 1000));
    if (!err)
        dont_pace_within_this_machine(socket);
    return err;
}

int socket_prepare_to_relay(int socket, int64_t keepalive_ms)
{
    int err = socket_prepare_carrier(socket, keepalive_ms);

    return err ? err : set_linger(socket, true);
}

int socket_arm_reset(int socket)
{
    return set_linger(socket, true);
}

void socket_close(int socket)
{
    if (socket < 0)
        return;
    set_linger(socket, false);
    close(socket);
}

void socket_reset(int socket)
{
    if (socket < 0)
        return;
    set_linger(socket, true);
    close(socket);
}
