/* Random streams of frames, cut anywhere, and two ends that talk to each other. A
 * failure is repeated by the seed that is printed: SEED=... tests/unit/test_webmux_random */
#include "tests/unit/unit.h"
#include "tests/unit/webmux_ends.h"

#include <stdio.h>
#include <string.h>

static uint64_t random_state;

static uint32_t random_below(uint32_t limit)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(random_state >> 33) % limit;
}

/* --- cuts */

enum { FRAMES = 24, STREAM_BYTES_MAX = FRAMES * 64 };

static size_t random_frame(uint8_t *bytes)
{
    static const uint8_t opcodes[] = { 0, 1, 2, 3, 4, 5, 3, 3 };
    uint32_t kind = random_below(12), payload = random_below(24);
    struct webmux_header header = { .session = (uint8_t)(3 + 2 * random_below(3)) };
    size_t count;

    if (kind < 3) {
        header.is_control = true;
        header.opcode = opcodes[random_below(8)];
        header.is_long = header.opcode != WEBMUX_SET_MSS && header.opcode != WEBMUX_NO_OP;
        header.second = payload;
    } else {
        header.syn = kind < 6;
        header.fin = kind == 6;
        header.rst = kind == 7;
        header.is_long = random_below(2);
        header.length = header.syn || header.is_long ? 0 : payload;
        header.second = payload;
    }
    count = webmux_header_write(&header, bytes);
    while (count < WEBMUX_SHORT_BYTES * (header.is_long ? 2u : 1u) +
                       webmux_payload_bytes(&header) + webmux_padding_bytes(&header))
        bytes[count++] = (uint8_t)random_below(256);
    return count;
}

/* What an end makes of a stream, as text: events, with data that came in pieces put
 * together. */
struct told {
    char text[STREAM_BYTES_MAX * 8];
    size_t count;
    enum webmux_event_kind last;
    uint8_t session;
};

static void note(struct told *told, const struct webmux_event *event)
{
    if (event->kind == WEBMUX_NOTHING)
        return;
    if (event->kind != WEBMUX_DATA || told->last != WEBMUX_DATA || told->session != event->session)
        told->count += (size_t)sprintf(told->text + told->count, " %d:%u", event->kind,
                                       event->session);
    for (size_t i = 0; event->kind == WEBMUX_DATA && i < event->count; i++)
        told->count += (size_t)sprintf(told->text + told->count, "%02x", event->bytes[i]);
    told->last = event->kind;
    told->session = event->session;
}

/* false: they broke the rules. */
static bool give(struct webmux *mux, const uint8_t *bytes, size_t count, struct told *told)
{
    struct webmux_event event;

    do {
        size_t used = webmux_receive(mux, bytes, count, &event);

        bytes += used;
        count -= used;
        note(told, &event);
    } while (event.kind != WEBMUX_NOTHING && event.kind != WEBMUX_ERROR);
    return event.kind != WEBMUX_ERROR;
}

static void start(struct webmux_end *end)
{
    end_start(end, random_state % 2);
    for (int i = 0; i < 2 && end->mux.opens; i++)
        webmux_open(&end->mux);
}

static struct webmux_end one_end, other_end;

static void every_cut_of_a_stream_gives_the_same(void)
{
    static uint8_t stream[STREAM_BYTES_MAX];
    static struct told whole, cut;

    for (int round = 0; round < 200; round++) {
        size_t count = 0;

        for (int i = 0; i < FRAMES; i++)
            count += random_frame(stream + count);
        start(&one_end);
        memset(&whole, 0, sizeof whole);
        give(&one_end.mux, stream, count, &whole);
        for (size_t at = 0; at <= count; at++) {
            start(&other_end);
            memset(&cut, 0, sizeof cut);
            if (give(&other_end.mux, stream, at, &cut))
                give(&other_end.mux, stream + at, count - at, &cut);
            CU_ASSERT_STRING_EQUAL_FATAL(cut.text, whole.text);
        }
        CU_ASSERT_STRING_EQUAL(end_says(&other_end), end_says(&one_end));
    }
}

/* --- two ends */

enum { WIRE_BYTES = 1 << 20, SEND_BYTES_MAX = 40000 };

/* One direction of one session, as its two ends know it. */
struct lane {
    uint32_t serial;                    /* of the session, for its bytes */
    size_t sent, received, waiting;     /* waiting for the reader */
    bool ended, end_came;
};

struct side {
    struct webmux mux;
    struct webmux_growth growth;
    struct lane out[WEBMUX_IDS], in[WEBMUX_IDS];
    bool is_there[WEBMUX_IDS];
    uint8_t wire[WIRE_BYTES];           /* what it has sent and the other has not taken */
    size_t wire_count;
};

static struct side opener, taker;
static uint32_t serials;
static size_t bytes_in_all, sessions_in_all, resets_in_all;

