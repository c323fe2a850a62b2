#include "rpc/connection.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DRAIN_BYTES_MAX = 256 * 1024 };  /* of a client that does not stop sending */

static void tell_to_continue(struct connection *connection)
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

enum connection_state connection_look(struct connection *connection, bool has_ended,
                                      size_t body_max, char room[HTTP_REQUEST_BYTES],
                                      struct http_request *request)
{
    ssize_t received;

    if (!has_ended && !enough_has_arrived(connection))
        return CONNECTION_WAITS;
    received = TEMP_FAILURE_RETRY(recv(connection->socket, room, HTTP_REQUEST_BYTES, MSG_PEEK));
    if (received < 0 && errno == EAGAIN)
        return CONNECTION_WAITS;
    if (received <= 0)
        return CONNECTION_GONE;
    connection->has_begun = true;
    switch (http_guard_look(room, (size_t)received, body_max, request)) {
    case HTTP_REFUSED:
        return CONNECTION_REFUSED;
    case HTTP_COMPLETE:
        return CONNECTION_READY;
    case HTTP_INCOMPLETE:
        break;
    }
    connection->wanted = request->bytes;
    if (has_ended) {
        http_request_refuse(request, 400, "the request ended before it was complete");
        return CONNECTION_REFUSED;
    }
    if (request->expects_continue)
        tell_to_continue(connection);
    return CONNECTION_WAITS;
}

bool connection_refuse(struct connection *connection, const struct http_refusal *refusal)
{
    char answer[HTTP_REFUSAL_BYTES];
    size_t length = http_refusal_write(refusal, answer);
    ssize_t sent = TEMP_FAILURE_RETRY(send(connection->socket, answer, length, MSG_NOSIGNAL));

    connection->is_draining = true;
    return sent == (ssize_t)length && shutdown(connection->socket, SHUT_WR) == 0;
}

bool connection_drain(struct connection *connection, char room[HTTP_REQUEST_BYTES])
{
    ssize_t received;

    do {
        received = TEMP_FAILURE_RETRY(recv(connection->socket, room, HTTP_REQUEST_BYTES, 0));
        connection->drained += received > 0 ? (size_t)received : 0;
    } while (received > 0 && connection->drained < DRAIN_BYTES_MAX);
    return received < 0 && errno == EAGAIN;
}
