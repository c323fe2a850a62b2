/* attacher: connects to a tunnel of the proxy, again and again, without holding up the
 * thread that serves: names are looked up, and calls made, by a thread of its own,
 * which lives for one attempt.
 *
 * Between a failure or a loss and the next attempt lies the time that backoff says. Belongs
 * to one thread. */
#ifndef CLIENTS_ATTACHER_H
#define CLIENTS_ATTACHER_H

#include "clients/tristero_tunnel.h"

#include <stdbool.h>
#include <stdint.h>

struct attacher;

struct attached {
    int socket;                         /* non-blocking; the caller's */
    char *client_uri;                   /* of a new tunnel, the caller's to free; NULL: the same as before */
};

enum attacher_result { ATTACHER_BUSY, ATTACHER_ATTACHED, ATTACHER_FAILED };

/* done is called by the attempt's thread when attacher_take has something to take. */
enum tristero_status attacher_new(struct tristero_proxy *proxy, void (*done)(void *context),
                                  void *context, struct attacher **attacher,
                                  struct tristero_error *error);

/* Breaks off the attempt that is under way, within a second or so, but for the lookup of a
 * name. NULL is ignored. */
void attacher_free(struct attacher *attacher);

/* Opens the tunnel: where its clients connect, the caller's to free; and attaches to it.
 * Both wait. */
enum tristero_status attacher_open(struct attacher *attacher, char **client_uri,
                                   struct tristero_error *error);
enum tristero_status attacher_attach(struct attacher *attacher, int *socket,
                                     struct tristero_error *error);

/* Starts an attempt, unless one is under way, or it is too early for the next. If the
 * tunnel is not there any more, it opens another. */
void attacher_start(struct attacher *attacher, int64_t now_ms);

/* What has become of it: BUSY, also if there is none. */
enum attacher_result attacher_take(struct attacher *attacher, struct attached *attached,
                                   struct tristero_error *error);

/* In how many ms the next attempt may start, after
 * - one that failed, or whose socket could not be used;
 * - the loss of what was attached, where the proxy had said something;
 * - the same without a word, as it turns away whom the tunnel is not for: by now it may be
 *   another's, or this machine has another address. Where that goes on for more than a
 *   minute, and no other connection is there, the next attempt opens another tunnel. */
int attacher_failed(struct attacher *attacher);
int attacher_lost(struct attacher *attacher);
int attacher_turned_away(struct attacher *attacher, bool has_no_other);

/* When, by clock_ms, attacher_start is worth calling again; INT64_MAX: whenever. */
int64_t attacher_next_ms(const struct attacher *attacher);

#endif
