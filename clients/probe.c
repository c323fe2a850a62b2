/* Asking a service whether it speaks HTTP, plainly or by TLS. */
#include "clients/target.h"

#include "clients/curl_set.h"
#include "relay/waker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    PROBE_MS = 3000,                    /* also what compiles its first page */
    TLS_ALERT = 0x15                    /* the first byte of one */
};

static const char QUESTION[] = "HEAD / HTTP/1.0\r\n\r\n";
static const char HTTP_BAD_REQUEST[] = "HTTP/1.1 400";

/* How it begins to answer a question by plain HTTP. */
struct plain_answer {
    char bytes[sizeof HTTP_BAD_REQUEST];    /* the first, and a NUL */
    size_t count;
    bool has_ended;                     /* before there were as many */
};

static struct plain_answer ask_plainly(int connection)
{
    struct plain_answer answer = { 0 };
    int64_t deadline_ms = clock_ms() + PROBE_MS;

    if (send(connection, QUESTION, strlen(QUESTION), MSG_NOSIGNAL) < 0)
        answer.has_ended = true;
    while (!answer.has_ended && answer.count < sizeof answer.bytes - 1) {
        struct pollfd polled = { .fd = connection, .events = POLLIN };
        ssize_t got;

        if (waker_poll(NULL, &polled, 1, deadline_ms) <= 0)
            break;
        got = recv(connection, answer.bytes + answer.count, sizeof answer.bytes - 1 - answer.count,
                   0);
        if (got > 0)
            answer.count += (size_t)got;
        else
            answer.has_ended = got == 0 || errno != EAGAIN;
    }
    return answer;
}

/* One that speaks first has said something else. */
static bool is_http(const struct plain_answer *answer)
{
    return strncmp(answer->bytes, HTTP_BAD_REQUEST, strlen("HTTP/")) == 0;
}

/* What servers do that expect TLS: those of HTTP say so by a bad request, others send an
 * alert, or close. */
static bool may_expect_tls(const struct plain_answer *answer)
{
    if (is_http(answer))
        return strstr(answer->bytes, " 400") != NULL;
    return answer->bytes[0] == TLS_ALERT || (answer->has_ended && !answer->count);
}

/* Who is there does not matter, so that any certificate will do. */
static bool answers_by_tls(const struct target *target)
{
    bool is_local = target->kind == TARGET_SOCKET;
    char url[TARGET_TEXT_BYTES + 16];
    CURL *curl = curl_easy_init();
    CURLcode code = CURLE_OK;
    long status = 0;

    if (!curl)
        return false;
    snprintf(url, sizeof url, "https://%s/", is_local ? "localhost" : target->text);
    SET(curl, CURLOPT_URL, url);
    if (is_local)
        SET(curl, CURLOPT_UNIX_SOCKET_PATH, target->addresses[0].local.sun_path);
    SET(curl, CURLOPT_PROTOCOLS_STR, "https");
    SET(curl, CURLOPT_PROXY, "");
    SET(curl, CURLOPT_NOBODY, 1L);
    SET(curl, CURLOPT_SSL_VERIFYPEER, 0L);
    SET(curl, CURLOPT_SSL_VERIFYHOST, 0L);
    SET(curl, CURLOPT_TIMEOUT_MS, (long)PROBE_MS);
    SET(curl, CURLOPT_NOSIGNAL, 1L);
    if (!code)
        code = curl_easy_perform(curl);
    if (!code)
        code = curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(curl);
    return !code && status > 0;
}

static void try_first(struct target *target, unsigned which)
{
    struct net_address first = target->addresses[which].net;

    target->addresses[which].net = target->addresses[0].net;
    target->addresses[0].net = first;
}

const char *target_probe_scheme(struct target *target)
{
    struct plain_answer answer;
    unsigned which = 0;
    int connection;

    if (target->kind == TARGET_FOLDER)
        return "http";
    connection = target_connect_in_time(target, PROBE_MS, &which);
    if (connection < 0)
        return NULL;
    answer = ask_plainly(connection);
    close(connection);
    if (which)
        try_first(target, which);
    if (may_expect_tls(&answer) && answers_by_tls(target))
        return "https";
    return is_http(&answer) ? "http" : NULL;
}
