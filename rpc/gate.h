/* gate: stands between the listener and the workers, and lets through the calls
 * of those who may call.
 *
 * Where there are users, a call has to bring the name and password of one, by
 * HTTP Basic authentication. Those that were verified lately pass at once, on
 * the listener's thread. The others are verified by two threads of the gate's
 * own, so that neither calls nor connections ever wait for that slow work. An
 * address that has brought wrong passwords is turned away unheard for a while,
 * so that guessing is slow. That goes for right ones and those verified lately,
 * too: or else the answer would tell which they are. While as many of an address
 * are being verified as may be wrong, its others wait for what comes of that. */
#ifndef RPC_GATE_H
#define RPC_GATE_H

#include "rpc/listener.h"
#include "rpc/users.h"

struct gate;

/* Where a request goes from here: exactly one of the two, from any thread of the
 * listener and the gate. Neither may block. */
struct gate_exits {
    void (*admit)(const struct ready_request *ready, void *context);
    void (*refuse)(const struct ready_request *ready, const struct http_refusal *refusal,
                   void *context);
    void *context;
};

/* users is taken over; NULL: everybody may call. 0 or a negative errno. */
int gate_start(struct users *users, const struct gate_exits *exits, struct gate **gate);

/* A request has arrived; context is the gate. For listener_start. */
void gate_look(const struct ready_request *ready, void *context);

/* As at the start. Who was verified before is verified again. Any thread. */
void gate_change_users(struct gate *gate, struct users *users);

/* Ends the threads; what gate_look gets after that is kept, until gate_free
 * closes it. */
void gate_stop(struct gate *gate);
void gate_free(struct gate *gate);

#endif
