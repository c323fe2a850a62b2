#include "rpc/rpc_server.h"

#include "relay/address_table.h"
#include "relay/log.h"
#include "rpc/gate.h"
#include "rpc/listener.h"
#include "rpc/methods.h"
#include "relay/refusals.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>
#include <xmlrpc-c/base.h>

enum {
    WORKERS = 4,
    WORKER_STACK_BYTES = 1024 * 1024,   /* a parsed document is freed recursively */
    SEND_BUFFER_BYTES = 200 * 1024,     /* the largest answer fits, and nobody is waited for */
    SEND_TIMEOUT_S = 5,                 /* should it not */
    UNREAD_BYTES_MAX = 1024 * 1024,     /* of a caller that does not stop sending */
    ANSWER_MEMORY_BYTES = 32 * 1024,    /* more than most calls need, and for each byte of XML */
    XML_MEMORY_FACTOR = 64              /* what a tree of the smallest elements takes */
};

struct job {
    TAILQ_ENTRY(job) entry;
    struct ready_request ready;
};

TAILQ_HEAD(jobs, job);

struct rpc_server {
    struct relay *relay;
    char host[URI_HOST_BYTES];          /* "": as the caller addressed the proxy */
    struct listener *listener;
    struct gate *gate;
    struct address_table *opens;        /* a token: an openTunnel */
    atomic_size_t opens_per_minute;     /* 0: any number */
    pthread_t workers[WORKERS];
    size_t worker_count;

    pthread_mutex_t lock;
    pthread_cond_t changed;             /* jobs or stopping */
    struct jobs jobs;                   /* guarded by lock: the oldest first */
    bool stopping;                      /* guarded by lock */
};

/* The answer is sent at once, and waited for as long as this. */
static int prepare_to_answer(int socket)
{
    struct timeval timeout = { .tv_sec = SEND_TIMEOUT_S };
    int bytes = SEND_BUFFER_BYTES;
    int flags = fcntl(socket, F_GETFL);

    if (flags < 0 || fcntl(socket, F_SETFL, flags & ~O_NONBLOCK) < 0 ||
        setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) < 0 ||
        setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) < 0)
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

/* Best effort: if it does not fit into the empty buffer, the caller is gone. */
static void send_refusal(int socket, const struct http_refusal *refusal)
{
    char answer[HTTP_REFUSAL_BYTES];
    size_t length = http_refusal_write(refusal, answer);

    (void)!TEMP_FAILURE_RETRY(send(socket, answer, length, MSG_NOSIGNAL));
}

/* The host in the URIs for a caller. room: for one that is not written down
 * elsewhere. NULL: the caller is gone. */
static const char *host_for(const struct rpc_server *server, const struct job *job,
                            char room[NET_ADDRESS_TEXT_BYTES])
{
    struct net_address local;

    if (server->host[0])
        return server->host;
    if (job->ready.request.host[0])
        return job->ready.request.host;
    if (net_address_of_socket(job->ready.socket, &local) < 0)
        return NULL;
    net_address_format_host(&local, room);
    return room;
}

/* Of what has arrived already: there is nothing to wait for. */
static int receive_request(int socket, char *bytes, size_t count)
{
    while (count) {
        ssize_t received = recv(socket, bytes, count, MSG_DONTWAIT);

        if (received < 0 && errno == EINTR)
            continue;
        if (received <= 0)
            return received ? -errno : -ECONNRESET;
        bytes += received;
        count -= (size_t)received;
    }
    return 0;
}

/* One call, so that the time for all of it is bounded. Of an answer that is cut
 * the header tells that more was due. */
static int send_answer(int socket, const xmlrpc_mem_block *xml)
{
    char header[HTTP_ANSWER_HEADER_BYTES];
    size_t length = xmlrpc_mem_block_size(xml);
    struct iovec parts[2] = {
        { .iov_base = header, .iov_len = http_answer_header_write(length, header) },
        { .iov_base = xmlrpc_mem_block_contents(xml), .iov_len = length },
    };
    struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };

    return TEMP_FAILURE_RETRY(sendmsg(socket, &message, MSG_NOSIGNAL)) < 0 ? -errno : 0;
}

/* xmlrpc-c 1.33.14 can do with one piece of memory that it does not get, but
 * crashes when it gets none to say so in. So what it may need is asked for
 * first, where a refusal does no harm. What is freed stays with the thread. */
