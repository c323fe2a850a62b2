/* The configuration file: it is taken, and then every value is within its
 * bounds, or refused with an error that can be shown. */
#include "server/config.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <string.h>

static int read_config(const char *path, struct config *config, char error[CONFIG_ERROR_BYTES])
{
    char *argv[] = { "tristero-tunneld", "--config", (char *)path, NULL };
    enum config_wish wish;
    int err;

    error[0] = '\0';
    err = config_read(3, argv, config, &wish, error);
    assert(wish == CONFIG_SERVE);
    return err;
}

static void check_config(const struct config *config)
{
    const struct relay_settings *relay = &config->relay;
    char host[URI_HOST_BYTES];

    assert(relay->port_low >= 1 && relay->port_low < relay->port_high);
    assert(relay->max_tunnels >= 1 && config_tunnels_at_once(config) >= 1);
    assert(relay->attach_timeout_ms >= 1000 && relay->linger_ms >= 1000);
    assert(relay->idle_timeout_ms >= 0 && config->drain_ms >= 0);
    assert(config->log_level >= LOG_ERROR && config->log_level <= LOG_DEBUG);
    assert(net_address_port(&relay->listen) == 0);
    if (config->host[0] && !strchr(config->host, ':'))
        assert(uri_host_parse(config->host, strlen(config->host), host) ==
               (int)strlen(config->host));
    /* Nobody serves the world without having said so. */
    assert(config->users[0] || config->open_to_all || net_address_is_loopback(&config->listen));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static struct config config, again;
    static char error[CONFIG_ERROR_BYTES];
    const char *path = file_with(bytes, length);
    int err = read_config(path, &config, error);

    assert(err == 0 || err == -EINVAL);
    if (!was_taken(err, error, sizeof error))
        return 0;
    check_config(&config);
    assert(read_config(path, &again, error) == 0);
    assert(config_fixed_difference(&config, &again) == NULL);
    return 0;
}