static uint8_t byte_of(uint32_t serial, size_t position)
{
    return (uint8_t)(serial * 31 + position % 253);
}

static void write_owed(struct side *side)
{
    size_t count = webmux_write_owed(&side->mux, side->wire + side->wire_count);

    CU_ASSERT_TRUE_FATAL(count <= WEBMUX_OWED_BYTES_MAX);
    side->wire_count += count;
}

static bool has_wire_for(const struct side *side, size_t count)
{
    return WIRE_BYTES - side->wire_count >= count + 2 * WEBMUX_OWED_BYTES_MAX;
}

static void begin(struct side *side, uint8_t id, uint32_t out, uint32_t in)
{
    side->out[id] = (struct lane){ .serial = out };
    side->in[id] = (struct lane){ .serial = in };
    side->is_there[id] = true;
}

/* The first bytes of a session tell its number, so that bytes of another are seen. */
static void open_one(void)
{
    uint8_t id = webmux_open(&opener.mux);

    if (!id)
        return;
    sessions_in_all++;
    serials += 2;
    begin(&opener, id, serials, 0);
}

static void send_some(struct side *side, uint8_t id)
{
    struct lane *lane = &side->out[id];
    size_t may, count;

    if (!side->is_there[id] || lane->ended || !has_wire_for(side, SEND_BYTES_MAX))
        return;
    write_owed(side);
    may = webmux_may_send(&side->mux, id);
    count = 1 + random_below(SEND_BYTES_MAX);
    if (count > may)
        count = may;
    if (!count)
        return;
    webmux_send(&side->mux, id, count, side->wire + side->wire_count);
    side->wire_count += WEBMUX_SHORT_BYTES;
    for (size_t i = 0; i < count + webmux_padding(count); i++) {
        size_t at = lane->sent + i;

        side->wire[side->wire_count++] =
            i >= count ? 0 : at < 4 ? (uint8_t)(lane->serial >> 8 * at) : byte_of(lane->serial, at);
    }
    lane->sent += count;
}

static void finish(struct side *side, uint8_t id)
{
    if (!side->is_there[id] || side->out[id].ended)
        return;
    if (side == &taker)
        webmux_confirm(&side->mux, id);
    side->out[id].ended = true;
    webmux_end(&side->mux, id);
    if (side->in[id].end_came)
        side->is_there[id] = false;
}

static void break_off(struct side *side, uint8_t id)
{
    if (!side->is_there[id])
        return;
    resets_in_all++;
    side->is_there[id] = false;
    webmux_reset(&side->mux, id);
}

static void read_some(struct side *side, uint8_t id)
{
    struct lane *lane = &side->in[id];
    size_t count = lane->waiting;

    if (!side->is_there[id] || !count)
        return;
    if (random_below(2))
        count = 1 + random_below((uint32_t)count);
    lane->waiting -= count;
    webmux_took(&side->mux, id, count, lane->waiting == 0);
}

static void take_data(struct side *side, const struct webmux_event *event)
{
    struct lane *lane = &side->in[event->session];

    CU_ASSERT_TRUE_FATAL(side->is_there[event->session] && !lane->end_came);
    for (size_t i = 0; i < event->count; i++, lane->received++) {
        if (lane->received < 4)
            lane->serial |= (uint32_t)event->bytes[i] << 8 * lane->received;
        else if (event->bytes[i] != byte_of(lane->serial, lane->received))
            CU_FAIL_FATAL("a wrong byte");
    }
    lane->waiting += event->count;
    bytes_in_all += event->count;
    CU_ASSERT_TRUE(lane->waiting <= WEBMUX_WINDOW_MAX);
}

/* Both directions of a session have to be of the same one. */
static void check_answer(const struct lane *in, const struct lane *out)
{
    if (in->received >= 4)
        CU_ASSERT_EQUAL_FATAL(in->serial, out->serial + 1);
}

static void handle(struct side *side, const struct webmux_event *event)
{
    uint8_t id = event->session;

    switch (event->kind) {
    case WEBMUX_OPENED:
        begin(side, id, 0, 0);
        break;
    case WEBMUX_CONFIRMED:
        CU_ASSERT_TRUE_FATAL(side->is_there[id]);
        break;
    case WEBMUX_DATA:
        take_data(side, event);
        if (side == &opener)
            check_answer(&side->in[id], &side->out[id]);
        break;
    case WEBMUX_ENDED:
        CU_ASSERT_TRUE_FATAL(side->is_there[id]);
        side->in[id].end_came = true;
        side->is_there[id] = !side->out[id].ended;
        break;
    case WEBMUX_RESET:
        side->is_there[id] = false;
        break;
    case WEBMUX_ERROR:
        printf("\n  %s\n", event->error);
        CU_FAIL_FATAL("an error");
        break;
    default:
        break;
    }
}

