#include "tests/unit/one_relay.h"

#include "relay/waker.h"
#include "tests/unit/sockets.h"

#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

struct relay *relay;
struct relay_settings settings;
struct tunnel_opener opener;
struct tunnel_uri server_uri, client_uri;
static unsigned descriptors_before, threads_before;

void set_up(void)
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

void begin(void)
{
    CU_ASSERT_EQUAL_FATAL(relay_new(&settings, &relay), 0);
}

int open_tunnel(void)
{
    int err = relay_open_tunnel(relay, "tcp", "proxy.example", &opener, &server_uri);

    return err ? err : relay_tunnel_address(relay, &server_uri, &client_uri);
}

void begin_with_tunnel(void)
{
    begin();
    CU_ASSERT_EQUAL_FATAL(open_tunnel(), 0);
}

bool passes_a_byte(int from, int to)
{
    char byte;

    return send(from, "x", 1, 0) == 1 && recv(to, &byte, 1, 0) == 1 && byte == 'x';
}

bool is_empty(void *unused)
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

void finish(void)
{
    CU_ASSERT_TRUE(comes_true(is_empty, NULL));
    relay_end_all(relay);
    relay_free(relay);
    CU_ASSERT_TRUE(comes_true(nothing_is_left, NULL));
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

int one_relay_run(const char *subject, CU_TestInfo *tests)
{
    start_helpers_of_sanitizers();
    return waker_set_up_process() < 0 ? EXIT_FAILURE : unit_run(subject, tests);
}
