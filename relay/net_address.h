/* net_address: an IPv4 or IPv6 address with a port.
 *
 * Addresses that IPv6 sockets see as ::ffff:a.b.c.d are turned into the IPv4
 * address they stand for, so that one peer has one address. Plain values; any
 * thread. */
#ifndef RELAY_NET_ADDRESS_H
#define RELAY_NET_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct net_address {
    union {
        struct sockaddr any;
        struct sockaddr_in ip4;
        struct sockaddr_in6 ip6;
    };
    socklen_t length;                   /* of the one in use */
};

enum { NET_ADDRESS_TEXT_BYTES = 80 };   /* "[address%scope]:port" and a NUL */

/* From "127.0.0.1", "::1" or "[::1]", and a port. 0 or -EINVAL. */
int net_address_parse(const char *text, uint16_t port, struct net_address *address);

/* From "127.0.0.1:8000" or "[::1]:8000". 0 or -EINVAL. */
int net_address_parse_with_port(const char *text, struct net_address *address);

uint16_t net_address_port(const struct net_address *address);
void net_address_set_port(struct net_address *address, uint16_t port);

/* Same host, whatever the ports. */
bool net_address_same_host(const struct net_address *a, const struct net_address *b);

/* Reached by programs of this machine alone. */
bool net_address_is_loopback(const struct net_address *address);

/* "127.0.0.1:8000", "[::1]:8000"; and the host alone, "127.0.0.1", "::1". */
void net_address_format(const struct net_address *address, char text[NET_ADDRESS_TEXT_BYTES]);
void net_address_format_host(const struct net_address *address, char text[NET_ADDRESS_TEXT_BYTES]);

/* This machine's end of a socket. 0 or a negative errno. */
int net_address_of_socket(int socket, struct net_address *address);

/* The other end of a connected socket. 0 or a negative errno. */
int net_address_of_peer(int socket, struct net_address *address);

/* As accept4: a non-blocking socket, closed on exec, and who connected, known
 * even if it has reset the connection since. A negative errno otherwise. */
int net_address_accept(int listener, struct net_address *peer);

#endif
