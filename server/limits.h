/* limits: what the system lets this process have. */
#ifndef SERVER_LIMITS_H
#define SERVER_LIMITS_H

#include <stddef.h>

struct limits_descriptors {
    size_t needed;                      /* for the tunnels and all the rest */
    size_t available;
    size_t fitting_tunnels;             /* how many tunnels available would do for */
    size_t spare;                       /* available, and not needed */
};

/* Raises the limit of open descriptors as far as it goes, and fills *room. 0;
 * -EMFILE if so many tunnels would not fit, beside so many connections of callers;
 * or another negative errno. */
int limits_make_room(size_t tunnels, size_t connections, struct limits_descriptors *room);

#endif
