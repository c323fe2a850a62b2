#include "relay/port_pool.h"
#include "tests/unit/sockets.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static struct net_address loopback;
static struct port_pool *pool;
static uint16_t low;

static void pool_of(unsigned pairs)
{
    low = free_ports(2 * pairs);
    CU_ASSERT_EQUAL_FATAL(net_address_parse("127.0.0.1", 0, &loopback), 0);
    CU_ASSERT_EQUAL_FATAL(port_pool_new(&loopback, low, (uint16_t)(low + 2 * pairs - 1), &pool), 0);
}

static void close_and_give(struct port_pair *pair)
{
    close(pair->server_listener);
    close(pair->client_listener);
    port_pool_give(pool, pair);
}

static void a_pair_is_two_adjacent_ports_that_listen(void)
{
    struct port_pair pair;
    int connected;

    pool_of(1);
    CU_ASSERT_EQUAL_FATAL(port_pool_take(pool, &pair), 0);
    CU_ASSERT_EQUAL(pair.server_port, low);
    for (uint16_t port = low; port < low + 2; port++) {
        connected = connect_to(port);
        CU_ASSERT(connected >= 0);
        close(connected);
    }
    close_and_give(&pair);
    port_pool_free(pool);
}

static void the_pair_that_rested_longest_is_handed_out_first(void)
{
    enum { PAIRS = 5 };
    static const unsigned given_back[PAIRS] = { 3, 0, 4, 2, 1 };
    struct port_pair taken[PAIRS], again;

    pool_of(PAIRS);
    for (unsigned i = 0; i < PAIRS; i++)
        CU_ASSERT_EQUAL_FATAL(port_pool_take(pool, &taken[i]), 0);
    for (unsigned i = 0; i < PAIRS; i++)
        close_and_give(&taken[given_back[i]]);
    for (unsigned i = 0; i < 2 * PAIRS; i++) {
        CU_ASSERT_EQUAL_FATAL(port_pool_take(pool, &again), 0);
        CU_ASSERT_EQUAL(again.index, taken[given_back[i % PAIRS]].index);
        close_and_give(&again);
    }
    port_pool_free(pool);
}

static void pairs_never_used_come_before_those_that_were(void)
{
    enum { PAIRS = 6 };
    bool seen[PAIRS] = { false };
    struct port_pair pair;

    pool_of(PAIRS);
    for (unsigned i = 0; i < PAIRS; i++) {
        CU_ASSERT_EQUAL_FATAL(port_pool_take(pool, &pair), 0);
        CU_ASSERT_FALSE(seen[pair.index]);
        seen[pair.index] = true;
        close_and_give(&pair);
    }
    port_pool_free(pool);
}

/* Eight pairs come in the same order twice in a row once in 40,320 times. */
static void rested_pairs_come_in_no_order_that_can_be_guessed(void)
{
    enum { PAIRS = 8, TRIES = 4 };
    size_t order[TRIES][PAIRS];
    unsigned alike = 0;
    struct port_pair pair;

    for (unsigned try = 0; try < TRIES; try++) {
        pool_of(PAIRS);
        for (unsigned i = 0; i < PAIRS; i++) {
            CU_ASSERT_EQUAL_FATAL(port_pool_take(pool, &pair), 0);
            order[try][i] = pair.index;
            close_and_give(&pair);
        }
        port_pool_free(pool);
        alike += !memcmp(order[try], order[0], sizeof order[0]);
    }
    CU_ASSERT(alike < TRIES);
}

static void a_pair_with_a_port_that_another_program_holds_is_passed_over(void)
{
    struct net_address held_address;
    struct port_pool *other;
    struct port_pair held, pair;

    pool_of(2);
    /* Holds the second port of the first pair. */
    CU_ASSERT_EQUAL_FATAL(net_address_parse("127.0.0.1", 0, &held_address), 0);
    CU_ASSERT_EQUAL_FATAL(port_pool_new(&held_address, (uint16_t)(low + 1), (uint16_t)(low + 2),
                                        &other), 0);
    CU_ASSERT_EQUAL_FATAL(port_pool_take(other, &held), 0);
    close(held.client_listener);
    CU_ASSERT_EQUAL_FATAL(port_pool_take(pool, &pair), 0);
    CU_ASSERT_EQUAL(pair.server_port, low + 2);
    CU_ASSERT_EQUAL(port_pool_resting(pool), 1);
    close(held.server_listener);
    close_and_give(&pair);
    CU_ASSERT_EQUAL(port_pool_resting(pool), 2);
    port_pool_free(other);
    port_pool_free(pool);
}

/* NULL, or the thread's argument if something else came than a lack of descriptors. */
static void *take_in_vain(void *argument)
{
    struct port_pair pair;
    void *surprised = NULL;

    for (unsigned i = 0; i < 3000; i++) {
        if (port_pool_take(pool, &pair) != -EMFILE)
            surprised = argument;
    }
    return surprised;
}

