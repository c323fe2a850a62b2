/* The connection of a server that has logged in: what it asks for, and its thread. */
#include "relay/ssh_carrier.h"

#include "relay/buffer_pool.h"
#include "relay/log.h"
#include "relay/thread_stack.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    STACK_BYTES = THREAD_STACK_BYTES < 256 * 1024 ? 256 * 1024 : THREAD_STACK_BYTES,
    READ_BYTES = 4096,                  /* what libssh reads at a time */
    PUMPS_A_TURN = 32,
    UNSENT_HEARD_BYTES = 256 * 1024,    /* so much may come while it takes no answers */
    WAITING_BYTES_MAX = 64 * 1024 * 1024,      /* for clients of one carrier */
    STUCK_LOOK_MS = 1000
};

void carrier_fail(struct carrier *carrier, const char *why)
{
    if (!carrier->failure)
        carrier->failure = why;
}

char *carrier_room(struct carrier *carrier)
{
    if (!carrier->room)
        carrier->room = buffer_pool_take();
    if (!carrier->room)
        carrier_fail(carrier, "no memory");
    return carrier->room;
}

static bool has_unsent(const struct carrier *carrier)
{
    return ssh_get_status(carrier->entrant.session) & SSH_WRITE_PENDING;
}

bool carrier_is_ending(struct carrier *carrier)
{
    struct pollfd end = { .fd = carrier->entrant.socket, .events = POLLRDHUP };

    if (!carrier->server_has_left)
        carrier->server_has_left = poll(&end, 1, 0) > 0;
    return carrier->failure || carrier->server_has_left;
}

bool carrier_may_write(const struct carrier *carrier)
{
    return !carrier->failure && !has_unsent(carrier) && !carrier->kept_back;
}

bool carrier_has_delivered(const struct carrier *carrier, uint64_t bytes)
{
    int unacknowledged = 0;

    return ioctl(carrier->entrant.socket, SIOCOUTQ, &unacknowledged) < 0 ||
           carrier->counter.out_bytes >= bytes + (uint64_t)unacknowledged;
}

/* SSH_AGAIN: it will be sent; but what was asked for second has not been begun. */
bool carrier_close_channel(ssh_channel channel)
{
    int done = ssh_channel_close(channel);

    if (done == SSH_AGAIN)
        done = ssh_channel_close(channel);
    return done != SSH_ERROR;
}

/* --- what it asks for */

static void log_refusal(struct carrier *carrier, const char *bind, int port, const char *why)
{
    char shown[SSH_BIND_BYTES];
    unsigned left_out;

    if (log_budget_spend(&carrier->log_budget, clock_ms(), &left_out))
        log_write(LOG_INFO, "refused to forward \"%s\" port %d by ssh: %s",
                  text_printable(bind, strlen(bind), shown, 64), port, why);
    console_refused(carrier, port, why);
}

static int on_forward(struct carrier *carrier, ssh_message message)
{
    const char *bind = ssh_message_global_request_address(message);
    int port = ssh_message_global_request_port(message);
    const char *refusal = "the port is none";
    struct forward *forward;

    if (port >= 0 && port <= UINT16_MAX)
        refusal = forward_open(carrier, bind, (uint16_t)port, &forward);
    if (refusal) {
        log_refusal(carrier, bind, port, refusal);
        return 1;
    }
    if (ssh_message_global_request_reply_success(message, forward->port) != SSH_OK)
        carrier_fail(carrier, "the server has gone");
    return 0;
}

static int on_cancel(struct carrier *carrier, ssh_message message)
{
    int port = ssh_message_global_request_port(message);
    struct forward *forward;

    if (port < 0 || port > UINT16_MAX)
        return 1;
    forward = forward_find(carrier, ssh_message_global_request_address(message), (uint16_t)port);
    if (!forward)
        return 1;
    forward_cancel(forward);
    if (ssh_message_global_request_reply_success(message, 0) != SSH_OK)
        carrier_fail(carrier, "the server has gone");
    return 0;
}

/* Whatever else is asked for is refused: 1 is for the library to do so. */
static int on_message(ssh_session session, ssh_message message, void *context)
{
    struct carrier *carrier = context;

    (void)session;
    if (ssh_message_type(message) == SSH_REQUEST_GLOBAL) {
        switch (ssh_message_subtype(message)) {
        case SSH_GLOBAL_REQUEST_TCPIP_FORWARD:
            return on_forward(carrier, message);
        case SSH_GLOBAL_REQUEST_CANCEL_TCPIP_FORWARD:
            return on_cancel(carrier, message);
        }
    }
    return 1;
}

