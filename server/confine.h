/* confine: what the daemon gives up by itself, however it was started.
 *
 * Neither it nor what it might be made to run gains privileges, files that it
 * makes are for its user alone, and if it crashes, no byte that it relayed comes
 * to rest in a core dump. Whoever may debug it still can. */
#ifndef SERVER_CONFINE_H
#define SERVER_CONFINE_H

/* 0, or a negative errno. While there is one thread. */
int confine_process(void);

#endif
