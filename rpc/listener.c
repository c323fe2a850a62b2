#include "rpc/listener.h"

#include "relay/log.h"
#include "relay/socket.h"
#include "relay/tally.h"
#include "relay/waker.h"
#include "rpc/connection.h"
#include "relay/log_budget.h"
#include "relay/refusals.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    BACKLOG = 512,
    RECEIVE_BUFFER_BYTES = 256 * 1024,  /* a whole request, however small its packets */
    DRAIN_MS = 2000,                    /* for a refused client to take its answer */
    ACCEPT_PAUSE_MS = 100,              /* when there is no room or descriptor for one more */
    EVENTS = 64
};

TAILQ_HEAD(connections, connection);

/* Everything belongs to the listener's thread but handed_over, and what the lock
 * guards. */
struct listener {
    pthread_t thread;
    int socket;
    int epoll;
    int news;                           /* eventfd: written when the lock's things changed */
    struct connections waiting;         /* for their request; the oldest first */
    struct connections draining;        /* the oldest first */
    size_t count;                       /* in both lists */
    struct listener_limits limits;      /* that hold in this round */
    struct log_budget log_budget;       /* for refusals */
    struct log_budget pause_budget;
    atomic_size_t handed_over;          /* taken by ready, not done yet */
    int64_t accept_again_ms;
    bool is_paused;                     /* the port is not watched until then */
    void (*ready)(const struct ready_request *request, void *context);
    void *context;
    pthread_mutex_t lock;
    struct listener_limits next_limits; /* guarded by lock: for the next round */
    bool stopping;                      /* guarded by lock */
    struct tally addresses;             /* guarded by lock: of all connections */
    char bytes[HTTP_REQUEST_BYTES];     /* what was looked at last */
};

static void uncount(struct listener *listener, struct tally_entry *counted)
{
    pthread_mutex_lock(&listener->lock);
    tally_remove(&listener->addresses, counted);
    pthread_mutex_unlock(&listener->lock);
}

/* Forgets the connection; its socket stays open, and counts. */
static void release(struct listener *listener, struct connection *connection)
{
    epoll_ctl(listener->epoll, EPOLL_CTL_DEL, connection->socket, NULL);
    TAILQ_REMOVE(connection->is_draining ? &listener->draining : &listener->waiting, connection,
                 entry);
    listener->count--;
    free(connection);
}

static void drop(struct listener *listener, struct connection *connection)
{
    int socket = connection->socket;

    uncount(listener, connection->counted);
    release(listener, connection);
    close(socket);
}

/* The limits that the guard and the clock keep are counted here. */
static void count_refusal(int status)
{
    if (status == 408)
        refusals_count(LIMIT_REQUEST_TIMEOUT);
    if (status == 413)
        refusals_count(LIMIT_REQUEST_SIZE);
}

static void log_refusal(struct listener *listener, const struct connection *connection,
                        int status, const char *reason)
{
    char text[NET_ADDRESS_TEXT_BYTES];
    unsigned left_out;

    if (!log_budget_spend(&listener->log_budget, clock_ms(), &left_out))
        return;
    if (left_out)
        log_write(LOG_INFO, "refused %u more requests", left_out);
    log_write(LOG_INFO, "refused a request from %s with %d: %s",
              log_address(&connection->peer, text), status, reason);
}

static void refuse(struct listener *listener, struct connection *connection, int status,
                   const char *reason)
{
    struct http_refusal refusal = { .status = status, .reason = reason };

    count_refusal(status);
    log_refusal(listener, connection, status, reason);
    TAILQ_REMOVE(&listener->waiting, connection, entry);
    TAILQ_INSERT_TAIL(&listener->draining, connection, entry);
    connection->deadline_ms = clock_ms() + DRAIN_MS;
    if (!connection_refuse(connection, &refusal))
        drop(listener, connection);
}

static bool is_trusted(const struct listener *listener, const struct net_address *peer)
{
    return listener->limits.has_trusted_proxy &&
           net_address_same_host(peer, &listener->limits.trusted_proxy);
}

