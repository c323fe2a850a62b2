/* rpc_server: the proxy's XML-RPC front, at /RPC2 and /.
 *
 * One thread accepts connections and waits for requests, without ever being
 * held up by a slow one; a few workers carry out the calls and answer them.
 * Start and stop from one thread, one server in a process at a time. */
#ifndef RPC_RPC_SERVER_H
#define RPC_RPC_SERVER_H

#include "relay/net_address.h"
#include "relay/relay.h"
#include "rpc/listener.h"

struct rpc_server;
struct users;

struct rpc_limits {
    struct listener_limits listener;
    size_t opens_per_minute;            /* calls of openTunnel from one address; 0: any number */
};

struct rpc_settings {
    struct net_address listen;          /* port 0 takes a free one */
    struct users *users;                /* who may call; NULL: everybody. Taken over. */
    struct rpc_limits limits;
    const char *host;                   /* for the URIs; NULL: as the caller addressed the proxy */
};

/* Listens and starts serving. *address gets the address really listened on. 0
 * or a negative errno (of bind, most likely); *server is the caller's until
 * rpc_server_stop. relay must outlive it. */
int rpc_server_start(const struct rpc_settings *settings, struct relay *relay,
                     struct rpc_server **server, struct net_address *address);

/* From now on these may call, as at the start. Any thread. */
void rpc_server_change_users(struct rpc_server *server, struct users *users);

/* As at the start, for what comes from now on. Any thread. */
void rpc_server_change_limits(struct rpc_server *server, const struct rpc_limits *limits);

/* Stops accepting, ends connections, waits for calls under way, frees. */
void rpc_server_stop(struct rpc_server *server);

#endif
