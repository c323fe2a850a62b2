#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

bool text_is_printable(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (text[i] < ' ' || text[i] > '~')
            return false;
    return true;
}

const char *file_with(const uint8_t *bytes, size_t length)
{
    static char path[40];
    static int file = -1;

    if (file < 0) {
        file = memfd_create("input", MFD_CLOEXEC);
        assert(file >= 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    }
    assert(ftruncate(file, 0) == 0);
    assert(pwrite(file, bytes, length, 0) == (ssize_t)length);
    return path;
}

bool was_taken(int err, const char *error, size_t room)
{
    size_t length = strnlen(error, room);

    assert(length < room);
    assert((err != 0) == (length > 0));
    assert(text_is_printable(error, length));
    assert(err == 0 || err == -EINVAL || err == -EILSEQ);
    return err == 0;
}
