#include "rpc/http_guard.h"
#include "rpc/xml_guard.h"
#include "tests/unit/unit.h"

#include <string.h>

static struct http_request request;

static enum http_verdict look(const char *text)
{
    return http_guard_look(text, strlen(text), &request);
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

static void every_cut_of_a_call_is_incomplete(void)
{
    static const char call[] = "POST /RPC2 HTTP/1.1\r\n" FIELDS "Content-Length: 3\r\n\r\nabc";

    for (size_t length = 0; length < sizeof call - 1; length++)
        CU_ASSERT_EQUAL(http_guard_look(call, length, &request), HTTP_INCOMPLETE);
    CU_ASSERT_EQUAL(http_guard_look(call, sizeof call - 1, &request), HTTP_COMPLETE);
    CU_ASSERT_EQUAL(request.bytes, sizeof call - 1);
}

static void a_client_that_waits_for_100_is_known(void)
{
    CU_ASSERT_EQUAL(look("POST /RPC2 HTTP/1.1\r\n" FIELDS "Content-Length: 3\r\n"
                         "Expect: 100-continue\r\n\r\n"), HTTP_INCOMPLETE);
    CU_ASSERT_TRUE(request.expects_continue);
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
        { 404, "POST http://[::1]/RPC2 HTTP/1.1\r\n" FIELDS "\r\n" },
        { 405, "\r\rPOST /RPC2 HTTP/1.1\r\n" FIELDS "Content-Length: 3\r\n\r\nabc" },
        { 400, "POST /RPC2 HTTP/1.1\r\n" FIELDS "Content-Length: 3 \r\n\r\nabc" },
        { 400, "POST /RPC2 HTTP/1.1\r\nHost: a:\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\nHost: [::1]\r\n\r\n" },
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
        { 400, "POST /RPC2 HTTP/1.1\r\nHost: <a>\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\nHost: a:80x\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\nHost: a:123456\r\n\r\n" },
        { 400, "POST /RPC2 HTTP/1.1\r\nHost:proxy\r\n\r\n" },
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

static void a_header_is_short_or_refused(void)
{
    char text[HTTP_REQUEST_BYTES];

    memset(text, 'a', sizeof text);
    CU_ASSERT_EQUAL(http_guard_look(text, HTTP_HEADER_BYTES, &request), HTTP_INCOMPLETE);
    CU_ASSERT_EQUAL(http_guard_look(text, HTTP_HEADER_BYTES + 1, &request), HTTP_REFUSED);
    CU_ASSERT_EQUAL(request.status, 431);
    memset(text, '\n', sizeof text);
    CU_ASSERT_EQUAL(http_guard_look(text, sizeof text, &request), HTTP_REFUSED);
    CU_ASSERT_EQUAL(request.status, 431);
}

static void a_header_with_a_zero_byte_is_refused(void)
{
    static const char text[] = "POST /RPC2 HTTP/1.1\r\nHost: a\0b\r\n\r\n";

    CU_ASSERT_EQUAL(http_guard_look(text, sizeof text - 1, &request), HTTP_REFUSED);
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
        TEST(every_cut_of_a_call_is_incomplete),
        TEST(a_client_that_waits_for_100_is_known),
        TEST(what_is_no_call_is_refused_with_its_status),
        TEST(a_header_is_short_or_refused),
        TEST(a_header_with_a_zero_byte_is_refused),
        TEST(a_document_type_declaration_is_refused),
        TEST(an_i8_is_refused_since_a_bad_one_crashes_the_parser),
        CU_TEST_INFO_NULL,
    };

    return unit_run("http_guard", tests);
}
