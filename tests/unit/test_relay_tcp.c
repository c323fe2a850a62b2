/* The life of a tcp tunnel, from its first peer to its end, without a daemon. */
#include "tests/unit/one_relay.h"
#include "tests/unit/sockets.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

static void a_server_that_speaks_first_is_heard(void)
{
    char bytes[16];
    int server, client;

    set_up();
    begin_with_tunnel();
    server = connect_to(server_uri.port);
    CU_ASSERT_EQUAL(send(server, "220 hello\n", 10, 0), 10);
    usleep(50 * 1000);
    client = connect_to(client_uri.port);
    CU_ASSERT_EQUAL(recv(client, bytes, sizeof bytes, 0), 10);
    close(client);
    close(server);
    finish();
}

static void a_client_that_comes_first_is_held_until_the_server_attaches(void)
{
    char bytes[16];
    int server, client;

    set_up();
    begin_with_tunnel();
    client = connect_to(client_uri.port);
    CU_ASSERT_EQUAL(send(client, "GET", 3, 0), 3);
    shutdown(client, SHUT_WR);
    usleep(50 * 1000);
    server = connect_to(server_uri.port);
    CU_ASSERT_EQUAL(read_all(server, bytes, sizeof bytes), 3);
    CU_ASSERT_EQUAL(send(server, "200", 3, 0), 3);
    close(server);
    CU_ASSERT_EQUAL(read_all(client, bytes, sizeof bytes), 3);
    close(client);
    finish();
}

static void what_a_server_sent_before_it_ended_is_kept_for_its_client(void)
{
    char bytes[16];
    int server, client;

    set_up();
    begin_with_tunnel();
    server = connect_to(server_uri.port);
    CU_ASSERT_EQUAL(send(server, "all of it", 9, 0), 9);
    shutdown(server, SHUT_WR);
    usleep(50 * 1000);
    client = connect_to(client_uri.port);
    CU_ASSERT_EQUAL(read_all(client, bytes, sizeof bytes), 9);
    CU_ASSERT_EQUAL(send(client, "thanks", 6, 0), 6);
    close(client);
    CU_ASSERT_EQUAL(read_all(server, bytes, sizeof bytes), 6);
    close(server);
    finish();
}

static void each_port_takes_one_connection(void)
{
    int server, client;

    set_up();
    begin_with_tunnel();
    server = connect_to(server_uri.port);
    client = connect_to(client_uri.port);
    CU_ASSERT_TRUE(passes_a_byte(server, client));
    CU_ASSERT_EQUAL(connect_to(server_uri.port), -1);
    CU_ASSERT_EQUAL(connect_to(client_uri.port), -1);
    close(server);
    close(client);
    finish();
}

static void only_the_opener_attaches(void)
{
    char bytes[16];
    int stranger, server, client;

    set_up();
    begin_with_tunnel();
    stranger = connect_from("127.0.0.2", server_uri.port);
    if (stranger >= 0) {
        CU_ASSERT_EQUAL(read_all(stranger, bytes, sizeof bytes), -ECONNRESET);
        close(stranger);
    } else {
        CU_ASSERT_EQUAL(errno, ECONNRESET);     /* as soon as it was connected */
    }
    server = connect_to(server_uri.port);
    client = connect_from("127.0.0.2", client_uri.port);
    CU_ASSERT_TRUE(passes_a_byte(server, client));
    close(server);
    close(client);
    finish();
}

static void anyone_attaches_where_the_operator_says_so(void)
{
    int server, client;

    set_up();
    settings.attach_from_any = true;
    begin_with_tunnel();
    server = connect_from("127.0.0.2", server_uri.port);
    client = connect_to(client_uri.port);
    CU_ASSERT_TRUE(passes_a_byte(server, client));
    close(server);
    close(client);
    finish();
}

static void a_tunnel_without_a_server_is_closed_in_time(void)
{
    char bytes[16];
    int client;

    set_up();
    settings.attach_timeout_ms = 1000;
    begin_with_tunnel();
    client = connect_to(client_uri.port);
    CU_ASSERT_EQUAL(read_all(client, bytes, sizeof bytes), -ECONNRESET);
    close(client);
    finish();
}

static void an_attached_server_waits_longer_than_the_attach_timeout(void)
{
    int server, client;

    set_up();
    settings.attach_timeout_ms = 1000;
    begin_with_tunnel();
    server = connect_to(server_uri.port);
    usleep(2000 * 1000);
    client = connect_to(client_uri.port);
    CU_ASSERT_TRUE(passes_a_byte(client, server));
    close(server);
    close(client);
    finish();
}

static void a_server_that_breaks_off_before_its_client_closes_the_tunnel(void)
{
    int server;

    set_up();
    begin_with_tunnel();
    server = connect_to(server_uri.port);
    usleep(50 * 1000);
    reset(server);
    finish();
}

static void a_server_that_breaks_off_before_it_is_accepted_closes_the_tunnel_too(void)
{
    set_up();
    begin();
    for (int i = 0; i < 50; i++) {
        CU_ASSERT_EQUAL_FATAL(open_tunnel(), 0);
        reset(connect_to(server_uri.port));
        CU_ASSERT_TRUE_FATAL(comes_true(is_empty, NULL));
    }
    finish();
}

static void a_server_that_ends_before_its_client_lingers(void)
{
    int server;

    set_up();
    settings.linger_ms = 100;
    begin_with_tunnel();
    server = connect_to(server_uri.port);
    close(server);
    finish();
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(a_server_that_speaks_first_is_heard),
        TEST(a_client_that_comes_first_is_held_until_the_server_attaches),
        TEST(what_a_server_sent_before_it_ended_is_kept_for_its_client),
        TEST(each_port_takes_one_connection),
        TEST(only_the_opener_attaches),
        TEST(anyone_attaches_where_the_operator_says_so),
        TEST(a_tunnel_without_a_server_is_closed_in_time),
        TEST(an_attached_server_waits_longer_than_the_attach_timeout),
        TEST(a_server_that_breaks_off_before_its_client_closes_the_tunnel),
        TEST(a_server_that_breaks_off_before_it_is_accepted_closes_the_tunnel_too),
        TEST(a_server_that_ends_before_its_client_lingers),
        CU_TEST_INFO_NULL,
    };

    return one_relay_run("relay_tcp", tests);
}
