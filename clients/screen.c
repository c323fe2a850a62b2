#include "clients/screen.h"

#include "clients/outlet.h"

#include <curses.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <termios.h>
#include <unistd.h>

/* ncurses would write to the terminal, and wait for it. It is given a file in memory
 * instead, which it takes for a terminal without modes; those are set here. */
struct screen {
    FILE *frame;                        /* what ncurses has written since the last frame */
    SCREEN *ncurses;
    struct termios before;
};

bool screen_may_have_colours(void)
{
    const char *no_colour = getenv("NO_COLOR");

    return isatty(STDOUT_FILENO) && !(no_colour && *no_colour);
}

bool screen_is_possible(void)
{
    const char *terminal = getenv("TERM");

    return screen_may_have_colours() && isatty(STDERR_FILENO) && terminal && *terminal &&
           strcmp(terminal, "dumb") != 0 && tcgetpgrp(STDOUT_FILENO) == getpgrp();
}

/* Half blocks need UTF-8, whatever the environment says of the language. */
static void set_locale(void)
{
    if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        setlocale(LC_CTYPE, "C.UTF-8");
}

/* A key at a time, and not shown. */
static void set_modes(const struct screen *screen)
{
    struct termios modes = screen->before;

    modes.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    modes.c_cc[VMIN] = 1;
    modes.c_cc[VTIME] = 0;
    tcsetattr(STDOUT_FILENO, TCSANOW, &modes);
}

/* Hands over what ncurses has written. Where memory lacks, the next frame is all anew. */
static void send_frame(struct screen *screen)
{
    int fd = fileno(screen->frame);
    off_t count = lseek(fd, 0, SEEK_CUR);
    char *bytes = count > 0 ? malloc((size_t)count) : NULL;

    if (bytes && pread(fd, bytes, (size_t)count, 0) == count)
        outlet_write(OUTLET_OUTPUT, OUTLET_FRAME, bytes, (size_t)count);
    else if (count > 0)
        clearok(curscr, TRUE);
    free(bytes);
    if (ftruncate(fd, 0) == 0)
        lseek(fd, 0, SEEK_SET);
}

/* Output that Ctrl-S has stopped goes on when there is no such key any more. */
static void let_go_on(const struct screen *screen)
{
    struct termios modes = screen->before;

    modes.c_iflag &= ~(tcflag_t)IXON;
    tcsetattr(STDOUT_FILENO, TCSANOW, &modes);
}

/* The terminal is as it was before anything else happens to it. */
static void leave(struct screen *screen)
{
    endwin();
    send_frame(screen);
    let_go_on(screen);
    outlet_flush(OUTLET_OUTPUT, OUTLET_FLUSH_MS);
    tcsetattr(STDOUT_FILENO, TCSANOW, &screen->before);
}

static FILE *open_frame(void)
{
    int fd = memfd_create("frame", MFD_CLOEXEC);
    FILE *frame = fd < 0 ? NULL : fdopen(fd, "w");

    if (fd >= 0 && !frame)
        close(fd);
    return frame;
}

struct screen *screen_open(void)
{
    struct screen *screen = calloc(1, sizeof *screen);

    if (!screen)
        return NULL;
    set_locale();
    outlet_flush(OUTLET_ERRORS, OUTLET_FLUSH_MS);       /* lines would go across it, */
    outlet_flush(OUTLET_OUTPUT, OUTLET_FLUSH_MS);       /* or hold up the first frame */
    screen->frame = open_frame();
    if (!screen->frame || tcgetattr(STDOUT_FILENO, &screen->before) < 0)
        goto fail;
    screen->ncurses = newterm(NULL, screen->frame, stdin);
    if (!screen->ncurses)
        goto fail;
    typeahead(-1);                      /* a frame is not broken off for a key */
    curs_set(0);
    set_modes(screen);
    screen_fit();
    return screen;
fail:
    if (screen->frame)
        fclose(screen->frame);
    free(screen);
    return NULL;
}

void screen_close(struct screen *screen)
{
    leave(screen);
    delscreen(screen->ncurses);
    fclose(screen->frame);
    free(screen);
}

bool screen_is_free(void)
{
    return outlet_flush(OUTLET_OUTPUT, 0);
}

void screen_show(struct screen *screen)
{
    refresh();
    send_frame(screen);
}

void screen_fit(void)
{
    struct winsize size;

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row && size.ws_col)
        resizeterm(size.ws_row, size.ws_col);
    clearok(curscr, TRUE);
}

void screen_stop(struct screen *screen)
{
    leave(screen);
    kill(getpid(), SIGSTOP);
    set_modes(screen);
    screen_fit();
}

bool screen_was_pressed(char key)
{
    char keys[64];
    ssize_t count = read(STDIN_FILENO, keys, sizeof keys);

    return count > 0 && memchr(keys, key, (size_t)count);
}
