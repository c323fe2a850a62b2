/* open_tunnel: Tunnel.openTunnel and Tunnel.getTunnelAddress by plain HTTP, with
 * next to no work of their own, so that the daemon's is what is measured. */
#ifndef TESTS_BENCH_OPEN_TUNNEL_H
#define TESTS_BENCH_OPEN_TUNNEL_H

#include <stdint.h>

struct tunnel_ports {
    uint16_t server, client;
};

/* Asks the daemon whose XML-RPC port on 127.0.0.1 that is. Two calls, each on a
 * connection of its own, as an owner of a tunnel makes them. 0, or a negative
 * errno; -EPROTO for an answer that is no URI. */
int open_tunnel(uint16_t rpc_port, struct tunnel_ports *ports);

#endif
