#include "server/limits.h"

#include <errno.h>
#include <stdint.h>
#include <sys/resource.h>

enum {
    DESCRIPTORS_A_TUNNEL = 2,           /* for each end a listener, then a connection */
    DESCRIPTORS_BESIDES = 128           /* pipes for bulk, and a few more */
};

int limits_make_room(size_t tunnels, size_t connections, struct limits_descriptors *room)
{
    size_t besides = DESCRIPTORS_BESIDES + connections;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit))
        return -errno;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit))
        return -errno;
    room->needed = besides + DESCRIPTORS_A_TUNNEL * tunnels;
    room->available = limit.rlim_max < SIZE_MAX ? limit.rlim_max : SIZE_MAX;
    room->fitting_tunnels = room->available < besides ? 0 :
        (room->available - besides) / DESCRIPTORS_A_TUNNEL;
    room->spare = room->available > room->needed ? room->available - room->needed : 0;
    return room->needed <= room->available ? 0 : -EMFILE;
}
