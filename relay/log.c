#include "relay/log.h"

#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    LINE_BYTES = 1024,
    WAIT_MS = 100                       /* for a reader of the log that is slow */
};

static atomic_int level_now = LOG_NOTHING;
static atomic_bool addresses_shown = false;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Formed here rather than on a tunnel's stack, whose every page counts. */
static char line[LINE_BYTES];           /* guarded by lock */
static unsigned long lost;              /* guarded by lock: lines since the last that was written */
static bool is_cut;                     /* guarded by lock: what was written last has no end */

void log_set_level(enum log_level level)
{
    atomic_store(&level_now, level);
}

void log_set_addresses(bool shown)
{
    atomic_store(&addresses_shown, shown);
}

/* How many bytes it has, with the newline and no NUL. */
static size_t form_line(enum log_level level, const char *format, va_list arguments)
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
    return used;
}

/* Whoever reads the log may have stopped, and the service must not stop with
 * it: a line is waited for once, and not again before one has been written. A
 * pipe or socket that is ready takes a whole line at once. */
static bool is_ready(void)
{
    struct pollfd polled = { .fd = STDERR_FILENO, .events = POLLOUT };

    return poll(&polled, 1, lost ? 0 : WAIT_MS) > 0;
}

static bool write_bytes(const char *bytes, size_t count)
{
    ssize_t written;

    if (!is_ready())
        return false;
    written = write(STDERR_FILENO, bytes, count);
    if (written > 0)                    /* a disk may take the beginning, and be full then */
        is_cut = (size_t)written < count;
    return written == (ssize_t)count;
}

static bool write_arguments(enum log_level level, const char *format, va_list arguments)
{
    if (is_cut && !write_bytes("\n", 1))
        return false;
    return write_bytes(line, form_line(level, format, arguments));
}

__attribute__((format(printf, 2, 3)))
static bool write_line(enum log_level level, const char *format, ...)
{
    va_list arguments;
    bool is_written;

    va_start(arguments, format);
    is_written = write_arguments(level, format, arguments);
    va_end(arguments);
    return is_written;
}

/* What could not be written is told as soon as something can be. */
static bool tell_lost(void)
{
    if (lost && !write_line(LOG_WARNING, "%lu lines before this one could not be written", lost))
        return false;
    lost = 0;
    return true;
}

void log_write(enum log_level level, const char *format, ...)
{
    va_list arguments;

    if ((int)level > atomic_load(&level_now))
        return;
    va_start(arguments, format);
    pthread_mutex_lock(&lock);
    if (!tell_lost() || !write_arguments(level, format, arguments))
        lost++;
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
