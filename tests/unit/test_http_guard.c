#include "rpc/http_guard.h"
#include "rpc/xml_guard.h"
#include "tests/unit/unit.h"

#include <string.h>

static struct http_request request;

static enum http_verdict look_at(const char *bytes, size_t length)
{
    return http_guard_look(bytes, length, HTTP_BODY_BYTES, &request);
}

static enum http_verdict look(const char *text)
{
    return look_at(text, strlen(text));
}

#define FIELDS "Host: proxy.example:8000\r\nContent-Type: text/xml\r\n"

static void a_complete_call_is_let_through(void)
{
    CU_ASSERT_EQUAL(look("POST /RPC2 HTTP/1.1\r\n" FIELDS "Content-Length: 3\r\n\r\nabc"),
                    HTTP_COMPLETE);
    CU_ASSERT_STRING_EQUAL(request.host, "proxy.example");
    CU_ASSERT_EQUAL(look("POST / HTTP/1.0\r\nContent-Type: text/xml; charset=utf-8\r\n"
                         "Content-Length: 3\r\n\r\nabc"), HTTP_COMPLETE);
    CU_ASSERT_STRING_EQUAL(request.host, "");
    CU_ASSERT_EQUAL(look("POST http://proxy:8000/RPC2 HTTP/1.1\r\n" FIELDS
                         "Content-Length: 3\r\n\r\nabc"), HTTP_COMPLETE);
    CU_ASSERT_EQUAL(look("\r\nPOST /RPC2 HTTP/1.1\nHost: [::1]:8000\ncontent-type: APPLICATION/XML\n"
                         "content-length: 3\n\nabc"), HTTP_COMPLETE);
    CU_ASSERT_STRING_EQUAL(request.host, "::1");
}

static void blanks_around_a_value_are_free(void)
{
    CU_ASSERT_EQUAL(look("POST /RPC2 HTTP/1.1\r\nHost:proxy\r\nContent-Type:\t text/xml \r\n"
                         "Content-Length:3 \t\r\n\r\nabc"), HTTP_COMPLETE);
    CU_ASSERT_STRING_EQUAL(request.host, "proxy");
}

static void an_ip6_host_needs_no_port(void)
{
    CU_ASSERT_EQUAL(look("POST http://[::1]/RPC2 HTTP/1.1\r\nHost: [2001:DB8::1]\r\n"
                         "Content-Type: text/xml\r\nContent-Length: 3\r\n\r\nabc"),
                    HTTP_COMPLETE);
    CU_ASSERT_STRING_EQUAL(request.host, "2001:db8::1");
}

static void every_cut_of_a_call_is_incomplete(void)
{
    static const char call[] = "POST /RPC2 HTTP/1.1\r\n" FIELDS "Content-Length: 3\r\n\r\nabc";

    for (size_t length = 0; length < sizeof call - 1; length++)
        CU_ASSERT_EQUAL(look_at(call, length), HTTP_INCOMPLETE);
    CU_ASSERT_EQUAL(look_at(call, sizeof call - 1), HTTP_COMPLETE);
    CU_ASSERT_EQUAL(request.bytes, sizeof call - 1);
}

static void a_client_that_waits_for_100_is_known(void)
{
    CU_ASSERT_EQUAL(look("POST /RPC2 HTTP/1.1\r\n" FIELDS "Content-Length: 3\r\n"
                         "Expect: 100-continue\r\n\r\n"), HTTP_INCOMPLETE);
    CU_ASSERT_TRUE(request.expects_continue);
}

static bool look_authorization(const char *value)
{
    char text[1024];

    snprintf(text, sizeof text, "POST /RPC2 HTTP/1.1\r\n" FIELDS "Authorization: %s\r\n"
             "Content-Length: 3\r\n\r\nabc", value);
    CU_ASSERT_EQUAL(look(text), HTTP_COMPLETE);
    return request.has_credentials;
}

static void name_and_password_are_read(void)
{
    static const struct { const char *value, *name, *password; } good[] = {
        { "Basic am86d29yZA==", "jo", "word" },
        { "bAsIc   am86d29yZA==", "jo", "word" },
        { "Basic am86", "jo", "" },
        { "Basic OndvcmQ=", "", "word" },
        { "Basic am86YTpiOmM=", "jo", "a:b:c" },
        { "Basic asO2OnDDqSAh", "j\xc3\xb6", "p\xc3\xa9 !" },
    };

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        CU_ASSERT_TRUE(look_authorization(good[i].value));
        CU_ASSERT_STRING_EQUAL(request.credentials.name, good[i].name);
        CU_ASSERT_STRING_EQUAL(request.credentials.password, good[i].password);
    }
}

