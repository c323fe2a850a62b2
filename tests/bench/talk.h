/* talk: one side of many connections that talk at once.
 *
 * On each, this side sends a message, checks the one that the other side sends
 * meanwhile, then comes the next round; after the last, both end their streams.
 * What is sent differs by connection and by side, so that bytes of one that end
 * up in another don't pass. */
#ifndef TESTS_BENCH_TALK_H
#define TESTS_BENCH_TALK_H

#include <stddef.h>

enum talk_side { TALK_SERVER, TALK_CLIENT };

enum { TALK_MESSAGE_BYTES = 4096 };

/* sockets[i] is this side of connection i; all are closed at the end. Returns
 * how many did not get all their bytes and a proper end. */
size_t talk(const int *sockets, size_t count, enum talk_side side, unsigned rounds);

#endif
