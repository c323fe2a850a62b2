#include "rpc/methods.h"

#include "relay/log.h"
#include "rpc/faults.h"
#include "rpc/xml_guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_SHOWN_BYTES = 64 };

static const struct method *const tables[] = { tunnel_methods, system_methods };

static const struct {
    char letter;
    xmlrpc_type type;
    const char *name;
} types[] = {
    { 's', XMLRPC_TYPE_STRING,   "string" },
    { 'A', XMLRPC_TYPE_ARRAY,    "array" },
    { 'S', XMLRPC_TYPE_STRUCT,   "struct" },
    { 'i', XMLRPC_TYPE_INT,      "int" },
    { 'I', XMLRPC_TYPE_I8,       "i8" },
    { 'b', XMLRPC_TYPE_BOOL,     "boolean" },
    { 'd', XMLRPC_TYPE_DOUBLE,   "double" },
    { '8', XMLRPC_TYPE_DATETIME, "dateTime.iso8601" },
    { '6', XMLRPC_TYPE_BASE64,   "base64" },
    { 'n', XMLRPC_TYPE_NIL,      "nil" },
};

enum { TYPES = sizeof types / sizeof types[0] };

void method_for_each(void (*fn)(const struct method *method, void *context), void *context)
{
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        for (const struct method *method = tables[i]; method->name; method++)
            fn(method, context);
    }
}

const struct method *method_find(const char *name)
{
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        for (const struct method *method = tables[i]; method->name; method++) {
            if (strcmp(method->name, name) == 0)
                return method;
        }
    }
    return NULL;
}

const char *method_type_name(char letter)
{
    for (size_t i = 0; i < TYPES; i++) {
        if (types[i].letter == letter)
            return types[i].name;
    }
    return "value";
}

static char letter_of(xmlrpc_type type)
{
    for (size_t i = 0; i < TYPES; i++) {
        if (types[i].type == type)
            return types[i].letter;
    }
    return '?';
}

/* The letters of what was really sent, cut where room ends. */
static void letters_of(xmlrpc_env *env, xmlrpc_value *parameters, char *letters, size_t room)
{
    int count = xmlrpc_array_size(env, parameters);
    size_t used = 0;

    for (int i = 0; i < count && used < room - 1 && !env->fault_occurred; i++) {
        xmlrpc_value *parameter;

        xmlrpc_array_read_item(env, parameters, (unsigned)i, &parameter);
        if (env->fault_occurred)
            break;
        letters[used++] = letter_of(xmlrpc_value_type(parameter));
        xmlrpc_DECREF(parameter);
    }
    letters[used] = '\0';
}

/* "ss" becomes "(string, string)". */
static size_t spell(const char *letters, char *text, size_t room)
{
    size_t used = (size_t)snprintf(text, room, "(");

    for (const char *letter = letters; *letter && used < room; letter++)
        used += (size_t)snprintf(text + used, room - used, "%s%s", letter == letters ? "" : ", ",
                                 method_type_name(*letter));
    if (used < room)
        used += (size_t)snprintf(text + used, room - used, ")");
    return used < room ? used : room - 1;
}

static void check_parameters(xmlrpc_env *env, const struct method *method,
                             xmlrpc_value *parameters)
{
    char wanted[128] = "";
    char given[128];
    char letters[10];                   /* more than any method takes */
    size_t used = 0;

    letters_of(env, parameters, letters, sizeof letters);
    if (env->fault_occurred)
        return;
    for (size_t i = 0; i < METHOD_SIGNATURES_MAX && method->signatures[i]; i++) {
        const char *signature = method->signatures[i] + 1;

        if (strcmp(signature, letters) == 0)
            return;
        used += (size_t)snprintf(wanted + used, sizeof wanted - used, "%s", i ? " or " : "");
        used += spell(signature, wanted + used, sizeof wanted - used);
    }
    spell(letters, given, sizeof given);
    fault_set(env, FAULT_WRONG_PARAMETERS, "%s takes %s, got %s", method->name, wanted, given);
}

xmlrpc_value *method_call(xmlrpc_env *env, const char *name, xmlrpc_value *parameters,
                          struct rpc_call *call)
{
    const struct method *method = method_find(name);
    char shown[NAME_SHOWN_BYTES];

    if (!method) {
        fault_set(env, FAULT_UNKNOWN_METHOD, "got \"%s\"; system.listMethods lists those there are",
                  text_printable(name, strlen(name), shown, sizeof shown));
        return NULL;
    }
    check_parameters(env, method, parameters);
    return env->fault_occurred ? NULL : method->run(env, parameters, call);
}

/* Parses and runs; the result, or NULL and a fault. */
static xmlrpc_value *carry_out(xmlrpc_env *env, const char *xml, size_t length,
                               struct rpc_call *call)
{
    const char *refusal = xml_guard_look(xml, length);
    xmlrpc_value *parameters;
    xmlrpc_value *result;
    xmlrpc_env parsing;
    const char *name;

    if (refusal) {
        fault_set(env, FAULT_NOT_A_CALL, "%s", refusal);
        return NULL;
    }
    xmlrpc_env_init(&parsing);
    xmlrpc_parse_call(&parsing, xml, length, &name, &parameters);
    if (parsing.fault_occurred) {
        char shown[200];
        fault_set(env, FAULT_NOT_A_CALL, "%s",
                  text_printable(parsing.fault_string, strlen(parsing.fault_string), shown,
                                 sizeof shown));
        xmlrpc_env_clean(&parsing);
        return NULL;
    }
    xmlrpc_env_clean(&parsing);
    result = method_call(env, name, parameters, call);
    xmlrpc_DECREF(parameters);
    free((void *)name);
    return env->fault_occurred ? NULL : result;
}

xmlrpc_mem_block *method_answer(xmlrpc_env *env, const char *xml, size_t length,
                                struct rpc_call *call)
{
    xmlrpc_mem_block *answer = xmlrpc_mem_block_new(env, 0);
    xmlrpc_value *result;
    xmlrpc_env fault;

    if (env->fault_occurred)
        return NULL;
    xmlrpc_env_init(&fault);
    result = carry_out(&fault, xml, length, call);
    if (result) {
        xmlrpc_serialize_response(env, answer, result);
        xmlrpc_DECREF(result);
    } else {
        xmlrpc_serialize_fault(env, answer, &fault);
    }
    xmlrpc_env_clean(&fault);
    if (!env->fault_occurred)
        return answer;
    xmlrpc_mem_block_free(answer);
    return NULL;
}
