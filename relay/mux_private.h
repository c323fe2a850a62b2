/* mux_private: what the files of the mux share: mux.c, whose turns they are,
 * mux_carrier.c, the connections, and mux_stream.c, the sockets of their streams. */
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

/* What the other end does. */
void mux_stream_opened(struct mux_carrier *carrier, uint8_t session);
void mux_stream_confirmed(struct mux_stream *stream);
void mux_stream_take(struct mux_stream *stream, const uint8_t *bytes, size_t count);
void mux_stream_take_end(struct mux_stream *stream);
void mux_stream_may_send(struct mux_stream *stream);

/* Writes some of what waits for its socket, of which there is some. */
void mux_stream_deliver(struct mux_stream *stream);

/* Reads from its socket so much as makes one frame, of room_bytes at most: how many
 * bytes of room the frame has taken. */
size_t mux_stream_fill(struct mux_stream *stream, uint8_t *room, size_t room_bytes);

/* Resets its socket, and the session, if that is open still. It is freed when the
 * turn ends. */
void mux_stream_break(struct mux_stream *stream, const char *why);

/* Ends it if it has been silent for too long; else *look_ms is no later than when it
 * will have been. */
void mux_stream_look(struct mux_stream *stream, int64_t *look_ms);

#endif
