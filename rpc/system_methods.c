/* system.*: introspection, and several calls in one request. */
#include "rpc/methods.h"

#include "relay/log.h"
#include "rpc/faults.h"

#include <stdlib.h>
#include <string.h>

/* All answers together fit into a socket's send buffer, so that who does not read
 * them holds nobody up. */
enum { MULTICALL_CALLS_MAX = 100 };

struct list {
    xmlrpc_env *env;
    xmlrpc_value *array;
};

static void list_append_string(xmlrpc_env *env, xmlrpc_value *array, const char *text)
{
    xmlrpc_value *string;

    if (env->fault_occurred)
        return;
    string = xmlrpc_string_new(env, text);
    if (env->fault_occurred)
        return;
    xmlrpc_array_append_item(env, array, string);
    xmlrpc_DECREF(string);
}

/* The array, or NULL after a fault. */
static xmlrpc_value *unless_fault(xmlrpc_env *env, xmlrpc_value *array)
{
    if (!env->fault_occurred)
        return array;
    if (array)
        xmlrpc_DECREF(array);
    return NULL;
}

static void append_name(const struct method *method, void *context)
{
    struct list *list = context;

    list_append_string(list->env, list->array, method->name);
}

static xmlrpc_value *list_methods(xmlrpc_env *env, xmlrpc_value *parameters, struct rpc_call *call)
{
    struct list list = { env, xmlrpc_array_new(env) };

    (void)parameters, (void)call;
    if (!env->fault_occurred)
        method_for_each(append_name, &list);
    return unless_fault(env, list.array);
}

/* The method that the only parameter names. NULL and a fault. */
static const struct method *named_method(xmlrpc_env *env, xmlrpc_value *parameters)
{
    const struct method *method = NULL;
    const char *name;
    char shown[64];

    xmlrpc_decompose_value(env, parameters, "(s)", &name);
    if (env->fault_occurred)
        return NULL;
    method = method_find(name);
    if (!method)
        fault_set(env, FAULT_UNKNOWN_METHOD, "got \"%s\"; system.listMethods lists those there are",
                  text_printable(name, strlen(name), shown, sizeof shown));
    free((void *)name);
    return method;
}

static xmlrpc_value *method_help(xmlrpc_env *env, xmlrpc_value *parameters, struct rpc_call *call)
{
    const struct method *method = named_method(env, parameters);

    (void)call;
    return method ? xmlrpc_string_new(env, method->help) : NULL;
}

static xmlrpc_value *signature_value(xmlrpc_env *env, const char *letters)
{
    xmlrpc_value *array = xmlrpc_array_new(env);

    for (const char *letter = letters; !env->fault_occurred && *letter; letter++)
        list_append_string(env, array, method_type_name(*letter));
    return unless_fault(env, array);
}

static xmlrpc_value *method_signature(xmlrpc_env *env, xmlrpc_value *parameters,
                                      struct rpc_call *call)
{
    const struct method *method = named_method(env, parameters);
    xmlrpc_value *signatures;

    (void)call;
    if (!method)
        return NULL;
    signatures = xmlrpc_array_new(env);
    for (size_t i = 0; i < METHOD_SIGNATURES_MAX && method->signatures[i]; i++) {
        xmlrpc_value *signature;

        if (env->fault_occurred)
            break;
        signature = signature_value(env, method->signatures[i]);
        if (!signature)
            break;
        xmlrpc_array_append_item(env, signatures, signature);
        xmlrpc_DECREF(signature);
    }
    return unless_fault(env, signatures);
}

/* One call of several: { methodName, params }. */
static xmlrpc_value *run_member(xmlrpc_env *env, xmlrpc_value *member, struct rpc_call *call)
{
    xmlrpc_value *parameters;
    xmlrpc_value *result;
    const char *name;

    xmlrpc_decompose_value(env, member, "{s:s,s:A,*}", "methodName", &name, "params", &parameters);
    if (env->fault_occurred) {
        xmlrpc_env_clean(env);
        xmlrpc_env_init(env);
        fault_set(env, FAULT_WRONG_PARAMETERS,
                  "each call in system.multicall is a struct of methodName and params");
        return NULL;
    }
    result = method_call(env, name, parameters, call);
    xmlrpc_DECREF(parameters);
    free((void *)name);
    return result;
}

/* As multicall has it: a result in an array of one, a fault as a struct. */
static xmlrpc_value *answer_member(xmlrpc_env *env, xmlrpc_value *member, struct rpc_call *call)
{
    xmlrpc_value *answer = NULL;
    xmlrpc_value *result;
    xmlrpc_env fault;

    xmlrpc_env_init(&fault);
    result = run_member(&fault, member, call);
    if (fault.fault_occurred) {
        answer = xmlrpc_build_value(env, "{s:i,s:s}", "faultCode", (xmlrpc_int32)fault.fault_code,
                                    "faultString", fault.fault_string);
    } else {
        answer = xmlrpc_build_value(env, "(V)", result);
        xmlrpc_DECREF(result);
    }
    xmlrpc_env_clean(&fault);
    return env->fault_occurred ? NULL : answer;
}

static xmlrpc_value *multicall(xmlrpc_env *env, xmlrpc_value *parameters, struct rpc_call *call)
{
    xmlrpc_value *answers = NULL;
    xmlrpc_value *calls = NULL;
    int count;

    if (call->in_multicall) {
        fault_set(env, FAULT_WRONG_PARAMETERS, "system.multicall does not call itself");
        return NULL;
    }
    call->in_multicall = true;
    xmlrpc_array_read_item(env, parameters, 0, &calls);
    if (env->fault_occurred)
        return NULL;
    count = xmlrpc_array_size(env, calls);
    if (count > MULTICALL_CALLS_MAX) {
        fault_set(env, FAULT_WRONG_PARAMETERS, "system.multicall takes %d calls at most, got %d",
                  MULTICALL_CALLS_MAX, count);
        goto out;
    }
    answers = xmlrpc_array_new(env);
    if (env->fault_occurred)
        count = 0;
    for (int i = 0; i < count && !env->fault_occurred; i++) {
        xmlrpc_value *answer = answer_member(env, xmlrpc_array_get_item(env, calls, i), call);

        if (!answer)
            break;
        xmlrpc_array_append_item(env, answers, answer);
        xmlrpc_DECREF(answer);
    }
out:
    xmlrpc_DECREF(calls);
    call->in_multicall = false;
    return unless_fault(env, answers);
}

const struct method system_methods[] = {
    {
        .name = "system.listMethods",
        .signatures = { "A" },
        .help = "Returns the names of all methods of this proxy.",
        .run = list_methods,
    }, {
        .name = "system.methodHelp",
        .signatures = { "ss" },
        .help = "Takes the name of a method and returns what it is for.",
        .run = method_help,
    }, {
        .name = "system.methodSignature",
        .signatures = { "As" },
        .help = "Takes the name of a method and returns its signatures: for each way to call it, "
                "the type of its result followed by those of its parameters.",
        .run = method_signature,
    }, {
        .name = "system.multicall",
        .signatures = { "AA" },
        .help = "Takes an array of calls, each a struct of methodName (string) and params (array), "
                "and returns an array of their answers: for each call an array with its result, "
                "or a struct of faultCode and faultString.",
        .run = multicall,
    },
    { .name = NULL },
};
