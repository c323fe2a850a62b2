#include "server/config_file.h"

#include "relay/ini_file.h"
#include "relay/settings_file.h"
#include "server/settings.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    KEY_SHOWN_BYTES = 60,               /* of a wrong key, in its error */
    PATH_SHOWN_BYTES = 400,
    WHERE_BYTES = PATH_SHOWN_BYTES + KEY_SHOWN_BYTES + 40
};

struct config_file {
    char path[PATH_SHOWN_BYTES];        /* as errors show it */
    struct config *config;
    char *error;
};

__attribute__((format(printf, 3, 4)))
static void complain(struct config_file *file, int line, const char *format, ...)
{
    int used = snprintf(file->error, CONFIG_ERROR_BYTES, "%s:%d: ", file->path, line);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(file->error + used, CONFIG_ERROR_BYTES - (size_t)used, format, arguments);
    va_end(arguments);
}

static void complain_of_line(void *argument, int line, const char *what)
{
    complain(argument, line, "%s", what);
}

static void complain_of_key(struct config_file *file, int line, const char *key)
{
    char names[CONFIG_ERROR_BYTES / 2] = "";
    size_t used = 0;

    for (size_t i = 0; i < SETTINGS_COUNT && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                                 settings[i].name);
    complain(file, line, "got the key \"%s\", expected one of %s", key, names);
}

static int take_value(struct config_file *file, int line, const struct setting *setting,
                      const char *value)
{
    char where[WHERE_BYTES];

    if (!settings_apply(setting, value, file->config))
        return 0;
    snprintf(where, sizeof where, "%s:%d: key \"%s\"", file->path, line, setting->name);
    settings_explain(setting, where, value, file->error);
    return -1;
}

static int take_pair(void *argument, int line, const char *section, const char *name,
                     const char *value)
{
    struct config_file *file = argument;
    const struct setting *setting = settings_find(name);
    char key[KEY_SHOWN_BYTES];

    if (setting && !*section)
        return take_value(file, line, setting, value);
    text_printable(name, strlen(name), key, sizeof key);
    if (*section)
        complain(file, line, "got the key \"%s\" in a [section], expected no sections", key);
    else
        complain_of_key(file, line, key);
    return -1;
}

int config_file_read(const char *path, struct config *config, char error[CONFIG_ERROR_BYTES])
{
    static const struct ini_taker taker = { .take_pair = take_pair, .complain = complain_of_line };
    struct config_file file = { .config = config, .error = error };
    int err;

    text_printable(path, strlen(path), file.path, sizeof file.path);
    err = ini_file_read(path, &taker, &file);
    if (err < 0)
        snprintf(error, CONFIG_ERROR_BYTES, "can't read %s: %s", file.path,
                 settings_file_error(err));
    return err > 0 ? -EINVAL : err;
}
