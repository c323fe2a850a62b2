/* The relay driven without a daemon: opening tunnels, its limits and its end. */
#include "tests/unit/one_relay.h"
#include "tests/unit/sockets.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void the_uris_have_the_host_and_adjacent_ports(void)
{
    set_up();
    begin();
    CU_ASSERT_EQUAL(open_tunnel(), 0);
    CU_ASSERT_STRING_EQUAL(server_uri.scheme, "tcp");
    CU_ASSERT_STRING_EQUAL(server_uri.host, "proxy.example");
    CU_ASSERT(server_uri.port >= settings.port_low && server_uri.port < settings.port_high);
    CU_ASSERT_EQUAL((server_uri.port - settings.port_low) % 2, 0);
    CU_ASSERT_STRING_EQUAL(client_uri.host, "proxy.example");
    CU_ASSERT_EQUAL(client_uri.port, server_uri.port + 1);
    relay_end_all(relay);
    finish();
}

static void only_the_uri_that_was_given_out_has_an_address(void)
{
    struct tunnel_uri other;

    set_up();
    begin();
    CU_ASSERT_EQUAL(open_tunnel(), 0);
    other = server_uri;
    strcpy(other.host, "elsewhere.example");
    CU_ASSERT_EQUAL(relay_tunnel_address(relay, &other, &client_uri), -ENOENT);
    other = server_uri;
    strcpy(other.scheme, "ssh");
    CU_ASSERT_EQUAL(relay_tunnel_address(relay, &other, &client_uri), -ENOENT);
    other = server_uri;
    other.port = (uint16_t)(server_uri.port + 1);
    CU_ASSERT_EQUAL(relay_tunnel_address(relay, &other, &client_uri), -ENOENT);
    other.port = (uint16_t)(server_uri.port + 2);
    CU_ASSERT_EQUAL(relay_tunnel_address(relay, &other, &client_uri), -ENOENT);
    relay_end_all(relay);
    CU_ASSERT_EQUAL(relay_tunnel_address(relay, &server_uri, &client_uri), -ENOENT);
    finish();
}

static void as_many_tunnels_as_allowed_are_alive_at_once(void)
{
    set_up();
    settings.max_tunnels = 2;
    begin();
    CU_ASSERT_EQUAL(open_tunnel(), 0);
    CU_ASSERT_EQUAL(open_tunnel(), 0);
    CU_ASSERT_EQUAL(open_tunnel(), -EDQUOT);
    relay_end_all(relay);
    finish();
}

static bool one_is_left(void *unused)
{
    (void)unused;
    return relay_counts(relay).tunnels == 1;
}

static void changed_settings_hold_for_new_tunnels_and_spare_live_ones(void)
{
    struct tunnel_uri first;
    int server, client;

    set_up();
    settings.max_tunnels = 2;
    settings.attach_timeout_ms = 60000;
    begin_with_tunnel();
    first = server_uri;
    settings.attach_timeout_ms = 2000;
    settings.max_tunnels = 1;
    settings.port_low = settings.port_high = 1;         /* which can't change */
    CU_ASSERT_EQUAL(relay_change_settings(relay, &settings), 0);
    CU_ASSERT_EQUAL(relay_settings(relay).attach_timeout_ms, 2000);
    CU_ASSERT_NOT_EQUAL(relay_settings(relay).port_low, 1);
    CU_ASSERT_EQUAL(open_tunnel(), -EDQUOT);
    settings.max_tunnels = 3;
    CU_ASSERT_EQUAL(relay_change_settings(relay, &settings), 0);
    CU_ASSERT_EQUAL(open_tunnel(), 0);
    CU_ASSERT_EQUAL(open_tunnel(), 0);
    CU_ASSERT_EQUAL(open_tunnel(), -EDQUOT);
    CU_ASSERT_TRUE(comes_true(one_is_left, NULL));
    server = connect_to(first.port);
    client = connect_to((uint16_t)(first.port + 1));
    CU_ASSERT_TRUE(passes_a_byte(client, server));
    close(client);
    close(server);
    finish();
}

static void without_a_port_pair_there_is_no_tunnel(void)
{
    set_up();
    settings.max_tunnels = PAIRS + 1;
    begin();
    for (int i = 0; i < PAIRS; i++)
        CU_ASSERT_EQUAL(open_tunnel(), 0);
    CU_ASSERT_EQUAL(open_tunnel(), -EADDRNOTAVAIL);
    CU_ASSERT_EQUAL(relay_counts(relay).tunnels, PAIRS);
    relay_end_all(relay);
    finish();
}

