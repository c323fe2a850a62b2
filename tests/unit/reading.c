#include "tests/unit/reading.h"

#include "tests/unit/files.h"

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

int read_file(const char *text)
{
    write_text(config_path, text, 0600);
    return read_line("--config", config_path);
}

bool error_is(const char *expected)
{
    return is_said_of(expected, "%s", config_error);
}

bool file_error_is(const char *expected)
{
    char format[CONFIG_ERROR_BYTES];

    snprintf(format, sizeof format, "%%s%s", expected);
    return is_said_of(config_path, format, config_error);
}

int reading_run(const char *subject, CU_TestInfo *tests)
{
    return unit_run_with_file(subject, tests, config_path);
}
