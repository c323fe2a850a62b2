/* sockets: connected sockets on loopback, for the tests. */
#ifndef TESTS_SOCKETS_H
#define TESTS_SOCKETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* More seconds than anything here takes; reached only by a failure. */
enum { WAIT_S = 30 };

/* A range of ports, 62 at most, at even numbers from low on, that nobody listens on, and
 * that no other program of the tests is given while this one runs; its first port. */
uint16_t free_ports(unsigned count);

/* One where nobody listens, nor will while the program runs. */
uint16_t closed_port(void);

/* A listener on a free port of 127.0.0.1, and a connection to a port there. -1
 * with errno when there is none. */
int listen_on_loopback(uint16_t *port);
int connect_to(uint16_t port);
int connect_from(const char *from, uint16_t port);

/* Two ends of one TCP connection. */
void connected_pair(int ends[2]);

/* Ends of waits, so that a test fails instead of hanging. */
void set_timeouts(int socket);

/* Everything to the end of stream; its length, or -errno (-EAGAIN: time-out). */
long read_all(int socket, char *bytes, size_t room);

/* Closes so that the peer sees a reset. */
void reset(int socket);

/* Looks again and again, for WAIT_S at most, until the condition holds. */
bool comes_true(bool (*condition)(void *context), void *context);

/* Open descriptors, and threads, of this process. */
unsigned count_descriptors(void);
unsigned count_threads(void);

#endif