/* --- its thread */

/* Has libssh handle what has come, and send what it has, without waiting. */
static void pump(struct carrier *carrier)
{
    for (int i = 0; i < PUMPS_A_TURN && !carrier->failure; i++) {
        uint64_t heard = carrier->counter.in_bytes;

        if (ssh_event_dopoll(carrier->entrant.event, 0) == SSH_ERROR ||
            ssh_get_status(carrier->entrant.session) & (SSH_CLOSED | SSH_CLOSED_ERROR))
            carrier_fail(carrier, "the server has gone");
        if (carrier->counter.in_bytes - heard < READ_BYTES)
            return;                     /* it has read all there was */
    }
}

/* Who takes no answers is heard no more: each could make what waits larger. */
static short own_events(struct carrier *carrier)
{
    short hears = carrier->is_held_up ? 0 : POLLIN;

    if (!has_unsent(carrier)) {
        carrier->heard_at_flush = carrier->counter.in_bytes;
        return hears;
    }
    if (carrier->counter.in_bytes - carrier->heard_at_flush > UNSENT_HEARD_BYTES)
        return POLLOUT;
    return (short)(hears | POLLOUT);
}

static bool make_room(struct carrier *carrier, size_t count)
{
    if (count <= carrier->polled_room)
        return true;
    free(carrier->polled);
    carrier->polled = calloc(2 * count, sizeof carrier->polled[0]);
    carrier->polled_room = carrier->polled ? 2 * count : 0;
    return carrier->polled;
}

static size_t forwards_count(const struct carrier *carrier)
{
    const struct forward *forward;
    size_t count = 0;

    for (forward = TAILQ_FIRST(&carrier->forwards); forward; forward = TAILQ_NEXT(forward, entry))
        count++;
    return count;
}

/* The carrier's own socket, then two of each forward. */
static size_t fill_polled(struct carrier *carrier)
{
    struct pollfd *polled = carrier->polled;
    struct forward *forward;

    *polled++ = (struct pollfd){ .fd = carrier->entrant.socket, .events = own_events(carrier) };
    for (forward = TAILQ_FIRST(&carrier->forwards); forward; forward = TAILQ_NEXT(forward, entry)) {
        bool accepts = forward_accepts(carrier, forward);

        *polled++ = (struct pollfd){ .fd = forward->epoll, .events = POLLIN };
        *polled++ = (struct pollfd){
            .fd = accepts ? forward->tunnel->pair.client_listener : -1, .events = POLLIN };
    }
    return (size_t)(polled - carrier->polled);
}

/* What poll has said. Forwards that are added meanwhile come behind those that were polled,
 * of which none is freed. */
static void move(struct carrier *carrier, size_t count)
{
    struct forward *forward = TAILQ_FIRST(&carrier->forwards);

    for (size_t i = 1; i < count && !carrier->failure; i += 2) {
        if (carrier->polled[i].revents)
            forward_hear_clients(carrier, forward);
        if (carrier->polled[i + 1].revents)
            forward_accept(carrier, forward);
        forward = TAILQ_NEXT(forward, entry);
    }
    if (carrier->polled[0].revents)
        pump(carrier);
}

/* One that has no tunnel, or none any more, counts as one that has not logged in. */
static void count_without_tunnel(struct carrier *carrier)
{
    struct ssh_entrant *entrant = &carrier->entrant;
    bool has_tunnel = forwards_have_tunnel(carrier);

    atomic_store(&carrier->has_tunnel, has_tunnel);
    if (has_tunnel && entrant->counted)
        tunnelless_remove(&carrier->service->tunnelless, &entrant->counted);
    if (!has_tunnel && !entrant->counted &&
        tunnelless_add(&carrier->service->tunnelless, &entrant->peer, NULL, &entrant->counted))
        carrier_fail(carrier, "no memory");
}

/* What waits for slow clients is not to take all memory. Who has taken nothing for a while
 * is reset when it is too much; for those that take their bytes slowly, the server is held
 * up. Whether one takes something is looked at before it is too much, so that who is stuck
 * by then holds up nobody. And a server that sends on in channels that are closed is not
 * heard for ever. When to look again. */
