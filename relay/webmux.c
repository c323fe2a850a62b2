/* The sessions of a connection, and what is sent. */
#include "relay/webmux_private.h"

#include <string.h>

enum {
    FIRST_ID = 3,
    FRAME_BYTES_MAX = 64 * 1024         /* of one session, before the next has its turn */
};

void webmux_owe(struct webmux *mux, uint8_t id, uint8_t what)
{
    struct webmux_session *session = &mux->sessions[id];

    if (!session->owes)
        mux->owing[mux->owing_count++] = id;
    session->owes |= what | IS_LISTED;
}

size_t webmux_window(size_t bytes, size_t sessions)
{
    size_t share = webmux_least(bytes / sessions, WEBMUX_WINDOW);

    return share < WEBMUX_FIRST_CREDIT ? WEBMUX_FIRST_CREDIT : share;
}

void webmux_init(struct webmux *mux, bool opens, size_t window, struct webmux_growth *growth)
{
    mux->opens = opens;
    mux->owes_greeting = true;
    mux->window = window;
    mux->growth = growth;
    mux->first_credit = WEBMUX_FIRST_CREDIT;
    for (unsigned id = FIRST_ID; opens && id < WEBMUX_IDS; id += 2)
        mux->resting[mux->resting_count++] = (uint8_t)id;
}

void webmux_begin_session(struct webmux *mux, uint8_t id)
{
    struct webmux_session *session = &mux->sessions[id];
    uint8_t owed = session->owes;

    *session = (struct webmux_session){
        .credit = mux->first_credit,
        .their_credit = (int64_t)mux->window,
        .window = mux->window,
        .number = ++mux->opened,
        .owes = owed,
        .is_open = true,
    };
    mux->open_count++;
}

/* Whether nothing of what had the id before can come any more: they have answered to
 * what was opened after its end. */
static bool is_clean(const struct webmux *mux, uint8_t id)
{
    return !mux->sessions[id].may_come || mux->answered > mux->sessions[id].over_at;
}

/* Where among the resting the first clean one is, or their number. */
static size_t find_clean(const struct webmux *mux)
{
    size_t at = 0;

    while (at < mux->resting_count && !is_clean(mux, mux->resting[at]))
        at++;
    return at;
}

bool webmux_has_room(const struct webmux *mux)
{
    return find_clean(mux) < mux->resting_count;
}

/* Where none is clean, nothing can be opened whose answer would make one so. */
static void ask_if_none_is_clean(struct webmux *mux)
{
    if (webmux_has_room(mux))
        return;
    for (size_t i = 0; i < mux->resting_count; i++) {
        struct webmux_session *session = &mux->sessions[mux->resting[i]];

        if (session->was_asked)
            continue;
        session->was_asked = true;
        session->over_at = mux->opened;
        webmux_owe(mux, mux->resting[i], OWES_QUESTION);
    }
}

void webmux_end_session(struct webmux *mux, uint8_t id)
{
    struct webmux_session *session = &mux->sessions[id];

    session->is_open = false;
    session->over_at = mux->opened;
    session->owes &= OWES_RST | IS_LISTED;
    mux->growth->bytes -= session->window - mux->window;
    session->window = mux->window;
    mux->open_count--;
    if (!mux->opens)
        return;
    mux->resting[mux->resting_count++] = id;
    ask_if_none_is_clean(mux);
}

void webmux_end_all(struct webmux *mux)
{
    for (unsigned id = 0; id < WEBMUX_IDS && mux->open_count; id++) {
        if (mux->sessions[id].is_open)
            webmux_end_session(mux, (uint8_t)id);
    }
}

/* After their end they may still have given back credit, or reset it. */
void webmux_end_if_over(struct webmux *mux, uint8_t id)
{
    struct webmux_session *session = &mux->sessions[id];

    if (!session->is_open || !session->they_ended || !session->we_ended ||
        session->owes & OWES_FIN)
        return;
    session->may_come = mux->opens;
    webmux_end_session(mux, id);
}

/* What is owed of an id that is opened goes after all that is owed already: their answer
 * is to tell that they have read that. */
static void go_last(struct webmux *mux, uint8_t id)
{
    size_t at = 0;

    if (!mux->sessions[id].owes)
        return;
    while (mux->owing[at] != id)
        at++;
    memmove(mux->owing + at, mux->owing + at + 1, --mux->owing_count - at);
    mux->sessions[id].owes = 0;
}

uint8_t webmux_open(struct webmux *mux)
{
    size_t at = find_clean(mux);
    uint8_t id;

    if (at == mux->resting_count)
        return 0;
    id = mux->resting[at];
    memmove(mux->resting + at, mux->resting + at + 1, --mux->resting_count - at);
    go_last(mux, id);
    webmux_begin_session(mux, id);
    webmux_owe(mux, id, OWES_SYN);
    ask_if_none_is_clean(mux);
    return id;
}

void webmux_confirm(struct webmux *mux, uint8_t id)
{
    struct webmux_session *session = &mux->sessions[id];

    if (!session->is_open || session->is_confirmed)
        return;
    session->is_confirmed = true;
    webmux_owe(mux, id, OWES_SYN);
}

