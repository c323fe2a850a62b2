/* screen: the terminal of standard output, on which ncurses draws. What it draws goes by
 * way of clients/outlet.h, a frame at a time, so that nobody waits for a terminal that was
 * stopped (Ctrl-S) or that is slow: as long as it has not taken a frame, there is no next one.
 *
 * The main thread's alone, which has blocked the signals of terminals: it takes them in turn
 * with drawing, and so the handlers of ncurses are never run. */
#ifndef CLIENTS_SCREEN_H
#define CLIENTS_SCREEN_H

#include <stdbool.h>

struct screen;

/* Whether standard output is a terminal, and nobody has asked for no colours by NO_COLOR,
 * which means that only if it is not empty (https://no-color.org). */
bool screen_may_have_colours(void);

/* The same, and whether the terminal can do more than lines, standard error is one too, and
 * this process has it to itself. */
bool screen_is_possible(void);

/* Takes the terminal; what it showed comes back at the end. NULL if it turns out not to be
 * good for that. */
struct screen *screen_open(void);

/* A terminal that was stopped goes on, as it does by Ctrl-C: it has to become what it was. */
void screen_close(struct screen *screen);

/* Whether there may be a frame; then it is drawn on stdscr, and shown by screen_show. */
bool screen_is_free(void);
void screen_show(struct screen *screen);

/* The next frame has the terminal's size of now, and is drawn all anew. */
void screen_fit(void);

/* After SIGTSTP: stops the process with the terminal as it was before; returns once it is
 * continued. */
void screen_stop(struct screen *screen);

/* Takes what was typed. Whether that key was among it. */
bool screen_was_pressed(char key);

#endif
