/* Who may come: room for one more, as many as an address may have, and pauses. */
#include "rpc/listener_private.h"

#include "relay/log.h"
#include "relay/refusals.h"
#include "relay/socket.h"
#include "relay/waker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    ACCEPTS_A_TURN = 64,
    ACCEPT_PAUSE_MS = 100               /* when there is no room or descriptor for one more */
};

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
    listener_drop(listener, oldest);
}

static int count_for_address(struct listener *listener, struct connection *connection,
                            const struct net_address *peer)
{
    int err;

    if (listener_trusts(listener, peer))
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
        err = listener_watch(listener, socket, EPOLLIN | EPOLLRDHUP | EPOLLET, connection);
    if (err) {
        if (connection)
            listener_uncount(listener, connection->counted);
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
    if (listener_watch(listener, listener->socket, EPOLLIN, listener) == 0)
        listener->is_paused = false;
}

int64_t listener_accept_again(struct listener *listener, int64_t now_ms)
{
    if (listener->is_paused && listener->accept_again_ms <= now_ms)
        resume_accepting(listener);
    return listener->is_paused ? listener->accept_again_ms - now_ms : INT32_MAX;
}

void listener_accept(struct listener *listener)
{
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
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
