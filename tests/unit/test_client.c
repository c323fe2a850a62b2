/* The client library's calls, to proxies that do well, badly, and nothing. */
#include "tests/unit/fake_proxy.h"
#include "tests/unit/sockets.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SERVER_URI "tcp://127.0.0.1:8010"
#define CLIENT_URI "tcp://127.0.0.1:8011"
#define RESULT(value) "<?xml version=\"1.0\"?>\r\n<methodResponse><params><param><value>" value \
                      "</value></param></params></methodResponse>"
#define STRING(text) RESULT("<string>" text "</string>")

enum { THREADS = 8, CALLS_A_THREAD = 10 };

/* Opens a tunnel at a proxy that answers so. *uri is the caller's if it is TRISTERO_OK. */
static enum tristero_status open_at_fake(const char *status, const char *body, char **uri,
                                         struct tristero_error *error)
{
    struct tristero_proxy *proxy;
    enum tristero_status result;
    struct fake fake;

    fake_start(&fake, status, body);
    proxy = proxy_at(fake.url, CALL_TIMEOUT_MS);
    result = tristero_open(proxy, NULL, uri, error);
    tristero_proxy_free(proxy);
    fake_stop(&fake);
    return result;
}

static void expect_refused(const char *body, enum tristero_status status, const char *piece)
{
    struct tristero_error error;
    char *uri = NULL;

    CU_ASSERT_EQUAL(open_at_fake("200 OK", body, &uri, &error), status);
    CU_ASSERT_EQUAL(error.status, status);
    CU_ASSERT_PTR_NULL(uri);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "http://127.0.0.1:"));
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, piece));
}

static void a_url_that_is_not_http_is_invalid(void)
{
    static const char *const urls[] = {
        "", "nonsense", "proxy:8000", "/RPC2", "http://", "http://:8000/RPC2",
        "ftp://proxy/RPC2", "file:///etc/passwd", "tcp://proxy:8010", "http://proxy:99999/RPC2",
        "http://proxy:x/RPC2", "http://pro xy/RPC2", "http://proxy/RPC2\r\nX: y", "http://[::1/RPC2",
    };

    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        struct tristero_error error = { 0 };
        struct tristero_proxy *proxy = NULL;

        CU_ASSERT_EQUAL(tristero_proxy_new(urls[i], NULL, &proxy, &error), TRISTERO_INVALID);
        CU_ASSERT_EQUAL(error.status, TRISTERO_INVALID);
        CU_ASSERT_PTR_NULL(proxy);
        CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "http://proxy:8000/RPC2"));
    }
}

static void http_and_https_urls_are_valid(void)
{
    static const char *const urls[] = {
        "http://proxy:8000/RPC2", "https://proxy/", "HTTP://proxy", "http://[::1]:8000/RPC2",
        "http://me:secret@proxy/RPC2",
    };

    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        struct tristero_proxy *proxy = NULL;

        CU_ASSERT_EQUAL(tristero_proxy_new(urls[i], NULL, &proxy, NULL), TRISTERO_OK);
        tristero_proxy_free(proxy);
    }
    tristero_proxy_free(NULL);
}

static void a_negative_timeout_is_invalid(void)
{
    struct tristero_options call = { .call_timeout_ms = -1 }, attach = { .attach_timeout_ms = -1 };
    struct tristero_proxy *proxy;

    CU_ASSERT_EQUAL(tristero_proxy_new("http://proxy/", &call, &proxy, NULL), TRISTERO_INVALID);
    CU_ASSERT_EQUAL(tristero_proxy_new("http://proxy/", &attach, &proxy, NULL), TRISTERO_INVALID);
}

static void open_returns_what_the_proxy_answers(void)
{
    struct tristero_error error;
    char *uri = NULL;

    CU_ASSERT_EQUAL(open_at_fake("200 OK", STRING(SERVER_URI), &uri, &error), TRISTERO_OK);
    CU_ASSERT_STRING_EQUAL(uri, SERVER_URI);
    free(uri);
}

static void a_value_without_a_type_is_a_string(void)
{
    char *uri = NULL;

    CU_ASSERT_EQUAL(open_at_fake("200 OK", RESULT(SERVER_URI), &uri, NULL), TRISTERO_OK);
    CU_ASSERT_STRING_EQUAL(uri, SERVER_URI);
    free(uri);
}

