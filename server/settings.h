/* settings: the one table of what can be set. Each row is an option of the
 * command line, a key of the configuration file and a line of --help. */
#ifndef SERVER_SETTINGS_H
#define SERVER_SETTINGS_H

#include "server/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SETTINGS_COUNT = 34 };

struct setting {
    const char *name;                   /* "ports": --ports and the key ports */
    const char *argument;               /* "LO-HI" */
    const char *implied;                /* the value when the option has none; NULL: it needs one */
    const char *initial;                /* the default as it would be typed; NULL: not set */
    const char *otherwise;              /* what holds while it is not set, for --help */
    const char *meaning;
    const char *expected;               /* what a good value is; NULL: a number, see next */
    int64_t lowest, highest;            /* of a number */
    size_t milliseconds_at;             /* where in struct config a number of seconds goes */
    size_t number_at;                   /* where an int64_t goes */
    size_t count_at;                    /* where a size_t goes */
    size_t switch_at;                   /* where in struct config a yes or no goes */
    size_t path_at;                     /* where CONFIG_PATH_BYTES for a file's name are */
    int (*set)(const struct setting *setting, const char *value, struct config *config);
    /* NULL for what reading again may change; else whether it is the same in both. */
    bool (*is_same)(const struct config *a, const struct config *b);
};

extern const struct setting settings[SETTINGS_COUNT];

/* NULL: there is none of this name. */
const struct setting *settings_find(const char *name);

/* Puts value into config: 0, or -EINVAL, config being as it was. */
int settings_apply(const struct setting *setting, const char *value, struct config *config);

/* Writes the error for a value that settings_apply did not take: where it was
 * found ("--ports"), what it is, and what was expected. */
void settings_explain(const struct setting *setting, const char *where, const char *value,
                      char error[CONFIG_ERROR_BYTES]);

#endif