static int64_t bound_waiting(struct carrier *carrier, int64_t now_ms)
{
    struct stream *stuck = NULL;

    if (carrier->waiting > WAITING_BYTES_MAX / 4 && now_ms >= carrier->stuck_look_ms) {
        carrier->stuck_look_ms = now_ms + STUCK_LOOK_MS;
        stuck = streams_stuck(carrier, now_ms);
    }
    for (; stuck && carrier->waiting > WAITING_BYTES_MAX; stuck = streams_stuck(carrier, now_ms))
        stream_break(stuck, "too much waits for slow clients, and it takes nothing");
    carrier->is_held_up = carrier->waiting > WAITING_BYTES_MAX &&
                          streams_waiting(carrier) > WAITING_BYTES_MAX / 2;
    if (carrier->waiting > 2 * (size_t)WAITING_BYTES_MAX)
        carrier_fail(carrier, "the server sends too much to clients that have gone");
    return carrier->waiting > WAITING_BYTES_MAX / 4 ? carrier->stuck_look_ms : INT64_MAX;
}

/* What has come about since. When to look again. */
static int64_t look(struct carrier *carrier)
{
    int64_t now_ms = clock_ms();
    int64_t look_ms = liveness_look(carrier, now_ms);

    look_ms = clock_earlier(look_ms, forwards_look(carrier, now_ms));
    console_send(carrier);              /* before the streams, which may fill the connection */
    look_ms = clock_earlier(look_ms, streams_look(carrier, now_ms));
    look_ms = clock_earlier(look_ms, bound_waiting(carrier, now_ms));
    look_ms = clock_earlier(look_ms, forwards_next_ms(carrier));    /* as the streams left it */
    look_ms = clock_earlier(look_ms, exchange_look(carrier, now_ms));
    look_ms = clock_earlier(look_ms, console_look(carrier, now_ms));
    count_without_tunnel(carrier);
    if (!forwards_have_tunnel(carrier)) {
        int64_t until_ms = carrier->opened_ms + carrier->settings.attach_timeout_ms;

        if (now_ms >= until_ms)
            carrier_fail(carrier, "the server has no tunnel");
        look_ms = clock_earlier(look_ms, until_ms);
    } else {
        carrier->opened_ms = now_ms;
    }
    if (atomic_load(&carrier->draining)) {
        forwards_stop_listening(carrier);
        if (!streams_have_client(carrier))
            carrier_fail(carrier, "the proxy is shutting down");
    }
    return streams_may_move(carrier) ? 0 : look_ms;
}

static void turn(struct carrier *carrier)
{
    uint64_t heard = carrier->counter.in_bytes;
    int64_t look_ms = look(carrier);
    size_t count;
    int ready;

    /* What came while libssh wrote may concern a stream that was looked at before. */
    if (carrier->counter.in_bytes != heard)
        look_ms = 0;

    buffer_pool_give(carrier->room);
    carrier->room = NULL;
    if (carrier->failure)
        return;
    if (!make_room(carrier, 1 + 2 * forwards_count(carrier))) {
        carrier_fail(carrier, "no memory");
        return;
    }
    count = fill_polled(carrier);
    ready = waker_poll(&carrier->waker, carrier->polled, count, look_ms);
    if (ready == -ECANCELED)
        carrier_fail(carrier, atomic_load(&carrier->makes_room)
                              ? "it had no tunnel, and had to make room for another" : "stopped");
    else if (ready < 0 && ready != -EAGAIN)
        carrier_fail(carrier, "no memory");
    else if (ready > 0)
        move(carrier, count);
}

/* The service may bury it from here on. */
static void leave(struct carrier *carrier)
{
    struct ssh_service *service = carrier->service;

    pthread_mutex_lock(&service->lock);
    TAILQ_REMOVE(&service->carriers, carrier, entry);
    TAILQ_INSERT_TAIL(&service->ended, carrier, entry);
    pthread_cond_signal(&service->carrier_ended);
    if (!service->stopping)
        waker_nudge(&service->waker);
    pthread_mutex_unlock(&service->lock);
}

/* With what libssh has to say of it. */
static void log_end(struct carrier *carrier)
{
    const char *error = ssh_get_error(carrier->entrant.session);
    char text[NET_ADDRESS_TEXT_BYTES];
    char shown[200];

    log_write(LOG_INFO, "%s is gone from ssh: %s", log_address(&carrier->entrant.peer, text),
              carrier->failure);
    if (*error)
        log_write(LOG_DEBUG, "libssh says: %s",
                  text_printable(error, strlen(error), shown, sizeof shown));
}

