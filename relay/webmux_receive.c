/* What is received. */
#include "relay/webmux_private.h"

static size_t error(struct webmux_event *event, const char *what)
{
    *event = (struct webmux_event){ .kind = WEBMUX_ERROR, .error = what };
    return 0;
}

static void tell(struct webmux_event *event, enum webmux_event_kind kind, uint8_t session)
{
    *event = (struct webmux_event){ .kind = kind, .session = session };
}

static int64_t as_credit(uint32_t value)
{
    return value ? value : UNLIMITED;
}

/* Sessions that they have not confirmed yet start with it, too: they said it before
 * they did. */
static void set_first_credit(struct webmux *mux, int64_t credit, struct webmux_event *event)
{
    int64_t more = credit - mux->first_credit;

    mux->first_credit = credit;
    for (unsigned id = 0; id < WEBMUX_IDS && mux->opens; id++) {
        if (mux->sessions[id].is_open && !mux->sessions[id].is_confirmed)
            mux->sessions[id].credit += more;
    }
    tell(event, WEBMUX_CREDIT, 0);
}

static void add_credit(struct webmux *mux, uint8_t id, uint32_t more, struct webmux_event *event)
{
    struct webmux_session *session = &mux->sessions[id];
    bool had_some = session->credit > 0;

    if (!session->is_open)
        return;
    if (session->credit < UNLIMITED)
        session->credit += more;
    if (!had_some && session->credit > 0)
        tell(event, WEBMUX_CREDIT, id);
}

static void set_mss(struct webmux *mux, uint8_t id, uint32_t mss)
{
    if (id == 0)
        mux->mss = mss;
    else
        mux->sessions[id].mss = mss;
}

/* Of atoms and stacks nothing is needed, since this end never uses them. */
static size_t take_control(struct webmux *mux, const struct webmux_header *header,
                           struct webmux_event *event)
{
    static const bool is_long[WEBMUX_OPCODES] = {
        [WEBMUX_INTERN_ATOM] = true, [WEBMUX_DEFINE_STACK] = true,
        [WEBMUX_ADD_CREDIT] = true, [WEBMUX_SET_DEFAULT_CREDIT] = true,
    };

    if (header->opcode >= WEBMUX_OPCODES)
        return error(event, "sent a control frame that there is not");
    if (header->is_long != is_long[header->opcode])
        return error(event, "sent a control frame with a header of the wrong length");
    mux->drops_payload = true;
    if (header->opcode == WEBMUX_SET_MSS)
        set_mss(mux, header->session, header->length);
    else if (header->opcode == WEBMUX_ADD_CREDIT)
        add_credit(mux, header->session, header->second, event);
    else if (header->opcode == WEBMUX_SET_DEFAULT_CREDIT)
        set_first_credit(mux, as_credit(header->second), event);
    return 0;
}

static void note_answer(struct webmux *mux, const struct webmux_session *session)
{
    if (session->number > mux->answered)
        mux->answered = session->number;
}

/* They know that it is over: a reset that is owed still would be taken for that of
 * the next session. */
static void forget_reset(struct webmux_session *session)
{
    session->owes &= (uint8_t)~(OWES_RST | OWES_QUESTION);
}

/* Nothing of it comes any more. But for who takes sessions, and has reset this one in
 * the same moment, a question may, which they don't need answered then. */
static void take_late_reset(const struct webmux *mux, struct webmux_session *session)
{
    if (mux->opens || session->owes & OWES_RST)
        session->was_reset = session->may_come = false;
    forget_reset(session);
}

static void take_reset(struct webmux *mux, uint8_t id, struct webmux_event *event)
{
    mux->drops_payload = true;
    if (!mux->sessions[id].is_open) {
        take_late_reset(mux, &mux->sessions[id]);
        return;
    }
    note_answer(mux, &mux->sessions[id]);
    webmux_end_session(mux, id);
    tell(event, WEBMUX_RESET, id);
}

/* Of a session that is not open: what they sent before they learned so. */
static size_t take_late(struct webmux *mux, const struct webmux_header *header,
                        struct webmux_event *event)
{
    struct webmux_session *session = &mux->sessions[header->session];

    mux->drops_payload = true;
    if (session->was_reset) {
        session->their_credit -= webmux_payload_bytes(header);
        return session->their_credit < 0 ? error(event, "sent more than its credit") : 0;
    }
    if (header->syn || webmux_payload_bytes(header))
        webmux_owe(mux, header->session, OWES_RST);
    return 0;
}