static void the_calls_are_those_of_the_interface(void)
{
    struct tristero_proxy *proxy;
    char *uri = NULL;
    struct fake fake;

    fake_start(&fake, "200 OK", STRING(CLIENT_URI));
    proxy = proxy_at(fake.url, CALL_TIMEOUT_MS);
    CU_ASSERT_EQUAL(tristero_address(proxy, SERVER_URI, &uri, NULL), TRISTERO_OK);
    fake_stop(&fake);
    CU_ASSERT_STRING_EQUAL(uri, CLIENT_URI);
    CU_ASSERT_PTR_NOT_NULL(strstr(fake.request, "POST /RPC2 HTTP/1.1\r\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(fake.request, "<methodName>Tunnel.getTunnelAddress<"));
    CU_ASSERT_PTR_NOT_NULL(strstr(fake.request, "<string>" SERVER_URI "</string>"));
    free(uri);
    tristero_proxy_free(proxy);

    fake_start(&fake, "200 OK", STRING(SERVER_URI));
    proxy = proxy_at(fake.url, CALL_TIMEOUT_MS);
    CU_ASSERT_EQUAL(tristero_open(proxy, "a<b", &uri, NULL), TRISTERO_OK);
    fake_stop(&fake);
    CU_ASSERT_PTR_NOT_NULL(strstr(fake.request, "<methodName>Tunnel.openTunnel<"));
    CU_ASSERT_PTR_NOT_NULL(strstr(fake.request, "<string>a&lt;b</string>"));
    free(uri);
    tristero_proxy_free(proxy);
}

static void a_backend_that_is_no_text_is_invalid(void)
{
    struct tristero_proxy *proxy = proxy_at("http://127.0.0.1:1/", CALL_TIMEOUT_MS);
    struct tristero_error error;
    char *uri = NULL;

    CU_ASSERT_EQUAL(tristero_open(proxy, "\xff\xfe", &uri, &error), TRISTERO_INVALID);
    tristero_proxy_free(proxy);
}

static void a_proxy_that_is_not_there_is_unreachable(void)
{
    struct tristero_proxy *proxy;
    struct tristero_error error;
    char *uri = NULL;
    char url[64];

    snprintf(url, sizeof url, "http://127.0.0.1:%u/RPC2", closed_port());
    proxy = proxy_at(url, CALL_TIMEOUT_MS);
    CU_ASSERT_EQUAL(tristero_open(proxy, NULL, &uri, &error), TRISTERO_UNREACHABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, url));
    CU_ASSERT_EQUAL(tristero_open(proxy, NULL, &uri, NULL), TRISTERO_UNREACHABLE);
    tristero_proxy_free(proxy);
}

static int refuse_client(void *context)
{
    (void)context;
    return -ECONNREFUSED;
}

static void *cancel(void *proxy)
{
    tristero_proxy_cancel(proxy);
    return NULL;
}

static void what_is_cancelled_fails_soon_and_for_good(void)
{
    struct tristero_service service = { .connect = refuse_client };
    struct tristero_error error = { 0 };
    struct tristero_server *server;
    struct tristero_proxy *proxy;
    pthread_t thread;
    struct fake fake;
    char *uri = NULL;

    fake_start(&fake, NULL, NULL);
    proxy = proxy_at(fake.url, CALL_TIMEOUT_MS);
    pthread_create(&thread, NULL, cancel, proxy);
    CU_ASSERT_EQUAL(tristero_server_new(proxy, &service, &server, &error), TRISTERO_UNREACHABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, fake.url));
    pthread_join(thread, NULL);
    CU_ASSERT_EQUAL(tristero_open(proxy, NULL, &uri, &error), TRISTERO_UNREACHABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, ": it was cancelled"));
    tristero_proxy_free(proxy);
    fake_stop(&fake);
}

