#include "rpc/rpc_server.h"

#include "relay/address_table.h"
#include "relay/log.h"
#include "rpc/gate.h"
#include "rpc/listener.h"
#include "rpc/methods.h"
#include "rpc/refusals.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/time.h>
#include <unistd.h>
#include <xmlrpc-c/abyss.h>
#include <xmlrpc-c/server_abyss.h>

enum {
    WORKERS = 4,
    WORKER_STACK_BYTES = 1024 * 1024,   /* a parsed document is freed recursively */
    SEND_BUFFER_BYTES = 200 * 1024,     /* the largest answer fits, and nobody is waited for */
    SEND_TIMEOUT_S = 5,                 /* should it not */
    UNREAD_BYTES_MAX = 1024 * 1024      /* of a caller that does not stop sending */
};

struct job {
    TAILQ_ENTRY(job) entry;
    struct ready_request ready;
};

TAILQ_HEAD(jobs, job);

struct rpc_server {
    struct relay *relay;
    char host[URI_HOST_BYTES];          /* "": as the caller addressed the proxy */
    TServer abyss;
    struct listener *listener;
    struct gate *gate;
    struct address_table *opens;        /* a token: an openTunnel */
    atomic_size_t opens_per_minute;       /* 0: any number */
    pthread_t workers[WORKERS];
    size_t worker_count;

    pthread_mutex_t lock;
    pthread_cond_t changed;             /* jobs or stopping */
    struct jobs jobs;                   /* guarded by lock: the oldest first */
    bool stopping;                      /* guarded by lock */
};

/* Abyss's own description of a peer has no room for an IPv6 address; the job
 * takes its place, and finds its way to the call. */
static void process_call(xmlrpc_env *env, void *argument, const char *xml, size_t length,
                         TSession *session, xmlrpc_mem_block **answer)
{
    struct rpc_server *server = argument;
    struct rpc_call call = {
        .relay = server->relay,
        .opens = server->opens,
        .opens_per_minute = atomic_load(&server->opens_per_minute),
    };
    char local_host[NET_ADDRESS_TEXT_BYTES];
    struct net_address local;
    struct job *job;
    void *info;

    SessionGetChannelInfo(session, &info);
    job = info;
    call.caller = job->ready.peer;
    call.user = job->ready.user;
    if (server->host[0]) {
        call.host = server->host;
    } else if (job->ready.request.host[0]) {
        call.host = job->ready.request.host;
    } else if (net_address_of_socket(job->ready.socket, &local) == 0) {
        net_address_format_host(&local, local_host);
        call.host = local_host;
    } else {
        xmlrpc_faultf(env, "the caller is gone");
        return;
    }
    *answer = method_answer(env, xml, length, &call);
}

/* Abyss sends a header field at a time; the cork makes one packet of them. */
static int prepare_for_abyss(int socket)
{
    struct timeval timeout = { .tv_sec = SEND_TIMEOUT_S };
    int bytes = SEND_BUFFER_BYTES;
    int on = 1;
    int flags = fcntl(socket, F_GETFL);

    if (flags < 0 || fcntl(socket, F_SETFL, flags & ~O_NONBLOCK) < 0 ||
        setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) < 0 ||
        setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) < 0 ||
        setsockopt(socket, IPPROTO_TCP, TCP_CORK, &on, sizeof on) < 0)
        return -errno;
    return 0;
}

/* Closing with bytes unread would take the answer away from the caller; but who
 * sends without end is not waited for. */
static void finish_and_close(int socket)
{
    char unread[4096];
    size_t left = UNREAD_BYTES_MAX;
    ssize_t taken = 1;

    shutdown(socket, SHUT_WR);
    while (taken > 0 && left >= sizeof unread) {
        taken = recv(socket, unread, sizeof unread, MSG_DONTWAIT);
        left -= sizeof unread;
    }
    close(socket);
}

static void log_and_free(const char *what, const char *error)
{
    log_write(LOG_ERROR, "%s: %s", what, error);
    free((void *)error);
}