static void take_in_vain_on_threads(void)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    struct rlimit limit, none_left;
    void *surprised;

    CU_ASSERT_EQUAL_FATAL(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none_left = (struct rlimit){ .rlim_cur = 0, .rlim_max = limit.rlim_max };
    CU_ASSERT_EQUAL_FATAL(setrlimit(RLIMIT_NOFILE, &none_left), 0);
    for (unsigned i = 0; i < THREADS; i++)
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, take_in_vain, pool), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], &surprised);
        CU_ASSERT_PTR_NULL(surprised);
    }
    CU_ASSERT_EQUAL_FATAL(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* Which threads meet, and how, is left to chance: one round might see nothing. */
static void pairs_that_could_not_be_tried_keep_their_order(void)
{
    enum { PAIRS = 6, ROUNDS = 10 };
    const struct timespec few_ms = { .tv_nsec = 3000000 };
    struct port_pair pairs[PAIRS], again;

    pool_of(PAIRS);
    for (unsigned i = 0; i < PAIRS; i++)
        CU_ASSERT_EQUAL_FATAL(port_pool_take(pool, &pairs[i]), 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < PAIRS; i++) {
            close_and_give(&pairs[i]);
            nanosleep(&few_ms, NULL);
        }
        take_in_vain_on_threads();
        for (unsigned i = 0; i < PAIRS; i++) {
            CU_ASSERT_EQUAL_FATAL(port_pool_take(pool, &again), 0);
            CU_ASSERT_EQUAL(again.index, pairs[i].index);
            pairs[i] = again;
        }
    }
    for (unsigned i = 0; i < PAIRS; i++)
        close_and_give(&pairs[i]);
    port_pool_free(pool);
}

static void an_empty_pool_says_so_and_leaks_nothing(void)
{
    unsigned descriptors = count_descriptors();
    struct port_pair pair, none;

    pool_of(1);
    CU_ASSERT_EQUAL_FATAL(port_pool_take(pool, &pair), 0);
    CU_ASSERT_EQUAL(port_pool_take(pool, &none), -EADDRNOTAVAIL);
    close_and_give(&pair);
    CU_ASSERT_EQUAL(port_pool_take(pool, &pair), 0);
    close_and_give(&pair);
    port_pool_free(pool);
    CU_ASSERT_EQUAL(count_descriptors(), descriptors);
}

static void a_range_holds_whole_pairs(void)
{
    CU_ASSERT_EQUAL_FATAL(net_address_parse("127.0.0.1", 0, &loopback), 0);
    CU_ASSERT_EQUAL(port_pool_new(&loopback, 8010, 8010, &pool), -EINVAL);
    CU_ASSERT_EQUAL(port_pool_new(&loopback, 8010, 8009, &pool), -EINVAL);
    CU_ASSERT_EQUAL(port_pool_new(&loopback, 0, 65535, &pool), -EINVAL);
    CU_ASSERT_EQUAL_FATAL(port_pool_new(&loopback, 8010, 8012, &pool), 0);
    CU_ASSERT_EQUAL(port_pool_size(pool), 1);
    port_pool_free(pool);
    CU_ASSERT_EQUAL_FATAL(port_pool_new(&loopback, 1, 65535, &pool), 0);
    CU_ASSERT_EQUAL(port_pool_size(pool), 32767);
    port_pool_free(pool);
}

static void only_server_ports_have_an_index(void)
{
    CU_ASSERT_EQUAL_FATAL(net_address_parse("127.0.0.1", 0, &loopback), 0);
    CU_ASSERT_EQUAL_FATAL(port_pool_new(&loopback, 8010, 8013, &pool), 0);
    CU_ASSERT_EQUAL(port_pool_index(pool, 8010), 0);
    CU_ASSERT_EQUAL(port_pool_index(pool, 8012), 1);
    CU_ASSERT_EQUAL(port_pool_index(pool, 8011), -1);
    CU_ASSERT_EQUAL(port_pool_index(pool, 8008), -1);
    CU_ASSERT_EQUAL(port_pool_index(pool, 8014), -1);
    port_pool_free(pool);
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(a_pair_is_two_adjacent_ports_that_listen),
        TEST(pairs_never_used_come_before_those_that_were),
        TEST(rested_pairs_come_in_no_order_that_can_be_guessed),
        TEST(the_pair_that_rested_longest_is_handed_out_first),
        TEST(pairs_that_could_not_be_tried_keep_their_order),
        TEST(a_pair_with_a_port_that_another_program_holds_is_passed_over),
        TEST(an_empty_pool_says_so_and_leaks_nothing),
        TEST(a_range_holds_whole_pairs),
        TEST(only_server_ports_have_an_index),
        CU_TEST_INFO_NULL,
    };

    return unit_run("port_pool", tests);
}
