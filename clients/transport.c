#include "clients/transport.h"

#include "clients/curl_set.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* --- calls */

struct receiving {
    struct transport_answer answer;
    bool is_too_long, has_no_memory;
};

static size_t receive(char *bytes, size_t size, size_t count, void *context)
{
    struct receiving *receiving = context;
    struct transport_answer *answer = &receiving->answer;
    char *more;

    count *= size;
    receiving->is_too_long = count > TRANSPORT_ANSWER_BYTES_MAX - answer->count;
    if (receiving->is_too_long)
        return 0;
    more = realloc(answer->bytes, answer->count + count + 1);
    receiving->has_no_memory = !more;
    if (!more)
        return 0;
    answer->bytes = more;
    memcpy(answer->bytes + answer->count, bytes, count);
    answer->count += count;
    answer->bytes[answer->count] = '\0';
    return count;
}

/* Where the URL of a proxy goes on after the name and password, if it has any; before
 * them is its scheme, which is so long. */
static const char *after_login(const char *url, int *scheme_length)
{
    size_t letters = strcspn(url, ":/@'");
    const char *end = strrchr(url, '@');

    *scheme_length = strncmp(url + letters, "://", 3) == 0 ? (int)letters + 3 : 0;
    return end ? end + 1 : url + *scheme_length;
}

/* libcurl quotes the whole URL of a proxy that it can't use. */
static const char *reason(CURLcode code, char *details)
{
    char *quoted = strchr(details, '\'');
    int scheme_length;
    const char *rest;

    if (code == CURLE_ABORTED_BY_CALLBACK)
        return "it was cancelled";
    if (quoted++) {
        rest = after_login(quoted, &scheme_length);
        memmove(quoted + scheme_length, rest, strlen(rest) + 1);
    }
    return *details ? details : curl_easy_strerror(code);
}

static enum tristero_status post_failed(const struct tristero_proxy *proxy, CURLcode code,
                                        const struct receiving *receiving, char *details,
                                        struct tristero_error *error)
{
    if (code == CURLE_OPERATION_TIMEDOUT)
        return error_set(error, TRISTERO_TIMEOUT, "%s did not answer in time", proxy->url);
    if (receiving->is_too_long)
        return error_set(error, TRISTERO_BAD_ANSWER, "%s answered with more than %d bytes",
                         proxy->url, TRANSPORT_ANSWER_BYTES_MAX);
    if (code == CURLE_OUT_OF_MEMORY || receiving->has_no_memory)
        return error_set(error, TRISTERO_NO_RESOURCES, "out of memory");
    return error_set(error, TRISTERO_UNREACHABLE, "can't call %s: %s", proxy->url,
                     reason(code, details));
}

static enum tristero_status check_status(const struct tristero_proxy *proxy, long http_status,
                                         struct tristero_error *error)
{
    switch (http_status) {
    case 200:
        return TRISTERO_OK;
    case 401:
        return error_set(error, TRISTERO_UNREACHABLE, "can't call %s: it asks for a user and "
                         "password%s", proxy->url,
                         proxy->user ? ", and these are none that it knows" : "");
    case 429:
        return error_set(error, TRISTERO_UNREACHABLE, "can't call %s: too many connections or "
                         "wrong passwords come from this address; try again later", proxy->url);
    default:
        return error_set(error, TRISTERO_UNREACHABLE, "can't call %s: HTTP response code is %ld, "
                         "not 200", proxy->url, http_status);
    }
}

static CURLcode set_up_post(CURL *curl, const struct tristero_proxy *proxy,
                            struct curl_slist *fields, const char *xml, size_t count,
                            struct receiving *receiving)
{
    CURLcode code = CURLE_OK;

    SET(curl, CURLOPT_URL, proxy->url);
    SET(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    SET(curl, CURLOPT_HTTPHEADER, fields);
    SET(curl, CURLOPT_USERAGENT, "tristero-tunnel");
    SET(curl, CURLOPT_POSTFIELDS, xml);
    SET(curl, CURLOPT_POSTFIELDSIZE, (long)count);
    SET(curl, CURLOPT_TIMEOUT_MS, (long)proxy->call_timeout_ms);
    SET(curl, CURLOPT_WRITEFUNCTION, receive);
    SET(curl, CURLOPT_WRITEDATA, receiving);
    if (proxy->user) {
        SET(curl, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
        SET(curl, CURLOPT_USERNAME, proxy->user);
        SET(curl, CURLOPT_PASSWORD, proxy->password ? proxy->password : "");
    }
    return code;
}

/* What libcurl calls every second or more often: anything but 0 ends the transfer. */
static int is_cancelled(void *argument, curl_off_t to_receive, curl_off_t received,
                        curl_off_t to_send, curl_off_t sent)
{
    (void)to_receive, (void)received, (void)to_send, (void)sent;
    return proxy_is_cancelled(argument);
}

/* A handle whose errors come as text, and that raises no signal. */
static CURL *curl_new(const struct tristero_proxy *proxy, char details[CURL_ERROR_SIZE])
{
    CURL *curl = curl_easy_init();
    CURLcode code = CURLE_OK;

    details[0] = '\0';
    if (!curl)
        return NULL;
    SET(curl, CURLOPT_NOSIGNAL, 1L);
    SET(curl, CURLOPT_ERRORBUFFER, details);
    SET(curl, CURLOPT_NOPROGRESS, 0L);
    SET(curl, CURLOPT_XFERINFOFUNCTION, is_cancelled);
    SET(curl, CURLOPT_XFERINFODATA, proxy);
    if (!code)
        return curl;
    curl_easy_cleanup(curl);
    return NULL;
}

enum tristero_status transport_post(const struct tristero_proxy *proxy, const char *xml,
                                    size_t count, struct transport_answer *answer,
                                    struct tristero_error *error)
{
    struct curl_slist *fields = curl_slist_append(NULL, "Content-Type: text/xml");
    struct receiving receiving = { 0 };
    char details[CURL_ERROR_SIZE];
    CURL *curl = fields ? curl_new(proxy, details) : NULL;
    enum tristero_status status;
    long http_status = 0;
    CURLcode code;

    if (!curl) {
        status = error_set(error, TRISTERO_NO_RESOURCES, "out of memory");
        goto out;
    }
    code = set_up_post(curl, proxy, fields, xml, count, &receiving);
    if (!code)
        code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &http_status);
    status = code ? post_failed(proxy, code, &receiving, details, error)
                  : check_status(proxy, http_status, error);
    if (!status && !receiving.answer.bytes)
        status = error_set(error, TRISTERO_BAD_ANSWER, "%s does not speak XML-RPC: it "
                           "answered with nothing", proxy->url);
out:
    curl_easy_cleanup(curl);
    curl_slist_free_all(fields);
    if (status)
        free(receiving.answer.bytes);
    else
        *answer = receiving.answer;
    return status;
}

/* --- connections */

/* What the environment says for something that is no HTTP. NULL: nothing. */
static const char *proxy_of_environment(void)
{
    static const char *const names[] = { "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY",
                                         "http_proxy" };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = getenv(names[i]);

        if (value && *value)
            return value;
    }
    return NULL;
}