static bool memory_suffices(size_t xml_bytes)
{
    void *volatile room = malloc(ANSWER_MEMORY_BYTES + XML_MEMORY_FACTOR * xml_bytes);
    bool is_there = room != NULL;

    free(room);
    return is_there;
}

/* 0 when the call was answered, or -ENOMEM, or another negative errno when the
 * caller is gone. request: room for all of it. */
static int answer_call(struct rpc_server *server, const struct job *job, char *request)
{
    size_t header_bytes = job->ready.request.header_bytes;
    size_t bytes = job->ready.request.bytes;
    char local_host[NET_ADDRESS_TEXT_BYTES];
    struct rpc_call call = {
        .relay = server->relay,
        .opens = server->opens,
        .opens_per_minute = atomic_load(&server->opens_per_minute),
        .caller = job->ready.peer,
        .user = job->ready.user,
        .host = host_for(server, job, local_host),
    };
    xmlrpc_mem_block *xml;
    xmlrpc_env env;
    int err = call.host ? receive_request(job->ready.socket, request, bytes) : -ENOTCONN;

    if (err)
        return err;
    if (!memory_suffices(bytes - header_bytes))
        return -ENOMEM;
    xmlrpc_env_init(&env);
    xml = method_answer(&env, request + header_bytes, bytes - header_bytes, &call);
    xmlrpc_env_clean(&env);
    if (!xml)
        return -ENOMEM;
    err = send_answer(job->ready.socket, xml);
    xmlrpc_mem_block_free(xml);
    return err;
}

static void carry_out(struct rpc_server *server, const struct job *job)
{
    static const struct http_refusal no_memory = {
        .status = 503, .retry_after_s = 1,
        .reason = "this service is out of memory; try again soon",
    };
    int socket = job->ready.socket;
    char *request;
    int err;

    if (prepare_to_answer(socket) < 0) {        /* the caller is gone already */
        close(socket);
        return;
    }
    request = malloc(job->ready.request.bytes);
    err = request ? answer_call(server, job, request) : -ENOMEM;
    free(request);
    if (err == -ENOMEM) {
        log_write(LOG_ERROR, "a call could not be answered: out of memory");
        send_refusal(socket, &no_memory);
    }
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
        listener_done(server->listener, &job->ready);
        free(job);
    }
    return NULL;
}

static void add_job(const struct ready_request *ready, void *context)
{
    struct rpc_server *server = context;
    struct job *job = malloc(sizeof *job);
    bool is_taken;

    if (!job) {                         /* a caller whose connection breaks may try again */
        log_write(LOG_ERROR, "a call was dropped: out of memory");
        close(ready->socket);
        listener_done(server->listener, ready);
        return;
    }
    job->ready = *ready;
    pthread_mutex_lock(&server->lock);
    is_taken = !server->stopping;       /* or else the end would wait for ever new ones */
    if (is_taken) {
        TAILQ_INSERT_TAIL(&server->jobs, job, entry);
        pthread_cond_signal(&server->changed);
    }
    pthread_mutex_unlock(&server->lock);
    if (is_taken)
        return;
    free(job);
    close(ready->socket);
    listener_done(server->listener, ready);
}

/* The whole request has arrived, so that there is nothing to wait for. */
static void refuse(const struct ready_request *ready, const struct http_refusal *refusal,
                   void *context)
{
    struct rpc_server *server = context;

    send_refusal(ready->socket, refusal);
    finish_and_close(ready->socket);
    listener_done(server->listener, ready);
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
    err = -pthread_sigmask(SIG_SETMASK, &all, &before);
    if (err) {
        users_release(settings->users);
        return err;
    }
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

static void server_free(struct rpc_server *server)
{
    address_table_free(server->opens);
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->lock);
    free(server);
}

static int opens_limit(struct rpc_server *server, size_t opens_per_minute)
{
    int err = address_table_set_per_minute(&server->opens, opens_per_minute);

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
    if (err) {
        users_release(settings->users);
        server_free(server);
        return err;
    }
    xmlrpc_limit_set(XMLRPC_XML_SIZE_LIMIT_ID, HTTP_BODY_BYTES);
    err = threads_start(server, settings, address);
    if (err) {
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
    server_free(server);
    refusals_log_rest();
}
