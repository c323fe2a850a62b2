/* Calls as XML, answered without HTTP. */
#include "relay/waker.h"
#include "rpc/faults.h"
#include "rpc/methods.h"
#include "tests/unit/sockets.h"
#include "tests/unit/unit.h"

#include <string.h>

static struct relay *relay;
static char answer[65536];

/* The answer to one call, as text. */
static const char *ask(const char *xml, size_t length)
{
    struct rpc_call call = { .relay = relay, .host = "proxy.example", .user = "" };
    xmlrpc_mem_block *block;
    xmlrpc_env env;

    net_address_parse("127.0.0.1", 0, &call.caller);
    xmlrpc_env_init(&env);
    block = method_answer(&env, xml, length, &call);
    CU_ASSERT_FALSE_FATAL(env.fault_occurred);
    snprintf(answer, sizeof answer, "%.*s", (int)xmlrpc_mem_block_size(block),
             (const char *)xmlrpc_mem_block_contents(block));
    xmlrpc_mem_block_free(block);
    xmlrpc_env_clean(&env);
    return answer;
}

static const char *call(const char *method, const char *parameters)
{
    char xml[16384];

    snprintf(xml, sizeof xml, "<?xml version=\"1.0\"?><methodCall><methodName>%s</methodName>"
             "<params>%s</params></methodCall>", method, parameters);
    return ask(xml, strlen(xml));
}

#define STRING(text) "<param><value><string>" text "</string></value></param>"

static bool is_fault(const char *text, enum fault fault)
{
    char code[64];

    snprintf(code, sizeof code, "<value><i4>%d</i4></value>", fault_code(fault));
    if (strstr(text, code))
        return true;
    snprintf(code, sizeof code, "<value><int>%d</int></value>", fault_code(fault));
    return strstr(text, code) != NULL;
}

static void begin(void)
{
    struct relay_settings settings = { .max_tunnels = 1, .attach_timeout_ms = 5000 };

    settings.port_low = free_ports(2);
    settings.port_high = (uint16_t)(settings.port_low + 1);
    net_address_parse("127.0.0.1", 0, &settings.listen);
    CU_ASSERT_EQUAL_FATAL(relay_new(&settings, &relay), 0);
}

static void finish(void)
{
    relay_end_all(relay);
    relay_free(relay);
}

static void a_tunnel_is_opened_and_its_address_told(void)
{
    char expected[128];
    char uri[256];
    unsigned port;

    begin();
    port = relay_settings(relay).port_low;
    snprintf(expected, sizeof expected, "tcp://proxy.example:%u<", port);
    CU_ASSERT_PTR_NOT_NULL(strstr(call("Tunnel.openTunnel", ""), expected));
    snprintf(uri, sizeof uri, STRING("tcp://proxy.example:%u"), port);
    snprintf(expected, sizeof expected, "tcp://proxy.example:%u<", port + 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(call("Tunnel.getTunnelAddress", uri), expected));
    CU_ASSERT_TRUE(is_fault(call("Tunnel.openTunnel", STRING("tcp")), FAULT_LIMIT_REACHED));
    finish();
}

static void each_mistake_has_its_fault(void)
{
    begin();
    CU_ASSERT_TRUE(is_fault(call("Tunnel.openTunnel", STRING("smtp")), FAULT_UNKNOWN_BACKEND));
    CU_ASSERT_PTR_NOT_NULL(strstr(answer, "smtp"));
    CU_ASSERT_PTR_NOT_NULL(strstr(answer, "tcp"));
    CU_ASSERT_TRUE(is_fault(call("Tunnel.getTunnelAddress", STRING("x")), FAULT_MALFORMED_URI));
    CU_ASSERT_TRUE(is_fault(call("Tunnel.getTunnelAddress", STRING("tcp://a:1")),
                            FAULT_UNKNOWN_TUNNEL));
    CU_ASSERT_TRUE(is_fault(call("Tunnel.getTunnelAddress", ""), FAULT_WRONG_PARAMETERS));
    CU_ASSERT_TRUE(is_fault(call("Tunnel.openTunnel", STRING("tcp") STRING("tcp")),
                            FAULT_WRONG_PARAMETERS));
    CU_ASSERT_TRUE(is_fault(call("Tunnel.openTunnel", "<param><value><int>1</int></value></param>"),
                            FAULT_WRONG_PARAMETERS));
    CU_ASSERT_TRUE(is_fault(call("Tunnel.closeTunnel", ""), FAULT_UNKNOWN_METHOD));
    relay_refuse_new(relay);
    CU_ASSERT_TRUE(is_fault(call("Tunnel.openTunnel", ""), FAULT_SHUTTING_DOWN));
    finish();
}