/* "192.0.2.1", "192.0.2.1:5000", "2001:db8::1" or "[2001:db8::1]:5000". */
static bool forwarded_parse(const char *text, struct net_address *caller)
{
    return net_address_parse(text, 0, caller) == 0 ||
           net_address_parse_with_port(text, caller) == 0;
}

static void hand_over(struct listener *listener, struct connection *connection,
                      const struct http_request *request)
{
    struct ready_request ready = {
        .socket = connection->socket,
        .peer = connection->peer,
        .counted = connection->counted,
        .request = *request,
    };

    if (is_trusted(listener, &connection->peer) && request->forwarded_for[0] &&
        !forwarded_parse(request->forwarded_for, &ready.peer)) {
        refuse(listener, connection, 400, "expected an address at the end of X-Forwarded-For");
        return;
    }
    release(listener, connection);
    atomic_fetch_add(&listener->handed_over, 1);
    listener->ready(&ready, listener->context);
}

static void look(struct listener *listener, struct connection *connection, bool has_ended)
{
    struct http_request request;

    switch (connection_look(connection, has_ended, listener->limits.request_bytes,
                            listener->bytes, &request)) {
    case CONNECTION_WAITS:
        break;
    case CONNECTION_READY:
        hand_over(listener, connection, &request);
        break;
    case CONNECTION_REFUSED:
        refuse(listener, connection, request.status, request.reason);
        break;
    case CONNECTION_GONE:
        drop(listener, connection);
        break;
    }
}

static void serve(struct listener *listener, struct connection *connection, uint32_t events)
{
    if (!(events & EPOLLERR) && !connection->is_draining)
        look(listener, connection, events & (EPOLLRDHUP | EPOLLHUP));
    else if ((events & EPOLLERR) || !connection_drain(connection, listener->bytes))
        drop(listener, connection);
}

static void time_out(struct listener *listener, struct connection *connection)
{
    if (!connection->is_draining && connection->has_begun) {
        refuse(listener, connection, 408, "request-timeout: the request did not arrive in time");
        return;
    }
    if (!connection->is_draining)
        refusals_count(LIMIT_REQUEST_TIMEOUT);
    drop(listener, connection);
}

static bool is_full(struct listener *listener)
{
    return listener->count + atomic_load(&listener->handed_over) >= listener->limits.connections;
}

/* Room for one more: somebody who was refused goes first, then whoever has kept
 * the proxy waiting longest. */
static void make_room(struct listener *listener)
{
    struct connection *oldest = TAILQ_FIRST(&listener->draining);

    if (!oldest) {
        refusals_count(LIMIT_CONNECTIONS);
        oldest = TAILQ_FIRST(&listener->waiting);
    }
    drop(listener, oldest);
}

static int watch(struct listener *listener, int descriptor, uint32_t events, void *whom)
{
    struct epoll_event event = { .events = events, .data.ptr = whom };

    return epoll_ctl(listener->epoll, EPOLL_CTL_ADD, descriptor, &event) < 0 ? -errno : 0;
}

static int count_for_address(struct listener *listener, struct connection *connection,
                            const struct net_address *peer)
{
    int err;

    if (is_trusted(listener, peer))
        return 0;
    pthread_mutex_lock(&listener->lock);
    err = tally_add_address(&listener->addresses, peer, listener->limits.connections_per_address,
                            &connection->counted);
    pthread_mutex_unlock(&listener->lock);
    return err;
}

/* -EDQUOT: its address has as many as it may. */
static int add(struct listener *listener, int socket, const struct net_address *peer)
{
    struct connection *connection = calloc(1, sizeof *connection);
    int err = connection ? count_for_address(listener, connection, peer) : -ENOMEM;

    if (!err)
        err = watch(listener, socket, EPOLLIN | EPOLLRDHUP | EPOLLET, connection);
    if (err) {
        if (connection)
            uncount(listener, connection->counted);
        free(connection);
        return err;
    }
    connection->socket = socket;
    connection->peer = *peer;
    connection->deadline_ms = clock_ms() + listener->limits.request_timeout_ms;
    TAILQ_INSERT_TAIL(&listener->waiting, connection, entry);
    listener->count++;
    return 0;
}

