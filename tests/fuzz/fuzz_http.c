/* A connection to the proxy, from the bytes that a caller sends to those that it
 * gets: listener, guard, gate, worker and the call behind them. */
#include "relay/waker.h"
#include "rpc/http_guard.h"
#include "rpc/rpc_server.h"
#include "tests/fuzz/answer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/sockets.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { ANSWER_BYTES = 1024 * 1024, EMPTY_WITHIN_MS = 60000 };

static struct relay *relay;
static struct rpc_server *server;
static uint16_t port;

/* libFuzzer's watch over time would interrupt connect and recv, which have
 * time-outs of their own. */
static void block_alarm(void)
{
    sigset_t alarm;

    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    assert(pthread_sigmask(SIG_BLOCK, &alarm, NULL) == 0);
}

/* With all its threads, for ThreadSanitizer to see that none is left. */
static void stop(void)
{
    rpc_server_stop(server);
    relay_end_all(relay);
    relay_free(relay);
}

/* Tunnels go by themselves, at once. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct relay_settings settings = { .max_tunnels = 4, .attach_timeout_ms = 1 };
    struct rpc_settings rpc = {
        .limits.listener = { .connections = 512, .request_timeout_ms = 10000,
                             .request_bytes = HTTP_BODY_BYTES },
    };
    struct net_address address;

    (void)argc, (void)argv;
    block_alarm();
    assert(waker_set_up_process() == 0);
    settings.port_low = free_ports(4);
    settings.port_high = (uint16_t)(settings.port_low + 3);
    assert(net_address_parse("127.0.0.1", 0, &settings.listen) == 0);
    assert(relay_new(&settings, &relay) == 0);
    rpc.listen = settings.listen;
    assert(rpc_server_start(&rpc, relay, &server, &address) == 0);
    port = net_address_port(&address);
    return atexit(stop);
}

/* From one address after the other: a connection that the caller ends first
 * leaves its port unused for a minute, and there are not enough for that. */
static int connect_as_another(void)
{
    static unsigned count;
    char from[16];
    int socket;

    snprintf(from, sizeof from, "127.0.0.%u", 1 + count++ % 250);
    socket = connect_from(from, port);
    assert(socket >= 0);
    return socket;
}

/* What comes back, with a NUL after it. */
static size_t talk(const char *bytes, size_t length, bool is_cut, char *answer)
{
    int socket = connect_as_another();
    long received;

    set_timeouts(socket);
    assert(send(socket, bytes, length, MSG_NOSIGNAL) == (ssize_t)length);
    if (is_cut)
        shutdown(socket, SHUT_WR);
    received = read_all(socket, answer, ANSWER_BYTES - 1);
    assert(received >= 0 && received < ANSWER_BYTES - 1);
    answer[received] = '\0';
    reset(socket);
    return (size_t)received;
}

static int status_of(const char *answer)
{
    int status;

    assert(sscanf(answer, "HTTP/1.1 %d ", &status) == 1);
    return status;
}

/* Where the body begins, which has just as many bytes as the header says. */
static const char *body_of(const char *answer, size_t length)
{
    const char *field = strcasestr(answer, "\r\nContent-Length: ");
    const char *end = strstr(answer, "\r\n\r\n");

    assert(field && end && field < end);
    end += 4;
    assert(strtoul(field + 18, NULL, 10) == length - (size_t)(end - answer));
    return end;
}

static void check_answer(const char *answer, size_t length, enum http_verdict verdict,
                         const struct http_request *request)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    const char *body;

    if (verdict == HTTP_INCOMPLETE && strncmp(answer, go_on, sizeof go_on - 1) == 0) {
        answer += sizeof go_on - 1;
        length -= sizeof go_on - 1;
    }
    body = body_of(answer, length);
    if (verdict == HTTP_INCOMPLETE) {
        assert(status_of(answer) == 400);
    } else if (verdict == HTTP_REFUSED) {
        assert(status_of(answer) == request->status);
    } else {
        assert(status_of(answer) == 200);
        answer_check(body, length - (size_t)(body - answer));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static char answer[ANSWER_BYTES];
    struct http_request request;
    enum http_verdict verdict = http_guard_look((const char *)bytes, length, HTTP_BODY_BYTES,
                                                &request);
    size_t answered;

    if (length == 0)
        return 0;
    answered = talk((const char *)bytes, length, verdict == HTTP_INCOMPLETE, answer);
    check_answer(answer, answered, verdict, &request);
    assert(relay_wait_until_empty(relay, EMPTY_WITHIN_MS) == 0);
    return 0;
}
