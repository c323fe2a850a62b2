#include "rpc/listener_private.h"

#include "relay/log.h"
#include "relay/refusals.h"
#include "relay/socket.h"
#include "relay/waker.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    BACKLOG = 512,
    RECEIVE_BUFFER_BYTES = 256 * 1024,  /* a whole request, however small its packets */
    DRAIN_MS = 2000,                    /* for a refused client to take its answer */
    EVENTS = 64
};

void listener_uncount(struct listener *listener, struct tally_entry *counted)
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

void listener_drop(struct listener *listener, struct connection *connection)
{
    int socket = connection->socket;

    listener_uncount(listener, connection->counted);
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
        listener_drop(listener, connection);
}

bool listener_trusts(const struct listener *listener, const struct net_address *peer)
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

    if (listener_trusts(listener, &connection->peer) && request->forwarded_for[0] &&
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
        listener_drop(listener, connection);
        break;
    }
}

static void serve(struct listener *listener, struct connection *connection, uint32_t events)
{
    if (!(events & EPOLLERR) && !connection->is_draining)
        look(listener, connection, events & (EPOLLRDHUP | EPOLLHUP));
    else if ((events & EPOLLERR) || !connection_drain(connection, listener->bytes))
        listener_drop(listener, connection);
}

static void time_out(struct listener *listener, struct connection *connection)
{
    if (!connection->is_draining && connection->has_begun) {
        refuse(listener, connection, 408, "request-timeout: the request did not arrive in time");
        return;
    }
    if (!connection->is_draining)
        refusals_count(LIMIT_REQUEST_TIMEOUT);
    listener_drop(listener, connection);
}

int listener_watch(struct listener *listener, int descriptor, uint32_t events, void *whom)
{
    struct epoll_event event = { .events = events, .data.ptr = whom };

    return epoll_ctl(listener->epoll, EPOLL_CTL_ADD, descriptor, &event) < 0 ? -errno : 0;
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

/* Ends what has waited too long, and tells what was refused; how long the next may
 * still wait. */
static int timeout_ms(struct listener *listener)
{
    int64_t now_ms = clock_ms();
    int64_t next_ms = clock_earlier(expire(&listener->waiting, listener, now_ms),
                                    expire(&listener->draining, listener, now_ms));

    next_ms = clock_earlier(next_ms, refusals_log_due(now_ms));
    return (int)clock_earlier(next_ms, listener_accept_again(listener, now_ms));
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
            listener_accept(listener);
    }
}

static void listener_free(struct listener *listener)
{
    struct connection *connection;

    while ((connection = TAILQ_FIRST(&listener->waiting)) ||
           (connection = TAILQ_FIRST(&listener->draining)))
        /* As in expire. NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
        listener_drop(listener, connection);
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
    err = listener_watch(listener, listener->news, EPOLLIN, &listener->news);
    if (!err)
        err = listener_watch(listener, listener->socket, EPOLLIN, listener);
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
    listener_uncount(listener, ready->counted);
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