static void what_is_no_name_and_password_counts_as_none(void)
{
    static const char *const bad[] = {
        "", "Basic", "Basic !", "Basic am86d29yZA", "Basic am86d29yZA== x",
        "Basic am86d29yZA===", "Basic am8=", "Basic am86AHdvcmQ=", "Basicam86d29yZA==",
        "Bearer am86d29yZA==", "Digest username=jo", "am86d29yZA==", "Basic am86\td29yZA==",
        "Basic am_6d-9yZA==",
    };
    char value[800] = "Basic ";

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CU_ASSERT_FALSE(look_authorization(bad[i]));
    for (size_t i = 0; i < 84; i++)     /* "aaa" each: 252 bytes before the colon */
        strcat(value, "YWFh");
    CU_ASSERT_FALSE(look_authorization(strcat(value, "am86")));
    strcpy(value, "Basic am86");
    for (size_t i = 0; i < 85; i++)     /* 255 of a password */
        strcat(value, "YWFh");
    CU_ASSERT_TRUE(look_authorization(value));
    CU_ASSERT_EQUAL(strlen(request.credentials.password), 255);
    CU_ASSERT_FALSE(look_authorization(strcat(value, "YQ==")));
}

static void the_last_address_of_the_last_proxy_is_read(void)
{
    static const struct { const char *fields, *expected; } forwarded[] = {
        { "", "" },
        { "X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1" },
        { "x-forwarded-for: invented, 192.0.2.1\r\n", "192.0.2.1" },
        { "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: [2001:db8::1]:80\r\n",
          "[2001:db8::1]:80" },
        { "X-Forwarded-For: 192.0.2.1,\r\n", "?" },
        { "X-Forwarded-For:\r\n", "?" },
        { "X-Forwarded-For: 0123456789012345678901234567890123456789012345678901234567890123\r\n",
          "?" },
    };
    char text[500];

    for (size_t i = 0; i < sizeof forwarded / sizeof forwarded[0]; i++) {
        snprintf(text, sizeof text, "POST /RPC2 HTTP/1.1\r\n" FIELDS "%sContent-Length: 1\r\n\r\n1",
                 forwarded[i].fields);
        CU_ASSERT_EQUAL(look(text), HTTP_COMPLETE);
        CU_ASSERT_STRING_EQUAL(request.forwarded_for, forwarded[i].expected);
    }
}

static void a_refusal_says_what_it_wants(void)
{
    struct http_refusal refusal = { .status = 401, .reason = "who?" };
    char text[HTTP_REFUSAL_BYTES];

    CU_ASSERT_EQUAL(http_refusal_write(&refusal, text), strlen(text));
    CU_ASSERT_NSTRING_EQUAL(text, "HTTP/1.1 401 Unauthorized\r\n", 27);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "\r\nWWW-Authenticate: Basic realm=\"tristero-tunnel\", "
                                  "charset=\"UTF-8\"\r\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "\r\nContent-Length: 5\r\n"));
    CU_ASSERT_STRING_EQUAL(strstr(text, "\r\n\r\n"), "\r\n\r\nwho?\n");
    refusal = (struct http_refusal){ .status = 429, .retry_after_s = 7, .reason = "later" };
    http_refusal_write(&refusal, text);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "429 Too Many Requests\r\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "\r\nRetry-After: 7\r\n"));
}

