/* URIs, and the hosts in them: what is taken can be written and read back. */
#include "relay/uri.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <string.h>

static void check_uri(const char *text, size_t length)
{
    char written[URI_TEXT_BYTES], again[URI_TEXT_BYTES];
    const char *expected = NULL;
    struct tunnel_uri uri, read_back;

    if (tunnel_uri_parse(text, length, &uri, &expected) < 0) {
        assert(expected && text_is_printable(expected, strlen(expected)));
        return;
    }
    assert(uri.port != 0);
    tunnel_uri_format(&uri, written);
    assert(text_is_printable(written, strlen(written)));
    assert(tunnel_uri_parse(written, strlen(written), &read_back, NULL) == 0);
    assert(tunnel_uri_equal(&uri, &read_back));
    tunnel_uri_format(&read_back, again);
    assert(strcmp(written, again) == 0);
}

static void check_host(const char *text, size_t length)
{
    char host[URI_HOST_BYTES], read_back[URI_HOST_BYTES];
    char written[URI_HOST_BYTES + 2];
    int taken = uri_host_parse(text, length, host);
    bool is_ip6;

    if (taken < 0)
        return;
    assert(taken > 0 && (size_t)taken <= length);
    is_ip6 = strchr(host, ':') != NULL;
    snprintf(written, sizeof written, is_ip6 ? "[%s]" : "%s", host);
    assert(strlen(written) == (size_t)taken);
    assert(uri_host_parse(written, strlen(written), read_back) == taken);
    assert(strcmp(host, read_back) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    check_uri((const char *)bytes, length);
    check_host((const char *)bytes, length);
    return 0;
}
