/* reading: what the daemon makes of a command line and of a file, for the tests. */
#ifndef TESTS_READING_H
#define TESTS_READING_H

#include "server/config.h"
#include "tests/unit/unit.h"

#include <stdbool.h>
#include <stddef.h>

/* What was read last, or why it was refused. */
extern struct config config;
extern enum config_wish wish;
extern char config_error[CONFIG_ERROR_BYTES];

extern char config_path[];                     /* of the file */

/* Reads a command line, of which these follow the program's name, the last NULL. */
int read_words(char **words);
#define read_line(...) read_words((char *[]){ __VA_ARGS__ __VA_OPT__(,) NULL })

/* Writes it and has it read. */
int read_file(const char *text);

/* What it is instead goes to standard error. */
bool error_is(const char *expected);

/* expected is what follows the name of the file. */
bool file_error_is(const char *expected);

/* What main does, with a file at config_path. */
int reading_run(const char *subject, CU_TestInfo *tests);

#endif