static void what_is_no_call_is_refused_with_its_status(void)
{
    static const struct { int status; const char *text; } refused[] = {
        { 400, "hello\r\n\r\n" },
        { 400, "POST\r\n\r\n" },
        { 400, "POST /RPC2\r\n\r\n" },
        { 400, "\x16\x03\x01\x02\n\n" },
        { 505, "POST /RPC2 HTTP/2.0\r\n\r\n" },
        { 405, "GET /RPC2 HTTP/1.1\r\n" FIELDS "\r\n" },
        { 405, "post /RPC2 HTTP/1.1\r\n" FIELDS "\r\n" },
        { 404, "POST /RPC3 HTTP/1.1\r\n" FIELDS "\r\n" },
        { 404, "GET /favicon.ico HTTP/1.1\r\n" FIELDS "\r\n" },
        { 404, "POST /RPC2/../ HTTP/1.1\r\n" FIELDS "\r\n" },
        { 404, "POST http://proxy HTTP/1.1\r\n" FIELDS "\r\n" },
        { 404, "POST HTTP://proxy/RPC2 HTTP/1.1\r\n" FIELDS "\r\n" },
        { 404, "POST http://user:word@proxy/RPC2 HTTP/1.1\r\n" FIELDS "\r\n" },
        { 404, "POST http://proxy:99999999999/RPC2 HTTP/1.1\r\n" FIELDS "\r\n" },
        { 405, "\r\rPOST /RPC2 HTTP/1.1\r\n" FIELDS "Content-Length: 3\r\n\r\nabc" },
        { 400, "POST /RPC2 HTTP/1.1\r\nHost: a:\r\n\r\n" },
        { 403, "POST /RPC2 HTTP/1.1\r\n" FIELDS "Origin: http://proxy.example:8000\r\n"
               "Content-Length: 3\r\n\r\nabc" },
        { 411, "POST /RPC2 HTTP/1.1\r\n" FIELDS "\r\n" },
        { 411, "POST /RPC2 HTTP/1.1\r\n" FIELDS "Transfer-Encoding: chunked\r\n\r\n" },
        { 411, "POST /RPC2 HTTP/1.1\r\n" FIELDS "Content-Length: 3\r\n"
               "Transfer-Encoding: identity\r\n\r\n" },
        { 413, "POST /RPC2 HTTP/1.1\r\n" FIELDS "Content-Length: 65537\r\n\r\n" },
        { 413, "POST /RPC2 HTTP/1.1\r\n" FIELDS
               "Content-Length: 99999999999999999999999999999999\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\n" FIELDS "Content-Length: 0\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\n" FIELDS "Content-Length:\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\n" FIELDS "Content-Length: -1\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\n" FIELDS "Content-Length: +3\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\n" FIELDS "Content-Length: 0x3\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\n" FIELDS "Content-Length: 3, 3\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\n" FIELDS "Content-Length: 3\r\nContent-Length: 3\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\nContent-Type: text/xml\r\nContent-Length: 3\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\n" FIELDS "Host: two\r\nContent-Length: 3\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\nHost: a b\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\n" FIELDS "Authorization: Basic am86d29yZA==\r\n"
               "Authorization: Basic am86d29yZA==\r\nContent-Length: 3\r\n\r\nabc" },
        { 400, "POST /RPC2 HTTP/1.1\r\nHost: <a>\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\nHost: a:80x\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\nHost: a:123456\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\nHost: a:65536\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\nHost: a:0000\r\n\r\n" },
        { 404, "POST http://a:0/RPC2 HTTP/1.1\r\n" FIELDS "\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\nHost : proxy\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\n" FIELDS " folded: x\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\n" FIELDS "no colon\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\n" FIELDS ": no name\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\n" FIELDS "X: a\rb\r\n\r\n" },
        { 415, "POST /RPC2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n" },
        { 415, "POST /RPC2 HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n\r\n" },
        { 415, "POST /RPC2 HTTP/1.1\r\nHost: a\r\nContent-Type: text/xmlish\r\n\r\n" },
    };

    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        enum http_verdict verdict = look(refused[i].text);

        CU_ASSERT(verdict == HTTP_REFUSED && request.status == refused[i].status);
        CU_ASSERT_NOT_EQUAL(request.reason[0], '\0');
        if (verdict != HTTP_REFUSED || request.status != refused[i].status)
            fprintf(stderr, "%d (%s) for:\n%s\n", request.status, request.reason, refused[i].text);
    }
}