static void carry_out(struct rpc_server *server, struct job *job)
{
    int socket = job->ready.socket;
    struct abyss_unix_chaninfo *not_used;
    const char *error;
    TChannel *channel;

    if (prepare_for_abyss(socket) < 0) {        /* the caller is gone already */
        close(socket);
        return;
    }
    ChannelUnixCreateFd(socket, &channel, &not_used, &error);
    if (error) {
        log_and_free("a call could not be answered", error);
        close(socket);
        return;
    }
    ServerRunChannel(&server->abyss, channel, job, &error);
    if (error)
        log_and_free("a call could not be answered", error);
    ChannelDestroy(channel);
    free(not_used);
    finish_and_close(socket);
}

/* NULL once the server stops and all jobs are done. */
static struct job *next_job(struct rpc_server *server)
{
    struct job *job;

    pthread_mutex_lock(&server->lock);
    while (!(job = TAILQ_FIRST(&server->jobs)) && !server->stopping)
        pthread_cond_wait(&server->changed, &server->lock);
    if (job)
        TAILQ_REMOVE(&server->jobs, job, entry);
    pthread_mutex_unlock(&server->lock);
    return job;
}

static void *worker(void *argument)
{
    struct rpc_server *server = argument;
    struct job *job;

    while ((job = next_job(server))) {
        carry_out(server, job);
        free(job);
        listener_done(server->listener);
    }
    return NULL;
}