static void a_fault_shows_foreign_bytes_cut_and_printable(void)
{
    char uri[1200];

    begin();
    memset(uri, 'x', sizeof uri);
    memcpy(uri, "<param><value><string>\t\xc3\xa9", 25);
    strcpy(uri + 1000, "</string></value></param>");
    CU_ASSERT_TRUE(is_fault(call("Tunnel.getTunnelAddress", uri), FAULT_MALFORMED_URI));
    CU_ASSERT(strlen(answer) < 1000);
    CU_ASSERT_PTR_NULL(strchr(answer, '\xc3'));
    finish();
}

static void there_is_no_shutdown(void)
{
    begin();
    CU_ASSERT_PTR_NULL(strstr(call("system.listMethods", ""), "shutdown"));
    CU_ASSERT_TRUE(is_fault(call("system.shutdown", STRING("")), FAULT_UNKNOWN_METHOD));
    CU_ASSERT_TRUE(is_fault(call("system.methodHelp", STRING("system.shutdown")),
                            FAULT_UNKNOWN_METHOD));
    finish();
}

static void every_method_has_a_signature_and_help(void)
{
    static const char *const names[] = {
        "Tunnel.openTunnel", "Tunnel.getTunnelAddress", "system.listMethods",
        "system.methodHelp", "system.methodSignature", "system.multicall",
    };
    char parameter[128];

    begin();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CU_ASSERT_PTR_NOT_NULL(strstr(call("system.listMethods", ""), names[i]));
        snprintf(parameter, sizeof parameter, STRING("%s"), names[i]);
        CU_ASSERT(strlen(call("system.methodHelp", parameter)) > 180);
        CU_ASSERT_PTR_NOT_NULL(strstr(call("system.methodSignature", parameter), "<array>"));
    }
    finish();
}

static void several_calls_go_in_one_and_fail_each_for_itself(void)
{
    begin();
#define MEMBER(name, value) "<member><name>" name "</name>" value "</member>"
#define CALL(method) "<value><struct>" MEMBER("methodName", "<value>" method "</value>") \
        MEMBER("params", "<value><array><data></data></array></value>") "</struct></value>"
    call("system.multicall", "<param><value><array><data>" CALL("Tunnel.openTunnel")
         CALL("Tunnel.openTunnel") CALL("system.multicall") "<value>x</value>"
         "</data></array></value></param>");
    CU_ASSERT_PTR_NOT_NULL(strstr(answer, "tcp://proxy.example:"));
    CU_ASSERT_TRUE(is_fault(answer, FAULT_LIMIT_REACHED));
    CU_ASSERT_TRUE(is_fault(answer, FAULT_WRONG_PARAMETERS));
    finish();
}

static void what_is_no_call_is_a_fault(void)
{
    static const char *const bad[] = {
        " ", "hello", "<methodCall>", "<methodResponse/>", "<methodCall><methodName/></methodCall>",
        "<?xml version=\"1.0\"?><!DOCTYPE x [<!ENTITY a \"b\">]><methodCall/>",
        "<methodCall><methodName>a</methodName><params><param>x</param></params></methodCall>",
        ("<methodCall><methodName>a</methodName><params><param><value><i8>x</i8></value></param>"
         "</params></methodCall>"),
        "<methodCall><methodName>\xff\xfe</methodName><params/></methodCall>",
    };

    begin();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CU_ASSERT_PTR_NOT_NULL(strstr(ask(bad[i], strlen(bad[i])), "faultCode"));
    }
    finish();
}

static void nesting_to_the_limit_of_a_request_is_survived(void)
{
    static char deep[65536];
    size_t length = 0;

    begin();
    length += (size_t)sprintf(deep, "<methodCall>");
    for (int i = 0; i < 9000; i++)
        length += (size_t)sprintf(deep + length, "<a>");
    for (int i = 0; i < 9000; i++)
        length += (size_t)sprintf(deep + length, "</a>");
    length += (size_t)sprintf(deep + length, "</methodCall>");
    CU_ASSERT_PTR_NOT_NULL(strstr(ask(deep, length), "faultCode"));
    finish();
}

int main(void)
{
    CU_TestInfo tests[] = {
        TEST(a_tunnel_is_opened_and_its_address_told),
        TEST(each_mistake_has_its_fault),
        TEST(a_fault_shows_foreign_bytes_cut_and_printable),
        TEST(there_is_no_shutdown),
        TEST(every_method_has_a_signature_and_help),
        TEST(several_calls_go_in_one_and_fail_each_for_itself),
        TEST(what_is_no_call_is_a_fault),
        TEST(nesting_to_the_limit_of_a_request_is_survived),
        CU_TEST_INFO_NULL,
    };

    return waker_set_up_process() < 0 ? EXIT_FAILURE : unit_run("methods", tests);
}
