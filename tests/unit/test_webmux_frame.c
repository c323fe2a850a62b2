/* The bytes are those of the description, not what the code made of them. */
#include "relay/webmux_frame.h"
#include "tests/unit/unit.h"

#include <string.h>

static const struct {
    struct webmux_header header;
    const char *bytes;
    size_t count;
    uint32_t payload;
    size_t padding;
} known[] = {
    { { .syn = true, .session = 3, .length = 80 }, "\x50\x00\x0C\x20", 4, 0, 0 },
    { { .session = 3, .length = 2 }, "\x02\x00\x0C\x00", 4, 2, 2 },
    { { .fin = true, .session = 3 }, "\x00\x00\x0C\x10", 4, 0, 0 },
    { { .syn = true, .session = 5, .is_long = true, .second = 5 },
      "\x00\x00\x14\xA0\x05\x00\x00\x00", 8, 5, 3 },
    { { .is_control = true, .opcode = WEBMUX_ADD_CREDIT, .session = 3, .is_long = true,
        .second = 65536 }, "\x00\x00\x0C\xCC\x00\x00\x01\x00", 8, 0, 0 },
    { { .rst = true, .session = 5 }, "\x00\x00\x14\x08", 4, 0, 0 },
    { { .push = true, .session = 255, .length = 0x3FFFF }, "\xFF\xFF\xFF\x07", 4, 0x3FFFF, 1 },
    { { .session = 4, .is_long = true, .second = UINT32_MAX },
      "\x00\x00\x10\x80\xFF\xFF\xFF\xFF", 8, UINT32_MAX, 1 },
    { { .is_control = true, .opcode = WEBMUX_SET_MSS, .length = 1400 },
      "\x78\x05\x00\x48", 4, 0, 0 },
    { { .is_control = true, .opcode = WEBMUX_INTERN_ATOM, .is_long = true, .length = 0x20100,
        .second = 9 }, "\x00\x01\x02\xC0\x09\x00\x00\x00", 8, 9, 7 },
    { { .is_control = true, .opcode = WEBMUX_NO_OP }, "\x00\x00\x00\x54", 4, 0, 0 },
};

enum { KNOWN = sizeof known / sizeof known[0] };

static bool are_equal(const struct webmux_header *a, const struct webmux_header *b)
{
    return a->is_long == b->is_long && a->is_control == b->is_control && a->syn == b->syn &&
           a->fin == b->fin && a->rst == b->rst && a->push == b->push &&
           a->opcode == b->opcode && a->session == b->session && a->length == b->length &&
           a->second == b->second;
}

static void headers_are_written_as_described(void)
{
    uint8_t bytes[WEBMUX_HEADER_BYTES_MAX];

    for (size_t i = 0; i < KNOWN; i++) {
        CU_ASSERT_EQUAL(webmux_header_write(&known[i].header, bytes), known[i].count);
        CU_ASSERT_EQUAL(memcmp(bytes, known[i].bytes, known[i].count), 0);
    }
}

static void headers_are_read_as_described(void)
{
    struct webmux_header header;

    for (size_t i = 0; i < KNOWN; i++) {
        const uint8_t *bytes = (const uint8_t *)known[i].bytes;

        CU_ASSERT_EQUAL(webmux_header_read(bytes, known[i].count, &header), known[i].count);
        CU_ASSERT_TRUE(are_equal(&header, &known[i].header));
        CU_ASSERT_EQUAL(webmux_payload_bytes(&header), known[i].payload);
        CU_ASSERT_EQUAL(webmux_padding_bytes(&header), known[i].padding);
    }
}

static void a_header_that_is_cut_is_waited_for(void)
{
    struct webmux_header header;

    for (size_t i = 0; i < KNOWN; i++) {
        for (size_t count = 0; count < known[i].count; count++)
            CU_ASSERT_EQUAL(webmux_header_read((const uint8_t *)known[i].bytes, count, &header), 0);
    }
}

/* All bits are somewhere in the header, whatever they are. */
static void every_header_comes_back_as_it_was(void)
{
    uint8_t bytes[WEBMUX_HEADER_BYTES_MAX], again[WEBMUX_HEADER_BYTES_MAX];
    struct webmux_header header;
    uint64_t random = 1;

    for (int i = 0; i < 100000; i++) {
        size_t count;

        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        memcpy(bytes, &random, sizeof bytes);
        count = webmux_header_read(bytes, sizeof bytes, &header);
        CU_ASSERT_EQUAL_FATAL(webmux_header_write(&header, again), count);
        CU_ASSERT_EQUAL_FATAL(memcmp(bytes, again, count), 0);
        CU_ASSERT_EQUAL_FATAL((webmux_payload_bytes(&header) + webmux_padding_bytes(&header)) %
                              (header.is_long ? 8 : 4), 0);
    }
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(headers_are_written_as_described),
        TEST(headers_are_read_as_described),
        TEST(a_header_that_is_cut_is_waited_for),
        TEST(every_header_comes_back_as_it_was),
        CU_TEST_INFO_NULL,
    };

    return unit_run("webmux_frame", tests);
}