/* Who has as many connections as one may have is told at once, as far as that
 * goes without waiting. */
static void turn_away(struct listener *listener, int socket)
{
    struct http_refusal refusal = { .status = 429, .retry_after_s = 1 };
    char answer[HTTP_REFUSAL_BYTES];
    char reason[120];
    size_t length;

    refusals_count(LIMIT_CONNECTIONS_PER_ADDRESS);
    snprintf(reason, sizeof reason, "%s: this address has %zu connections, as many as it may",
             limit_name(LIMIT_CONNECTIONS_PER_ADDRESS), listener->limits.connections_per_address);
    refusal.reason = reason;
    length = http_refusal_write(&refusal, answer);
    (void)!TEMP_FAILURE_RETRY(send(socket, answer, length, MSG_NOSIGNAL));
    shutdown(socket, SHUT_WR);
    (void)!recv(socket, listener->bytes, sizeof listener->bytes, 0);
    close(socket);
}

/* The port is not watched for a while: what can't be accepted would wake the
 * thread again and again. */
static void pause_accepting(struct listener *listener)
{
    unsigned left_out;

    listener->accept_again_ms = clock_ms() + ACCEPT_PAUSE_MS;
    if (listener->is_paused)
        return;
    listener->is_paused = true;
    epoll_ctl(listener->epoll, EPOLL_CTL_DEL, listener->socket, NULL);
    if (log_budget_spend(&listener->pause_budget, clock_ms(), &left_out))
        log_write(LOG_WARNING, "calls have to wait: too many connections, or too few descriptors");
}

static void resume_accepting(struct listener *listener)
{
    listener->accept_again_ms = clock_ms() + ACCEPT_PAUSE_MS;
    if (watch(listener, listener->socket, EPOLLIN, listener) == 0)
        listener->is_paused = false;
}

static void accept_waiting(struct listener *listener)
{
    for (int i = 0; i < EVENTS; i++) {
        struct net_address peer;
        int socket;

        if (atomic_load(&listener->handed_over) >= listener->limits.connections) {
            pause_accepting(listener);
            return;
        }
        socket = net_address_accept(listener->socket, &peer);
        if (socket == -EAGAIN)
            return;
        if (socket < 0) {
            if (socket != -ECONNABORTED && socket != -EINTR && socket != -EPROTO)
                pause_accepting(listener);
            return;
        }
        while (is_full(listener))       /* by more than one, where the limit was lowered */
            make_room(listener);
        switch (add(listener, socket, &peer)) {
        case 0:
            break;
        case -EDQUOT:
            turn_away(listener, socket);
            break;
        default:
            close(socket);
            pause_accepting(listener);
            return;
        }
    }
}

