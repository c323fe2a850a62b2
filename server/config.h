/* config: what the operator asked for, on the command line and in a file.
 *
 * The command line wins over the file, wherever --config stands on it; both
 * win over the defaults. Plain values; used before there are threads. */
#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

#include "relay/log.h"
#include "relay/net_address.h"
#include "relay/relay.h"
#include "relay/ssh_service.h"
#include "relay/uri.h"
#include "rpc/rpc_server.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Where others than this machine may call; macros, since --help shows them. */
#define DEFAULT_TUNNELS_PER_ADDRESS 100
#define DEFAULT_OPENS_PER_MINUTE 120

enum { CONFIG_ERROR_BYTES = 1024, CONFIG_PATH_BYTES = 1024 };

struct config {
    struct net_address listen;          /* where XML-RPC is served */
    char users[CONFIG_PATH_BYTES];      /* the file of those who may call; "": everybody may */
    bool open_to_all;                   /* the operator's word that everybody may */
    char host[URI_HOST_BYTES];          /* for the URIs; "": as the caller addressed the proxy */
    struct relay_settings relay;
    struct rpc_limits rpc;
    struct net_address ssh_listen;      /* where ssh is served, if it is given */
    bool ssh_listen_given;
    char state_dir[CONFIG_PATH_BYTES];  /* where the proxy's key is */
    char authorized_keys[CONFIG_PATH_BYTES];    /* the file of who may open tunnels by ssh; "": none */
    struct ssh_limits ssh;
    bool relay_listen_given;            /* relay.listen is not just a copy of listen */
    bool max_tunnels_given;             /* relay.max_tunnels is not just the default */
    int64_t drain_ms;                   /* what live tunnels get to finish in */
    enum log_level log_level;
    bool log_addresses;
};

enum config_wish { CONFIG_SERVE, CONFIG_SHOW_HELP, CONFIG_SHOW_VERSION };

/* Reads the command line, whose words getopt may reorder, and the file that it
 * names. 0, and then config is filled if *wish is CONFIG_SERVE; or a negative
 * errno, and then error says in one line what was wrong, where, and what was
 * expected. May be called again with the same words, to read the file anew. */
int config_read(int argc, char **argv, struct config *config, enum config_wish *wish,
                char error[CONFIG_ERROR_BYTES]);

/* The name of a setting that differs between the two and is fixed for as long as
 * the daemon runs; NULL: there is none. */
const char *config_fixed_difference(const struct config *a, const struct config *b);

/* How many tunnels there can really be: max_tunnels, or fewer if the port
 * pairs are fewer. */
size_t config_port_pairs(const struct config *config);
size_t config_tunnels_at_once(const struct config *config);

/* Every option with its default. */
void config_write_help(FILE *out);

#endif