/* By way of a proxy of the environment, it has to be said where there was no connection to. */
static enum tristero_status connect_failed(CURL *curl, CURLcode code, char *details,
                                           const char *what, bool is_direct,
                                           struct tristero_error *error)
{
    long err = 0;

    curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &err);
    switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
        return error_set(error, TRISTERO_TIMEOUT, "can't attach to %s: no connection in time", what);
    case CURLE_COULDNT_RESOLVE_HOST:
        return error_set(error, TRISTERO_UNREACHABLE, "can't attach to %s: there is no such host",
                         what);
    case CURLE_OUT_OF_MEMORY:
        return error_set(error, TRISTERO_NO_RESOURCES, "out of memory");
    default:
        break;
    }
    if (err == EMFILE || err == ENFILE || err == ENOBUFS || err == ENOMEM)
        return error_set_os(error, TRISTERO_NO_RESOURCES, (int)err, "can't attach to %s", what);
    if (code == CURLE_COULDNT_CONNECT && err && is_direct)
        return error_set_os(error, TRISTERO_UNREACHABLE, (int)err, "can't attach to %s", what);
    if (code == CURLE_COULDNT_CONNECT && err)
        return error_set_os(error, TRISTERO_UNREACHABLE, (int)err, "can't attach to %s: %s", what,
                            reason(code, details));
    return error_set(error, TRISTERO_UNREACHABLE, "can't attach to %s: %s", what,
                     reason(code, details));
}

/* The connection outlives the handle. */
static enum tristero_status take_socket(CURL *curl, const char *what, int *out,
                                        struct tristero_error *error)
{
    curl_socket_t active = CURL_SOCKET_BAD;
    int taken;

    curl_easy_getinfo(curl, CURLINFO_ACTIVESOCKET, &active);
    taken = fcntl(active, F_DUPFD_CLOEXEC, 3);
    if (taken < 0)
        return error_set_os(error, errno == EBADF ? TRISTERO_UNREACHABLE : TRISTERO_NO_RESOURCES,
                            errno, "can't attach to %s", what);
    *out = taken;
    return TRISTERO_OK;
}

enum tristero_status transport_connect(const struct tristero_proxy *proxy, const char *host,
                                       uint16_t port, const char *what, int *socket,
                                       struct tristero_error *error)
{
    const char *by_way_of = proxy_of_environment();
    char details[CURL_ERROR_SIZE];
    CURL *curl = curl_new(proxy, details);
    CURLcode code = CURLE_OK;
    enum tristero_status status;
    char url[320];

    if (!curl)
        return error_set(error, TRISTERO_NO_RESOURCES, "out of memory");
    if (by_way_of && strncasecmp(by_way_of, "https:", 6) == 0) {
        int scheme_length;
        const char *rest = after_login(by_way_of, &scheme_length);

        curl_easy_cleanup(curl);
        return error_set(error, TRISTERO_INVALID, "can't attach to %s by way of %.*s%.100s: "
                         "expected a proxy by http, socks4a, socks5 or socks5h", what, scheme_length,
                         by_way_of, rest);
    }
    snprintf(url, sizeof url, strchr(host, ':') ? "http://[%s]:%u/" : "http://%s:%u/", host, port);
    SET(curl, CURLOPT_URL, url);
    SET(curl, CURLOPT_CONNECT_ONLY, 1L);
    SET(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)proxy->attach_timeout_ms);
    SET(curl, CURLOPT_PROXY, by_way_of);
    SET(curl, CURLOPT_HTTPPROXYTUNNEL, 1L);
    if (!code)
        code = curl_easy_perform(curl);
    status = code ? connect_failed(curl, code, details, what, !by_way_of, error)
                  : take_socket(curl, what, socket, error);
    curl_easy_cleanup(curl);
    return status;
}
