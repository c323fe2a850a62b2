#include "relay/uri.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static void copy_lower(char *out, const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        out[i] = lower(text[i]);
    out[length] = '\0';
}

/* "[...]": inet_pton judges what is inside. */
static int ip6_host_parse(const char *text, size_t length, char host[URI_HOST_BYTES])
{
    const char *close = memchr(text, ']', length);
    struct in6_addr address;
    size_t inside;

    if (!close)
        return -EINVAL;
    inside = (size_t)(close - text) - 1;
    if (inside == 0 || inside >= INET6_ADDRSTRLEN)
        return -EINVAL;
    copy_lower(host, text + 1, inside);
    if (memchr(host, '\0', inside) || inet_pton(AF_INET6, host, &address) != 1)
        return -EINVAL;
    return (int)inside + 2;
}

int uri_host_parse(const char *text, size_t length, char host[URI_HOST_BYTES])
{
    size_t bytes = 0;

    if (length && text[0] == '[')
        return ip6_host_parse(text, length, host);
    while (bytes < length && (is_letter(text[bytes]) || is_digit(text[bytes]) ||
                              text[bytes] == '-' || text[bytes] == '.' || text[bytes] == '_'))
        bytes++;
    if (bytes == 0 || bytes >= URI_HOST_BYTES || text[0] == '.' || text[0] == '-')
        return -EINVAL;
    copy_lower(host, text, bytes);
    return (int)bytes;
}

static int scheme_parse(const char *text, size_t length, char scheme[URI_SCHEME_BYTES])
{
    size_t bytes = 0;

    while (bytes < length && (is_letter(text[bytes]) || (bytes && is_digit(text[bytes]))))
        bytes++;
    if (bytes == 0 || bytes >= URI_SCHEME_BYTES)
        return -EINVAL;
    copy_lower(scheme, text, bytes);
    return (int)bytes;
}

/* "user@": how many bytes it takes, or -EINVAL. */
static int user_parse(const char *text, size_t length, char user[URI_USER_BYTES])
{
    size_t bytes = 0;

    while (bytes < length && (is_letter(text[bytes]) || is_digit(text[bytes]) ||
                              (bytes && strchr("-._~", text[bytes]) && text[bytes])))
        bytes++;
    if (bytes == 0 || bytes >= URI_USER_BYTES || bytes == length || text[bytes] != '@')
        return -EINVAL;
    memcpy(user, text, bytes);
    user[bytes] = '\0';
    return (int)bytes + 1;
}

static int port_parse(const char *text, size_t length, uint16_t *port)
{
    unsigned value = 0;
    size_t bytes = 0;

    while (bytes < length && bytes < 5 && is_digit(text[bytes]))
        value = value * 10 + (unsigned)(text[bytes++] - '0');
    if (bytes == 0 || value == 0 || value > UINT16_MAX || text[0] == '0')
        return -EINVAL;
    *port = (uint16_t)value;
    return (int)bytes;
}

static int fail(const char **expected, const char *what)
{
    if (expected)
        *expected = what;
    return -EINVAL;
}

int tunnel_uri_parse(const char *text, size_t length, struct tunnel_uri *uri,
                     const char **expected)
{
    const char *end = text + length;
    int bytes;

    memset(uri, 0, sizeof *uri);
    bytes = scheme_parse(text, (size_t)(end - text), uri->scheme);
    if (bytes < 0)
        return fail(expected, "a scheme such as tcp at its start");
    text += bytes;
    if (end - text < 3 || memcmp(text, "://", 3) != 0)
        return fail(expected, "\"://\" after the scheme");
    text += 3;
    if (strcmp(uri->scheme, "ssh") == 0 && memchr(text, '@', (size_t)(end - text))) {
        bytes = user_parse(text, (size_t)(end - text), uri->user);
        if (bytes < 0)
            return fail(expected, "a user of letters and digits between \"://\" and \"@\"");
        text += bytes;
    }
    bytes = uri_host_parse(text, (size_t)(end - text), uri->host);
    if (bytes < 0)
        return fail(expected, "a host name, an IPv4 address or an [IPv6 address] after \"://\"");
    text += bytes;
    if (text == end || *text != ':')
        return fail(expected, "\":\" and a port after the host");
    text++;
    bytes = port_parse(text, (size_t)(end - text), &uri->port);
    if (bytes < 0)
        return fail(expected, "a port from 1 to 65535");
    text += bytes;
    if (text != end && !(end - text == 1 && *text == '/'))
        return fail(expected, "nothing after the port");
    return 0;
}

void tunnel_uri_format(const struct tunnel_uri *uri, char text[URI_TEXT_BYTES])
{
    bool is_ip6 = strchr(uri->host, ':') != NULL;

    snprintf(text, URI_TEXT_BYTES, "%s://%s%s%s%s%s:%u", uri->scheme, uri->user,
             *uri->user ? "@" : "", is_ip6 ? "[" : "", uri->host, is_ip6 ? "]" : "", uri->port);
}

/* Both are filled up with NULs. */
static bool is_same_user(const char a[URI_USER_BYTES], const char b[URI_USER_BYTES])
{
    unsigned char differences = 0;

    for (size_t i = 0; i < URI_USER_BYTES; i++)
        differences |= (unsigned char)(a[i] ^ b[i]);
    return !differences;
}

bool tunnel_uri_equal(const struct tunnel_uri *a, const struct tunnel_uri *b)
{
    return a->port == b->port && strcmp(a->scheme, b->scheme) == 0 &&
           strcmp(a->host, b->host) == 0 && is_same_user(a->user, b->user);
}
