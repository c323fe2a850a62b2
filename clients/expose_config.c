/* expose --config: several services from one file, each in a section of its own:
 *
 *     [web]
 *     service = 8080
 *
 *     [files]
 *     dir = /srv/public
 *     proxy = http://proxy.example.org:8000/RPC2
 */
#include "clients/exposure.h"

#include "relay/log.h"
#include "relay/settings_file.h"

#include <ctype.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_BYTES_MAX = 1 << 20, PATH_SHOWN_BYTES = 400, SHOWN_BYTES = 60, TUNNELS_MAX = 256,
       CONNECTIONS_MAX = 16 };

struct file {
    const struct arguments *arguments;
    char path[PATH_SHOWN_BYTES];        /* as errors show it */
    char *text;
    const char *at;                     /* what has not been read yet; NULL: none */
    int line, section_line;             /* from 1; the current section's, 0: none yet */
    int status;                         /* what it is to end with, once something is wrong */
    char *proxy_url;                    /* of the current section; NULL: the command line's */
    struct exposure *exposures;
    unsigned count;
};

__attribute__((format(printf, 3, 4)))
static void complain_at(struct file *file, int line, const char *format, ...)
{
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    complain("%s:%d: %s", file->path, line, text);
    file->status = STATUS_USAGE;
}

static struct exposure *current(struct file *file)
{
    return &file->exposures[file->count - 1];
}

/* --- the keys */

static void take_target(struct file *file, const char *key, const char *value,
                        int (*parse)(const char *, struct target *, char *))
{
    struct target *target = &current(file)->target;
    char error[TARGET_ERROR_BYTES];

    if (*target->text)
        complain_at(file, file->line, "got the key \"%s\", expected one of service and dir alone", key);
    else if (parse(value, target, error) < 0)
        complain_at(file, file->line, "key \"%s\": %s", key, error);
}

static void take_service(struct file *file, const char *value)
{
    take_target(file, "service", value, target_parse);
}

static void take_dir(struct file *file, const char *value)
{
    take_target(file, "dir", value, target_of_folder);
}

static void take_backend(struct file *file, const char *value)
{
    char shown[SHOWN_BYTES];

    current(file)->backend = backend_find(value);
    if (!current(file)->backend)
        complain_at(file, file->line, "key \"backend\": got \"%s\", expected %s",
                    text_printable(value, strlen(value), shown, sizeof shown), backend_names);
}

static void take_proxy(struct file *file, const char *value)
{
    free(file->proxy_url);
    file->proxy_url = strdup(value);
    if (!file->proxy_url) {
        complain("out of memory");
        file->status = STATUS_FAILED;
    }
}

static unsigned take_number(struct file *file, const char *key, const char *value, long highest)
{
    char shown[SHOWN_BYTES];
    char *end;
    long number = strtol(value, &end, 10);

    if (isdigit((unsigned char)*value) && !*end && number >= 1 && number <= highest)
        return (unsigned)number;
    complain_at(file, file->line, "key \"%s\": got \"%s\", expected a whole number from 1 to %ld",
                key, text_printable(value, strlen(value), shown, sizeof shown), highest);
    return 0;
}

static void take_tunnels(struct file *file, const char *value)
{
    current(file)->tunnels = take_number(file, "tunnels", value, TUNNELS_MAX);
}

static void take_connections(struct file *file, const char *value)
{
    current(file)->connections = take_number(file, "connections", value, CONNECTIONS_MAX);
}

static void take_server_first(struct file *file, const char *value)
{
    char shown[SHOWN_BYTES];

    current(file)->server_first = !strcmp(value, "yes");
    if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
        complain_at(file, file->line, "key \"server-first\": got \"%s\", expected yes or no",
                    text_printable(value, strlen(value), shown, sizeof shown));
}

static const struct {
    const char *name;
    void (*take)(struct file *file, const char *value);
} keys[] = {
    { "service", take_service }, { "dir", take_dir }, { "backend", take_backend },
    { "proxy", take_proxy }, { "connections", take_connections }, { "tunnels", take_tunnels },
    { "server-first", take_server_first },
};

enum { KEYS = sizeof keys / sizeof keys[0] };

/* What inih calls for each pair: 0 for an error. */
static int take_pair(void *argument, const char *section, const char *name, const char *value)
{
    struct file *file = argument;
    char shown[SHOWN_BYTES], names[256] = "";
    size_t used = 0;

    (void)section;
    text_printable(name, strlen(name), shown, sizeof shown);
    if (!file->section_line) {
        complain_at(file, file->line, "got the key \"%s\", expected a [section] first", shown);
        return 0;
    }
    for (size_t i = 0; i < KEYS; i++) {
        if (!strcmp(keys[i].name, name)) {
            keys[i].take(file, value);
            return !file->status;
        }
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                                 keys[i].name);
    }
    complain_at(file, file->line, "got the key \"%s\", expected one of %s", shown, names);
    return 0;
}

