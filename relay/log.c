#include "relay/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES = 1024 };

static atomic_int level_now = LOG_NOTHING;
static atomic_bool addresses_shown = false;

/* Formed here rather than on a tunnel's stack, whose every page counts. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char line[LINE_BYTES];           /* guarded by lock */

void log_set_level(enum log_level level)
{
    atomic_store(&level_now, level);
}

void log_set_addresses(bool shown)
{
    atomic_store(&addresses_shown, shown);
}

static void write_line(enum log_level level, const char *format, va_list arguments)
{
    static const char *const names[] = { "nothing", "error", "warning", "info", "debug" };
    struct timespec now;
    struct tm utc;
    size_t used;

    clock_gettime(CLOCK_REALTIME, &now);
    used = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%SZ ", gmtime_r(&now.tv_sec, &utc));
    used += (size_t)snprintf(line + used, sizeof line - used, "%s ", names[level]);
    vsnprintf(line + used, sizeof line - used - 1, format, arguments);
    used = strlen(line);
    line[used++] = '\n';
    /* Nobody is left to tell when standard error itself fails. */
    if (write(STDERR_FILENO, line, used) < 0)
        return;
}

void log_write(enum log_level level, const char *format, ...)
{
    va_list arguments;

    if ((int)level > atomic_load(&level_now))
        return;
    va_start(arguments, format);
    pthread_mutex_lock(&lock);
    write_line(level, format, arguments);
    pthread_mutex_unlock(&lock);
    va_end(arguments);
}

const char *log_address(const struct net_address *address, char text[NET_ADDRESS_TEXT_BYTES])
{
    if (atomic_load(&addresses_shown))
        net_address_format(address, text);
    else
        memcpy(text, "(hidden)", sizeof "(hidden)");
    return text;
}

const char *text_printable(const char *text, size_t length, char *out, size_t room)
{
    size_t shown = length < room ? length : room - 1;

    for (size_t i = 0; i < shown; i++)
        out[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    out[shown] = '\0';
    if (shown < length && room > 3)
        memcpy(out + shown - 3, "...", 3);
    return out;
}
