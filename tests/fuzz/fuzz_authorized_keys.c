/* The file of keys: it is taken, or refused with an error that can be shown; and who
 * is in it is let in, nobody else. */
#include "relay/ssh_authorized.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The key of the first line with one, where that has no options; else NULL. */
static ssh_key find_first_key(const char *text)
{
    char type[60], base64[4000];
    ssh_key key = NULL;

    while (text && (*text == '#' || *text == '\n')) {
        text = strchr(text, '\n');
        text = text ? text + 1 : NULL;
    }
    if (text && (*text == 'e' || *text == 's') &&
        sscanf(text, "%59[a-z0-9@.-] %3999[^ \t\r\n]", type, base64) == 2)
        ssh_pki_import_pubkey_base64(base64, ssh_key_type_from_name(type), &key);
    return key;
}

static void check_who_is_let_in(const struct authorized_keys *keys, const uint8_t *bytes,
                                size_t length)
{
    static ssh_key stranger;
    char *text = strndup((const char *)bytes, length);
    ssh_key first = text ? find_first_key(text) : NULL;

    if (!stranger)
        assert(ssh_pki_generate(SSH_KEYTYPE_ED25519, 0, &stranger) == SSH_OK);
    assert(!authorized_keys_allow(keys, stranger));
    assert(!first || authorized_keys_allow(keys, first));
    ssh_key_free(first);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static char error[SSH_KEYS_ERROR_BYTES];
    struct authorized_keys *keys = NULL;
    const char *path = file_with(bytes, length);
    int err;

    error[0] = '\0';
    assert(chmod(path, 0600) == 0);     /* as it is made, others may write to it */
    err = authorized_keys_read(path, &keys, error);
    if (!was_taken(err, error, sizeof error))
        return 0;
    check_who_is_let_in(keys, bytes, length);
    authorized_keys_release(keys);
    return 0;
}
