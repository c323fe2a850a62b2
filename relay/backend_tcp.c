/* The tcp backend: the server connects to the server port, one client connects
 * to the client port, in either order, and their bytes are relayed. */
#include "relay/backend.h"

#include "relay/duplex.h"
#include "relay/log.h"
#include "relay/socket.h"

#include <errno.h>
#include <stddef.h>

/* With no descriptor left to accept with, the next try comes after this time. */
enum { ACCEPT_PAUSE_MS = 100 };

/* One of the two who are to meet. */
struct party {
    const char *name;                   /* "server" or "client" */
    int *listener;                      /* in the tunnel's port pair; -1 once it is there */
    int socket;                         /* -1 until it is there */
    int64_t ended_ms;                   /* when its end of stream was seen; INT64_MAX: not yet */
};

struct meeting {
    struct tunnel *tunnel;
    struct party server, client;
    int64_t accept_again_ms;            /* while it lies ahead, nobody is accepted */
    const char *failure;                /* why the two did not meet */
};

static struct pollfd party_interest(const struct party *party, bool accepting)
{
    struct pollfd polled = { .fd = party->socket, .events = POLLRDHUP };

    if (party->socket < 0) {
        polled.fd = accepting ? *party->listener : -1;
        polled.events = POLLIN;
    } else if (party->ended_ms != INT64_MAX) {
        polled.events = 0;              /* a reset may follow still, and needs no asking */
    }
    return polled;
}

/* When a meeting has waited long enough. The server has the attach timeout to
 * come; one that has ended its stream by then is half closed, and lingers. */
static int64_t meeting_deadline(const struct meeting *meeting)
{
    const struct relay_settings *settings = meeting->tunnel->settings;

    int64_t until_ms = tunnel_until_ms(meeting->tunnel);

    if (meeting->server.socket < 0)
        return clock_earlier(until_ms, meeting->tunnel->opened_ms + settings->attach_timeout_ms);
    if (meeting->client.socket < 0 && meeting->server.ended_ms != INT64_MAX)
        return clock_earlier(until_ms, meeting->server.ended_ms + settings->linger_ms);
    return until_ms;
}

static const char *meeting_too_late(const struct meeting *meeting)
{
    if (clock_ms() >= tunnel_until_ms(meeting->tunnel))
        return duplex_end_text(DUPLEX_EXPIRED);
    return meeting->server.socket < 0 ? "no server attached in time"
                                      : "the server ended before a client came";
}

/* One that may not attach is turned away, and the port goes on listening. */
static void party_accept(struct meeting *meeting, struct party *party)
{
    struct tunnel *tunnel = meeting->tunnel;
    char text[NET_ADDRESS_TEXT_BYTES];
    struct net_address peer;
    int socket = tunnel_accept(tunnel, *party->listener, &peer);

    if (socket == -EAGAIN)
        return;
    if (socket < 0) {
        if (meeting->accept_again_ms == 0)      /* told once */
            log_write(LOG_WARNING,
                      "tunnel %lu can't accept its %s yet: too few descriptors or memory",
                      (unsigned long)tunnel->id, party->name);
        meeting->accept_again_ms = clock_ms() + ACCEPT_PAUSE_MS;
        return;
    }
    if (party == &meeting->server && !tunnel_admits(tunnel, &peer)) {
        tunnel_turn_away(tunnel, socket, &peer);
        return;
    }
    party->socket = socket;
    tunnel_close_listener(party->listener);
    log_write(LOG_INFO, "tunnel %lu has its %s, %s", (unsigned long)tunnel->id, party->name,
              log_address(&peer, text));
}

/* Whether the party is still there, or still to come. */
static bool party_attend(struct meeting *meeting, struct party *party, short events)
{
    if (party->socket < 0) {
        if (events)
            party_accept(meeting, party);
        return true;
    }
    if (events & POLLRDHUP)
        party->ended_ms = clock_earlier(party->ended_ms, clock_ms());
    return !(events & (POLLERR | POLLHUP));
}

/* Waits once for what comes next. false: the meeting has failed. */
static bool meeting_wait(struct meeting *meeting)
{
    bool accepting = clock_ms() >= meeting->accept_again_ms;
    struct pollfd polled[2] = {
        party_interest(&meeting->server, accepting),
        party_interest(&meeting->client, accepting),
    };
    int64_t until_ms = accepting ? INT64_MAX : meeting->accept_again_ms;
    int ready = waker_poll(&meeting->tunnel->waker, polled, 2,
                           clock_earlier(until_ms, meeting_deadline(meeting)));

    if (ready == -ECANCELED)
        meeting->failure = "stopped";
    else if (ready < 0)
        meeting->failure = "failed for lack of memory";
    else if (!party_attend(meeting, &meeting->server, polled[0].revents))
        meeting->failure = "the server broke off before a client came";
    else if (!party_attend(meeting, &meeting->client, polled[1].revents))
        meeting->failure = "the client broke off before a server attached";
    else if (clock_ms() >= meeting_deadline(meeting))   /* however busy strangers keep us */
        meeting->failure = meeting_too_late(meeting);
    return !meeting->failure;
}

static bool meeting_hold(struct meeting *meeting)
{
    while (meeting->server.socket < 0 || meeting->client.socket < 0) {
        if (!meeting_wait(meeting))
            return false;
    }
    return true;
}

static const char *relay_bytes(struct meeting *meeting)
{
    const struct relay_settings *settings = meeting->tunnel->settings;
    struct duplex_limits limits = {
        .linger_ms = settings->linger_ms,
        .idle_ms = settings->idle_timeout_ms,
        .until_ms = tunnel_until_ms(meeting->tunnel),
        .bytes_per_s = settings->bytes_per_s,
    };
    void (*close_socket)(int);
    struct duplex_result result;

    result = duplex_run(meeting->server.socket, meeting->client.socket, &limits,
                        &meeting->tunnel->waker);
    close_socket = result.end == DUPLEX_FINISHED ? socket_close : socket_reset;
    close_socket(meeting->server.socket);
    close_socket(meeting->client.socket);
    log_write(LOG_INFO, "tunnel %lu relayed %llu bytes from its server, %llu from its client",
              (unsigned long)meeting->tunnel->id, (unsigned long long)result.bytes_from_a,
              (unsigned long long)result.bytes_from_b);
    return duplex_end_text(result.end);
}

static const char *tcp_serve(struct tunnel *tunnel)
{
    struct meeting meeting = {
        .tunnel = tunnel,
        .server = { "server", &tunnel->pair.server_listener, -1, INT64_MAX },
        .client = { "client", &tunnel->pair.client_listener, -1, INT64_MAX },
    };
    bool have_met = meeting_hold(&meeting);

    if (have_met)
        return relay_bytes(&meeting);
    socket_reset(meeting.server.socket);
    socket_reset(meeting.client.socket);
    return meeting.failure;
}

const struct tunnel_backend backend_tcp = {
    .scheme = "tcp",
    .serve = tcp_serve,
};
