#include "relay/net_address.h"

#include "relay/number.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ::ffff:a.b.c.d becomes a.b.c.d. */
static void unmap_ip4(struct net_address *address)
{
    struct sockaddr_in ip4 = { .sin_family = AF_INET };

    if (address->any.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&address->ip6.sin6_addr))
        return;
    ip4.sin_port = address->ip6.sin6_port;
    memcpy(&ip4.sin_addr, &address->ip6.sin6_addr.s6_addr[12], sizeof ip4.sin_addr);
    memset(address, 0, sizeof *address);
    address->ip4 = ip4;
    address->length = sizeof ip4;
}

int net_address_parse(const char *text, uint16_t port, struct net_address *address)
{
    size_t length = strlen(text);
    char inside[INET6_ADDRSTRLEN];

    memset(address, 0, sizeof *address);
    if (length > 2 && text[0] == '[' && text[length - 1] == ']') {
        if (length - 2 >= sizeof inside)
            return -EINVAL;
        memcpy(inside, text + 1, length - 2);
        inside[length - 2] = '\0';
        if (!strchr(inside, ':'))
            return -EINVAL;
        text = inside;
    }
    if (inet_pton(AF_INET, text, &address->ip4.sin_addr) == 1) {
        address->ip4.sin_family = AF_INET;
        address->length = sizeof address->ip4;
    } else if (inet_pton(AF_INET6, text, &address->ip6.sin6_addr) == 1) {
        address->ip6.sin6_family = AF_INET6;
        address->length = sizeof address->ip6;
    } else {
        return -EINVAL;
    }
    unmap_ip4(address);
    net_address_set_port(address, port);
    return 0;
}

int net_address_parse_with_port(const char *text, struct net_address *address)
{
    const char *colon = strrchr(text, ':');
    char host[INET6_ADDRSTRLEN + 2];
    int64_t port;

    if (!colon || colon == text || (size_t)(colon - text) >= sizeof host)
        return -EINVAL;
    if (strlen(colon + 1) > 5 || number_parse(colon + 1, strlen(colon + 1), 0, UINT16_MAX, &port))
        return -EINVAL;
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    if (host[0] != '[' && strchr(host, ':'))    /* an IPv6 address needs its brackets here */
        return -EINVAL;
    return net_address_parse(host, (uint16_t)port, address);
}

uint16_t net_address_port(const struct net_address *address)
{
    return ntohs(address->any.sa_family == AF_INET6 ? address->ip6.sin6_port
                                                    : address->ip4.sin_port);
}

void net_address_set_port(struct net_address *address, uint16_t port)
{
    if (address->any.sa_family == AF_INET6)
        address->ip6.sin6_port = htons(port);
    else
        address->ip4.sin_port = htons(port);
}

bool net_address_same_host(const struct net_address *a, const struct net_address *b)
{
    if (a->any.sa_family != b->any.sa_family)
        return false;
    if (a->any.sa_family == AF_INET6)
        return a->ip6.sin6_scope_id == b->ip6.sin6_scope_id &&
               IN6_ARE_ADDR_EQUAL(&a->ip6.sin6_addr, &b->ip6.sin6_addr);
    return a->ip4.sin_addr.s_addr == b->ip4.sin_addr.s_addr;
}

bool net_address_is_loopback(const struct net_address *address)
{
    struct net_address plain = *address;

    unmap_ip4(&plain);
    if (plain.any.sa_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&plain.ip6.sin6_addr);
    return ntohl(plain.ip4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
}

void net_address_format_host(const struct net_address *address, char text[NET_ADDRESS_TEXT_BYTES])
{
    const void *bytes = address->any.sa_family == AF_INET6 ? (const void *)&address->ip6.sin6_addr
                                                           : (const void *)&address->ip4.sin_addr;

    if (!inet_ntop(address->any.sa_family, bytes, text, NET_ADDRESS_TEXT_BYTES))
        memcpy(text, "?", sizeof "?");
}

void net_address_format(const struct net_address *address, char text[NET_ADDRESS_TEXT_BYTES])
{
    char host[NET_ADDRESS_TEXT_BYTES];
    bool is_ip6 = address->any.sa_family == AF_INET6;

    net_address_format_host(address, host);
    snprintf(text, NET_ADDRESS_TEXT_BYTES, "%s%.64s%s:%u", is_ip6 ? "[" : "", host,
             is_ip6 ? "]" : "", net_address_port(address));
}

int net_address_accept(int listener, struct net_address *peer)
{
    int socket;

    memset(peer, 0, sizeof *peer);
    peer->length = sizeof peer->ip6;
    socket = accept4(listener, &peer->any, &peer->length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (socket < 0)
        return -errno;
    unmap_ip4(peer);
    return socket;
}

typedef int name_function(int socket, struct sockaddr *address, socklen_t *length);

static int address_by(name_function *name, int socket, struct net_address *address)
{
    memset(address, 0, sizeof *address);
    address->length = sizeof address->ip6;
    if (name(socket, &address->any, &address->length) < 0)
        return -errno;
    unmap_ip4(address);
    return 0;
}

int net_address_of_socket(int socket, struct net_address *address)
{
    return address_by(getsockname, socket, address);
}

int net_address_of_peer(int socket, struct net_address *address)
{
    return address_by(getpeername, socket, address);
}