static void a_silent_proxy_is_a_timeout(void)
{
    struct tristero_proxy *proxy;
    struct timespec start, end;
    struct tristero_error error;
    struct fake fake;
    char *uri = NULL;

    fake_start(&fake, NULL, NULL);
    proxy = proxy_at(fake.url, 1000);
    clock_gettime(CLOCK_MONOTONIC, &start);
    CU_ASSERT_EQUAL(tristero_open(proxy, NULL, &uri, &error), TRISTERO_TIMEOUT);
    clock_gettime(CLOCK_MONOTONIC, &end);
    /* xmlrpc-c's client looks at the clock every three seconds. */
    CU_ASSERT((end.tv_sec - start.tv_sec) * 1000 + (end.tv_nsec - start.tv_nsec) / 1000000 < 20000);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, fake.url));
    tristero_proxy_free(proxy);
    fake_stop(&fake);
}

static void a_fault_keeps_its_code_and_its_text(void)
{
    struct tristero_error error;
    char *uri = NULL;

    CU_ASSERT_EQUAL(open_at_fake("200 OK",
        "<?xml version=\"1.0\"?><methodResponse><fault><value><struct>"
        "<member><name>faultCode</name><value><int>4</int></value></member>"
        "<member><name>faultString</name><value><string>limit\x1b[2J reached:\nall 10 are open"
        "</string></value></member></struct></value></fault></methodResponse>", &uri, &error),
        TRISTERO_BAD_ANSWER);           /* an escape is no XML */
    CU_ASSERT_EQUAL(error.fault_code, 0);
    CU_ASSERT_EQUAL(open_at_fake("200 OK",
        "<?xml version=\"1.0\"?><methodResponse><fault><value><struct>"
        "<member><name>faultCode</name><value><int>4</int></value></member>"
        "<member><name>faultString</name><value><string>limit reached: all 10 are open"
        "</string></value></member></struct></value></fault></methodResponse>", &uri, &error),
        TRISTERO_FAULT);
    CU_ASSERT_EQUAL(error.fault_code, 4);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "limit reached: all 10 are open"));
}

static void an_error_is_one_line_of_printable_text(void)
{
    struct tristero_error error;
    char *uri = NULL;

    CU_ASSERT_EQUAL(open_at_fake("200 OK", STRING("a\nb\xc2\x9b" "2Jc"), &uri, &error),
                    TRISTERO_BAD_ANSWER);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "\"a?b??2Jc\""));
}

static void an_answer_that_is_no_xml_rpc_is_a_bad_answer(void)
{
    expect_refused("", TRISTERO_BAD_ANSWER, "XML-RPC");
    expect_refused("hello", TRISTERO_BAD_ANSWER, "XML-RPC");
    expect_refused("<html><body>It works!</body></html>", TRISTERO_BAD_ANSWER, "XML-RPC");
    expect_refused("<methodResponse><params/></methodResponse>", TRISTERO_BAD_ANSWER, "XML-RPC");
}

static void an_answer_that_is_no_tunnel_uri_is_a_bad_answer(void)
{
    expect_refused(RESULT("<int>8010</int>"), TRISTERO_BAD_ANSWER, "string");
    expect_refused(RESULT("<array><data/></array>"), TRISTERO_BAD_ANSWER, "string");
    expect_refused(STRING(""), TRISTERO_BAD_ANSWER, "a scheme");
    expect_refused(STRING("tcp://127.0.0.1"), TRISTERO_BAD_ANSWER, "a port");
    expect_refused(STRING("tcp://127.0.0.1:0"), TRISTERO_BAD_ANSWER, "1 to 65535");
    expect_refused(STRING(SERVER_URI "/x"), TRISTERO_BAD_ANSWER, "nothing after the port");
}

static void an_answer_that_declares_entities_is_not_parsed(void)
{
    expect_refused("<?xml version=\"1.0\"?><!DOCTYPE r [<!ENTITY u \"" SERVER_URI "\">]>"
                   "<methodResponse><params><param><value>&u;</value></param></params>"
                   "</methodResponse>", TRISTERO_BAD_ANSWER, "document type declaration");
}

static void an_http_error_is_told(void)
{
    struct tristero_error error;
    char *uri = NULL;

    CU_ASSERT_EQUAL(open_at_fake("404 Not Found", "no such page", &uri, &error),
                    TRISTERO_UNREACHABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "404"));
    CU_ASSERT_EQUAL(open_at_fake("401 Unauthorized", "", &uri, &error), TRISTERO_UNREACHABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, ": it asks for a user and password"));
    CU_ASSERT_PTR_NULL(strstr(error.text, "none that it knows"));
}

