/* The relay driven without a daemon: from opening a tunnel to its end. */
#include "relay/relay.h"
#include "relay/waker.h"
#include "tests/unit/sockets.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAIRS = 4 };

static struct relay *relay;
static struct relay_settings settings;
static struct tunnel_opener opener;
static struct tunnel_uri server_uri, client_uri;
static unsigned descriptors_before, threads_before;

/* A relay as tests want it; change settings, then begin. */
static void set_up(void)
{
    uint16_t low = free_ports(2 * PAIRS);

    memset(&settings, 0, sizeof settings);
    CU_ASSERT_EQUAL_FATAL(net_address_parse("127.0.0.1", 0, &settings.listen), 0);
    CU_ASSERT_EQUAL_FATAL(net_address_parse("127.0.0.1", 0, &opener.address), 0);
    opener.user = "";
    settings.port_low = low;
    settings.port_high = (uint16_t)(low + 2 * PAIRS - 1);
    settings.max_tunnels = PAIRS;
    settings.attach_timeout_ms = 5000;
    settings.linger_ms = 5000;
    settings.keepalive_ms = 60000;
    descriptors_before = count_descriptors();
    threads_before = count_threads();
}

static void begin(void)
{
    CU_ASSERT_EQUAL_FATAL(relay_new(&settings, &relay), 0);
}

static int open_tunnel(void)
{
    int err = relay_open_tunnel(relay, "tcp", "proxy.example", &opener, &server_uri);

    return err ? err : relay_tunnel_address(relay, &server_uri, &client_uri);
}

static void begin_with_tunnel(void)
{
    begin();
    CU_ASSERT_EQUAL_FATAL(open_tunnel(), 0);
}

static bool passes_a_byte(int from, int to)
{
    char byte;

    return send(from, "x", 1, 0) == 1 && recv(to, &byte, 1, 0) == 1 && byte == 'x';
}

static bool is_empty(void *unused)
{
    struct relay_counts counts = relay_counts(relay);

    (void)unused;
    return counts.tunnels == 0 && counts.resting_pairs == PAIRS;
}

/* The kernel may list a thread for a moment after it has been joined. */
static bool nothing_is_left(void *unused)
{
    (void)unused;
    return count_descriptors() == descriptors_before && count_threads() == threads_before;
}

/* Waits until the tunnels have ended by themselves. */
static void finish(void)
{
    CU_ASSERT_TRUE(comes_true(is_empty, NULL));
    relay_end_all(relay);
    relay_free(relay);
    CU_ASSERT_TRUE(comes_true(nothing_is_left, NULL));
}

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
    CU_ASSERT(stranger >= 0);
    CU_ASSERT(read_all(stranger, bytes, sizeof bytes) <= 0);
    CU_ASSERT_NOT_EQUAL(errno, EAGAIN);
    close(stranger);
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
    settings.attach_timeout_ms = 100;
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
    settings.attach_timeout_ms = 100;
    begin_with_tunnel();
    server = connect_to(server_uri.port);
    usleep(300 * 1000);
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

static void changed_settings_hold_for_new_tunnels_and_spare_live_ones(void)
{
    struct tunnel_uri first;
    int server, client;

    set_up();
    settings.max_tunnels = 2;
    settings.attach_timeout_ms = 60000;
    begin_with_tunnel();
    first = server_uri;
    settings.attach_timeout_ms = 200;
    settings.max_tunnels = 1;
    settings.port_low = settings.port_high = 1;         /* which can't change */
    CU_ASSERT_EQUAL(relay_change_settings(relay, &settings), 0);
    CU_ASSERT_EQUAL(relay_settings(relay).attach_timeout_ms, 200);
    CU_ASSERT_NOT_EQUAL(relay_settings(relay).port_low, 1);
    CU_ASSERT_EQUAL(open_tunnel(), -EDQUOT);
    settings.max_tunnels = 3;
    CU_ASSERT_EQUAL(relay_change_settings(relay, &settings), 0);
    CU_ASSERT_EQUAL(open_tunnel(), 0);
    CU_ASSERT_EQUAL(open_tunnel(), 0);
    CU_ASSERT_EQUAL(open_tunnel(), -EDQUOT);
    usleep(700 * 1000);
    CU_ASSERT_EQUAL(relay_counts(relay).tunnels, 1);
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

static void *do_nothing(void *unused)
{
    return unused;
}

/* A sanitizer starts a thread of its own together with the first other one. */
static void start_helpers_of_sanitizers(void)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, do_nothing, NULL) == 0)
        pthread_join(thread, NULL);
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(the_uris_have_the_host_and_adjacent_ports),
        TEST(only_the_uri_that_was_given_out_has_an_address),
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

    start_helpers_of_sanitizers();
    return waker_set_up_process() < 0 ? EXIT_FAILURE : unit_run("relay", tests);
}
