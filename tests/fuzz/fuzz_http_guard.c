/* The guard of HTTP requests: the verdict does not depend on how the bytes came
 * in, and what is let through is what was looked at. */
#include "rpc/http_guard.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

enum { CUTS = 128 };                    /* every one of a small request */

/* Of an input; what is looked at ends where it does, for AddressSanitizer to see
 * whoever reads on. */
static char *room;
static size_t room_bytes;

static enum http_verdict look(const char *bytes, size_t length, struct http_request *request)
{
    char *copy = room + room_bytes - length;

    memcpy(copy, bytes, length);
    memset(request, 0xff, sizeof *request);
    return http_guard_look(copy, length, HTTP_BODY_BYTES, request);
}

static bool fields_are_equal(const struct http_request *a, const struct http_request *b)
{
    return a->bytes == b->bytes && a->status == b->status &&
           a->expects_continue == b->expects_continue &&
           a->has_credentials == b->has_credentials &&
           memcmp(&a->credentials, &b->credentials, sizeof a->credentials) == 0 &&
           strcmp(a->host, b->host) == 0 && strcmp(a->reason, b->reason) == 0;
}

static void check_refusal(const struct http_request *request)
{
    struct http_refusal refusal = { .status = request->status, .reason = request->reason };
    char answer[HTTP_REFUSAL_BYTES];
    size_t written = http_refusal_write(&refusal, answer);

    assert(request->status >= 400 && request->status <= 599);
    assert(request->reason[0] && text_is_printable(request->reason, strlen(request->reason)));
    assert(written < sizeof answer && strlen(answer) == written);
    assert(!strstr(answer, " Error\r\n"));      /* every status has its text */
}

static void check_complete(const char *bytes, size_t length, const struct http_request *whole)
{
    struct http_request request;
    char host[URI_HOST_BYTES];

    assert(whole->bytes > 0 && whole->bytes <= length && whole->bytes <= HTTP_REQUEST_BYTES);
    assert(look(bytes, whole->bytes, &request) == HTTP_COMPLETE);
    assert(fields_are_equal(&request, whole));
    assert(look(bytes, whole->bytes - 1, &request) == HTTP_INCOMPLETE);
    assert(strnlen(whole->credentials.name, USERS_NAME_BYTES) < USERS_NAME_BYTES);
    assert(strnlen(whole->credentials.password, USERS_PASSWORD_BYTES) < USERS_PASSWORD_BYTES);
    if (whole->host[0] && !strchr(whole->host, ':'))
        assert(uri_host_parse(whole->host, strlen(whole->host), host) ==
               (int)strlen(whole->host));
}

/* Once a cut is no longer incomplete, whatever follows changes nothing. */
static void check_cut(const char *bytes, size_t cut, const struct http_request *whole,
                      enum http_verdict verdict)
{
    struct http_request request;
    enum http_verdict cut_verdict = look(bytes, cut, &request);

    if (cut_verdict != HTTP_INCOMPLETE)
        assert(cut_verdict == verdict && fields_are_equal(&request, whole));
    else if (request.bytes)
        assert(verdict != HTTP_REFUSED && fields_are_equal(&request, whole));
}

static void check(const char *bytes, size_t length)
{
    struct http_request request;
    enum http_verdict verdict = look(bytes, length, &request);

    if (verdict == HTTP_REFUSED)
        check_refusal(&request);
    else
        assert(request.status == 0 && request.reason[0] == '\0');
    if (verdict == HTTP_COMPLETE)
        check_complete(bytes, length, &request);
    for (size_t cut = 0; cut < length; cut += 1 + length / CUTS)
        check_cut(bytes, cut, &request, verdict);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    room = malloc(length ? length : 1);
    assert(room);
    room_bytes = length;
    check((const char *)bytes, length);
    free(room);
    return 0;
}
