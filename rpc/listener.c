#include "rpc/listener.h"

#include "relay/log.h"
#include "relay/socket.h"
#include "relay/tally.h"
#include "relay/waker.h"
#include "rpc/log_budget.h"
#include "rpc/refusals.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    BACKLOG = 512,
    RECEIVE_BUFFER_BYTES = 256 * 1024,  /* a whole request, however small its packets */
    DRAIN_MS = 2000,                    /* for a refused client to take its answer */
    DRAIN_BYTES_MAX = 256 * 1024,       /* of one that does not stop sending */
    ACCEPT_PAUSE_MS = 100,              /* when there is no room or descriptor for one more */
    EVENTS = 64
};

struct connection {
    TAILQ_ENTRY(connection) entry;
    int socket;
    struct net_address peer;
    struct tally_entry *counted;        /* for its address; NULL: the trusted proxy's */
    int64_t deadline_ms;
    size_t wanted;                      /* bytes of the whole request, once known */
    bool has_begun;                     /* some bytes have arrived */
    bool was_told_to_continue;
    bool is_draining;                   /* it was refused: what still comes is thrown away */
    size_t drained;                     /* so much so far */
};

TAILQ_HEAD(connections, connection);

/* Everything belongs to the listener's thread but handed_over, and what the lock
 * guards. */
struct listener {
    pthread_t thread;
    int socket;
    int epoll;
    int stop;                           /* eventfd: written once by listener_stop */
    struct connections waiting;         /* for their request; the oldest first */
    struct connections draining;        /* the oldest first */
    size_t count;                       /* in both lists */
    struct listener_limits limits;      /* that hold in this round */
    struct log_budget log_budget;       /* for refusals */
    atomic_size_t handed_over;          /* taken by ready, not done yet */
    int64_t accept_again_ms;
    bool is_paused;                     /* the port is not watched until then */
    void (*ready)(const struct ready_request *request, void *context);
    void *context;
    pthread_mutex_t lock;
    struct listener_limits next_limits; /* guarded by lock: for the next round */
    struct tally addresses;             /* guarded by lock: of all connections */
    char bytes[HTTP_REQUEST_BYTES];     /* what was looked at last */
};

static struct connections *list_of(struct listener *listener, const struct connection *connection)
{
    return connection->is_draining ? &listener->draining : &listener->waiting;
}

static void uncount(struct listener *listener, struct tally_entry *counted)
{
    pthread_mutex_lock(&listener->lock);
    tally_remove(&listener->addresses, counted);
    pthread_mutex_unlock(&listener->lock);
}

/* Forgets the connection; its socket stays open, and counts. */
static void connection_release(struct listener *listener, struct connection *connection)
{
    epoll_ctl(listener->epoll, EPOLL_CTL_DEL, connection->socket, NULL);
    TAILQ_REMOVE(list_of(listener, connection), connection, entry);
    listener->count--;
    free(connection);
}