static int64_t expire(struct connections *list, struct listener *listener, int64_t now_ms)
{
    struct connection *oldest;

    /* The analyzer loses what leaves a TAILQ: closed connections aren't in it.
     * NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
    while ((oldest = TAILQ_FIRST(list)) && oldest->deadline_ms <= now_ms)
        time_out(listener, oldest);
    return oldest ? oldest->deadline_ms - now_ms : INT32_MAX;
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Ends what has waited too long, and tells what was refused; how long the next may
 * still wait. */
static int timeout_ms(struct listener *listener)
{
    int64_t now_ms = clock_ms();
    int64_t next_ms = sooner(expire(&listener->waiting, listener, now_ms),
                             expire(&listener->draining, listener, now_ms));

    next_ms = sooner(next_ms, refusals_log_due(now_ms));
    if (listener->is_paused && listener->accept_again_ms <= now_ms)
        resume_accepting(listener);
    if (listener->is_paused)
        next_ms = sooner(next_ms, listener->accept_again_ms - now_ms);
    return (int)next_ms;
}

/* A shorter time to arrive in holds for those who wait, too, from now on; so the
 * oldest stays the next to expire. */
static void shorten_waits(struct listener *listener)
{
    int64_t latest_ms = clock_ms() + listener->limits.request_timeout_ms;
    struct connection *connection;

    for (connection = TAILQ_FIRST(&listener->waiting); connection; connection = TAILQ_NEXT(connection, entry))
        if (connection->deadline_ms > latest_ms)
            connection->deadline_ms = latest_ms;
}

/* false: the listener has to stop. */
static bool hear_news(struct listener *listener)
{
    eventfd_t times;
    bool stopping;

    eventfd_read(listener->news, &times);
    pthread_mutex_lock(&listener->lock);
    listener->limits = listener->next_limits;
    stopping = listener->stopping;
    pthread_mutex_unlock(&listener->lock);
    shorten_waits(listener);
    return !stopping;
}

/* New connections come last: making room for them closes others, and no event
 * of this round may speak of those any more. */
static void *listener_thread(void *argument)
{
    struct listener *listener = argument;
    struct epoll_event events[EVENTS];

    for (;;) {
        int count = epoll_wait(listener->epoll, events, EVENTS, timeout_ms(listener));
        bool has_callers = false;

        for (int i = 0; i < count; i++) {
            void *whom = events[i].data.ptr;

            if (whom == &listener->news && !hear_news(listener))
                return NULL;
            if (whom == listener)
                has_callers = true;
            else if (whom != &listener->news)
                serve(listener, whom, events[i].events);
        }
        if (has_callers)
            accept_waiting(listener);
    }
}

static void listener_free(struct listener *listener)
{
    struct connection *connection;

    while ((connection = TAILQ_FIRST(&listener->waiting)) ||
           (connection = TAILQ_FIRST(&listener->draining)))
        /* As in expire. NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
        drop(listener, connection);
    if (listener->socket >= 0)
        close(listener->socket);
    if (listener->epoll >= 0)
        close(listener->epoll);
    if (listener->news >= 0)
        close(listener->news);
    tally_clear(&listener->addresses);
    pthread_mutex_destroy(&listener->lock);
    free(listener);
}

static int open_descriptors(struct listener *listener, const struct net_address *address,
                            struct net_address *bound)
{
    int bytes = RECEIVE_BUFFER_BYTES;
    int err;

    listener->socket = socket_listen(address, BACKLOG);
    if (listener->socket < 0)
        return listener->socket;
    /* Accepted connections inherit it. */
    if (setsockopt(listener->socket, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) < 0)
        return -errno;
    listener->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (listener->epoll < 0)
        return -errno;
    listener->news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (listener->news < 0)
        return -errno;
    err = watch(listener, listener->news, EPOLLIN, &listener->news);
    if (!err)
        err = watch(listener, listener->socket, EPOLLIN, listener);
    return err ? err : net_address_of_socket(listener->socket, bound);
}

int listener_start(const struct net_address *address, const struct listener_limits *limits,
                   void (*ready)(const struct ready_request *request, void *context),
                   void *context, struct listener **out, struct net_address *bound)
{
    struct listener *listener = calloc(1, sizeof *listener);
    int err;

    if (!listener)
        return -ENOMEM;
    listener->socket = listener->epoll = listener->news = -1;
    listener->ready = ready;
    listener->context = context;
    listener->limits = listener->next_limits = *limits;
    pthread_mutex_init(&listener->lock, NULL);
    TAILQ_INIT(&listener->waiting);
    TAILQ_INIT(&listener->draining);
    *out = listener;                    /* before ready can be called */
    err = open_descriptors(listener, address, bound);
    if (!err)
        err = -pthread_create(&listener->thread, NULL, listener_thread, listener);
    if (err) {
        listener_free(listener);
        *out = NULL;
    }
    return err;
}

void listener_change_limits(struct listener *listener, const struct listener_limits *limits)
{
    pthread_mutex_lock(&listener->lock);
    listener->next_limits = *limits;
    pthread_mutex_unlock(&listener->lock);
    eventfd_write(listener->news, 1);
}

void listener_done(struct listener *listener, const struct ready_request *ready)
{
    uncount(listener, ready->counted);
    atomic_fetch_sub(&listener->handed_over, 1);
}

void listener_stop(struct listener *listener)
{
    pthread_mutex_lock(&listener->lock);
    listener->stopping = true;
    pthread_mutex_unlock(&listener->lock);
    eventfd_write(listener->news, 1);
    pthread_join(listener->thread, NULL);
    listener_free(listener);
}
