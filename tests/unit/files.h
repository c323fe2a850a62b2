/* files: files that tests write, and what is said of them. A test whose file can't be
 * written is aborted. */
#ifndef TESTS_FILES_H
#define TESTS_FILES_H

#include "tests/unit/unit.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

void write_bytes(const char *path, const char *bytes, size_t count, mode_t mode);
void write_text(const char *path, const char *text, mode_t mode);

/* What main does where tests have a file, at path, which ends with XXXXXX: as unit_run. */
int unit_run_with_file(const char *subject, CU_TestInfo *tests, char *path);

/* Whether got is the format with the name in the place of each %s. If it is not, both go
 * to standard error. */
bool is_said_of(const char *name, const char *format, const char *got);

#endif