static void connection_close(struct listener *listener, struct connection *connection)
{
    int socket = connection->socket;

    uncount(listener, connection->counted);
    connection_release(listener, connection);
    close(socket);
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

/* The answer is small and the socket's buffer empty: it fits, or the client is
 * gone. The rest of the request is read and forgotten for a while, since closing
 * with bytes unread would take the answer away from the client. */
static void connection_refuse(struct listener *listener, struct connection *connection,
                              int status, const char *reason)
{
    struct http_refusal refusal = { .status = status, .reason = reason };
    char answer[HTTP_REFUSAL_BYTES];
    size_t length = http_refusal_write(&refusal, answer);

    log_refusal(listener, connection, status, reason);
    if (TEMP_FAILURE_RETRY(send(connection->socket, answer, length, MSG_NOSIGNAL)) !=
            (ssize_t)length ||
        shutdown(connection->socket, SHUT_WR) < 0) {
        connection_close(listener, connection);
        return;
    }
    TAILQ_REMOVE(&listener->waiting, connection, entry);
    connection->is_draining = true;
    connection->deadline_ms = clock_ms() + DRAIN_MS;
    TAILQ_INSERT_TAIL(&listener->draining, connection, entry);
}

static void connection_drain(struct listener *listener, struct connection *connection)
{
    ssize_t received;

    do {
        received = recv(connection->socket, listener->bytes, sizeof listener->bytes, 0);
        connection->drained += received > 0 ? (size_t)received : 0;
    } while ((received > 0 && connection->drained < DRAIN_BYTES_MAX) ||
             (received < 0 && errno == EINTR));
    if (received >= 0 || errno != EAGAIN)
        connection_close(listener, connection);
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

static void connection_hand_over(struct listener *listener, struct connection *connection,
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
        connection_refuse(listener, connection, 400,
                          "expected an address at the end of X-Forwarded-For");
        return;
    }
    connection_release(listener, connection);
    atomic_fetch_add(&listener->handed_over, 1);
    listener->ready(&ready, listener->context);
}

static void connection_tell_to_continue(struct connection *connection)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";

    if (connection->was_told_to_continue)
        return;
    connection->was_told_to_continue = true;
    /* Best effort: who gets no 100 sends its body all the same after a while. */
    (void)!send(connection->socket, text, sizeof text - 1, MSG_NOSIGNAL);
}

/* Whether it is worth looking: a body that drips in is looked at when it is
 * complete, not at every byte. */
static bool enough_has_arrived(const struct connection *connection)
{
    int available;

    if (!connection->wanted || ioctl(connection->socket, FIONREAD, &available) < 0)
        return true;
    return (size_t)available >= connection->wanted;
}

static void connection_refuse_size(struct listener *listener, struct connection *connection,
                                   size_t bytes)
{
    char reason[120];

    refusals_count(LIMIT_REQUEST_SIZE);
    snprintf(reason, sizeof reason, "%s: a call may have %zu bytes, Content-Length is %zu",
             limit_name(LIMIT_REQUEST_SIZE), listener->limits.request_bytes, bytes);
    connection_refuse(listener, connection, 413, reason);
}

static void connection_look(struct listener *listener, struct connection *connection,
                            bool has_ended)
{
    enum http_verdict verdict;
    struct http_request request;
    ssize_t received;

    if (!has_ended && !enough_has_arrived(connection))
        return;
    received = TEMP_FAILURE_RETRY(
        recv(connection->socket, listener->bytes, sizeof listener->bytes, MSG_PEEK));
    if (received < 0 && errno == EAGAIN)
        return;
    if (received <= 0) {
        connection_close(listener, connection);
        return;
    }
    connection->has_begun = true;
    verdict = http_guard_look(listener->bytes, (size_t)received, &request);
    switch (verdict) {
    case HTTP_REFUSED:
        if (request.status == 413)
            refusals_count(LIMIT_REQUEST_SIZE);
        connection_refuse(listener, connection, request.status, request.reason);
        return;
    case HTTP_COMPLETE:
    case HTTP_INCOMPLETE:
        break;
    }
    if (request.body_bytes > listener->limits.request_bytes) {
        connection_refuse_size(listener, connection, request.body_bytes);
        return;
    }
    if (verdict == HTTP_COMPLETE) {
        connection_hand_over(listener, connection, &request);
        return;
    }
    connection->wanted = request.bytes;
    if (has_ended)
        connection_refuse(listener, connection, 400, "the request ended before it was complete");
    else if (request.expects_continue)
        connection_tell_to_continue(connection);
}

static void connection_serve(struct listener *listener, struct connection *connection,
                             uint32_t events)
{
    if (events & EPOLLERR)
        connection_close(listener, connection);
    else if (connection->is_draining)
        connection_drain(listener, connection);
    else
        connection_look(listener, connection, events & (EPOLLRDHUP | EPOLLHUP));
}

