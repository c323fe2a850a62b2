#include "tests/unit/webmux_ends.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void end_start(struct webmux_end *end, bool opens)
{
    uint8_t bytes[WEBMUX_OWED_BYTES_MAX];

    memset(end, 0, sizeof *end);
    end->growth.bytes_max = 64 << 20;
    webmux_init(&end->mux, opens, WEBMUX_WINDOW, &end->growth);
    webmux_write_owed(&end->mux, bytes);
}

void end_take(struct webmux_end *end, const uint8_t *bytes, size_t count)
{
    struct webmux_event event;

    end->events_count = 0;
    end->error = NULL;
    do {
        size_t used = webmux_receive(&end->mux, bytes, count, &event);

        bytes += used;
        count -= used;
        if (event.kind == WEBMUX_ERROR)
            end->error = event.error;
        else if (event.kind != WEBMUX_NOTHING && end->events_count < EVENTS_MAX)
            end->events[end->events_count++] = event;
    } while (event.kind != WEBMUX_NOTHING && event.kind != WEBMUX_ERROR);
}

void end_take_frame(struct webmux_end *end, struct webmux_header header)
{
    size_t payload = webmux_payload_bytes(&header), padding = webmux_padding_bytes(&header);
    uint8_t *bytes = calloc(1, WEBMUX_HEADER_BYTES_MAX + payload + padding);

    end_take(end, bytes, webmux_header_write(&header, bytes) + payload + padding);
    free(bytes);                        /* what the events show of it is gone */
}

void end_take_flags(struct webmux_end *end, uint8_t session, const char *flags, uint32_t payload)
{
    struct webmux_header header = {
        .session = session, .syn = strchr(flags, 'S'), .fin = strchr(flags, 'F'),
        .rst = strchr(flags, 'R'),
    };

    header.is_long = (header.syn && payload) || payload > WEBMUX_SHORT_PAYLOAD_MAX;
    if (header.is_long)
        header.second = payload;
    else
        header.length = payload;
    end_take_frame(end, header);
}

void end_take_control(struct webmux_end *end, uint8_t opcode, uint8_t session, uint32_t value)
{
    bool is_short = opcode == WEBMUX_SET_MSS || opcode == WEBMUX_NO_OP;

    end_take_frame(end, (struct webmux_header){
        .is_control = true, .opcode = opcode, .session = session, .is_long = !is_short,
        .length = is_short ? value : 0, .second = is_short ? 0 : value });
}

bool end_told(const struct webmux_end *end, enum webmux_event_kind kind, uint8_t session)
{
    if (kind == WEBMUX_NOTHING)
        return end->events_count == 0 && !end->error;
    return end->events_count == 1 && !end->error && end->events[0].kind == kind &&
           end->events[0].session == session;
}

bool end_failed(const struct webmux_end *end, const char *text)
{
    return end->error && strstr(end->error, text);
}

uint8_t end_open_confirmed(struct webmux_end *end)
{
    uint8_t id = webmux_open(&end->mux);

    end_says(end);
    end_take_flags(end, id, "S", 0);
    return id;
}

void end_start_with_own(struct webmux_end *end)
{
    end_start(end, true);
    if (end_open_confirmed(end) != 3)
        abort();
}

void end_start_with_theirs(struct webmux_end *end)
{
    end_start(end, false);
    end_take_flags(end, 3, "S", 0);
    if (!end_told(end, WEBMUX_OPENED, 3))
        abort();
    webmux_confirm(&end->mux, 3);
    if (strcmp(end_says(end), "S3") != 0)
        abort();
}

static int say(const struct webmux_header *header, char *text, size_t room)
{
    if (header->is_control)
        return snprintf(text, room, "C%u:%u ", header->session, header->second);
    if (!header->rst && !header->syn && !header->fin)
        return snprintf(text, room, "p%u ", header->session);
    return snprintf(text, room, "%c%u ", header->rst ? 'R' : header->syn ? 'S' : 'F',
                    header->session);
}

const char *end_says(struct webmux_end *end)
{
    static char text[8192];
    uint8_t bytes[WEBMUX_OWED_BYTES_MAX];
    size_t count = webmux_write_owed(&end->mux, bytes), at = 0, written = 0;
    struct webmux_header header;

    text[0] = '\0';
    while (at < count) {
        at += webmux_header_read(bytes + at, count - at, &header);
        at += webmux_payload_bytes(&header) + webmux_padding_bytes(&header);
        written += (size_t)say(&header, text + written, sizeof text - written);
    }
    if (written)
        text[written - 1] = '\0';
    return text;
}
