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

#include "relay/ini_file.h"
#include "relay/log.h"
#include "relay/number.h"
#include "relay/settings_file.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_SHOWN_BYTES = 400, SHOWN_BYTES = 60 };

struct file {
    const struct arguments *arguments;
    char path[PATH_SHOWN_BYTES];        /* as errors show it */
    int line, section_line;             /* the current ones, from 1; 0: no section yet */
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

    current(file)->backend = exposure_backend_find(value);
    if (!current(file)->backend)
        complain_at(file, file->line, "key \"backend\": got \"%s\", expected %s",
                    text_printable(value, strlen(value), shown, sizeof shown), exposure_backend_names);
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

static unsigned take_number(struct file *file, const char *key, const char *value, int highest)
{
    char shown[SHOWN_BYTES];
    int64_t number;

    if (!number_parse(value, strlen(value), 1, highest, &number))
        return (unsigned)number;
    complain_at(file, file->line, "key \"%s\": got \"%s\", expected a whole number from 1 to %d",
                key, text_printable(value, strlen(value), shown, sizeof shown), highest);
    return 0;
}

static void take_tunnels(struct file *file, const char *value)
{
    current(file)->tunnels = take_number(file, "tunnels", value, TUNNELS_MAX);
}

static void take_connections(struct file *file, const char *value)
{
    current(file)->connections = take_number(file, "connections", value, TRISTERO_CONNECTIONS_MAX);
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

static int take_pair(void *argument, int line, const char *section, const char *name,
                     const char *value)
{
    struct file *file = argument;
    char shown[SHOWN_BYTES], names[256] = "";
    size_t used = 0;

    (void)section;
    file->line = line;
    text_printable(name, strlen(name), shown, sizeof shown);
    if (!file->section_line) {
        complain_at(file, line, "got the key \"%s\", expected a [section] first", shown);
        return file->status;
    }
    for (size_t i = 0; i < KEYS; i++) {
        if (!strcmp(keys[i].name, name)) {
            keys[i].take(file, value);
            return file->status;
        }
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                                 keys[i].name);
    }
    complain_at(file, line, "got the key \"%s\", expected one of %s", shown, names);
    return file->status;
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
static void begin_section(struct file *file, int line, const char *text)
{
    size_t length = strcspn(text + 1, "]");
    struct exposure *larger;
    char name[EXPOSURE_NAME_BYTES];

    if (!length || length >= sizeof name || text[1 + length] != ']') {
        complain_at(file, line, "expected [NAME], of 1 to %zu bytes", sizeof name - 1);
        return;
    }
    text_printable(text + 1, length, name, sizeof name);
    for (unsigned i = 0; i < file->count; i++) {
        if (!strcmp(file->exposures[i].name, name)) {
            complain_at(file, line, "got a second section [%s], expected another name", name);
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
    larger[file->count] = (struct exposure){ .backend = exposure_backend_find(NULL) };
    strcpy(larger[file->count++].name, name);
    file->section_line = line;
}

static int take_section(void *argument, int line, const char *text)
{
    struct file *file = argument;

    end_section(file);
    if (!file->status)
        begin_section(file, line, text);
    return file->status;
}

static void complain_of_line(void *argument, int line, const char *what)
{
    complain_at(argument, line, "%s", what);
}

int exposures_of_file(const struct arguments *arguments, struct exposure **exposures,
                      unsigned *count)
{
    static const struct ini_taker taker = { take_section, take_pair, complain_of_line };
    const char *path = arguments->config;
    struct file file = { .arguments = arguments };
    int err;

    text_printable(path, strlen(path), file.path, sizeof file.path);
    err = ini_file_read(path, &taker, &file);
    if (err < 0) {
        complain("can't read %s: %s", file.path, settings_file_error(err));
        file.status = STATUS_FAILED;
    }
    if (!file.status)
        end_section(&file);
    if (!file.status && !file.count)
        complain_at(&file, 1, "expected a [section] for each service");
    free(file.proxy_url);
    *exposures = file.exposures;
    *count = file.count;
    return file.status;
}
