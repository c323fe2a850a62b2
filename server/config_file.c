#include "server/config_file.h"

#include "relay/settings_file.h"
#include "server/settings.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    KEY_SHOWN_BYTES = 60,               /* of a wrong key, in its error */
    PATH_SHOWN_BYTES = 400,
    WHERE_BYTES = PATH_SHOWN_BYTES + KEY_SHOWN_BYTES + 40
};

struct config_file {
    FILE *stream;
    char path[PATH_SHOWN_BYTES];        /* as errors show it */
    struct config *config;
    int line;                           /* the one read last, from 1 */
    int wrong_line;                     /* the one that error is about; 0: none yet */
    int read_error;                     /* errno of a failed read */
    char *error;
};

__attribute__((format(printf, 2, 3)))
static void complain(struct config_file *file, const char *format, ...)
{
    int used = snprintf(file->error, CONFIG_ERROR_BYTES, "%s:%d: ", file->path, file->line);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(file->error + used, CONFIG_ERROR_BYTES - (size_t)used, format, arguments);
    va_end(arguments);
    file->wrong_line = file->line;
}

/* Lines for inih. Its own way is fgets, which would split a long line into
 * several, cut one at a NUL byte, and leave no way to know a line's number. */
static char *read_line(char *line, int room, void *stream)
{
    struct config_file *file = stream;
    int longest = room - 2;             /* one more, and inih takes it for a cut line */
    int length = 0;
    int byte;

    if (file->wrong_line)
        return NULL;
    file->line++;
    while ((byte = getc(file->stream)) != EOF && byte != '\n') {
        if (byte == '\0') {
            complain(file, "got a NUL byte, expected text");
            return NULL;
        }
        if (length == longest) {
            complain(file, "got a longer line, expected at most %d bytes", longest);
            return NULL;
        }
        /* An indented line would be taken for more of the value before it. */
        if (length || !isspace(byte))
            line[length++] = (char)byte;
    }
    line[length] = '\0';
    if (byte == EOF && ferror(file->stream))
        file->read_error = errno;
    return byte == EOF && !length ? NULL : line;
}

static void complain_of_key(struct config_file *file, const char *key)
{
    char names[CONFIG_ERROR_BYTES / 2] = "";
    size_t used = 0;

    for (size_t i = 0; i < SETTINGS_COUNT && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                                 settings[i].name);
    complain(file, "got the key \"%s\", expected one of %s", key, names);
}

static void take_value(struct config_file *file, const struct setting *setting,
                       const char *value)
{
    char where[WHERE_BYTES];

    if (!settings_apply(setting, value, file->config))
        return;
    file->wrong_line = file->line;
    snprintf(where, sizeof where, "%s:%d: key \"%s\"", file->path, file->line, setting->name);
    settings_explain(setting, where, value, file->error);
}

/* What inih calls for each pair: 0 for an error. */
static int take_pair(void *user, const char *section, const char *name, const char *value)
{
    struct config_file *file = user;
    const struct setting *setting = settings_find(name);
    char key[KEY_SHOWN_BYTES];

    text_printable(name, strlen(name), key, sizeof key);
    if (*section)
        complain(file, "got the key \"%s\" in a [section], expected no sections", key);
    else if (!setting)
        complain_of_key(file, key);
    else
        take_value(file, setting, value);
    return !file->wrong_line;
}

int config_file_read(const char *path, struct config *config, char error[CONFIG_ERROR_BYTES])
{
    struct config_file file = { .config = config, .error = error };
    int err = settings_file_open(path, &file.stream);
    int first_wrong_line;

    text_printable(path, strlen(path), file.path, sizeof file.path);
    if (err)
        goto out;
    first_wrong_line = ini_parse_stream(read_line, &file, take_pair, &file);
    if (first_wrong_line < 0) {
        err = -ENOMEM;
    } else if (file.read_error) {
        err = -file.read_error;
    } else if (first_wrong_line && first_wrong_line != file.wrong_line) {
        /* inih itself could make nothing of that line. */
        file.line = first_wrong_line;
        complain(&file, "expected key = value");
    }
    fclose(file.stream);
out:
    if (err)
        snprintf(error, CONFIG_ERROR_BYTES, "can't read %s: %s", file.path,
                 settings_file_error(err));
    else if (file.wrong_line)
        err = -EINVAL;
    return err;
}