static void *carrier_thread(void *argument)
{
    struct carrier *carrier = argument;
    char text[NET_ADDRESS_TEXT_BYTES];

    waker_own(&carrier->waker);
    log_write(LOG_INFO, "%s has logged in by ssh%s%s", log_address(&carrier->entrant.peer, text),
              *carrier->entrant.user ? " with the " : "", carrier->entrant.user);
    while (!carrier->failure)
        turn(carrier);
    log_end(carrier);
    forwards_end(carrier);
    tunnelless_remove(&carrier->service->tunnelless, &carrier->entrant.counted);
    buffer_pool_give(carrier->room);
    console_free(carrier);
    ssh_disconnect(carrier->entrant.session);
    ssh_session_end(carrier->entrant.session, carrier->entrant.event);
    leave(carrier);
    return NULL;
}

/* --- its start and end */

static int start_thread(struct carrier *carrier)
{
    return thread_stack_start(STACK_BYTES, carrier_thread, carrier, &carrier->stack,
                              &carrier->thread);
}

/* By which name, or at which address, its server has it called. */
static void set_host(struct carrier *carrier)
{
    char host[NET_ADDRESS_TEXT_BYTES] = "";
    struct net_address own;

    if (*carrier->service->host) {
        memcpy(carrier->host, carrier->service->host, sizeof carrier->host);
        return;
    }
    if (net_address_of_socket(carrier->entrant.socket, &own) == 0)
        net_address_format_host(&own, host);
    snprintf(carrier->host, sizeof carrier->host, "%s", host);
}

static int set_callbacks(struct carrier *carrier)
{
    ssh_session session = carrier->entrant.session;

    carrier->server_callbacks = (struct ssh_server_callbacks_struct){
        .userdata = carrier,
        .channel_open_request_session_function = console_on_session,
    };
    ssh_callbacks_init(&carrier->server_callbacks);
    ssh_set_counters(session, &carrier->counter, &carrier->payload);
    ssh_set_message_callback(session, on_message, carrier);
    return ssh_set_server_callbacks(session, &carrier->server_callbacks) == SSH_OK ? 0 : -ENOMEM;
}

static void end_entrant(struct ssh_service *service, struct ssh_entrant *entrant)
{
    tunnelless_remove(&service->tunnelless, &entrant->counted);
    ssh_session_end(entrant->session, entrant->event);
}

int carrier_start(struct ssh_service *service, struct ssh_entrant *entrant)
{
    struct carrier *carrier = calloc(1, sizeof *carrier);
    int err;

    if (!carrier) {
        end_entrant(service, entrant);
        return -ENOMEM;
    }
    carrier->service = service;
    carrier->entrant = *entrant;
    carrier->settings = relay_settings(service->relay);
    carrier->limits = ssh_service_limits(service);
    carrier->opened_ms = clock_ms();
    liveness_begin(carrier, carrier->opened_ms);
    TAILQ_INIT(&carrier->forwards);
    TAILQ_INIT(&carrier->streams);
    TAILQ_INIT(&carrier->active);
    carrier->time_ms = INT64_MAX;
    set_host(carrier);
    err = set_callbacks(carrier);
    pthread_mutex_lock(&service->lock);
    atomic_store(&carrier->draining, service->draining);
    if (!err)
        err = start_thread(carrier);
    if (!err)
        TAILQ_INSERT_TAIL(&service->carriers, carrier, entry);
    pthread_mutex_unlock(&service->lock);
    if (!err)
        return 0;
    end_entrant(service, entrant);
    free(carrier);
    return err;
}

void carrier_drain(struct carrier *carrier)
{
    atomic_store(&carrier->draining, true);
    waker_nudge(&carrier->waker);
}

void carrier_ask_to_end(struct carrier *carrier)
{
    waker_ask(&carrier->waker);
}

bool carrier_make_room(struct carrier *carrier)
{
    if (atomic_load(&carrier->has_tunnel) || atomic_exchange(&carrier->makes_room, true))
        return false;
    carrier_ask_to_end(carrier);
    return true;
}

void carrier_bury(struct carrier *carrier)
{
    pthread_join(carrier->thread, NULL);
    thread_stack_free(carrier->stack, STACK_BYTES);
    free(carrier->polled);
    free(carrier);
}