static void connection_time_out(struct listener *listener, struct connection *connection)
{
    if (!connection->is_draining)
        refusals_count(LIMIT_REQUEST_TIMEOUT);
    if (!connection->is_draining && connection->has_begun)
        connection_refuse(listener, connection, 408,
                          "request-timeout: the request did not arrive in time");
    else
        connection_close(listener, connection);
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
    connection_close(listener, oldest);
}

static int watch(struct listener *listener, int descriptor, uint32_t events, void *whom)
{
    struct epoll_event event = { .events = events, .data.ptr = whom };

    return epoll_ctl(listener->epoll, EPOLL_CTL_ADD, descriptor, &event) < 0 ? -errno : 0;
}

static int connection_count(struct listener *listener, struct connection *connection,
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
static int connection_add(struct listener *listener, int socket, const struct net_address *peer)
{
    struct connection *connection = calloc(1, sizeof *connection);
    int err = connection ? connection_count(listener, connection, peer) : -ENOMEM;

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
    if (log_budget_spend(&listener->log_budget, clock_ms(), &left_out))
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

        if (is_full(listener) && listener->count == 0) {
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
        if (is_full(listener))
            make_room(listener);
        switch (connection_add(listener, socket, &peer)) {
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
        connection_time_out(listener, oldest);
    return oldest ? oldest->deadline_ms - now_ms : INT32_MAX;
}

/* Ends what has waited too long; how long the next may still wait. */
static int timeout_ms(struct listener *listener)
{
    int64_t now_ms = clock_ms();
    int64_t waiting_ms = expire(&listener->waiting, listener, now_ms);
    int64_t draining_ms = expire(&listener->draining, listener, now_ms);
    int64_t next_ms = waiting_ms < draining_ms ? waiting_ms : draining_ms;

    if (listener->is_paused && listener->accept_again_ms <= now_ms)
        resume_accepting(listener);
    if (listener->is_paused && listener->accept_again_ms - now_ms < next_ms)
        next_ms = listener->accept_again_ms - now_ms;
    return next_ms == INT32_MAX ? -1 : (int)next_ms;
}

/* A shorter time to arrive in holds for those who wait, too, from now on; so the
 * oldest stays the next to expire. */
static void take_limits(struct listener *listener)
{
    struct connection *connection;
    int64_t latest_ms;

    pthread_mutex_lock(&listener->lock);
    listener->limits = listener->next_limits;
    pthread_mutex_unlock(&listener->lock);
    latest_ms = clock_ms() + listener->limits.request_timeout_ms;
    TAILQ_FOREACH_REVERSE(connection, &listener->waiting, connections, entry) {
        /* It loses what the end of a TAILQ points to. */
        /* cppcheck-suppress uninitvar */
        if (connection->deadline_ms <= latest_ms)
            break;
        connection->deadline_ms = latest_ms;
    }
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

        take_limits(listener);
        for (int i = 0; i < count; i++) {
            void *whom = events[i].data.ptr;

            if (whom == &listener->stop)
                return NULL;
            if (whom == listener)
                has_callers = true;
            else
                connection_serve(listener, whom, events[i].events);
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
        connection_close(listener, connection);
    if (listener->socket >= 0)
        close(listener->socket);
    if (listener->epoll >= 0)
        close(listener->epoll);
    if (listener->stop >= 0)
        close(listener->stop);
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
    listener->stop = eventfd(0, EFD_CLOEXEC);
    if (listener->stop < 0)
        return -errno;
    err = watch(listener, listener->stop, EPOLLIN, &listener->stop);
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
    listener->socket = listener->epoll = listener->stop = -1;
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
}

void listener_done(struct listener *listener, const struct ready_request *ready)
{
    uncount(listener, ready->counted);
    atomic_fetch_sub(&listener->handed_over, 1);
}

void listener_stop(struct listener *listener)
{
    eventfd_write(listener->stop, 1);
    pthread_join(listener->thread, NULL);
    listener_free(listener);
}
