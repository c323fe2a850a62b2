/* library: what the files of libtristero-tunnel share. */
#ifndef CLIENTS_LIBRARY_H
#define CLIENTS_LIBRARY_H

#include "clients/tristero_tunnel.h"

#include <stdatomic.h>
#include <stdbool.h>

struct tristero_proxy {                 /* never changes once it is made, but for is_cancelled */
    char *url;                          /* without user and password */
    char *user, *password;              /* or NULL */
    int call_timeout_ms;
    int attach_timeout_ms;
    atomic_bool is_cancelled;           /* what waits ends within a second or so */
    const struct tristero_proxy *whole; /* it ends with that one's, too; or NULL */
};

/* A part of another one, which must outlast it: cancelled by itself, or with the whole. */
void proxy_init_part(struct tristero_proxy *part, const struct tristero_proxy *whole);

bool proxy_is_cancelled(const struct tristero_proxy *proxy);

/* Fills *error, unless it is NULL; returns status. */
enum tristero_status error_set(struct tristero_error *error, enum tristero_status status,
                               const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The same for what the system has refused, which the text goes on with: an errno. */
enum tristero_status error_set_os(struct tristero_error *error, enum tristero_status status,
                                  int os_error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Connects to a tunnel's server URI, which is to have that scheme. *socket is the
 * caller's, non-blocking and closed on exec. */
enum tristero_status connect_tunnel(const struct tristero_proxy *proxy, const char *server_uri,
                                    const char *scheme, int *socket, struct tristero_error *error);

#endif
