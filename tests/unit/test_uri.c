#include "relay/uri.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <string.h>

static struct tunnel_uri uri;

static int parse(const char *text)
{
    return tunnel_uri_parse(text, strlen(text), &uri, NULL);
}

static bool is(const char *scheme, const char *host, unsigned port)
{
    return strcmp(uri.scheme, scheme) == 0 && strcmp(uri.host, host) == 0 && uri.port == port;
}

static void a_uri_has_scheme_host_and_port(void)
{
    CU_ASSERT(parse("tcp://proxy.example.org:8010") == 0 && is("tcp", "proxy.example.org", 8010));
    CU_ASSERT(parse("tcp://127.0.0.1:1") == 0 && is("tcp", "127.0.0.1", 1));
    CU_ASSERT(parse("tcp://a:65535/") == 0 && is("tcp", "a", 65535));
}

static void an_ip6_address_stands_in_brackets(void)
{
    CU_ASSERT(parse("tcp://[::1]:8010") == 0 && is("tcp", "::1", 8010));
    CU_ASSERT(parse("tcp://[2001:DB8::1]:8010") == 0 && is("tcp", "2001:db8::1", 8010));
    CU_ASSERT(parse("tcp://::1:8010") == -EINVAL);
    CU_ASSERT(parse("tcp://[::1:8010") == -EINVAL);
    CU_ASSERT(parse("tcp://[]:8010") == -EINVAL);
    CU_ASSERT(parse("tcp://[localhost]:8010") == -EINVAL);
    CU_ASSERT(parse("tcp://[::1%lo]:8010") == -EINVAL);
}

static void of_ssh_a_uri_may_have_a_user(void)
{
    CU_ASSERT(parse("ssh://t-a1@proxy:8022") == 0 && is("ssh", "proxy", 8022));
    CU_ASSERT_STRING_EQUAL(uri.user, "t-a1");
    CU_ASSERT(parse("ssh://Me@[::1]:8022/") == 0 && is("ssh", "::1", 8022));
    CU_ASSERT_STRING_EQUAL(uri.user, "Me");
    CU_ASSERT(parse("ssh://proxy:8022") == 0);
    CU_ASSERT_STRING_EQUAL(uri.user, "");
    CU_ASSERT(parse("ssh://@proxy:8022") == -EINVAL);
    CU_ASSERT(parse("ssh://-oProxyCommand=x@proxy:8022") == -EINVAL);
    CU_ASSERT(parse("ssh://me:secret@proxy:8022") == -EINVAL);
    CU_ASSERT(parse("ssh://a@b@proxy:8022") == -EINVAL);
}

static void uris_of_other_users_are_others(void)
{
    struct tunnel_uri other;

    CU_ASSERT(parse("ssh://t-a1@proxy:8022") == 0);
    other = uri;
    CU_ASSERT(tunnel_uri_equal(&uri, &other));
    CU_ASSERT(parse("ssh://t-a12@proxy:8022") == 0);
    CU_ASSERT(!tunnel_uri_equal(&uri, &other));
    CU_ASSERT(parse("ssh://proxy:8022") == 0);
    CU_ASSERT(!tunnel_uri_equal(&uri, &other));
}

static void scheme_and_host_do_not_mind_case(void)
{
    CU_ASSERT(parse("TCP://Proxy.Example:8010") == 0 && is("tcp", "proxy.example", 8010));
}

static void what_is_not_a_uri_is_refused(void)
{
    static const char *const bad[] = {
        "", "tcp", "tcp:", "tcp://", "tcp://a", "tcp://a:", "tcp://a:x", "tcp://a:0",
        "tcp://a:65536", "tcp://a:080", "tcp://a:80x", "tcp://a:-1", "tcp://a:+1",
        "tcp://a:99999999999999999999", "tcp://:80", "://a:80", "1tcp://a:80",
        "tcp://a b:80", "tcp://a:80/path", "tcp://user@a:80", "tcp://a:80?x", "tcp://a:80//",
        "tcp://a\n:80", " tcp://a:80", "tcp://a:80 ", "abcdefghijklmnopq://a:80", "tcp://-a:80",
    };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const char *expected = NULL;
        int err = tunnel_uri_parse(bad[i], strlen(bad[i]), &uri, &expected);

        CU_ASSERT(err == -EINVAL && expected);
        if (!err)
            fprintf(stderr, "taken: %s\n", bad[i]);
    }
}

static void no_byte_beyond_the_length_is_read(void)
{
    CU_ASSERT(tunnel_uri_parse("tcp://a:8010", 11, &uri, NULL) == 0 && uri.port == 801);
    CU_ASSERT(tunnel_uri_parse("tcp://a:8010", 8, &uri, NULL) == -EINVAL);
    CU_ASSERT(tunnel_uri_parse("tcp://[::1]:1", 10, &uri, NULL) == -EINVAL);
    CU_ASSERT(tunnel_uri_parse("tcp://a\0b:1", 11, &uri, NULL) == -EINVAL);
    CU_ASSERT(tunnel_uri_parse("tcp://[::1\0]:1", 14, &uri, NULL) == -EINVAL);
}

static void the_longest_host_fits_and_one_more_byte_does_not(void)
{
    char text[400];
    char host[300];

    memset(host, 'h', sizeof host);
    host[253] = '\0';
    snprintf(text, sizeof text, "tcp://%s:65535", host);
    CU_ASSERT(parse(text) == 0 && is("tcp", host, 65535));
    memset(host, 'h', 254);
    host[254] = '\0';
    snprintf(text, sizeof text, "tcp://%s:65535", host);
    CU_ASSERT(parse(text) == -EINVAL);
}

static void what_is_formatted_reads_back_alike(void)
{
    static const char *const texts[] = { "tcp://a:1", "tcp://[::1]:8010", "ssh://x.y:65535",
                                         "ssh://t-a1@[::1]:8022" };
    char text[URI_TEXT_BYTES];
    struct tunnel_uri before;

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        CU_ASSERT(parse(texts[i]) == 0);
        before = uri;
        tunnel_uri_format(&before, text);
        CU_ASSERT_STRING_EQUAL(text, texts[i]);
        CU_ASSERT(parse(text) == 0 && tunnel_uri_equal(&uri, &before));
    }
}

static void a_host_tells_how_much_of_the_text_it_took(void)
{
    char host[URI_HOST_BYTES];

    CU_ASSERT(uri_host_parse("proxy:8000", 10, host) == 5);
    CU_ASSERT(uri_host_parse("[::1]:8000", 10, host) == 5);
    CU_ASSERT_STRING_EQUAL(host, "::1");
    CU_ASSERT(uri_host_parse("", 0, host) == -EINVAL);
    CU_ASSERT(uri_host_parse("<a>", 3, host) == -EINVAL);
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(a_uri_has_scheme_host_and_port),
        TEST(an_ip6_address_stands_in_brackets),
        TEST(of_ssh_a_uri_may_have_a_user),
        TEST(uris_of_other_users_are_others),
        TEST(scheme_and_host_do_not_mind_case),
        TEST(what_is_not_a_uri_is_refused),
        TEST(no_byte_beyond_the_length_is_read),
        TEST(the_longest_host_fits_and_one_more_byte_does_not),
        TEST(what_is_formatted_reads_back_alike),
        TEST(a_host_tells_how_much_of_the_text_it_took),
        CU_TEST_INFO_NULL,
    };

    return unit_run("uri", tests);
}
