/* command: what the files of the command tristero-tunnel share; one file is one
 * subcommand. */
#ifndef CLIENTS_COMMAND_H
#define CLIENTS_COMMAND_H

#include "clients/tristero_tunnel.h"

#include <stdbool.h>

/* Exit statuses, as the man page has them. */
enum { STATUS_OK, STATUS_FAILED, STATUS_USAGE };

/* The command line. */
struct arguments {
    const char *proxy_url;              /* --proxy or TRISTERO_PROXY */
    const char *backend;                /* --backend, or NULL */
    const char *operand;                /* what follows the subcommand, or NULL */
    unsigned tunnels;                   /* --tunnels */
    int timeout_s;                      /* --timeout */
    bool json, once, server_first;
};

/* The subcommands. Each returns an exit status, having said why it failed. */
int open_command(struct tristero_proxy *proxy, const struct arguments *arguments);
int address_command(struct tristero_proxy *proxy, const struct arguments *arguments);
int expose_command(struct tristero_proxy *proxy, const struct arguments *arguments);
int hostkey_command(struct tristero_proxy *proxy, const struct arguments *arguments);

/* One line on standard error: "tristero-tunnel: ...". Any thread. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* One line on standard output, at once. STATUS_OK, or STATUS_FAILED after saying
 * that it can't be written. Any thread. */
int print_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
