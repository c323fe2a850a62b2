/* fake_proxy: a proxy that has one answer to everything, and clients of proxies. */
#ifndef UNIT_FAKE_PROXY_H
#define UNIT_FAKE_PROXY_H

#include "clients/tristero_tunnel.h"

#include <pthread.h>
#include <stdint.h>

enum { CALL_TIMEOUT_MS = 5000, ATTACH_TIMEOUT_MS = 5000 };

struct fake {
    int listener;
    uint16_t port;
    char url[64];
    const char *status;
    const char *body;
    char request[4096];                 /* the last one; to be read once stopped */
    pthread_t thread;
};

/* Answers with that HTTP status and body, or not at all if body is NULL. */
void fake_start(struct fake *fake, const char *status, const char *body);
void fake_stop(struct fake *fake);

/* The caller's to free. */
struct tristero_proxy *proxy_at(const char *url, int call_timeout_ms);

#endif
