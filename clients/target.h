/* target: what is exposed: a port, a Unix socket, or a folder that is served here. */
#ifndef CLIENTS_TARGET_H
#define CLIENTS_TARGET_H

#include "relay/net_address.h"
#include "relay/uri.h"

#include <stdbool.h>
#include <sys/un.h>

struct directory;

enum { TARGET_ADDRESSES_MAX = 8, TARGET_ERROR_BYTES = 640, TARGET_TEXT_BYTES = 4096 };

enum target_kind { TARGET_PORT, TARGET_SOCKET, TARGET_FOLDER };

struct target {
    enum target_kind kind;
    char text[TARGET_TEXT_BYTES];       /* for people: 127.0.0.1:8080, unix:/run/app; a folder's path */
    char host[URI_HOST_BYTES];
    uint16_t port;
    union {
        struct net_address net;
        struct sockaddr_un local;
    } addresses[TARGET_ADDRESSES_MAX];  /* to be tried in this order; of a socket, one */
    unsigned count;
    struct directory *directory;        /* of a folder that was started */
};

/* From "8080", "HOST:8080", "[::1]:8080" or "unix:/path". 0, or -EINVAL and what is wrong
 * in error. */
int target_parse(const char *text, struct target *target, char error[TARGET_ERROR_BYTES]);

/* From a folder's path. As above. */
int target_of_folder(const char *path, struct target *target, char error[TARGET_ERROR_BYTES]);

/* Looks up the host, which may wait; starts to serve the folder. 0, or a negative errno
 * and what is wrong in error. */
int target_start(struct target *target, char error[TARGET_ERROR_BYTES]);

/* Cuts off the clients of a folder. */
void target_end(struct target *target);

/* A stream socket, connected or about to be, non-blocking, the caller's to close; or a
 * negative errno, -EAGAIN while the queue of a Unix socket is full. Does not wait. Any
 * thread, after target_start. */
int target_connect(const struct target *target);

/* The same, connected within timeout_ms, to whichever of the host's addresses answers;
 * *which gets that one's number, and may be NULL. */
int target_connect_in_time(const struct target *target, int timeout_ms, unsigned *which);

/* "http", "https", or NULL for whatever else it speaks, as far as it tells within a few
 * seconds. A host's address that answers is the first to be tried from then on. libcurl has
 * to be set up. */
const char *target_probe_scheme(struct target *target);

#endif
