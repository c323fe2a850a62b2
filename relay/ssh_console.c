/* The session of who did not give -N: the address, and a line for each client. */
#include "relay/ssh_carrier.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    CTRL_C = 3, CTRL_D = 4,
    UNSENT_BYTES = 16 * 1024,           /* of lines that wait for the connection, or the terminal */
    LINE_BYTES = CONSOLE_LINE_BYTES + 80,
    ASK_MS = 1000,                      /* in which a tunnel must be asked for, too */
    LEAVE_MS = 2000                     /* that its user's program has to leave in */
};

static int on_data(ssh_session session, ssh_channel channel, void *bytes, uint32_t length,
                   int is_stderr, void *context)
{
    struct carrier *carrier = context;

    (void)session;
    (void)channel;
    (void)is_stderr;
    if (memchr(bytes, CTRL_C, length) || memchr(bytes, CTRL_D, length))
        carrier->console.is_interrupted = true;
    return (int)length;
}

static void on_close(ssh_session session, ssh_channel channel, void *context)
{
    struct carrier *carrier = context;

    (void)session;
    (void)channel;
    carrier->console.is_over = true;
}

static int on_terminal(ssh_session session, ssh_channel channel, const char *name, int width,
                       int height, int width_pixels, int height_pixels, void *context)
{
    struct carrier *carrier = context;

    (void)session;
    (void)channel;
    (void)name;
    (void)width;
    (void)height;
    (void)width_pixels;
    (void)height_pixels;
    carrier->console.has_terminal = true;
    return 0;
}

/* There is no shell; who asks for one gets to see what happens. */
static int on_shell(ssh_session session, ssh_channel channel, void *context)
{
    struct carrier *carrier = context;

    (void)session;
    (void)channel;
    carrier->console.is_shown = true;
    return 0;
}

ssh_channel console_on_session(ssh_session session, void *context)
{
    struct carrier *carrier = context;
    struct console *console = &carrier->console;

    if (console->channel)
        return NULL;
    console->channel = ssh_channel_new(session);
    console->callbacks = (struct ssh_channel_callbacks_struct){
        .userdata = carrier,
        .channel_data_function = on_data,
        .channel_close_function = on_close,
        .channel_pty_request_function = on_terminal,
        .channel_shell_request_function = on_shell,
    };
    ssh_callbacks_init(&console->callbacks);
    if (console->channel)
        ssh_set_channel_callbacks(console->channel, &console->callbacks);
    return console->channel;
}

static size_t may_send(const struct carrier *carrier)
{
    const struct console *console = &carrier->console;
    size_t window;

    if (!console->unsent_count || console->is_over || !ssh_channel_is_open(console->channel) ||
        !carrier_may_write(carrier))
        return 0;
    window = ssh_channel_window_size(console->channel);
    return window < console->unsent_count ? window : console->unsent_count;
}

void console_send(struct carrier *carrier)
{
    struct console *console = &carrier->console;
    size_t count = may_send(carrier);
    int sent;

    if (!count)
        return;
    sent = carrier_write(carrier, console->channel, &console->has_written, console->unsent, count);
    if (sent < 0)
        sent = (int)count;              /* for nobody */
    console->unsent_count -= (size_t)sent;
    memmove(console->unsent, console->unsent + sent, console->unsent_count);
    if (!console->unsent_count)
        console_free(carrier);
}

void console_free(struct carrier *carrier)
{
    free(carrier->console.unsent);
    carrier->console.unsent = NULL;
    carrier->console.unsent_count = 0;
}

/* Whether so many lines find room behind those that wait. */
static bool has_room(struct console *console, size_t lines)
{
    if (!console->unsent)
        console->unsent = malloc(UNSENT_BYTES);
    return console->unsent && console->unsent_count + lines * LINE_BYTES <= UNSENT_BYTES;
}

static void append(struct console *console, const char *text)
{
    console->unsent_count += (size_t)snprintf(console->unsent + console->unsent_count, LINE_BYTES,
                                              "%s%s", text, console->has_terminal ? "\r\n" : "\n");
}

