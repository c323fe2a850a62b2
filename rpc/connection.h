/* connection: one HTTP connection whose request is being waited for.
 *
 * The request is looked at where it is, in the socket's receive buffer, until all
 * of it has arrived. Nothing here waits. Belongs to the listener's thread. */
#ifndef RPC_CONNECTION_H
#define RPC_CONNECTION_H

#include "relay/net_address.h"
#include "rpc/http_guard.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct tally_entry;

struct connection {
    TAILQ_ENTRY(connection) entry;      /* the listener's, and so are the next four */
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

enum connection_state {
    CONNECTION_WAITS,                   /* for more bytes */
    CONNECTION_READY,                   /* with a whole request, still unread */
    CONNECTION_REFUSED,                 /* with the status and reason in the request */
    CONNECTION_GONE
};

/* Looks at what has arrived, with room in which to. body_max: bytes of a body. */
enum connection_state connection_look(struct connection *connection, bool has_ended,
                                      size_t body_max, char room[HTTP_REQUEST_BYTES],
                                      struct http_request *request);

/* Answers, and ends what is sent. false: the client is gone. The answer is small
 * and the socket's buffer empty, so that there is nothing to wait for. */
bool connection_refuse(struct connection *connection, const struct http_refusal *refusal);

/* Throws away what has come since, since closing with bytes unread would take the
 * answer away from the client. false: there is no more of it, or there was too much. */
bool connection_drain(struct connection *connection, char room[HTTP_REQUEST_BYTES]);

#endif