/* --- the sections */

/* All keys of the current one have been taken. */
static void end_section(struct file *file)
{
    char place[PATH_SHOWN_BYTES + EXPOSURE_NAME_BYTES + 32];
    struct exposure *exposure;

    if (!file->section_line || file->status)
        return;
    exposure = current(file);
    snprintf(place, sizeof place, "%s:%d: section [%s]: ", file->path, file->section_line,
             exposure->name);
    if (!*exposure->target.text)
        complain_at(file, file->section_line, "section [%s] exposes nothing, expected the key service "
                    "or dir in it", exposure->name);
    else if (exposure_misfit(exposure))
        complain_at(file, file->section_line, "section [%s]: the key \"%s\" goes with %s",
                    exposure->name, exposure_misfit(exposure), exposure_fit(exposure));
    else
        file->status = proxy_make(file->arguments, place, file->proxy_url ? file->proxy_url
                                  : file->arguments->proxy_url, &exposure->proxy);
    free(file->proxy_url);
    file->proxy_url = NULL;
}

/* From "[name]". */
static void begin_section(struct file *file, const char *line)
{
    size_t length = strcspn(line + 1, "]");
    struct exposure *larger;
    char name[EXPOSURE_NAME_BYTES];

    end_section(file);
    if (file->status)
        return;
    if (!length || length >= sizeof name || line[1 + length] != ']') {
        complain_at(file, file->line, "expected [NAME], of 1 to %zu bytes", sizeof name - 1);
        return;
    }
    text_printable(line + 1, length, name, sizeof name);
    for (unsigned i = 0; i < file->count; i++) {
        if (!strcmp(file->exposures[i].name, name)) {
            complain_at(file, file->line, "got a second section [%s], expected another name", name);
            return;
        }
    }
    larger = reallocarray(file->exposures, file->count + 1, sizeof *larger);
    if (!larger) {
        complain("out of memory");
        file->status = STATUS_FAILED;
        return;
    }
    file->exposures = larger;
    larger[file->count] = (struct exposure){ .backend = backend_find(NULL) };
    strcpy(larger[file->count++].name, name);
    file->section_line = file->line;
}

/* Lines for inih, whose own reading splits long ones and tells no line's number. */
static char *read_line(char *line, int room, void *argument)
{
    struct file *file = argument;
    const char *at = file->at;
    size_t length, longest = (size_t)room - 2;

    if (!at || !*at || file->status)
        return NULL;
    file->line++;
    length = strcspn(at, "\n");
    file->at = at[length] ? at + length + 1 : NULL;
    /* An indented line would be taken for more of the value before it. */
    for (; length && isspace((unsigned char)*at); at++)
        length--;
    if (length > longest) {
        complain_at(file, file->line, "got a longer line, expected at most %zu bytes", longest);
        return NULL;
    }
    memcpy(line, at, length);
    line[length] = '\0';
    if (*line == '[')
        begin_section(file, line);
    return file->status ? NULL : line;
}

static int read_whole(struct file *file)
{
    const char *path = file->arguments->config;
    FILE *stream;
    int err = settings_file_open(path, &stream);

    text_printable(path, strlen(path), file->path, sizeof file->path);
    if (!err) {
        err = settings_file_read(fileno(stream), FILE_BYTES_MAX, &file->text);
        fclose(stream);
    }
    if (!err)
        return STATUS_OK;
    complain("can't read %s: %s", file->path, settings_file_error(err));
    return STATUS_FAILED;
}

int exposures_of_file(const struct arguments *arguments, struct exposure **exposures,
                      unsigned *count)
{
    struct file file = { .arguments = arguments };
    int wrong_line;

    file.status = read_whole(&file);
    if (!file.status) {
        file.at = file.text;
        wrong_line = ini_parse_stream(read_line, &file, take_pair, &file);
        if (wrong_line && !file.status)
            complain_at(&file, wrong_line, "expected key = value");
    }
    if (!file.status)
        end_section(&file);
    if (!file.status && !file.count)
        complain_at(&file, 1, "expected a [section] for each service");
    free(file.text);
    free(file.proxy_url);
    *exposures = file.exposures;
    *count = file.count;
    return file.status;
}