static void a_password_in_a_broken_url_is_never_told(void)
{
    static const char *const urls[] = {
        "http://jo:hunter2@127.0.0.1:99999/", "htp://jo:hunter2@127.0.0.1/", "http://jo:hunter2@[::1/",
        "http://jo:hunter%002@127.0.0.1/", "http://jo:hunter%0a2@127.0.0.1/",
        "http://jo%0a:hunter2@127.0.0.1/", "jo:hunter2@127.0.0.1:x/",
    };
    struct tristero_proxy *proxy;
    struct tristero_error error;

    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        CU_ASSERT_EQUAL(tristero_proxy_new(urls[i], NULL, &proxy, &error), TRISTERO_INVALID);
        CU_ASSERT_PTR_NULL(strstr(error.text, "hunter"));
    }
}

static void a_password_is_sent_but_never_told(void)
{
    struct tristero_proxy *proxy;
    struct tristero_error error;
    struct fake fake;
    char *uri = NULL;
    char url[80];

    fake_start(&fake, "401 Unauthorized", "");
    snprintf(url, sizeof url, "http://me:secret@127.0.0.1:%u/RPC2", fake.port);
    proxy = proxy_at(url, CALL_TIMEOUT_MS);
    CU_ASSERT_EQUAL(tristero_open(proxy, NULL, &uri, &error), TRISTERO_UNREACHABLE);
    tristero_proxy_free(proxy);
    fake_stop(&fake);
    CU_ASSERT_PTR_NULL(strstr(error.text, "secret"));
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, fake.url));
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "none that it knows"));
    CU_ASSERT_PTR_NOT_NULL(strstr(fake.request, "Authorization: Basic bWU6c2VjcmV0\r\n"));
}

static void *call_often(void *proxy)
{
    size_t failures = 0;

    for (int i = 0; i < CALLS_A_THREAD; i++) {
        char *uri = NULL;

        if (tristero_open(proxy, "tcp", &uri, NULL) || strcmp(uri, SERVER_URI) != 0)
            failures++;
        free(uri);
    }
    return (void *)failures;
}

static void threads_share_one_proxy_and_leave_nothing(void)
{
    unsigned descriptors = count_descriptors();
    struct tristero_proxy *proxy;
    pthread_t threads[THREADS];
    struct fake fake;

    fake_start(&fake, "200 OK", STRING(SERVER_URI));
    proxy = proxy_at(fake.url, CALL_TIMEOUT_MS);
    for (int i = 0; i < THREADS; i++)
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, call_often, proxy), 0);
    for (int i = 0; i < THREADS; i++) {
        void *failures;

        pthread_join(threads[i], &failures);
        CU_ASSERT_PTR_NULL(failures);
    }
    tristero_proxy_free(proxy);
    fake_stop(&fake);
    CU_ASSERT_EQUAL(count_descriptors(), descriptors);
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(a_url_that_is_not_http_is_invalid),
        TEST(http_and_https_urls_are_valid),
        TEST(a_negative_timeout_is_invalid),
        TEST(open_returns_what_the_proxy_answers),
        TEST(a_value_without_a_type_is_a_string),
        TEST(the_calls_are_those_of_the_interface),
        TEST(a_backend_that_is_no_text_is_invalid),
        TEST(a_proxy_that_is_not_there_is_unreachable),
        TEST(what_is_cancelled_fails_soon_and_for_good),
        TEST(a_silent_proxy_is_a_timeout),
        TEST(a_fault_keeps_its_code_and_its_text),
        TEST(an_error_is_one_line_of_printable_text),
        TEST(an_answer_that_is_no_xml_rpc_is_a_bad_answer),
        TEST(an_answer_that_is_no_tunnel_uri_is_a_bad_answer),
        TEST(an_answer_that_declares_entities_is_not_parsed),
        TEST(an_http_error_is_told),
        TEST(a_password_in_a_broken_url_is_never_told),
        TEST(a_password_is_sent_but_never_told),
        TEST(threads_share_one_proxy_and_leave_nothing),
        CU_TEST_INFO_NULL,
    };

    unsetenv("http_proxy");             /* libcurl would go there first */
    return unit_run("client library", tests);
}
