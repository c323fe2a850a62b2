#include "clients/attacher.h"

#include "clients/backoff.h"
#include "clients/library.h"
#include "relay/waker.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

struct attacher {
    struct tristero_proxy proxy;        /* a part of the program's */
    void (*done)(void *context);
    void *context;
    char *server_uri;                   /* the attempt's, while one is under way; */
    unsigned long opened;               /* as which of all; both are guarded by all_lock, too */
    bool has_address;                   /* the tunnel's was asked for; the attempt's, too */
    LIST_ENTRY(attacher) entry;         /* guarded by all_lock */
    struct backoff backoff;
    bool gives_up;                      /* the attempt's: the tunnel, for another */

    bool has_thread;                    /* an attempt is under way, or is to be taken */
    pthread_t thread;
    atomic_bool is_over;                /* what follows is the owner's from then on */
    enum tristero_status status;
    struct attached attached;
    struct tristero_error error;
};

/* Of the program. */
static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static LIST_HEAD(attachers, attacher) all = LIST_HEAD_INITIALIZER(all); /* guarded by all_lock */
static unsigned long all_opened;        /* the same */

enum tristero_status attacher_new(struct tristero_proxy *proxy, void (*done)(void *context),
                                  void *context, struct attacher **attacher,
                                  struct tristero_error *error)
{
    *attacher = calloc(1, sizeof **attacher);
    if (!*attacher)
        return error_set(error, TRISTERO_NO_RESOURCES, "out of memory");
    **attacher = (struct attacher){ .done = done, .context = context };
    proxy_init_part(&(*attacher)->proxy, proxy);
    pthread_mutex_lock(&all_lock);
    LIST_INSERT_HEAD(&all, *attacher, entry);
    pthread_mutex_unlock(&all_lock);
    return TRISTERO_OK;
}

void attacher_free(struct attacher *attacher)
{
    if (!attacher)
        return;
    tristero_proxy_cancel(&attacher->proxy);
    if (attacher->has_thread) {
        pthread_join(attacher->thread, NULL);
        if (!attacher->status)
            close(attacher->attached.socket);
        free(attacher->attached.client_uri);
    }
    pthread_mutex_lock(&all_lock);
    LIST_REMOVE(attacher, entry);
    pthread_mutex_unlock(&all_lock);
    free(attacher->server_uri);
    free(attacher);
}

static void set_tunnel(struct attacher *attacher, char *server_uri)
{
    pthread_mutex_lock(&all_lock);
    free(attacher->server_uri);
    attacher->server_uri = server_uri;
    attacher->opened = ++all_opened;
    pthread_mutex_unlock(&all_lock);
    attacher->has_address = false;
}

/* A proxy that was started anew gives the same URIs again, to whoever comes first. */
static bool is_anothers_by_now(const struct attacher *attacher)
{
    const struct attacher *other;
    bool is_anothers = false;

    pthread_mutex_lock(&all_lock);
    LIST_FOREACH(other, &all, entry)
        is_anothers |= other->opened > attacher->opened &&
                       strcmp(other->server_uri, attacher->server_uri) == 0;
    pthread_mutex_unlock(&all_lock);
    return is_anothers;
}

static enum tristero_status ask_address(struct attacher *attacher, char **client_uri,
                                        struct tristero_error *error)
{
    enum tristero_status status = tristero_address(&attacher->proxy, attacher->server_uri,
                                                   client_uri, error);

    attacher->has_address = !status;
    return status;
}

enum tristero_status attacher_open(struct attacher *attacher, char **client_uri,
                                   struct tristero_error *error)
{
    char *server_uri;
    enum tristero_status status = tristero_open(&attacher->proxy, "webmux", &server_uri, error);

    if (status)
        return status;
    set_tunnel(attacher, server_uri);
    return ask_address(attacher, client_uri, error);
}

static enum tristero_status attach(struct attacher *attacher, int *socket,
                                   struct tristero_error *error)
{
    return connect_tunnel(&attacher->proxy, attacher->server_uri, "webmux", socket, error);
}

enum tristero_status attacher_attach(struct attacher *attacher, int *socket,
                                     struct tristero_error *error)
{
    enum tristero_status status = attach(attacher, socket, error);

