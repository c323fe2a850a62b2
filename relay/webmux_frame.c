#include "relay/webmux_frame.h"

#include <endian.h>
#include <string.h>

enum { SESSION_SHIFT = 18, OPCODE_SHIFT = 26 };

#define LONG_BIT    UINT32_C(0x80000000)
#define CONTROL_BIT UINT32_C(0x40000000)
#define OPCODE_BITS UINT32_C(0x3C000000)
#define SYN_BIT     UINT32_C(0x20000000)
#define FIN_BIT     UINT32_C(0x10000000)
#define RST_BIT     UINT32_C(0x08000000)
#define PUSH_BIT    UINT32_C(0x04000000)

static uint32_t word_read(const uint8_t *bytes)
{
    uint32_t word;

    memcpy(&word, bytes, sizeof word);
    return le32toh(word);
}

static void word_write(uint32_t word, uint8_t *bytes)
{
    word = htole32(word);
    memcpy(bytes, &word, sizeof word);
}

size_t webmux_header_read(const uint8_t *bytes, size_t count, struct webmux_header *header)
{
    uint32_t word;

    if (count < WEBMUX_SHORT_BYTES)
        return 0;
    word = word_read(bytes);
    *header = (struct webmux_header){
        .is_long = word & LONG_BIT,
        .is_control = word & CONTROL_BIT,
        .session = (uint8_t)(word >> SESSION_SHIFT),
        .length = word & WEBMUX_SHORT_PAYLOAD_MAX,
    };
    if (header->is_control) {
        header->opcode = (word & OPCODE_BITS) >> OPCODE_SHIFT;
    } else {
        header->syn = word & SYN_BIT;
        header->fin = word & FIN_BIT;
        header->rst = word & RST_BIT;
        header->push = word & PUSH_BIT;
    }
    if (!header->is_long)
        return WEBMUX_SHORT_BYTES;
    if (count < WEBMUX_HEADER_BYTES_MAX)
        return 0;
    header->second = word_read(bytes + WEBMUX_SHORT_BYTES);
    return WEBMUX_HEADER_BYTES_MAX;
}

static uint32_t flag_bits(const struct webmux_header *header)
{
    if (header->is_control)
        return CONTROL_BIT | ((uint32_t)header->opcode << OPCODE_SHIFT & OPCODE_BITS);
    return (header->syn ? SYN_BIT : 0) | (header->fin ? FIN_BIT : 0) | (header->rst ? RST_BIT : 0) |
           (header->push ? PUSH_BIT : 0);
}

size_t webmux_header_write(const struct webmux_header *header,
                           uint8_t bytes[WEBMUX_HEADER_BYTES_MAX])
{
    word_write((header->is_long ? LONG_BIT : 0) | flag_bits(header) |
               (uint32_t)header->session << SESSION_SHIFT |
               (header->length & WEBMUX_SHORT_PAYLOAD_MAX), bytes);
    if (!header->is_long)
        return WEBMUX_SHORT_BYTES;
    word_write(header->second, bytes + WEBMUX_SHORT_BYTES);
    return WEBMUX_HEADER_BYTES_MAX;
}

/* The length of a short SYN is its protocol, and a number that controls is no length. */
uint32_t webmux_payload_bytes(const struct webmux_header *header)
{
    if (header->is_control)
        return header->opcode == WEBMUX_INTERN_ATOM || header->opcode == WEBMUX_DEFINE_STACK
                   ? header->second : 0;
    if (header->is_long)
        return header->second;
    return header->syn ? 0 : header->length;
}

size_t webmux_padding_bytes(const struct webmux_header *header)
{
    size_t unit = header->is_long ? 8 : 4;

    return (unit - webmux_payload_bytes(header) % unit) % unit;
}