static void an_unknown_backend_opens_nothing(void)
{
    char names[32];

    set_up();
    begin();
    CU_ASSERT_EQUAL(relay_open_tunnel(relay, "smtp", "a", &opener, &server_uri), -EPROTONOSUPPORT);
    CU_ASSERT_TRUE(is_empty(NULL));
    relay_backend_names(relay, names, sizeof names);
    CU_ASSERT_STRING_EQUAL(names, "tcp, webmux");
    finish();
}

static void a_relay_that_refuses_new_tunnels_lets_the_others_finish(void)
{
    int server, client;

    set_up();
    begin_with_tunnel();
    server = connect_to(server_uri.port);
    client = connect_to(client_uri.port);
    relay_refuse_new(relay);
    CU_ASSERT_EQUAL(open_tunnel(), -ESHUTDOWN);
    CU_ASSERT_EQUAL(relay_wait_until_empty(relay, 50), -ETIMEDOUT);
    CU_ASSERT_TRUE(passes_a_byte(client, server));
    close(server);
    close(client);
    CU_ASSERT_EQUAL(relay_wait_until_empty(relay, 5000), 0);
    finish();
}

static void ending_all_resets_whoever_is_connected(void)
{
    char bytes[16];
    int server, client;

    set_up();
    begin_with_tunnel();
    server = connect_to(server_uri.port);
    client = connect_to(client_uri.port);
    CU_ASSERT_TRUE(passes_a_byte(client, server));
    relay_end_all(relay);
    CU_ASSERT_EQUAL(read_all(server, bytes, sizeof bytes), -ECONNRESET);
    CU_ASSERT_EQUAL(read_all(client, bytes, sizeof bytes), -ECONNRESET);
    close(server);
    close(client);
    finish();
}

static void an_address_that_is_not_this_machines_is_found_out_at_once(void)
{
    set_up();
    CU_ASSERT_EQUAL_FATAL(net_address_parse("192.0.2.1", 0, &settings.listen), 0);
    CU_ASSERT_EQUAL(relay_new(&settings, &relay), -EADDRNOTAVAIL);
}

static void *open_and_close_many(void *unused)
{
    for (int i = 0; i < 200; i++) {
        struct tunnel_uri server_end, client_end;
        int server, client;
        bool passed;

        if (relay_open_tunnel(relay, "tcp", "a", &opener, &server_end) < 0)
            continue;                   /* the others have all pairs just now */
        if (relay_tunnel_address(relay, &server_end, &client_end) < 0)
            return (void *)"no address";
        server = connect_to(server_end.port);
        client = connect_to(client_end.port);
        passed = send(server, "x", 1, MSG_NOSIGNAL) == 1 && recv(client, &(char){ 0 }, 1, 0) == 1;
        close(server);
        close(client);
        if (!passed)
            return (void *)"no byte";
    }
    return unused;
}

static void many_threads_open_and_close_tunnels_at_once(void)
{
    pthread_t threads[PAIRS + 2];

    set_up();
    begin();
    for (size_t i = 0; i < PAIRS + 2; i++)
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, open_and_close_many, NULL), 0);
    for (size_t i = 0; i < PAIRS + 2; i++) {
        void *failure;

        pthread_join(threads[i], &failure);
        CU_ASSERT_PTR_NULL(failure);
    }
    finish();
}

static void a_relay_can_end_while_tunnels_are_being_opened(void)
{
    pthread_t thread;

    set_up();
    begin();
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, open_and_close_many, NULL), 0);
    usleep(20 * 1000);
    relay_end_all(relay);
    CU_ASSERT_EQUAL(relay_counts(relay).tunnels, 0);
    CU_ASSERT_EQUAL(open_tunnel(), -ESHUTDOWN);
    pthread_join(thread, NULL);
    finish();
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(the_uris_have_the_host_and_adjacent_ports),
        TEST(only_the_uri_that_was_given_out_has_an_address),
        TEST(as_many_tunnels_as_allowed_are_alive_at_once),
        TEST(changed_settings_hold_for_new_tunnels_and_spare_live_ones),
        TEST(without_a_port_pair_there_is_no_tunnel),
        TEST(an_unknown_backend_opens_nothing),
        TEST(a_relay_that_refuses_new_tunnels_lets_the_others_finish),
        TEST(ending_all_resets_whoever_is_connected),
        TEST(an_address_that_is_not_this_machines_is_found_out_at_once),
        TEST(many_threads_open_and_close_tunnels_at_once),
        TEST(a_relay_can_end_while_tunnels_are_being_opened),
        CU_TEST_INFO_NULL,
    };

    return one_relay_run("relay", tests);
}
