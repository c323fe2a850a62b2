/* A call from its XML to the XML of its answer, with a real relay behind it. */
#include "relay/waker.h"
#include "rpc/methods.h"
#include "tests/fuzz/answer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/sockets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAIRS = 2 };                     /* fewer than max_tunnels */

static const char port_mark[] = "@@@@@";        /* in an input: the first pair's first port */

static struct relay_settings settings = { .max_tunnels = 8, .attach_timeout_ms = 60000 };
static struct relay *relay;

static void start_relay(void)
{
    assert(relay_new(&settings, &relay) == 0);
}

/* Each input finds no tunnels. */
static void renew_relay(void)
{
    if (relay_counts(relay).tunnels == 0)
        return;
    relay_end_all(relay);
    relay_free(relay);
    start_relay();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    assert(waker_set_up_process() == 0);
    settings.port_low = free_ports(2 * PAIRS);
    settings.port_high = (uint16_t)(settings.port_low + 2 * PAIRS - 1);
    assert(net_address_parse("127.0.0.1", 0, &settings.listen) == 0);
    start_relay();
    return 0;
}

/* The ports are other ones in each run, and a corpus is for all runs. */
static char *with_port(const uint8_t *bytes, size_t length)
{
    char *xml = malloc(length ? length : 1);
    char port[sizeof port_mark];
    char *mark;

    assert(xml);
    memcpy(xml, bytes, length);
    assert(snprintf(port, sizeof port, "%u", settings.port_low) == sizeof port - 1);
    while ((mark = memmem(xml, length, port_mark, sizeof port - 1)))
        memcpy(mark, port, sizeof port - 1);
    return xml;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct rpc_call call = { .relay = relay, .user = "", .host = "proxy.example" };
    char *xml = with_port(bytes, length);
    xmlrpc_mem_block *answer;
    xmlrpc_env env;

    assert(net_address_parse("127.0.0.1", 0, &call.caller) == 0);
    xmlrpc_env_init(&env);
    answer = method_answer(&env, xml, length, &call);
    free(xml);
    assert(answer && !env.fault_occurred);
    answer_check(xmlrpc_mem_block_contents(answer), xmlrpc_mem_block_size(answer));
    xmlrpc_mem_block_free(answer);
    xmlrpc_env_clean(&env);
    renew_relay();
    return 0;
}
