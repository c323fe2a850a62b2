/* The calls: openTunnel and getTunnelAddress, as xmlrpc-c writes and reads
 * them. */
#include "clients/library.h"

#include "clients/transport.h"
#include "relay/uri.h"
#include "rpc/xml_guard.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xmlrpc-c/base.h>

enum { DEFAULT_TIMEOUT_MS = 30000 };

static pthread_once_t set_up_once = PTHREAD_ONCE_INIT;
static bool is_set_up;

static void fill(struct tristero_error *error, enum tristero_status status, int os_error,
                 const char *format, va_list arguments)
{
    size_t length;

    error->status = status;
    error->fault_code = 0;
    error->os_error = os_error;
    vsnprintf(error->text, sizeof error->text, format, arguments);
    length = strlen(error->text);
    if (os_error)
        snprintf(error->text + length, sizeof error->text - length, ": %s",
                 strerrordesc_np(os_error));
    /* It may quote the proxy: nothing of that may steer a terminal or make a
     * second line in a log. */
    for (char *at = error->text; *at; at++) {
        if (*at < ' ' || *at > '~')
            *at = '?';
    }
}

enum tristero_status error_set(struct tristero_error *error, enum tristero_status status,
                               const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    if (error)
        fill(error, status, 0, format, arguments);
    va_end(arguments);
    return status;
}

enum tristero_status error_set_os(struct tristero_error *error, enum tristero_status status,
                                  int os_error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    if (error)
        fill(error, status, os_error, format, arguments);
    va_end(arguments);
    return status;
}

/* What libcurl keeps for the whole process, and until its end. */
static void set_up(void)
{
    is_set_up = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

/* A part that may be missing, decoded. */
static CURLUcode read_part(CURLU *parts, CURLUPart which, CURLUcode missing, char **part)
{
    CURLUcode code = curl_url_get(parts, which, part, CURLU_URLDECODE);

    return code == missing ? CURLUE_OK : code;
}

/* Of a URL that can't be read: what surely has no password in it. */
static const char *without_user(const char *url)
{
    const char *at = strrchr(url, '@');

    return at ? at + 1 : url;
}

/* Takes user and password out of the URL, which errors quote. */
static CURLUcode url_read(const char *url, struct tristero_proxy *proxy)
{
    CURLU *parts = curl_url();
    char *scheme = NULL;
    CURLUcode code;

    if (!parts)
        return CURLUE_OUT_OF_MEMORY;
    code = curl_url_set(parts, CURLUPART_URL, url, 0);
    if (!code)
        code = curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0);
    if (!code && strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0)
        code = CURLUE_UNSUPPORTED_SCHEME;
    if (!code)
        code = read_part(parts, CURLUPART_USER, CURLUE_NO_USER, &proxy->user);
    if (!code)
        code = read_part(parts, CURLUPART_PASSWORD, CURLUE_NO_PASSWORD, &proxy->password);
    if (!code) {
        curl_url_set(parts, CURLUPART_USER, NULL, 0);
        curl_url_set(parts, CURLUPART_PASSWORD, NULL, 0);
        code = curl_url_get(parts, CURLUPART_URL, &proxy->url, 0);
    }
    curl_free(scheme);
    curl_url_cleanup(parts);
    return code;
}

enum tristero_status tristero_proxy_new(const char *url, const struct tristero_options *options,
                                        struct tristero_proxy **out, struct tristero_error *error)
{
    struct tristero_options given = options ? *options : (struct tristero_options){ 0 };
    struct tristero_proxy *proxy;
    CURLUcode code;

    if (given.call_timeout_ms < 0 || given.attach_timeout_ms < 0)
        return error_set(error, TRISTERO_INVALID, "a timeout is negative");
    pthread_once(&set_up_once, set_up);
    proxy = calloc(1, sizeof *proxy);
    if (!proxy || !is_set_up)
        goto no_memory;
    code = url_read(url, proxy);
    if (code == CURLUE_OUT_OF_MEMORY)
        goto no_memory;
    if (code) {
        tristero_proxy_free(proxy);
        return error_set(error, TRISTERO_INVALID, "the proxy's URL is \"%.100s\", expected one "
                         "such as http://proxy:8000/RPC2: %s", without_user(url), curl_url_strerror(code));
    }
    proxy->call_timeout_ms = given.call_timeout_ms ? given.call_timeout_ms : DEFAULT_TIMEOUT_MS;
    proxy->attach_timeout_ms = given.attach_timeout_ms ? given.attach_timeout_ms
                                                       : DEFAULT_TIMEOUT_MS;
    *out = proxy;
    return TRISTERO_OK;
no_memory:
    tristero_proxy_free(proxy);
    return error_set(error, TRISTERO_NO_RESOURCES, "out of memory");
}

void tristero_proxy_free(struct tristero_proxy *proxy)
{
    if (!proxy)
        return;
    curl_free(proxy->url);
    curl_free(proxy->user);
    curl_free(proxy->password);
    free(proxy);
}

void tristero_proxy_cancel(struct tristero_proxy *proxy)
{
    atomic_store(&proxy->is_cancelled, true);
}

void proxy_init_part(struct tristero_proxy *part, const struct tristero_proxy *whole)
{
    *part = (struct tristero_proxy){ .url = whole->url, .user = whole->user,
                                     .password = whole->password,
                                     .call_timeout_ms = whole->call_timeout_ms,
                                     .attach_timeout_ms = whole->attach_timeout_ms,
                                     .whole = whole };
}