/* Once half of the room is free, so that it is not told again for each line that is taken. */
static void tell_left_out(struct console *console)
{
    char text[80];

    if (!console->left_out || console->unsent_count > UNSENT_BYTES / 2 || !has_room(console, 1))
        return;
    snprintf(text, sizeof text, "(%lu lines were left out)", console->left_out);
    console->left_out = 0;
    append(console, text);
}

/* What a connection, or a terminal, that stands still does not take for long is left out, and
 * counted. */
static void put(struct carrier *carrier, const char *text)
{
    struct console *console = &carrier->console;

    tell_left_out(console);
    if (console->left_out || !has_room(console, 1)) {
        console->left_out++;
        return;
    }
    append(console, text);
    console_send(carrier);
}

void console_print(struct carrier *carrier, const char *format, ...)
{
    char text[CONSOLE_LINE_BYTES];
    time_t now = time(NULL);
    struct tm local;
    va_list arguments;
    size_t used;

    if (!carrier->console.is_shown || carrier->console.is_over)
        return;
    localtime_r(&now, &local);
    used = strftime(text, sizeof text, "%T  ", &local);
    va_start(arguments, format);
    vsnprintf(text + used, sizeof text - used, format, arguments);
    va_end(arguments);
    put(carrier, text);
}

void console_refused(struct carrier *carrier, int port, const char *why)
{
    struct console *console = &carrier->console;

    if (console->is_shown) {
        console_print(carrier, "refused to forward port %d: %s", port, why);
        return;
    }
    if (console->refused_count < CONSOLE_REFUSALS) {
        console->refused[console->refused_count].port = port;
        console->refused[console->refused_count].why = why;
    }
    console->refused_count++;
}

static void tell_refused(struct carrier *carrier)
{
    struct console *console = &carrier->console;

    for (unsigned i = 0; i < console->refused_count && i < CONSOLE_REFUSALS; i++)
        console_print(carrier, "refused to forward port %d: %s", console->refused[i].port,
                      console->refused[i].why);
    if (console->refused_count > CONSOLE_REFUSALS)
        console_print(carrier, "and %u more", console->refused_count - CONSOLE_REFUSALS);
}

static void announce(struct carrier *carrier)
{
    char address[URI_TEXT_BYTES];
    struct forward *forward;

    for (forward = TAILQ_FIRST(&carrier->forwards); forward; forward = TAILQ_NEXT(forward, entry)) {
        if (forward->is_announced || !forward->tunnel || !has_room(&carrier->console, 4))
            continue;
        forward->is_announced = true;
        forward_address(forward, address);
        put(carrier, address);
        if (!carrier->console.is_explained)
            put(carrier, "Clients connect there. Ctrl-C ends it.");
        carrier->console.is_explained = true;
    }
}

/* As a program that ends: its user's ssh then leaves by itself. */
static void end(struct carrier *carrier, int status, int64_t now_ms)
{
    struct console *console = &carrier->console;

    console->is_over = true;
    console->leave_ms = now_ms + LEAVE_MS;
    ssh_channel_request_send_exit_status(console->channel, status);
    if (!carrier_close_channel(console->channel))
        carrier_fail(carrier, "the server has gone");
}

static void explain(struct carrier *carrier)
{
    put(carrier, "This is no machine to log in to: it makes a port of yours reachable for others.");
    put(carrier, "Ask for that, for port 8080 as an example, with");
    put(carrier, "    ssh -R 0:localhost:8080 ...");
}

int64_t console_look(struct carrier *carrier, int64_t now_ms)
{
    struct console *console = &carrier->console;

    if (console->leave_ms && now_ms >= console->leave_ms)
        carrier_fail(carrier, "its user has ended it");
    if (!console->is_shown || console->is_over)
        return console->leave_ms ? console->leave_ms : INT64_MAX;
    if (!console->shown_ms) {
        console->shown_ms = now_ms;
        tell_refused(carrier);
    }
    announce(carrier);
    tell_left_out(console);
    console_send(carrier);
    if (console->is_interrupted) {
        end(carrier, 0, now_ms);
        return console->leave_ms;
    }
    if (forwards_have_tunnel(carrier))
        return INT64_MAX;
    if (now_ms < console->shown_ms + ASK_MS)
        return console->shown_ms + ASK_MS;
    if (!console->refused_count)
        explain(carrier);
    end(carrier, 1, now_ms);
    return console->leave_ms;
}
