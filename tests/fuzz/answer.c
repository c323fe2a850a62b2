#include "tests/fuzz/answer.h"

#include "rpc/faults.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <xmlrpc-c/base.h>

static bool is_known_fault(int code)
{
    for (enum fault fault = FAULT_MALFORMED_URI; fault <= FAULT_UNKNOWN_METHOD; fault++)
        if (code == fault_code(fault))
            return true;
    return false;
}

/* Printable ASCII and ends of line. */
static bool is_plain(const char *xml, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (xml[i] != '\r' && xml[i] != '\n' && !text_is_printable(&xml[i], 1))
            return false;
    return true;
}

void answer_check(const char *xml, size_t length)
{
    xmlrpc_value *result = NULL;
    const char *fault_text = NULL;
    int fault;
    xmlrpc_env env;

    assert(is_plain(xml, length));
    xmlrpc_env_init(&env);
    xmlrpc_parse_response2(&env, xml, length, &result, &fault, &fault_text);
    assert(!env.fault_occurred);
    if (fault_text) {
        assert(is_known_fault(fault));
        free((void *)fault_text);
    } else {
        xmlrpc_DECREF(result);
    }
    xmlrpc_env_clean(&env);
}
