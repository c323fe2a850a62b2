/* command: what the files of the command tristero-tunnel share; one file is one
 * subcommand. */
#ifndef CLIENTS_COMMAND_H
#define CLIENTS_COMMAND_H

#include "clients/tristero_tunnel.h"

#include <stdbool.h>

/* Exit statuses, as the man page has them. */
enum { STATUS_OK, STATUS_FAILED, STATUS_USAGE };

enum { TUNNELS_MAX = 256 };             /* of one service, by tcp */

/* The command line. */
struct arguments {
    const char *proxy_url;              /* --proxy or TRISTERO_PROXY */
    const char *backend;                /* --backend, or NULL */
    const char *operand;                /* what follows the subcommand, or NULL */
    const char *folder;                 /* --dir, or NULL */
    const char *config;                 /* --config, or NULL */
    unsigned tunnels, connections;      /* 0: not given */
    int timeout_s;                      /* --timeout */
    bool json, once, server_first, with_qr, quiet;
};

/* The subcommands. Each returns an exit status, having said why it failed. That of expose
 * makes the proxies that it needs. */
int open_command(struct tristero_proxy *proxy, const struct arguments *arguments);
int address_command(struct tristero_proxy *proxy, const struct arguments *arguments);
int expose_command(struct tristero_proxy *none, const struct arguments *arguments);
int hostkey_command(struct tristero_proxy *proxy, const struct arguments *arguments);

/* For the proxy at url, which may be NULL where none is given. STATUS_OK, or why there is
 * none, which has been said, after the place where it should be. */
int proxy_make(const struct arguments *arguments, const char *place, const char *url,
               struct tristero_proxy **proxy);

/* One line on standard error: "tristero-tunnel: ...". Any thread. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* One line on standard output, at once. STATUS_OK, or STATUS_FAILED after saying
 * that it can't be written. Any thread. */
int print_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