/* They open a session, or confirm one. false: neither can be. */
static bool take_syn(struct webmux *mux, uint8_t id, struct webmux_event *event)
{
    struct webmux_session *session = &mux->sessions[id];

    if (session->is_open && (session->is_confirmed || !mux->opens))
        return false;
    if (session->is_open) {
        session->is_confirmed = true;
        note_answer(mux, session);
        tell(event, WEBMUX_CONFIRMED, id);
    } else {
        forget_reset(session);
        webmux_begin_session(mux, id);
        tell(event, WEBMUX_OPENED, id);
    }
    return true;
}

static bool may_be_opened(const struct webmux *mux, uint8_t id)
{
    return !mux->opens && id % 2 == 1;
}

static size_t take_data(struct webmux *mux, const struct webmux_header *header,
                        struct webmux_event *event)
{
    struct webmux_session *session = &mux->sessions[header->session];
    uint32_t payload = webmux_payload_bytes(header);

    if (header->session < 2)
        return error(event, "sent a frame of a reserved session");
    if (header->rst) {
        take_reset(mux, header->session, event);
        return 0;
    }
    if (header->syn && (session->is_open || may_be_opened(mux, header->session))) {
        if (!take_syn(mux, header->session, event))
            return error(event, "opened a session that is open");
    } else if (!session->is_open) {
        return take_late(mux, header, event);
    } else if (mux->opens && !session->is_confirmed) {
        return error(event, "sent a frame of a session that it has not confirmed");
    }
    if (payload > session->their_credit)
        return error(event, "sent more than its credit");
    session->their_credit -= payload;
    if (session->they_ended) {
        webmux_reset(mux, header->session);
        mux->drops_payload = true;
        tell(event, WEBMUX_RESET, header->session);
    }
    mux->ends_session = header->fin && session->is_open;
    return 0;
}

static size_t take_header(struct webmux *mux, const struct webmux_header *header,
                          struct webmux_event *event)
{
    mux->in_frame = true;
    mux->drops_payload = mux->ends_session = false;
    mux->session = header->session;
    mux->payload_left = webmux_payload_bytes(header);
    mux->padding_left = webmux_padding_bytes(header);
    return header->is_control ? take_control(mux, header, event) : take_data(mux, header, event);
}

/* A header may come in pieces. */
static size_t receive_header(struct webmux *mux, const uint8_t *bytes, size_t count,
                             struct webmux_event *event)
{
    struct webmux_header header;
    size_t used = 0;

    while (!webmux_header_read(mux->partial, mux->partial_count, &header)) {
        if (used == count)
            return used;
        mux->partial[mux->partial_count++] = bytes[used++];
    }
    mux->partial_count = 0;
    take_header(mux, &header, event);
    return used;
}

static size_t receive_payload(struct webmux *mux, const uint8_t *bytes, size_t count,
                              struct webmux_event *event)
{
    size_t used = webmux_least(count, mux->payload_left);
    bool is_wanted = !mux->drops_payload && mux->sessions[mux->session].is_open;

    mux->payload_left -= (uint32_t)used;
    if (used && is_wanted)
        *event = (struct webmux_event){ .kind = WEBMUX_DATA, .session = mux->session,
                                        .bytes = bytes, .count = used };
    return used;
}

static void receive_end(struct webmux *mux, struct webmux_event *event)
{
    struct webmux_session *session = &mux->sessions[mux->session];

    mux->ends_session = false;
    if (!session->is_open)              /* it was reset while its last bytes came */
        return;
    session->they_ended = true;
    tell(event, WEBMUX_ENDED, mux->session);
    webmux_end_if_over(mux, mux->session);
}

size_t webmux_receive(struct webmux *mux, const uint8_t *bytes, size_t count,
                      struct webmux_event *event)
{
    size_t used = 0;

    tell(event, WEBMUX_NOTHING, 0);
    while (event->kind == WEBMUX_NOTHING) {
        if (!mux->in_frame) {
            used += receive_header(mux, bytes + used, count - used, event);
            if (!mux->in_frame)
                break;
        } else if (mux->payload_left) {
            if (used == count)
                break;
            used += receive_payload(mux, bytes + used, count - used, event);
        } else if (mux->ends_session) {
            receive_end(mux, event);
        } else {
            size_t padding = webmux_least(count - used, mux->padding_left);

            used += padding;
            mux->padding_left -= padding;
            if (mux->padding_left)
                break;
            mux->in_frame = false;
        }
    }
    return used;
}
