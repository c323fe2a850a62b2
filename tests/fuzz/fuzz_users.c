/* The file of users: it is taken, or refused with an error that can be shown. */
#include "rpc/users.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

/* The name in the first line that has one. */
static void check_first_name(const struct users *users, const char *text, size_t length)
{
    const char *end = text + length;
    char name[USERS_NAME_BYTES];
    const char *colon;

    while (text < end && (*text == '#' || *text == '\n')) {
        const char *line_end = memchr(text, '\n', (size_t)(end - text));
        text = line_end ? line_end + 1 : end;
    }
    colon = memchr(text, ':', (size_t)(end - text));
    if (!colon || memchr(text, '\n', (size_t)(colon - text)) || strchr(" \t\r", *text))
        return;                         /* a line of blanks, which is passed over */
    assert((size_t)(colon - text) < sizeof name);
    memcpy(name, text, (size_t)(colon - text));
    name[colon - text] = '\0';
    assert(users_know(users, name));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static char error[USERS_ERROR_BYTES];
    struct users *users = NULL;
    int err;

    error[0] = '\0';
    err = users_read(file_with(bytes, length), &users, error);
    if (!was_taken(err, error, sizeof error))
        return 0;
    assert(users_count(users) > 0);
    check_first_name(users, (const char *)bytes, length);
    users_release(users);
    return 0;
}
