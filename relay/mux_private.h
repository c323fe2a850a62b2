/* mux_private: what the files of the mux share: mux.c, whose turns they are,
 * mux_carrier.c, the connections, mux_stream.c, the life of their streams, and
 * mux_bytes.c, what those carry. */
#ifndef RELAY_MUX_PRIVATE_H
#define RELAY_MUX_PRIVATE_H

#include "relay/mux.h"

/* How many bytes of those may pass now, by the rate; and that so many have. */
size_t mux_allowed(const struct mux *mux, size_t count);
void mux_use_up(struct mux *mux, size_t count);

/* Reads and writes what goes without waiting, up to a turn's worth. */
void mux_carrier_move(struct mux_carrier *carrier);

/* Whether the other end has all that was to be sent. */
bool mux_carrier_has_sent_all(const struct mux_carrier *carrier);

/* Resets its streams, then itself. */
void mux_carrier_free(struct mux_carrier *carrier);

/* --- mux_stream */

/* What the other end has done. */
void mux_stream_opened(struct mux_carrier *carrier, uint8_t session);
void mux_stream_confirmed(struct mux_stream *stream);

/* Resets its socket, and the session, if that is open still. It is freed when the
 * turn ends. */
void mux_stream_break(struct mux_stream *stream, const char *why);

/* One way has ended, and the other may linger; or it was the second, and its socket is
 * closed. It is freed when the turn ends. */
void mux_stream_end_one_way(struct mux_stream *stream);

/* Something has passed just now. */
void mux_stream_moved(struct mux_stream *stream);

/* Ends it if it has been silent for too long; else *look_ms is no later than when it
 * will have been. */
void mux_stream_look(struct mux_stream *stream, int64_t *look_ms);

/* Once its session is over, all that is left of it may be bytes for a slow socket; the
 * session may be another stream's then. */
static inline bool mux_stream_has_session(const struct mux_stream *stream)
{
    return stream->carrier->by_session[stream->session] == stream;
}

/* --- mux_bytes */

/* What the other end has sent. */
void mux_stream_take(struct mux_stream *stream, const uint8_t *bytes, size_t count);
void mux_stream_take_end(struct mux_stream *stream);

/* Does what its socket has become good for, or lets it have its turn. */
void mux_stream_advance(struct mux_stream *stream);

/* Has it wait for its turn to send, if it has something and may, or else not. */
void mux_stream_line_up(struct mux_stream *stream);

/* Reads from its socket so much as makes one frame, of room_bytes at most: how many
 * bytes of room the frame has taken. */
size_t mux_stream_fill(struct mux_stream *stream, uint8_t *room, size_t room_bytes);

/* Writes some of what waits for its socket, of which there is some. */
void mux_stream_deliver(struct mux_stream *stream);

/* Throws away what waits for its socket; it has no more turns. */
void mux_stream_drop(struct mux_stream *stream);

#endif
