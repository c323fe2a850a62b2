/* uri: the URIs that name the two ends of a tunnel, as in
 * tcp://proxy.example.org:8010, tcp://[2001:db8::1]:8011 and
 * ssh://t-abc@proxy.example.org:8022.
 *
 * Scheme, host and port are all there is, and in those of ssh a user, without a
 * password; an empty path or "/" is taken too, since URI libraries like to add
 * it. Scheme and host are kept in lower case.
 * Pure functions, no allocation; any thread. */
#ifndef RELAY_URI_H
#define RELAY_URI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    URI_SCHEME_BYTES = 16,              /* with the final NUL */
    URI_HOST_BYTES = 254,               /* the longest DNS name, and a NUL */
    URI_USER_BYTES = 64,                /* with the final NUL */
    URI_TEXT_BYTES = URI_SCHEME_BYTES + URI_USER_BYTES + URI_HOST_BYTES + 16
};

struct tunnel_uri {
    char scheme[URI_SCHEME_BYTES];
    char user[URI_USER_BYTES];          /* of an ssh tunnel, its token; filled up with NULs */
    char host[URI_HOST_BYTES];          /* an IPv6 address without its brackets */
    uint16_t port;                      /* never 0 */
};

/* Reads length bytes of text, which needs no NUL at its end. 0; or -EINVAL,
 * and then *expected is a static text that says what was wrong ("a port from
 * 1 to 65535"). expected may be NULL. */
int tunnel_uri_parse(const char *text, size_t length, struct tunnel_uri *uri,
                     const char **expected);

/* Writes the URI and a NUL; every valid URI fits. */
void tunnel_uri_format(const struct tunnel_uri *uri, char text[URI_TEXT_BYTES]);

/* Whether the two name the same end: scheme, user, host and port. Takes as long
 * whatever the users are, since who knows one may attach. */
bool tunnel_uri_equal(const struct tunnel_uri *a, const struct tunnel_uri *b);

/* Reads a host as it stands in a URI or in an HTTP Host field: a DNS name, an
 * IPv4 address, or an IPv6 address in brackets. host gets it in lower case,
 * without brackets. Returns how many bytes of the text the host takes (a port
 * may follow), or -EINVAL. */
int uri_host_parse(const char *text, size_t length, char host[URI_HOST_BYTES]);

#endif
