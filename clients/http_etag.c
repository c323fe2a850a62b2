#include "clients/http_etag.h"

#include <sodium.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static const char WEAK[] = "W/";

void http_etag_format(const struct stat *about, const struct timespec *now,
                      char etag[HTTP_ETAG_BYTES])
{
    const int64_t known[] = {
        (int64_t)about->st_dev, (int64_t)about->st_ino, about->st_size,
        about->st_mtim.tv_sec, about->st_mtim.tv_nsec,
        about->st_ctim.tv_sec, about->st_ctim.tv_nsec,
    };
    bool may_change_unseen = now->tv_sec <= about->st_ctim.tv_sec + 1;
    unsigned char hash[crypto_generichash_BYTES_MIN];
    char text[2 * sizeof hash + 1];

    /* what is known is nobody's business */
    crypto_generichash(hash, sizeof hash, (const unsigned char *)known, sizeof known, NULL, 0);
    sodium_bin2hex(text, sizeof text, hash, sizeof hash);
    snprintf(etag, HTTP_ETAG_BYTES, "%s\"%s\"", may_change_unseen ? WEAK : "", text);
}

static bool is_weak(const char *tag)
{
    return !strncmp(tag, WEAK, strlen(WEAK));
}

static const char *without_weak(const char *tag)
{
    return is_weak(tag) ? tag + strlen(WEAK) : tag;
}

/* Where the tag ends that text begins with; NULL if it does not. */
static const char *end_of_tag(const char *text)
{
    const char *quote = without_weak(text);
    const char *end = *quote == '"' ? strchr(quote + 1, '"') : NULL;

    return end ? end + 1 : NULL;
}

static bool is_same(const char *tag, size_t length, const char *etag, bool strongly)
{
    const char *opaque = without_weak(tag);

    if (strongly && (is_weak(tag) || is_weak(etag)))
        return false;
    length -= (size_t)(opaque - tag);
    etag = without_weak(etag);
    return length == strlen(etag) && !memcmp(opaque, etag, length);
}

bool http_etag_is_in(const char *field, const char *etag, bool strongly)
{
    static const char between[] = ", \t";
    const char *at = field + strspn(field, between);
    const char *end;

    if (!strcmp(field, "*"))
        return true;
    for (; (end = end_of_tag(at)); at = end + strspn(end, between)) {
        if (is_same(at, (size_t)(end - at), etag, strongly))
            return true;
    }
    return false;
}