/* The taker answers with the number that it was told, and one more. */
static void let_answer(uint8_t id)
{
    if (!taker.is_there[id] || taker.in[id].received < 4 || taker.out[id].sent)
        return;
    taker.out[id].serial = taker.in[id].serial + 1;
    webmux_confirm(&taker.mux, id);
}

static void pass(struct side *from, struct side *to, size_t at_most)
{
    size_t count = from->wire_count < at_most ? from->wire_count : at_most, at = 0;
    struct webmux_event event;

    do {
        at += webmux_receive(&to->mux, from->wire + at, count - at, &event);
        handle(to, &event);
    } while (event.kind != WEBMUX_NOTHING);
    memmove(from->wire, from->wire + count, from->wire_count - count);
    from->wire_count -= count;
}

static void step(uint32_t resets)
{
    struct side *side = random_below(2) ? &opener : &taker;
    uint8_t id = (uint8_t)(3 + 2 * random_below(WEBMUX_SESSIONS));

    switch (random_below(10)) {
    case 0:
        open_one();
        break;
    case 1:
    case 2:
    case 3:
        if (side == &opener || taker.out[id].serial)
            send_some(side, id);
        break;
    case 4:
        read_some(side, id);
        break;
    case 5:
        let_answer(id);
        break;
    case 6:
        if (random_below(4) == 0)
            finish(side, id);
        break;
    case 7:
        if (random_below(resets) == 0)
            break_off(side, id);
        break;
    default:
        if (has_wire_for(side, 0))
            write_owed(side);
        pass(side, side == &opener ? &taker : &opener, random_below(100000));
        break;
    }
}

static void run_until_all_is_passed(void)
{
    do {
        write_owed(&opener);
        write_owed(&taker);
        pass(&opener, &taker, SIZE_MAX);
        pass(&taker, &opener, SIZE_MAX);
    } while (webmux_owes(&opener.mux) || webmux_owes(&taker.mux));
}

static void start_both(void)
{
    memset(&opener, 0, sizeof opener);
    memset(&taker, 0, sizeof taker);
    opener.growth.bytes_max = taker.growth.bytes_max = 20 << 20;
    webmux_init(&opener.mux, true, WEBMUX_WINDOW, &opener.growth);
    webmux_init(&taker.mux, false, WEBMUX_WINDOW, &taker.growth);
}

static void check_that_nothing_is_left(void)
{
    run_until_all_is_passed();
    for (unsigned id = 3; id < WEBMUX_IDS; id += 2) {
        CU_ASSERT_EQUAL(opener.is_there[id], taker.is_there[id]);
        break_off(random_below(2) ? &opener : &taker, (uint8_t)id);
    }
    run_until_all_is_passed();
    CU_ASSERT_EQUAL(webmux_count(&opener.mux), 0);
    CU_ASSERT_EQUAL(webmux_count(&taker.mux), 0);
    CU_ASSERT_EQUAL(opener.growth.bytes, 0);
    CU_ASSERT_EQUAL(taker.growth.bytes, 0);
    CU_ASSERT_EQUAL(opener.mux.resting_count, WEBMUX_SESSIONS);
}

static void talk(uint32_t steps, uint32_t resets)
{
    for (int round = 0; round < 4; round++) {
        start_both();
        for (uint32_t i = 0; i < steps; i++)
            step(resets);
        check_that_nothing_is_left();
    }
    printf("%zu sessions, %zu resets, %zu bytes ", sessions_in_all, resets_in_all, bytes_in_all);
}

static void two_ends_understand_each_other(void)
{
    talk(30000, 40);
}

/* So that ids are short. */
static void two_ends_understand_each_other_though_most_is_reset(void)
{
    talk(30000, 1);
}

static void ids_that_are_reset_at_once_are_not_confused(void)
{
    for (int round = 0; round < 4; round++) {
        start_both();
        for (int i = 0; i < 20000; i++) {
            open_one();
            write_owed(&opener);
            break_off(&opener, (uint8_t)(3 + 2 * random_below(WEBMUX_SESSIONS)));
            step(1);
        }
        check_that_nothing_is_left();
        CU_ASSERT_TRUE(webmux_has_room(&opener.mux));
    }
}

int main(void)
{
    const char *seed = getenv("SEED");
    CU_TestInfo tests[] = {
        TEST(every_cut_of_a_stream_gives_the_same),
        TEST(two_ends_understand_each_other),
        TEST(two_ends_understand_each_other_though_most_is_reset),
        TEST(ids_that_are_reset_at_once_are_not_confused),
        CU_TEST_INFO_NULL,
    };

    random_state = seed ? strtoull(seed, NULL, 10) : 5;
    printf("SEED=%llu\n", (unsigned long long)random_state);
    return unit_run("webmux at random", tests);
}