void webmux_end(struct webmux *mux, uint8_t id)
{
    struct webmux_session *session = &mux->sessions[id];

    if (!session->is_open || session->we_ended)
        return;
    session->we_ended = true;
    webmux_owe(mux, id, OWES_FIN);
}

/* One whose opening they have not heard of needs no reset. */
void webmux_reset(struct webmux *mux, uint8_t id)
{
    struct webmux_session *session = &mux->sessions[id];
    bool is_unheard_of = mux->opens && (session->owes & OWES_SYN);

    if (!session->is_open)
        return;
    if (!is_unheard_of) {
        session->was_reset = true;
        session->may_come = mux->opens;
        webmux_owe(mux, id, OWES_RST);
    }
    webmux_end_session(mux, id);
}

/* Credit comes back in quarters of a window, which doubles with each that the reader has
 * taken whole: on a long way it is soon as large as that needs. */
void webmux_took(struct webmux *mux, uint8_t id, size_t count, bool has_all)
{
    struct webmux_session *session = &mux->sessions[id];
    struct webmux_growth *growth = mux->growth;
    size_t more = 0;

    if (!session->is_open || session->they_ended)
        return;
    session->taken += count;
    if (session->taken < session->window / 4)
        return;
    if (has_all)
        more = webmux_least(session->window, webmux_least(WEBMUX_WINDOW_MAX - session->window,
                                                          growth->bytes_max - growth->bytes));
    session->grant += session->taken + more;
    session->taken = 0;
    session->window += more;
    growth->bytes += more;
    webmux_owe(mux, id, OWES_CREDIT);
}

static size_t within(size_t count, uint32_t mss)
{
    return mss && mss < count ? mss : count;
}

size_t webmux_may_send(const struct webmux *mux, uint8_t id)
{
    const struct webmux_session *session = &mux->sessions[id];

    if (!session->is_open || session->we_ended || session->credit <= 0)
        return 0;
    if (!mux->opens && !session->is_confirmed)
        return 0;
    return within(within(webmux_least((size_t)session->credit, FRAME_BYTES_MAX), mux->mss),
                  session->mss);
}

void webmux_send(struct webmux *mux, uint8_t id, size_t count, uint8_t header[WEBMUX_SHORT_BYTES])
{
    struct webmux_header frame = { .session = id, .length = (uint32_t)count };
    uint8_t bytes[WEBMUX_HEADER_BYTES_MAX] = { 0 };

    mux->sessions[id].credit -= (int64_t)count;
    webmux_header_write(&frame, bytes);
    memcpy(header, bytes, WEBMUX_SHORT_BYTES);
}

bool webmux_owes(const struct webmux *mux)
{
    return mux->owes_greeting || mux->owing_count;
}

static size_t write_greeting(const struct webmux *mux, uint8_t *bytes)
{
    struct webmux_header header = { .is_control = true, .opcode = WEBMUX_SET_DEFAULT_CREDIT,
                                    .is_long = true, .second = (uint32_t)mux->window };

    return webmux_header_write(&header, bytes);
}

static size_t write_question(uint8_t id, uint8_t *bytes)
{
    struct webmux_header header = { .session = id, .length = 1 };
    size_t used = webmux_header_write(&header, bytes);

    memset(bytes + used, 0, 4);
    return used + 4;
}

static size_t write_flag(uint8_t id, uint8_t owed, uint8_t *bytes)
{
    struct webmux_header header = { .session = id, .rst = owed == OWES_RST,
                                    .syn = owed == OWES_SYN, .fin = owed == OWES_FIN };

    return webmux_header_write(&header, bytes);
}

static size_t write_credit(struct webmux_session *session, uint8_t id, uint8_t *bytes)
{
    struct webmux_header header = { .is_control = true, .opcode = WEBMUX_ADD_CREDIT,
                                    .is_long = true, .session = id,
                                    .second = (uint32_t)session->grant };

    session->their_credit += (int64_t)session->grant;
    session->grant = 0;
    return webmux_header_write(&header, bytes);
}

static size_t write_session(struct webmux *mux, uint8_t id, uint8_t *bytes)
{
    struct webmux_session *session = &mux->sessions[id];
    size_t used = 0;

    for (unsigned owed = OWES_RST; owed <= OWES_FIN; owed <<= 1) {
        if (!(session->owes & owed))
            continue;
        if (owed == OWES_QUESTION)
            used += write_question(id, bytes + used);
        else if (owed == OWES_CREDIT)
            used += write_credit(session, id, bytes + used);
        else
            used += write_flag(id, (uint8_t)owed, bytes + used);
    }
    session->owes = 0;
    webmux_end_if_over(mux, id);
    return used;
}

size_t webmux_write_owed(struct webmux *mux, uint8_t *bytes)
{
    size_t used = 0;

    if (mux->owes_greeting)
        used += write_greeting(mux, bytes);
    mux->owes_greeting = false;
    for (size_t i = 0; i < mux->owing_count; i++)
        used += write_session(mux, mux->owing[i], bytes + used);
    mux->owing_count = 0;
    return used;
}
