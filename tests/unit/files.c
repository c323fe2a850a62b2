#include "tests/unit/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SAID_BYTES = 2000 };

void write_bytes(const char *path, const char *bytes, size_t count, mode_t mode)
{
    FILE *file = fopen(path, "w");

    if (!file || fwrite(bytes, 1, count, file) != count || fclose(file) || chmod(path, mode))
        abort();
}

void write_text(const char *path, const char *text, mode_t mode)
{
    write_bytes(path, text, strlen(text), mode);
}

int unit_run_with_file(const char *subject, CU_TestInfo *tests, char *path)
{
    int descriptor = mkstemp(path);
    int status;

    if (descriptor < 0)
        return EXIT_FAILURE;
    close(descriptor);
    status = unit_run(subject, tests);
    unlink(path);
    return status;
}

bool is_said_of(const char *name, const char *format, const char *got)
{
    char whole[SAID_BYTES];
    size_t used = 0;

    for (const char *at; (at = strstr(format, "%s")); format = at + 2)
        used += (size_t)snprintf(whole + used, sizeof whole - used, "%.*s%s", (int)(at - format),
                                 format, name);
    snprintf(whole + used, sizeof whole - used, "%s", format);
    if (!strcmp(got, whole))
        return true;
    fprintf(stderr, "\ngot:      %s\nexpected: %s\n", got, whole);
    return false;
}
