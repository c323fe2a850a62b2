/* exposure: one service that is being exposed, by one of the backends. */
#ifndef CLIENTS_EXPOSURE_H
#define CLIENTS_EXPOSURE_H

#include "clients/command.h"
#include "clients/target.h"

#include <pthread.h>
#include <stdatomic.h>

enum { EXPOSURE_NAME_BYTES = 64, EXPOSURE_URL_BYTES = URI_TEXT_BYTES + 8 };

struct exposure;
struct report;

/* A way to expose. */
struct exposure_backend {
    const char *name;
    bool is_probed;                     /* the service is asked what it speaks */
    bool has_one_address;               /* for all clients, so that there is something to look at */
    /* Opens a tunnel, reports its address and serves, until stop: an exit status, having
     * said why it failed. On the exposure's thread. */
    int (*run)(struct exposure *exposure);
    /* Makes run return soon, also if it is called later. On the main thread. NULL: it
     * ends with the process. */
    void (*stop)(struct exposure *exposure);
    /* On the main thread. False: there are none. NULL: never any. */
    bool (*look)(struct exposure *exposure, struct tristero_statistics *statistics);
};

extern const struct exposure_backend exposure_by_ssh, exposure_by_tcp, exposure_by_webmux;

struct exposure {
    char name[EXPOSURE_NAME_BYTES];     /* of its section; "" */
    struct target target;
    const struct exposure_backend *backend;
    bool once, server_first;
    unsigned tunnels, connections;      /* 0: as the backend likes it */
    int timeout_s;                      /* for the proxy, as --timeout */
    struct tristero_proxy *proxy;       /* the exposure's, until it is freed */

    /* From its start on. */
    struct report *report;
    pthread_t thread;
    const char *scheme;                 /* of its URL, by what the service speaks; NULL: the tunnel's */
    int status;                         /* what run returned */
    atomic_bool has_address, has_ended;

    pthread_mutex_t lock;               /* of what follows */
    bool stopping;
    void *serving;                      /* the backend's */

    /* The report's, by its lock. */
    char address[URI_TEXT_BYTES], url[EXPOSURE_URL_BYTES];
    char printed_url[EXPOSURE_URL_BYTES];
};

/* By the name of --backend; NULL is the usual one. NULL if there is none of that name. */
const struct exposure_backend *exposure_backend_find(const char *name);

/* "webmux, ssh or tcp" */
extern const char exposure_backend_names[];

/* Of one service that the command line names, or the sections of a file. The caller frees
 * each one's proxy and target, and the whole. STATUS_OK, or why not, which has been said. */
int exposures_of_arguments(const struct arguments *arguments, struct exposure **exposures,
                           unsigned *count);
int exposures_of_file(const struct arguments *arguments, struct exposure **exposures,
                      unsigned *count);

/* The name of an option that does not go with its backend, or NULL; and what the option
 * goes with. */
const char *exposure_misfit(const struct exposure *exposure);
const char *exposure_fit(const struct exposure *exposure);

#endif
