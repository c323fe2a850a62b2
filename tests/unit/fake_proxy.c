#include "tests/unit/fake_proxy.h"

#include "tests/unit/sockets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void fake_answer(struct fake *fake, int connection)
{
    char answer[2048];
    size_t used = 0;
    ssize_t got;

    while (used < sizeof fake->request - 1) {
        got = recv(connection, fake->request + used, sizeof fake->request - 1 - used, 0);
        if (got <= 0)
            break;
        used += (size_t)got;
        fake->request[used] = '\0';
        if (fake->body && strstr(fake->request, "</methodCall>")) {
            int length = snprintf(answer, sizeof answer, "HTTP/1.1 %s\r\nContent-Type: text/xml\r\n"
                                  "Content-Length: %zu\r\nConnection: close\r\n\r\n%s",
                                  fake->status, strlen(fake->body), fake->body);
            send(connection, answer, (size_t)length, MSG_NOSIGNAL);
            break;
        }
    }
}

static void *fake_thread(void *argument)
{
    struct fake *fake = argument;
    int connection;

    while ((connection = accept4(fake->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        set_timeouts(connection);
        fake_answer(fake, connection);
        close(connection);
    }
    return NULL;
}

void fake_start(struct fake *fake, const char *status, const char *body)
{
    *fake = (struct fake){ .status = status, .body = body };
    fake->listener = listen_on_loopback(&fake->port);
    snprintf(fake->url, sizeof fake->url, "http://127.0.0.1:%u/RPC2", fake->port);
    if (fake->listener < 0 || pthread_create(&fake->thread, NULL, fake_thread, fake))
        abort();
}

void fake_stop(struct fake *fake)
{
    shutdown(fake->listener, SHUT_RDWR);
    pthread_join(fake->thread, NULL);
    close(fake->listener);
}

struct tristero_proxy *proxy_at(const char *url, int call_timeout_ms)
{
    struct tristero_options options = { .call_timeout_ms = call_timeout_ms,
                                        .attach_timeout_ms = ATTACH_TIMEOUT_MS };
    struct tristero_proxy *proxy;

    if (tristero_proxy_new(url, &options, &proxy, NULL))
        abort();
    return proxy;
}