static void add_job(const struct ready_request *ready, void *context)
{
    struct rpc_server *server = context;
    struct job *job = malloc(sizeof *job);

    if (!job) {                         /* a caller whose connection breaks may try again */
        log_write(LOG_ERROR, "a call was dropped: out of memory");
        close(ready->socket);
        listener_done(server->listener);
        return;
    }
    job->ready = *ready;
    pthread_mutex_lock(&server->lock);
    TAILQ_INSERT_TAIL(&server->jobs, job, entry);
    pthread_cond_signal(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

/* The whole request has arrived, so that there is nothing to wait for. */
static void refuse(const struct ready_request *ready, const struct http_refusal *refusal,
                   void *context)
{
    struct rpc_server *server = context;
    char answer[HTTP_REFUSAL_BYTES];

    /* Best effort: if it does not fit into the empty buffer, the caller is gone. */
    (void)!send(ready->socket, answer, http_refusal_write(refusal, answer), MSG_NOSIGNAL);
    finish_and_close(ready->socket);
    listener_done(server->listener);
}

static int serve_path(struct rpc_server *server, const char *path)
{
    xmlrpc_server_abyss_handler_parms parameters = {
        .xml_processor = process_call,
        .xml_processor_arg = server,
        .uri_path = path,
    };
    xmlrpc_env env;
    int err;

    xmlrpc_env_init(&env);
    xmlrpc_server_abyss_set_handler3(&env, &server->abyss, &parameters, XMLRPC_AHPSIZE(uri_path));
    err = env.fault_occurred ? -ENOMEM : 0;
    xmlrpc_env_clean(&env);
    return err;
}

/* Abyss gets its connections from our workers, so its own limits on their
 * number and its waits have nothing to do. */
static int abyss_start(struct rpc_server *server)
{
    const char *error;
    int err;

    AbyssInit(&error);
    if (error) {
        log_and_free("Abyss could not be set up", error);
        return -ENOMEM;
    }
    if (!ServerCreateNoAccept(&server->abyss, NULL, NULL, NULL)) {
        AbyssTerm();
        return -ENOMEM;
    }
    ServerSetAdvertise(&server->abyss, 0);
    xmlrpc_limit_set(XMLRPC_XML_SIZE_LIMIT_ID, HTTP_BODY_BYTES);
    err = serve_path(server, "/RPC2");
    if (!err)
        err = serve_path(server, "/");
    if (!err)
        return 0;
    ServerFree(&server->abyss);
    AbyssTerm();
    return err;
}

static int workers_start(struct rpc_server *server)
{
    pthread_attr_t attributes;
    int err = pthread_attr_init(&attributes);

    if (err)
        return -err;
    err = pthread_attr_setstacksize(&attributes, WORKER_STACK_BYTES);
    while (!err && server->worker_count < WORKERS) {
        err = pthread_create(&server->workers[server->worker_count], &attributes, worker, server);
        if (!err)
            server->worker_count++;
    }
    pthread_attr_destroy(&attributes);
    return -err;
}

/* Workers and gate go first, since they tell the listener what they have done;
 * what it hands over after that is dropped. */
static void threads_stop(struct rpc_server *server)
{
    struct job *job;

    pthread_mutex_lock(&server->lock);
    server->stopping = true;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
    for (size_t i = 0; i < server->worker_count; i++)
        pthread_join(server->workers[i], NULL);
    gate_stop(server->gate);
    listener_stop(server->listener);
    gate_free(server->gate);
    while ((job = TAILQ_FIRST(&server->jobs))) {
        TAILQ_REMOVE(&server->jobs, job, entry);
        close(job->ready.socket);
        free(job);
    }
}

/* The threads take no signals: those are the main thread's, and a caller that
 * is gone is no reason to die. */
static int threads_start(struct rpc_server *server, const struct rpc_settings *settings,
                         struct net_address *bound)
{
    struct gate_exits exits = { .admit = add_job, .refuse = refuse, .context = server };
    sigset_t all, before;
    int err;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    err = gate_start(settings->users, &exits, &server->gate);
    if (err)
        goto out;
    err = listener_start(&settings->listen, &settings->limits.listener, gate_look, server->gate,
                         &server->listener, bound);
    if (err) {
        gate_stop(server->gate);
        gate_free(server->gate);
        goto out;
    }
    err = workers_start(server);
    if (err)
        threads_stop(server);
out:
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err;
}

static void abyss_stop(struct rpc_server *server)
{
    ServerFree(&server->abyss);
    AbyssTerm();
}

static void server_free(struct rpc_server *server)
{
    address_table_free(server->opens);
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->lock);
    free(server);
}

/* So many at once, and the next each time as much of a minute has passed. */
static int opens_limit(struct rpc_server *server, size_t opens_per_minute)
{
    unsigned tokens = (unsigned)opens_per_minute;
    int64_t interval_ms = tokens ? (60000 + tokens - 1) / tokens : 1;
    int err = 0;

    if (server->opens)
        address_table_change(server->opens, tokens, interval_ms);
    else
        err = address_table_new(tokens, interval_ms, &server->opens);
    atomic_store(&server->opens_per_minute, opens_per_minute);
    return err;
}

int rpc_server_start(const struct rpc_settings *settings, struct relay *relay,
                     struct rpc_server **out, struct net_address *address)
{
    struct rpc_server *server = calloc(1, sizeof *server);
    int err;

    if (!server) {
        users_release(settings->users);
        return -ENOMEM;
    }
    server->relay = relay;
    if (settings->host)
        strncpy(server->host, settings->host, sizeof server->host - 1);
    TAILQ_INIT(&server->jobs);
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->changed, NULL);
    err = opens_limit(server, settings->limits.opens_per_minute);
    if (!err)
        err = abyss_start(server);
    if (err) {
        users_release(settings->users);
        server_free(server);
        return err;
    }
    err = threads_start(server, settings, address);
    if (err) {
        abyss_stop(server);
        server_free(server);
        return err;
    }
    *out = server;
    return 0;
}

void rpc_server_change_users(struct rpc_server *server, struct users *users)
{
    gate_change_users(server->gate, users);
}

void rpc_server_change_limits(struct rpc_server *server, const struct rpc_limits *limits)
{
    listener_change_limits(server->listener, &limits->listener);
    opens_limit(server, limits->opens_per_minute);
}

void rpc_server_stop(struct rpc_server *server)
{
    threads_stop(server);
    abyss_stop(server);
    server_free(server);
    refusals_log_rest();
}