    if (!status)
        backoff_attached(&attacher->backoff, clock_ms());
    return status;
}

/* Only the proxy can say that the tunnel is no more: that nobody listens there may
 * have other reasons. */
static bool is_gone(struct attacher *attacher)
{
    struct tristero_error error;
    char *client_uri;

    if (tristero_address(&attacher->proxy, attacher->server_uri, &client_uri, &error))
        return error.status == TRISTERO_FAULT;
    free(client_uri);
    return false;
}

static enum tristero_status attach_anew(struct attacher *attacher)
{
    struct attached *attached = &attacher->attached;
    enum tristero_status status = attacher_open(attacher, &attached->client_uri,
                                                &attacher->error);

    return status ? status : attach(attacher, &attached->socket, &attacher->error);
}

/* With a tunnel that was opened, and then its address could not be asked for: another would
 * leave it at the proxy. */
static enum tristero_status go_on_opening(struct attacher *attacher)
{
    struct attached *attached = &attacher->attached;
    enum tristero_status status = ask_address(attacher, &attached->client_uri, &attacher->error);

    if (status == TRISTERO_FAULT)
        return attach_anew(attacher);
    return status ? status : attach(attacher, &attached->socket, &attacher->error);
}

/* Without another tunnel, the one that there was may still become right again. */
static enum tristero_status attempt(struct attacher *attacher)
{
    struct attached *attached = &attacher->attached;
    enum tristero_status status;

    if (is_anothers_by_now(attacher))
        return attach_anew(attacher);
    if (!attacher->has_address)
        return go_on_opening(attacher);
    if (attacher->gives_up) {
        status = attach_anew(attacher);
        if (!status || attached->client_uri)
            return status;
    }
    status = attach(attacher, &attached->socket, &attacher->error);
    return status && is_gone(attacher) ? attach_anew(attacher) : status;
}

static void *attempt_thread(void *argument)
{
    struct attacher *attacher = argument;

    attacher->status = attempt(attacher);
    atomic_store(&attacher->is_over, true);
    attacher->done(attacher->context);
    return NULL;
}

/* Signals are for the program's own threads. */
static int start_thread(struct attacher *attacher)
{
    sigset_t all, before;
    int err;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    err = pthread_create(&attacher->thread, NULL, attempt_thread, attacher);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err;
}

void attacher_start(struct attacher *attacher, int64_t now_ms)
{
    if (attacher->has_thread || now_ms < attacher->backoff.next_ms)
        return;
    attacher->attached = (struct attached){ .socket = -1 };
    attacher->gives_up = backoff_gives_up(&attacher->backoff, now_ms);
    atomic_store(&attacher->is_over, false);
    if (start_thread(attacher))
        attacher_failed(attacher);
    else
        attacher->has_thread = true;
}

/* A new tunnel whose first connection failed is there all the same. */
enum attacher_result attacher_take(struct attacher *attacher, struct attached *attached,
                                   struct tristero_error *error)
{
    if (!attacher->has_thread || !atomic_load(&attacher->is_over))
        return ATTACHER_BUSY;
    pthread_join(attacher->thread, NULL);
    attacher->has_thread = false;
    *attached = attacher->attached;
    *error = attacher->error;
    if (attached->client_uri)
        backoff_not_refused(&attacher->backoff);
    if (attacher->status)
        return ATTACHER_FAILED;
    backoff_attached(&attacher->backoff, clock_ms());
    return ATTACHER_ATTACHED;
}

int attacher_failed(struct attacher *attacher)
{
    return backoff_failed(&attacher->backoff, clock_ms());
}

int attacher_lost(struct attacher *attacher)
{
    backoff_not_refused(&attacher->backoff);
    return backoff_lost(&attacher->backoff, clock_ms());
}

int attacher_turned_away(struct attacher *attacher, bool has_no_other)
{
    if (has_no_other)
        backoff_refused(&attacher->backoff, clock_ms());
    return attacher_failed(attacher);
}

int64_t attacher_next_ms(const struct attacher *attacher)
{
    return attacher->has_thread ? INT64_MAX : attacher->backoff.next_ms;
}
