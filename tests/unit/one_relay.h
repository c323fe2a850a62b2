/* one_relay: a relay of a few port pairs, without a daemon, for the tests of its tunnels. */
#ifndef TESTS_ONE_RELAY_H
#define TESTS_ONE_RELAY_H

#include "relay/relay.h"
#include "tests/unit/unit.h"

#include <stdbool.h>

enum { PAIRS = 4 };

extern struct relay *relay;
extern struct relay_settings settings;
extern struct tunnel_opener opener;
extern struct tunnel_uri server_uri, client_uri;        /* of the tunnel opened last */

/* Settings as tests want them; change some, then begin. */
void set_up(void);
void begin(void);

/* A tcp tunnel: 0, or as relay_open_tunnel. */
int open_tunnel(void);

void begin_with_tunnel(void);

bool passes_a_byte(int from, int to);

/* Whether no tunnel is left, and all pairs rest. For comes_true. */
bool is_empty(void *unused);

/* Waits until the tunnels have ended by themselves, and frees the relay; nothing of it may
 * be left. */
void finish(void);

/* What main does. */
int one_relay_run(const char *subject, CU_TestInfo *tests);

#endif
