/* webmux_frame: the headers of WebMUX frames, as bytes and as values.
 *
 * The format, with its source, is in doc/protocol.md. A frame is a header of one or two
 * 32-bit words, little endian, the payload, and padding. Pure functions: no state, no
 * I/O. */
#ifndef RELAY_WEBMUX_FRAME_H
#define RELAY_WEBMUX_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum webmux_opcode {
    WEBMUX_INTERN_ATOM,
    WEBMUX_DEFINE_STACK,
    WEBMUX_SET_MSS,
    WEBMUX_ADD_CREDIT,
    WEBMUX_SET_DEFAULT_CREDIT,
    WEBMUX_NO_OP,
    WEBMUX_OPCODES                      /* how many there are */
};

enum {
    WEBMUX_SHORT_BYTES = 4,             /* of a header */
    WEBMUX_HEADER_BYTES_MAX = 8,
    WEBMUX_SHORT_PAYLOAD_MAX = 0x3FFFF  /* what fits into the first word */
};

struct webmux_header {
    bool is_long;
    bool is_control;
    bool syn, fin, rst, push;           /* of a frame that is no control frame */
    uint8_t opcode;                     /* of a control frame; may be an unknown one */
    uint8_t session;
    uint32_t length;                    /* of 18 bits: what it means depends on the rest */
    uint32_t second;                    /* the second word of a long header */
};

/* Reads a header. Returns its bytes, 4 or 8, or 0 while some of them are missing. */
size_t webmux_header_read(const uint8_t *bytes, size_t count, struct webmux_header *header);

/* Writes a header. Returns its bytes. */
size_t webmux_header_write(const struct webmux_header *header,
                           uint8_t bytes[WEBMUX_HEADER_BYTES_MAX]);

/* How many bytes of payload follow a header, and how many of padding follow those. */
uint32_t webmux_payload_bytes(const struct webmux_header *header);
size_t webmux_padding_bytes(const struct webmux_header *header);

#endif
