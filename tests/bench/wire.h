/* wire: what the programs of the benchmark share: loopback connections, the
 * bytes that they send and check, the time, and the talk with bench.py.
 *
 * Functions that return int give 0 (or a descriptor) or a negative errno.
 * Every wait on a socket made here is bounded by WAIT_S. */
#ifndef TESTS_BENCH_WIRE_H
#define TESTS_BENCH_WIRE_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { WAIT_S = 30 };

/* --- programs */

/* Says why on standard error, and ends the process. */
__attribute__((noreturn, format(printf, 1, 2)))
void die(const char *format, ...);

/* A decimal argument of the command line; ends the process when it is none. */
long number_argument(const char *text, long lowest, long highest);

/* To the hard limit. */
void raise_descriptor_limit(void);

/* The other side, as a process of its own that ends with its parent: 0 in it,
 * its id in the parent. */
pid_t fork_side(void);

/* Waits for it, and ends the process if it failed. */
void join_side(pid_t pid);

/* Prints a line "name key=value ...", and waits until bench.py has measured
 * what it wants at this point and sends a line. */
__attribute__((format(printf, 1, 2)))
void stage(const char *format, ...);

int64_t clock_ns(void);
int compare_int64(const void *a, const void *b);    /* for qsort */

/* --- connections on 127.0.0.1, without delay of small messages */

int listen_on(uint16_t port);           /* 0: a free one */
int listen_at(in_addr_t host, uint16_t port);   /* of this machine, not only 127.0.0.1 */
int accept_from(int listener);
int connect_to(uint16_t port);
int send_exactly(int socket, const void *bytes, size_t count);
int receive_exactly(int socket, void *bytes, size_t count);

/* Waits for the end of the stream; bytes before it are an error. */
int receive_end(int socket);

/* Where the server of a path is: "attach:PORT" connects there, as a tunnel
 * wants it, "listen:PORT" waits for the relay to come, as all others do. */
struct server_end {
    int listener;                       /* -1: attached */
    int socket;                         /* -1: not there yet */
};
struct server_end server_end_open(const char *where);

/* Its connection, once the client is on its way. Ends the process on failure. */
int server_end_connection(struct server_end *end);

/* --- bytes */

/* What is sent: a block of random bytes, over and over. The length of the block
 * is a prime, so that a piece that is lost, doubled or out of place makes a
 * difference, whatever size of buffer it had. */
enum { PATTERN_BYTES = 65521, PATTERN_RUN_BYTES = 128 * 1024 };

void pattern_make(void);                /* first of all, and before threads */

/* PATTERN_RUN_BYTES of it from that offset on. */
const char *pattern_at(uint64_t offset);

#endif