bool proxy_is_cancelled(const struct tristero_proxy *proxy)
{
    return atomic_load(&proxy->is_cancelled) || (proxy->whole && proxy_is_cancelled(proxy->whole));
}

static xmlrpc_mem_block *call_xml(xmlrpc_env *env, const char *method, const char *parameter)
{
    xmlrpc_mem_block *call = xmlrpc_mem_block_new(env, 0);
    xmlrpc_value *parameters;

    if (env->fault_occurred)
        return NULL;
    parameters = parameter ? xmlrpc_build_value(env, "(s)", parameter) : xmlrpc_array_new(env);
    if (!env->fault_occurred) {
        xmlrpc_serialize_call(env, call, method, parameters);
        xmlrpc_DECREF(parameters);
    }
    if (!env->fault_occurred)
        return call;
    xmlrpc_mem_block_free(call);
    return NULL;
}

/* Checks a text that the proxy has answered: NULL, or what was expected instead. */
typedef const char *check_fn(const char *text, size_t length);

static const char *check_uri(const char *text, size_t length)
{
    struct tunnel_uri parsed;
    const char *expected = NULL;

    tunnel_uri_parse(text, length, &parsed, &expected);
    return expected;
}

/* A line that can be written to a file as it is: three words of printable ASCII. */
static const char *check_host_key(const char *text, size_t length)
{
    size_t blanks = 0;

    for (size_t i = 0; i < length; i++) {
        if (text[i] < ' ' || text[i] > '~')
            return "a line of printable ASCII";
        blanks += text[i] == ' ';
    }
    return blanks == 2 ? NULL : "a host, a type of key and a key";
}

static enum tristero_status read_text(const struct tristero_proxy *proxy, xmlrpc_value *result,
                                      check_fn *check, char **out, struct tristero_error *error)
{
    const char *text = NULL;
    const char *expected;
    xmlrpc_env env;
    size_t length;

    xmlrpc_env_init(&env);
    xmlrpc_read_string_lp(&env, result, &length, &text);
    if (env.fault_occurred) {
        xmlrpc_env_clean(&env);
        return error_set(error, TRISTERO_BAD_ANSWER, "%s answered with something that is no string",
                         proxy->url);
    }
    xmlrpc_env_clean(&env);
    expected = check(text, length);
    if (expected) {
        error_set(error, TRISTERO_BAD_ANSWER, "%s answered \"%.100s\": expected %s", proxy->url,
                  text, expected);
        free((void *)text);
        return TRISTERO_BAD_ANSWER;
    }
    *out = (char *)text;
    return TRISTERO_OK;
}

static enum tristero_status read_answer(const struct tristero_proxy *proxy, const char *xml,
                                        size_t length, check_fn *check, char **text,
                                        struct tristero_error *error)
{
    const char *refusal = xml_guard_look(xml, length);
    const char *fault_text = NULL;
    enum tristero_status status;
    xmlrpc_value *result = NULL;
    int fault_code = 0;
    xmlrpc_env env;

    if (refusal)
        return error_set(error, TRISTERO_BAD_ANSWER, "%s does not speak XML-RPC: %s", proxy->url,
                         refusal);
    xmlrpc_env_init(&env);
    xmlrpc_parse_response2(&env, xml, length, &result, &fault_code, &fault_text);
    if (env.fault_occurred) {
        status = error_set(error, TRISTERO_BAD_ANSWER, "%s does not speak XML-RPC: %s", proxy->url,
                           env.fault_string);
    } else if (fault_text) {
        status = error_set(error, TRISTERO_FAULT, "%s says: %s", proxy->url, fault_text);
        if (error)
            error->fault_code = fault_code;
        free((void *)fault_text);
    } else {
        status = read_text(proxy, result, check, text, error);
        xmlrpc_DECREF(result);
    }
    xmlrpc_env_clean(&env);
    return status;
}

/* Calls a method that takes a string, or nothing (NULL), and returns a text. */
static enum tristero_status call_for_text(const struct tristero_proxy *proxy, const char *method,
                                          const char *parameter, check_fn *check, char **text,
                                          struct tristero_error *error)
{
    struct transport_answer answer;
    enum tristero_status status;
    xmlrpc_mem_block *call;
    xmlrpc_env env;

    xmlrpc_env_init(&env);
    call = call_xml(&env, method, parameter);
    if (env.fault_occurred) {
        status = error_set(error, TRISTERO_INVALID, "%s can't be asked with \"%.100s\": %s", method,
                           parameter ? parameter : "", env.fault_string);
        goto out;
    }
    status = transport_post(proxy, xmlrpc_mem_block_contents(call), xmlrpc_mem_block_size(call),
                            &answer, error);
    if (!status) {
        status = read_answer(proxy, answer.bytes, answer.count, check, text, error);
        free(answer.bytes);
    }
out:
    if (call)
        xmlrpc_mem_block_free(call);
    xmlrpc_env_clean(&env);
    return status;
}

enum tristero_status tristero_open(struct tristero_proxy *proxy, const char *backend,
                                   char **server_uri, struct tristero_error *error)
{
    return call_for_text(proxy, "Tunnel.openTunnel", backend, check_uri, server_uri, error);
}

enum tristero_status tristero_address(struct tristero_proxy *proxy, const char *server_uri,
                                      char **client_uri, struct tristero_error *error)
{
    return call_for_text(proxy, "Tunnel.getTunnelAddress", server_uri, check_uri, client_uri, error);
}

enum tristero_status tristero_host_key(struct tristero_proxy *proxy, char **line,
                                       struct tristero_error *error)
{
    return call_for_text(proxy, "Tunnel.getHostKey", NULL, check_host_key, line, error);
}
