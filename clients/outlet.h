/* outlet: standard output and standard error, a line at a time, or a frame of the screen.
 *
 * Until outlets_start, who writes waits for whoever reads. From then on a thread for each
 * of the two waits instead: what is to be written lies in its queue, which is bounded.
 * Lines that find it full are left out, whole, and counted; once all that lay there has
 * been read, the count is told, and lines are taken again. (O_NONBLOCK would need no
 * threads, but is shared with every program that has the same terminal or pipe.)
 *
 * Any thread. */
#ifndef CLIENTS_OUTLET_H
#define CLIENTS_OUTLET_H

#include <stdbool.h>
#include <stddef.h>

enum outlet { OUTLET_OUTPUT, OUTLET_ERRORS };

enum outlet_rank {
    OUTLET_USUAL,
    OUTLET_DEAR,                        /* it is left out only where usual ones lie twice over */
    OUTLET_FRAME                        /* the same, of a screen: it may fail to be written */
};

enum { OUTLET_LINE_BYTES = 256, OUTLET_FLUSH_MS = 1000 };

/* What is done about what happens there, by the threads that write. Neither function may
 * wait, or write to the same outlet. */
struct outlet_keeper {
    /* Forms the line, with its end, that tells how many were left out: how many bytes it
     * has, 0 where there is to be none. */
    size_t (*tell_left_out)(void *context, enum outlet outlet, unsigned long count,
                            char line[OUTLET_LINE_BYTES]);
    /* A line can't be written to standard output, for that positive errno. Called once. Of
     * standard error, such a line is lost. */
    void (*failed)(void *context, int err);
    void *context;
};

/* Starts the threads, with all signals blocked that come from elsewhere. keeper is copied.
 * 0 or a negative errno. */
int outlets_start(const struct outlet_keeper *keeper);

/* Nothing is taken any more; what there is gets OUTLET_FLUSH_MS to be written. The keeper
 * is not called afterwards. Harmless to repeat. */
void outlets_end(void);

/* 0, also if it is left out; or, before outlets_start, a negative errno. */
int outlet_write(enum outlet outlet, enum outlet_rank rank, const char *bytes, size_t count);
int outlet_print(enum outlet outlet, enum outlet_rank rank, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Whether all has been written, within timeout_ms. */
bool outlet_flush(enum outlet outlet, int timeout_ms);

/* Waits until a usual line would be taken. */
void outlet_wait_for_room(enum outlet outlet);

#endif
