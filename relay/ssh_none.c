/* For a build without libssh: there is no ssh front. */
#include "relay/ssh_service.h"

#include <errno.h>
#include <stdio.h>

static int refuse(char error[SSH_SERVICE_ERROR_BYTES])
{
    snprintf(error, SSH_SERVICE_ERROR_BYTES,
             "can't serve ssh: this tristero-tunneld was built without it");
    return -ENOTSUP;
}

int ssh_service_read_keys(const char *path, struct authorized_keys **keys,
                          char error[SSH_SERVICE_ERROR_BYTES])
{
    *keys = NULL;
    return *path ? refuse(error) : 0;
}

void ssh_service_free_keys(struct authorized_keys *keys)
{
    (void)keys;
}

int ssh_service_start(const struct ssh_settings *settings, struct relay *relay,
                      struct ssh_service **service, char error[SSH_SERVICE_ERROR_BYTES])
{
    (void)settings;
    (void)relay;
    (void)service;
    return refuse(error);
}

void ssh_service_change(struct ssh_service *service, const struct ssh_limits *limits,
                        struct authorized_keys *keys)
{
    (void)service;
    (void)limits;
    (void)keys;
}

void ssh_service_drain(struct ssh_service *service)
{
    (void)service;
}

void ssh_service_stop(struct ssh_service *service)
{
    (void)service;
}
