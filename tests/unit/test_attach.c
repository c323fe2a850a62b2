/* The client library's connections to a tunnel's server port. */
#include "tests/unit/fake_proxy.h"
#include "tests/unit/sockets.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void attach_gives_an_ordinary_blocking_socket(void)
{
    struct tristero_proxy *proxy = proxy_at("http://127.0.0.1:1/", CALL_TIMEOUT_MS);
    int connection = -1, listener, accepted;
    char uri[64], bytes[8];
    uint16_t port;

    listener = listen_on_loopback(&port);
    snprintf(uri, sizeof uri, "tcp://127.0.0.1:%u", port);
    CU_ASSERT_EQUAL_FATAL(tristero_attach(proxy, uri, &connection, NULL), TRISTERO_OK);
    CU_ASSERT_EQUAL(fcntl(connection, F_GETFL) & O_NONBLOCK, 0);
    CU_ASSERT_EQUAL(fcntl(connection, F_GETFD), FD_CLOEXEC);
    accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    set_timeouts(accepted);
    CU_ASSERT_EQUAL(send(connection, "bye", 3, MSG_NOSIGNAL), 3);
    close(connection);                  /* an end, no reset */
    CU_ASSERT_EQUAL(read_all(accepted, bytes, sizeof bytes), 3);
    close(accepted);
    close(listener);
    tristero_proxy_free(proxy);
}

static void attach_says_where_it_could_not_connect_and_what_the_system_said(void)
{
    struct tristero_proxy *proxy = proxy_at("http://127.0.0.1:1/", CALL_TIMEOUT_MS);
    struct tristero_error error;
    int connection = -1;
    char uri[64];

    snprintf(uri, sizeof uri, "tcp://127.0.0.1:%u", closed_port());
    CU_ASSERT_EQUAL(tristero_attach(proxy, uri, &connection, &error), TRISTERO_UNREACHABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, uri));
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, ": Connection refused"));
    CU_ASSERT_EQUAL(error.os_error, ECONNREFUSED);
    CU_ASSERT_EQUAL(connection, -1);
    tristero_proxy_free(proxy);
}

static void attach_takes_uris_of_bare_connections_only(void)
{
    static const char *const uris[] = { "", "nonsense", "tcp://127.0.0.1", "webmux://127.0.0.1:22" };
    struct tristero_proxy *proxy = proxy_at("http://127.0.0.1:1/", CALL_TIMEOUT_MS);

    for (size_t i = 0; i < sizeof uris / sizeof uris[0]; i++) {
        struct tristero_error error;
        int connection = -1;

        CU_ASSERT_EQUAL(tristero_attach(proxy, uris[i], &connection, &error), TRISTERO_INVALID);
        CU_ASSERT_PTR_NOT_NULL(strstr(error.text, uris[i]));
        CU_ASSERT_EQUAL(error.os_error, 0);
        CU_ASSERT_EQUAL(connection, -1);
    }
    tristero_proxy_free(proxy);
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(attach_gives_an_ordinary_blocking_socket),
        TEST(attach_says_where_it_could_not_connect_and_what_the_system_said),
        TEST(attach_takes_uris_of_bare_connections_only),
        CU_TEST_INFO_NULL,
    };

    unsetenv("http_proxy");             /* libcurl would go there first */
    return unit_run("client library: attaching", tests);
}
