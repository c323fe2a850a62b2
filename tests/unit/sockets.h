/* sockets: connected sockets on loopback, for the tests. */
#ifndef TESTS_SOCKETS_H
#define TESTS_SOCKETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A range of ports, at even numbers from low on, that nobody listens on just
 * now; its first port. */
uint16_t free_ports(unsigned count);

/* A listener on a free port of 127.0.0.1, and a connection to a port there. -1
 * when there is none. */
int listen_on_loopback(uint16_t *port);
int connect_to(uint16_t port);
int connect_from(const char *from, uint16_t port);

/* Two ends of one TCP connection. */
void connected_pair(int ends[2]);

/* Ends of waits, so that a test fails instead of hanging: 5 s. */
void set_timeouts(int socket);

/* Everything to the end of stream; its length, or -errno (-EAGAIN: time-out). */
long read_all(int socket, char *bytes, size_t room);

/* Closes so that the peer sees a reset. */
void reset(int socket);

/* Looks again and again, for 5 s at most, until the condition holds. */
bool comes_true(bool (*condition)(void *context), void *context);

/* Open descriptors, and threads, of this process. */
unsigned count_descriptors(void);
unsigned count_threads(void);

#endif
