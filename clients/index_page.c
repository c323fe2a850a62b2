#include "clients/index_page.h"

#include "clients/folder.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char HEAD[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<style>:root{color-scheme:light dark}body{font-family:sans-serif;margin:2em}"
    "h1{font-size:1.4em}h1,td{overflow-wrap:anywhere}"
    "td{padding:.15em 2em .15em 0;vertical-align:top}td+td{text-align:right;white-space:nowrap}"
    "@media(max-width:40em){body{margin:1em}td{padding-right:1em}td+td+td{display:none}}</style>\n";

struct entry {
    char *name;
    bool is_folder;
    off_t size;
    time_t changed;
};

/* A page is made at once, while others wait, and is kept until its client has read it. */
enum { ENTRIES_MAX = 10000 };

struct listing {
    struct entry *entries;
    size_t count, room;
    bool is_cut;                        /* there are more */
};

void path_write_encoded(FILE *stream, const char *path)
{
    for (; *path; path++) {
        unsigned char byte = (unsigned char)*path;
        bool is_plain = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                        (byte >= '0' && byte <= '9') || strchr("-._~/", byte);

        fprintf(stream, is_plain ? "%c" : "%%%02X", byte);
    }
}

static void write_escaped(FILE *stream, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '&': fputs("&amp;", stream); break;
        case '<': fputs("&lt;", stream); break;
        case '>': fputs("&gt;", stream); break;
        case '"': fputs("&quot;", stream); break;
        default: fputc(*text, stream);
        }
    }
}

static void write_size(FILE *stream, off_t size)
{
    static const char units[] = "KMGTPE";
    double shown = (double)size;
    int unit = -1;

    for (; shown >= 1000 && unit < 5; unit++)
        shown /= 1000;
    if (unit < 0)
        fprintf(stream, "%jd B", (intmax_t)size);
    else
        fprintf(stream, "%.1f %cB", shown, unit ? units[unit] : 'k');
}

static int compare(const void *a, const void *b)
{
    const struct entry *one = a, *other = b;

    if (one->is_folder != other->is_folder)
        return one->is_folder ? -1 : 1;
    return strverscmp(one->name, other->name);
}

static int add(struct listing *listing, const char *name, const struct stat *about)
{
    char *copy = strdup(name);

    if (listing->count == listing->room) {
        size_t room = listing->room ? 2 * listing->room : 64;
        struct entry *larger = reallocarray(listing->entries, room, sizeof *larger);

        if (larger) {
            listing->entries = larger;
            listing->room = room;
        }
    }
    if (!copy || listing->count == listing->room) {
        free(copy);
        return -ENOMEM;
    }
    listing->entries[listing->count++] = (struct entry){
        .name = copy, .is_folder = S_ISDIR(about->st_mode),
        .size = about->st_size, .changed = about->st_mtime };
    return 0;
}

static int list(int folder, const char *path, DIR *stream, struct listing *listing)
{
    struct dirent *found;
    int err = 0;

    /* cppcheck-suppress readdirCalled ; the stream is this call's alone */
    while (!err && !listing->is_cut && (errno = 0, found = readdir(stream))) {
        char inside[PATH_MAX];
        struct stat about;
        int length = snprintf(inside, sizeof inside, "%s%s", path, found->d_name);

        if (*found->d_name == '.' || length >= (int)sizeof inside ||
            folder_look(folder, inside, &about))
            continue;
        listing->is_cut = listing->count == ENTRIES_MAX;
        if (!listing->is_cut)
            err = add(listing, found->d_name, &about);
    }
    if (!err && !listing->is_cut)
        err = -errno;
    if (!err && listing->count)
        qsort(listing->entries, listing->count, sizeof *listing->entries, compare);
    return err;
}

static void write_entry(FILE *stream, const struct entry *entry)
{
    const char *slash = entry->is_folder ? "/" : "";
    char changed[32] = "";
    struct tm utc;

    if (gmtime_r(&entry->changed, &utc))
        strftime(changed, sizeof changed, "%Y-%m-%d %H:%M", &utc);
    fputs("<tr><td><a href=\"", stream);
    path_write_encoded(stream, entry->name);
    fprintf(stream, "%s\">", slash);
    write_escaped(stream, entry->name);
    fprintf(stream, "%s</a></td><td>", slash);
    if (!entry->is_folder)
        write_size(stream, entry->size);
    fprintf(stream, "</td><td>%s</td></tr>\n", changed);
}

static int write_page(const char *path, const struct listing *listing, char **page, size_t *length)
{
    FILE *stream = open_memstream(page, length);
    bool is_whole;

    if (!stream)
        return -errno;
    fputs(HEAD, stream);
    fputs("<title>/", stream);
    write_escaped(stream, path);
    fputs("</title>\n</head>\n<body>\n<h1>/", stream);
    write_escaped(stream, path);
    fputs("</h1>\n<table>\n", stream);
    if (*path)
        fputs("<tr><td><a href=\"../\">../</a></td><td></td><td></td></tr>\n", stream);
    for (size_t i = 0; i < listing->count; i++)
        write_entry(stream, &listing->entries[i]);
    fputs("</table>\n", stream);
    if (listing->is_cut)
        fprintf(stream, "<p>There are more than %d, of which these are some.</p>\n", ENTRIES_MAX);
    fputs("</body>\n</html>\n", stream);
    is_whole = !ferror(stream);
    if (fclose(stream) || !is_whole) {
        free(*page);
        return -ENOMEM;
    }
    return 0;
}

int index_page_make(int folder, const char *path, char **page, size_t *length)
{
    struct listing listing = { 0 };
    struct stat about;
    int fd = folder_open_inside(folder, path, &about);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    int err = fd < 0 ? fd : -errno;

    if (stream) {
        err = list(folder, path, stream, &listing);
        closedir(stream);
    } else if (fd >= 0) {
        close(fd);
    }
    if (!err)
        err = write_page(path, &listing, page, length);
    for (size_t i = 0; i < listing.count; i++)
        free(listing.entries[i].name);
    free(listing.entries);
    return err;
}
