/* What is written to a carrier, also while keys are exchanged anew. */
#include "relay/ssh_carrier.h"

#include <errno.h>
#include <string.h>

enum {
    EXCHANGE_MS_MAX = 60000,            /* in which keys are exchanged anew ... */
    EXCHANGE_HEARD_BYTES = 32 * 1024 * 1024,    /* ... and so much may come meanwhile, */
    EXCHANGE_HEARD_PACKETS = 65536,     /* ... in so many packets, each of which may be answered */
    PROOF_PACKETS = 16384,              /* so many may come until it is asked what is sent */
    PROOF_BYTES = 4096                  /* more than libssh sends by itself within one call */
};

/* libssh counts while it writes. */
static uint64_t payload_sent(const struct carrier *carrier)
{
    return carrier->payload.out_bytes;
}

static void begin_exchange(struct carrier *carrier)
{
    if (carrier->exchange_ms)
        return;
    carrier->exchange_ms = clock_ms();
    carrier->exchange_heard = carrier->counter.in_bytes;
    carrier->exchange_packets = carrier->payload.in_packets;
}

/* While keys are exchanged anew, libssh takes what is written, and its own answers to
 * what it hears, and keeps them back, however much. Nothing but its counter of what it
 * has sent tells, in which a server can have it count some bytes more. */
static void learn(struct carrier *carrier, size_t written, uint64_t sent_before)
{
    uint64_t sent = payload_sent(carrier) - sent_before;

    if (sent < written) {
        begin_exchange(carrier);
        carrier->kept_back = written - sent;
        carrier->kept_back_at = payload_sent(carrier);
    } else if (written >= PROOF_BYTES) {
        carrier->kept_back = 0;
        carrier->exchange_ms = 0;
        carrier->proven_packets = carrier->payload.in_packets;
    }
}

/* Sends what every server ignores, and looks whether it is kept back. */
static void prove(struct carrier *carrier)
{
    char text[PROOF_BYTES + 1];
    uint64_t sent_before = payload_sent(carrier);

    memset(text, ' ', PROOF_BYTES);
    text[PROOF_BYTES] = '\0';
    ssh_send_ignore(carrier->entrant.session, text);
    learn(carrier, PROOF_BYTES, sent_before);
}

static bool needs_proof(const struct carrier *carrier)
{
    if (carrier->kept_back)
        return payload_sent(carrier) >= carrier->kept_back_at + carrier->kept_back;
    return carrier->payload.in_packets - carrier->proven_packets > PROOF_PACKETS;
}

static int write_to(struct carrier *carrier, ssh_channel channel, bool *has_written,
                    const void *bytes, size_t length)
{
    int written;

    if (*has_written)
        return ssh_channel_write(channel, bytes, (uint32_t)length);
    written = ssh_first_write(channel, bytes, length);
    if (written == -EMSGSIZE)
        carrier_fail(carrier, "the server takes no packets with something in them");
    *has_written = written > 0;
    return written;
}

int carrier_write(struct carrier *carrier, ssh_channel channel, bool *has_written,
                  const void *bytes, size_t length)
{
    uint64_t sent_before = payload_sent(carrier);
    int written = write_to(carrier, channel, has_written, bytes, length);

    if (written > 0) {
        if (!carrier->kept_back)
            carrier->exchange_ms = 0;
        learn(carrier, (size_t)written, sent_before);
    } else if (written == 0 && ssh_channel_window_size(channel)) {
        begin_exchange(carrier);        /* begun by the server: nothing is taken */
    }
    return written;
}

/* A server that does not go on with an exchange of keys could have what is kept back
 * grow without end. */
int64_t exchange_look(struct carrier *carrier, int64_t now_ms)
{
    bool kept_back = carrier->kept_back;
    int64_t until_ms;

    if (needs_proof(carrier))
        prove(carrier);
    if (!carrier->exchange_ms)
        return kept_back ? now_ms : INT64_MAX;  /* what was left over may go now */
    if (carrier->is_held_up)            /* it goes on, and is not heard */
        carrier->exchange_ms = now_ms;
    until_ms = carrier->exchange_ms + EXCHANGE_MS_MAX;
    if (now_ms >= until_ms ||
        carrier->counter.in_bytes - carrier->exchange_heard > EXCHANGE_HEARD_BYTES ||
        carrier->payload.in_packets - carrier->exchange_packets > EXCHANGE_HEARD_PACKETS)
        carrier_fail(carrier, "the server does not go on with an exchange of keys");
    return until_ms;
}
