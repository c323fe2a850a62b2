#include "relay/ini_file.h"

#include "relay/settings_file.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdio.h>

struct reading {
    const struct ini_taker *taker;
    void *context;
    FILE *stream;
    int line;                           /* the one read last, from 1 */
    int refused_line;                   /* of which the reason is told; 0: none */
    int error;                          /* errno of a failed read */
};

static char *refuse(struct reading *reading, const char *what)
{
    reading->taker->complain(reading->context, reading->line, what);
    reading->refused_line = reading->line;
    return NULL;
}

/* Lines for inih. Its own way is fgets, which would split a long line into several, cut
 * one at a NUL byte, and leave no way to know a line's number. */
static char *read_line(char *line, int room, void *argument)
{
    struct reading *reading = argument;
    int longest = room - 2;             /* one more, and inih takes it for a cut line */
    int length = 0;
    int byte;
    char what[80];

    if (reading->refused_line)
        return NULL;
    reading->line++;
    while ((byte = getc(reading->stream)) != EOF && byte != '\n') {
        if (byte == '\0')
            return refuse(reading, "got a NUL byte, expected text");
        if (length == longest) {
            snprintf(what, sizeof what, "got a longer line, expected at most %d bytes", longest);
            return refuse(reading, what);
        }
        /* An indented line would be taken for more of the value before it. */
        if (length || !isspace(byte))
            line[length++] = (char)byte;
    }
    line[length] = '\0';
    if (byte == EOF && ferror(reading->stream))
        reading->error = errno;
    if (*line == '[' && reading->taker->take_section &&
        reading->taker->take_section(reading->context, reading->line, line))
        reading->refused_line = reading->line;
    return reading->refused_line || (byte == EOF && !length) ? NULL : line;
}

/* What inih calls for each pair: 0 for an error. */
static int take_pair(void *argument, const char *section, const char *key, const char *value)
{
    struct reading *reading = argument;

    if (reading->taker->take_pair(reading->context, reading->line, section, key, value))
        reading->refused_line = reading->line;
    return !reading->refused_line;
}

int ini_file_read(const char *path, const struct ini_taker *taker, void *context)
{
    struct reading reading = { .taker = taker, .context = context };
    int err = settings_file_open(path, &reading.stream);
    int first_wrong_line;

    if (err)
        return err;
    first_wrong_line = ini_parse_stream(read_line, &reading, take_pair, &reading);
    fclose(reading.stream);
    if (first_wrong_line < 0)
        return -ENOMEM;
    if (reading.error)
        return -reading.error;
    if (first_wrong_line && first_wrong_line != reading.refused_line) {
        /* inih itself could make nothing of that line. */
        reading.line = first_wrong_line;
        refuse(&reading, "expected key = value");
    }
    return reading.refused_line != 0;
}