static void no_reason_shows_what_may_be_a_password(void)
{
    static const struct { const char *text, *shown; } refused[] = {
        { "POST http://alice:secret@proxy:8000/RPC2 HTTP/1.1\r\n\r\n", "\"@proxy:8000/RPC2\"" },
        { "POST /alice:secret@home/secret@proxy HTTP/1.1\r\n\r\n", "\"@proxy\"" },
        { "POST /RPC2 HTTP/1.1\r\nHost: alice:secret@proxy:8000\r\n\r\n", "\"@proxy:8000\"" },
        { "alice:secret@proxy /RPC2 HTTP/1.1\r\n\r\n", "\"@proxy\"" },
        { "POST /RPC2 HTTP/1.1\r\nAuthorization : Basic secret\r\n\r\n", "" },
        { "POST /RPC2 HTTP/1.1\r\nAuthorization: Basic\r\n secret\r\n\r\n", "" },
        { "POST /RPC2 HTTP/1.1\r\nAuthorization: Basic\r\n\tsecret: x\r\n\r\n", "" },
        { "POST /RPC2 HTTP/1.1\r\nAuthorization=secret\r\n\r\n", "" },
        { "POST /RPC2 HTTP/1.1\r\nsecret\r\n\r\n", "" },
        { "POST /RPC2 HTTP/1.1\r\nAuthorization: Basic \001secret\r\n\r\n",
          "\"Authorization\"" },
    };

    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        CU_ASSERT_EQUAL(look(refused[i].text), HTTP_REFUSED);
        CU_ASSERT_PTR_NULL(strstr(request.reason, "secret"));
        CU_ASSERT_PTR_NOT_NULL(strstr(request.reason, refused[i].shown));
    }
}

static void a_header_is_short_or_refused(void)
{
    char text[HTTP_REQUEST_BYTES];

    memset(text, 'a', sizeof text);
    CU_ASSERT_EQUAL(look_at(text, HTTP_HEADER_BYTES), HTTP_INCOMPLETE);
    CU_ASSERT_EQUAL(look_at(text, HTTP_HEADER_BYTES + 1), HTTP_REFUSED);
    CU_ASSERT_EQUAL(request.status, 431);
    memset(text, '\n', sizeof text);
    CU_ASSERT_EQUAL(look_at(text, sizeof text), HTTP_REFUSED);
    CU_ASSERT_EQUAL(request.status, 431);
}

static void a_header_with_a_zero_byte_is_refused(void)
{
    static const char text[] = "POST /RPC2 HTTP/1.1\r\nHost: a\0b\r\n\r\n";

    CU_ASSERT_EQUAL(look_at(text, sizeof text - 1), HTTP_REFUSED);
    CU_ASSERT_EQUAL(request.status, 400);
}

static void an_i8_is_refused_since_a_bad_one_crashes_the_parser(void)
{
    static const char plain[] = "<value><i8>x</i8></value>";
    static const char extended[] = "<value><ex:i8 >x</ex:i8></value>";

    CU_ASSERT_PTR_NOT_NULL(xml_guard_look(plain, sizeof plain - 1));
    CU_ASSERT_PTR_NOT_NULL(xml_guard_look(extended, sizeof extended - 1));
}

static void a_document_type_declaration_is_refused(void)
{
    static const char utf16[] = "<\0!\0D\0O\0C\0T\0Y\0P\0E\0";
    static const char call[] = "<?xml version=\"1.0\"?><methodCall/>";
    static const char declared[] = "<?xml version=\"1.0\"?><!DOCTYPE a [<!ENTITY b \"c\">]><a/>";

    CU_ASSERT_PTR_NULL(xml_guard_look(call, sizeof call - 1));
    CU_ASSERT_PTR_NOT_NULL(xml_guard_look(declared, sizeof declared - 1));
    CU_ASSERT_PTR_NOT_NULL(xml_guard_look(utf16, sizeof utf16 - 1));
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(a_complete_call_is_let_through),
        TEST(blanks_around_a_value_are_free),
        TEST(an_ip6_host_needs_no_port),
        TEST(every_cut_of_a_call_is_incomplete),
        TEST(a_client_that_waits_for_100_is_known),
        TEST(name_and_password_are_read),
        TEST(what_is_no_name_and_password_counts_as_none),
        TEST(the_last_address_of_the_last_proxy_is_read),
        TEST(a_refusal_says_what_it_wants),
        TEST(what_is_no_call_is_refused_with_its_status),
        TEST(no_reason_shows_what_may_be_a_password),
        TEST(a_header_is_short_or_refused),
        TEST(a_header_with_a_zero_byte_is_refused),
        TEST(a_document_type_declaration_is_refused),
        TEST(an_i8_is_refused_since_a_bad_one_crashes_the_parser),
        CU_TEST_INFO_NULL,
    };

    return unit_run("http_guard", tests);
}
