/* tristero-tunnel hostkey: the key by which ssh knows the proxy. */
#include "clients/command.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_BYTES_MAX = 1024, FINGERPRINT_BYTES = 64 };

/* As ssh-keygen -l shows it: SHA-256 of the key, in base 64 without padding. */
static bool fingerprint_of(const char *base64, char fingerprint[FINGERPRINT_BYTES])
{
    unsigned char hash[crypto_hash_sha256_BYTES];
    unsigned char key[KEY_BYTES_MAX];
    const char *end;
    size_t length;

    if (sodium_base642bin(key, sizeof key, base64, strlen(base64), NULL, &length, &end,
                          sodium_base64_VARIANT_ORIGINAL) < 0 || *end)
        return false;
    crypto_hash_sha256(hash, key, length);
    sodium_bin2base64(fingerprint, FINGERPRINT_BYTES, hash, sizeof hash,
                      sodium_base64_VARIANT_ORIGINAL_NO_PADDING);
    return true;
}

int hostkey_command(struct tristero_proxy *proxy, const struct arguments *arguments)
{
    char fingerprint[FINGERPRINT_BYTES];
    struct tristero_error error;
    int status = STATUS_FAILED;
    char *line = NULL;

    (void)arguments;
    if (tristero_host_key(proxy, &line, &error))
        complain("%s", error.text);
    else if (!fingerprint_of(strrchr(line, ' ') + 1, fingerprint))
        complain("the proxy's key is not in base 64: %.200s", line);
    else
        status = print_line("# SHA256:%s\n%s", fingerprint, line);
    free(line);
    return status;
}
