/* An end of WebMUX takes whatever comes, in whatever pieces: it says the same of it
 * however it is cut, keeps its books, and owes frames that are frames. */
#include "relay/webmux.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

struct end {
    struct webmux mux;
    struct webmux_growth growth;
    uint64_t told;                      /* a sum of all events, and of their data */
    bool is_over;
};

static void note(struct end *end, uint64_t value)
{
    end->told = (end->told ^ value) * UINT64_C(1099511628211);
}

static void note_data(struct end *end, const struct webmux_event *event)
{
    for (size_t i = 0; i < event->count; i++)
        note(end, UINT64_C(0x10000) | (uint64_t)event->session << 8 | event->bytes[i]);
}

/* As the mux does: a session is taken, read from, ended when the other end has, and
 * every seventh is reset. */
static void answer(struct end *end, const struct webmux_event *event)
{
    uint8_t id = event->session;

    if (event->kind == WEBMUX_OPENED && id % 7 == 0)
        webmux_reset(&end->mux, id);
    else if (event->kind == WEBMUX_OPENED)
        webmux_confirm(&end->mux, id);
    else if (event->kind == WEBMUX_DATA)
        webmux_took(&end->mux, id, event->count, id % 5);
    else if (event->kind == WEBMUX_ENDED)
        webmux_end(&end->mux, id);
}

static void check(const struct end *end)
{
    size_t open = 0, grown = 0;

    for (unsigned id = 0; id < WEBMUX_IDS; id++) {
        const struct webmux_session *session = &end->mux.sessions[id];

        assert(!session->is_open || session->their_credit >= 0);
        assert(!session->is_open || session->window <= WEBMUX_WINDOW_MAX);
        assert(webmux_may_send(&end->mux, (uint8_t)id) <= 65536);
        open += session->is_open;
        grown += session->window ? session->window - WEBMUX_WINDOW : 0;
    }
    assert(open == webmux_count(&end->mux));
    assert(!end->mux.opens || open + end->mux.resting_count == WEBMUX_SESSIONS);
    assert(grown == end->growth.bytes && grown <= end->growth.bytes_max);
}

/* What is owed decodes, whole. */
static void write_owed(struct end *end)
{
    static uint8_t bytes[WEBMUX_OWED_BYTES_MAX];
    size_t count = webmux_write_owed(&end->mux, bytes), at = 0;
    struct webmux_header header;

    assert(count <= sizeof bytes && !webmux_owes(&end->mux));
    while (at < count) {
        size_t used = webmux_header_read(bytes + at, count - at, &header);

        assert(used > 0);
        assert(header.is_control ? header.opcode < WEBMUX_OPCODES : header.session >= 2);
        at += used + webmux_payload_bytes(&header) + webmux_padding_bytes(&header);
    }
    assert(at == count);
}

static void take(struct end *end, const uint8_t *bytes, size_t count)
{
    struct webmux_event event = { .kind = WEBMUX_CREDIT };
    size_t left = count;

    while (!end->is_over && event.kind != WEBMUX_NOTHING) {
        size_t used = webmux_receive(&end->mux, bytes + (count - left), left, &event);

        assert(used <= left);
        left -= used;
        end->is_over = event.kind == WEBMUX_ERROR;
        assert(!end->is_over || text_is_printable(event.error, strlen(event.error)));
        if (event.kind == WEBMUX_DATA)
            note_data(end, &event);
        else if (event.kind != WEBMUX_NOTHING)
            note(end, (uint64_t)event.kind << 8 | event.session);
        answer(end, &event);
    }
    assert(end->is_over || left == 0);
    check(end);
}

static void start(struct end *end, bool opens)
{
    memset(end, 0, sizeof *end);
    end->growth.bytes_max = 4 << 20;
    webmux_init(&end->mux, opens, WEBMUX_WINDOW, &end->growth);
    for (int i = 0; i < 4 && opens; i++)
        assert(webmux_open(&end->mux) != 0);
    write_owed(end);
}

/* The cuts follow from the first byte. A piece stands by itself, for AddressSanitizer
 * to see its end. */
static void take_in_pieces(struct end *end, uint32_t seed, const uint8_t *bytes, size_t length)
{
    for (size_t at = 0; at < length;) {
        size_t count = 1 + (seed = seed * 1103515245 + 12345) / 65536 % 40;
        uint8_t *piece;

        if (count > length - at)
            count = length - at;
        piece = malloc(count);
        assert(piece);
        memcpy(piece, bytes + at, count);
        take(end, piece, count);
        free(piece);
        at += count;
    }
}

/* And one that writes what it owes between them, and uses its ids. */
static void take_and_go_on(bool opens, const uint8_t *bytes, size_t length)
{
    static struct end end;

    start(&end, opens);
    for (size_t at = 0; at < length && !end.is_over; at += 16) {
        take(&end, bytes + at, length - at < 16 ? length - at : 16);
        if (opens && bytes[at] % 4 == 0)
            webmux_open(&end.mux);
        else
            webmux_reset(&end.mux, bytes[at]);
        check(&end);
        if (bytes[at] % 3)
            write_owed(&end);
    }
    webmux_end_all(&end.mux);
    assert(end.growth.bytes == 0 && webmux_count(&end.mux) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static struct end whole, cut;

    if (length == 0)
        return 0;
    for (int opens = 0; opens < 2; opens++) {
        start(&whole, opens);
        start(&cut, opens);
        take(&whole, bytes + 1, length - 1);
        take_in_pieces(&cut, bytes[0], bytes + 1, length - 1);
        assert(whole.told == cut.told && whole.is_over == cut.is_over);
        write_owed(&whole);
        write_owed(&cut);
        take_and_go_on(opens, bytes + 1, length - 1);
    }
    return 0;
}
