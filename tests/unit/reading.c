#include "tests/unit/reading.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WORDS_MAX = 32 };

struct config config;
enum config_wish wish;
char config_error[CONFIG_ERROR_BYTES];
char config_path[] = "/tmp/test_config_XXXXXX";

int read_words(char **words)
{
    char *argv[WORDS_MAX] = { "tristero-tunneld" };
    int argc = 1;

    while (words[argc - 1]) {
        argv[argc] = words[argc - 1];
        argc++;
    }
    memset(&config, 0xff, sizeof config);
    strcpy(config_error, "");
    return config_read(argc, argv, &config, &wish, config_error);
}

void write_file(const char *text, size_t length)
{
    FILE *file = fopen(config_path, "w");

    if (!file || fwrite(text, 1, length, file) != length || fclose(file))
        abort();
}

int read_file(const char *text)
{
    write_file(text, strlen(text));
    return read_line("--config", config_path);
}

bool error_is(const char *expected)
{
    if (!strcmp(config_error, expected))
        return true;
    fprintf(stderr, "\ngot:      %s\nexpected: %s\n", config_error, expected);
    return false;
}

bool file_error_is(const char *expected)
{
    char whole[CONFIG_ERROR_BYTES];

    snprintf(whole, sizeof whole, "%s%s", config_path, expected);
    return error_is(whole);
}

int reading_run(const char *subject, CU_TestInfo *tests)
{
    int descriptor = mkstemp(config_path);
    int status;

    if (descriptor < 0)
        return EXIT_FAILURE;
    close(descriptor);
    status = unit_run(subject, tests);
    unlink(config_path);
    return status;
}
