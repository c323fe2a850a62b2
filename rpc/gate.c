#include "rpc/gate.h"

#include "relay/address_table.h"
#include "relay/log.h"
#include "relay/waker.h"
#include "relay/log_budget.h"

#include <crypt.h>
#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    CHECKERS = 2,
    CHECKER_STACK_BYTES = 256 * 1024,
    CHECKER_NICENESS = 10,              /* relaying and calls come first */
    CHECKS_WAITING_MAX = 256,           /* well below the connections that there may be */
    CHECKS_PER_ADDRESS_MAX = 128,       /* of those */
    WRONG_AT_ONCE = 5,                  /* passwords that an address may have wrong, and then */
    WRONG_EVERY_MS = 5000               /* another one each time this has passed */
};

/* A request whose password is to be verified. */
struct check {
    TAILQ_ENTRY(check) entry;
    struct ready_request ready;
    bool has_paid;                      /* it took a token of its address */
    bool is_under_way;                  /* a checker has it */
    int64_t wait_ms;                    /* when it is refused unheard: for so long */
};

/* What comes of a check that has not paid. */
enum turn {
    TURN_WAITS,                         /* for others that have paid, who are in the gate's list */
    TURN_PAYS,                          /* it is verified in its turn */
    TURN_REMEMBERED,
    TURN_UNHEARD,
    TURN_NO_ROOM
};

TAILQ_HEAD(checks, check);

struct checker {
    struct gate *gate;
    pthread_t thread;
    struct crypt_data work;             /* the thread's */
};

struct gate {
    struct gate_exits exits;
    struct address_table *wrong;        /* a token: a password that may be wrong */
    struct checker checkers[CHECKERS];
    size_t checker_count;

    pthread_mutex_t lock;
    pthread_cond_t changed;             /* a check has paid, or stopping */
    struct users *users;                /* guarded by lock; NULL: everybody may call */
    struct checks checks;               /* guarded by lock: the oldest first */
    bool stopping;                      /* guarded by lock */
    struct log_budget log_budget;       /* guarded by lock: for refusals */
};

static bool may_log(struct gate *gate, unsigned *left_out)
{
    bool may;

    pthread_mutex_lock(&gate->lock);
    may = log_budget_spend(&gate->log_budget, clock_ms(), left_out);
    pthread_mutex_unlock(&gate->lock);
    return may;
}

static void refuse(struct gate *gate, const struct ready_request *ready,
                   const struct http_refusal *refusal, const char *who, const char *why)
{
    char address[NET_ADDRESS_TEXT_BYTES];
    char name[USERS_NAME_BYTES];
    unsigned left_out;

    if (may_log(gate, &left_out)) {
        if (left_out)
            log_write(LOG_WARNING, "%u more calls were refused for lack of a right password",
                      left_out);
        log_write(LOG_WARNING, "refused a call of %s from %s: %s",
                  text_printable(who, strlen(who), name, sizeof name),
                  log_address(&ready->peer, address), why);
    }
    gate->exits.refuse(ready, refusal, gate->exits.context);
}

static void refuse_without_credentials(struct gate *gate, const struct ready_request *ready)
{
    static const struct http_refusal refusal = {
        .status = 401, .reason = "this service asks for a user and password",
    };

    char address[NET_ADDRESS_TEXT_BYTES];

    /* Many clients send them only once they are asked. */
    log_write(LOG_DEBUG, "asked %s for a user and password", log_address(&ready->peer, address));
    gate->exits.refuse(ready, &refusal, gate->exits.context);
}

/* Only names that there are come into the log: the others may be passwords. The
 * answer tells nothing of that. */
static void refuse_wrong(struct gate *gate, const struct ready_request *ready,
                         const struct users *users)
{
    static const struct http_refusal refusal = {
        .status = 401, .reason = "no user has this name and password",
    };
    const char *name = ready->request.credentials.name;
    bool is_known = users_know(users, name);

    refuse(gate, ready, &refusal, is_known ? name : "an unknown user",
           is_known ? "the password is wrong" : "there is no such user");
}

static void refuse_for_a_while(struct gate *gate, const struct ready_request *ready,
                               int64_t wait_ms)
{
    struct http_refusal refusal = {
        .status = 429, .retry_after_s = (int)((wait_ms + 999) / 1000),
        .reason = "too many wrong passwords came from this address; try again later",
    };

    refuse(gate, ready, &refusal, "somebody",
           "too many wrong passwords came from there");
}

static void refuse_since_busy(struct gate *gate, const struct ready_request *ready)
{
    static const struct http_refusal refusal = {
        .status = 503, .retry_after_s = 1,
        .reason = "too many passwords wait to be verified; try again soon",
    };

    refuse(gate, ready, &refusal, "somebody",
           "too many passwords wait to be verified");
}

/* user: who it is, "" where nobody is asked. The password has done its work. */
static void admit(struct gate *gate, const struct ready_request *ready, const char *user)
{
    struct ready_request admitted = *ready;

    strcpy(admitted.user, user);
    sodium_memzero(&admitted.request.credentials, sizeof admitted.request.credentials);
    gate->exits.admit(&admitted, gate->exits.context);
}

static struct users *users_now(struct gate *gate)
{
    struct users *users;

    pthread_mutex_lock(&gate->lock);
    users = users_hold(gate->users);
    pthread_mutex_unlock(&gate->lock);
    return users;
}

static bool is_same_password(const struct check *a, const struct check *b)
{
    return sodium_memcmp(&a->ready.request.credentials, &b->ready.request.credentials,
                         sizeof a->ready.request.credentials) == 0;
}

/* With the lock held. Each other password costs its address a token before anything
 * about it is found out, and gets it back if it is right. Many calls at once with the
 * same one are one guess. What has been paid for, and is not verified yet, is no reason
 * to refuse others: these wait for what comes of it. */
static enum turn take_turn(struct gate *gate, struct check *check)
{
    const struct ready_request *ready = &check->ready;
    int64_t now_ms = clock_ms();
    const struct check *other;
    bool others_paid = false;

    for (other = TAILQ_FIRST(&gate->checks); other; other = TAILQ_NEXT(other, entry)) {
        if (!other->has_paid || !address_table_are_one(&other->ready.peer, &ready->peer))
            continue;
        if (is_same_password(other, check))
            return TURN_WAITS;
        others_paid = true;
    }
    check->wait_ms = address_table_look(gate->wrong, &ready->peer, now_ms);
    if (check->wait_ms > 0)
        return others_paid ? TURN_WAITS : TURN_UNHEARD;
    if (gate->users && users_remember(gate->users, &ready->request.credentials, now_ms))
        return TURN_REMEMBERED;
    address_table_take(gate->wrong, &ready->peer, now_ms);      /* there is one */
    check->has_paid = true;
    pthread_cond_signal(&gate->changed);
    return TURN_PAYS;
}

/* With the lock held. */
static bool has_room(const struct gate *gate, const struct net_address *address)
{
    const struct check *check;
    size_t count = 0, of_address = 0;

    for (check = TAILQ_FIRST(&gate->checks); check; check = TAILQ_NEXT(check, entry)) {
        count++;
        of_address += address_table_are_one(&check->ready.peer, address);
    }
    return count < CHECKS_WAITING_MAX && of_address < CHECKS_PER_ADDRESS_MAX;
}

/* The first turn of a check; the gate keeps it if it waits or pays. */
static enum turn enter(struct gate *gate, struct check *check)
{
    enum turn turn;

    pthread_mutex_lock(&gate->lock);
    turn = take_turn(gate, check);
    if (turn == TURN_WAITS || turn == TURN_PAYS) {
        if (has_room(gate, &check->ready.peer)) {
            TAILQ_INSERT_TAIL(&gate->checks, check, entry);
        } else {
            if (check->has_paid)
                address_table_give(gate->wrong, &check->ready.peer);
            turn = TURN_NO_ROOM;
        }
    }
    pthread_mutex_unlock(&gate->lock);
    return turn;
}

static void check_free(struct check *check)
{
    sodium_memzero(check, sizeof *check);
    free(check);
}

/* Of a check that is not, or no more, in the gate's list. */
static void finish_turn(struct gate *gate, struct check *check, enum turn turn)
{
    const struct ready_request *ready = &check->ready;

    switch (turn) {
    case TURN_WAITS:
    case TURN_PAYS:
        return;
    case TURN_REMEMBERED:
        admit(gate, ready, ready->request.credentials.name);
        break;
    case TURN_UNHEARD:
        refuse_for_a_while(gate, ready, check->wait_ms);
        break;
    case TURN_NO_ROOM:
        refuse_since_busy(gate, ready);
        break;
    }
    check_free(check);
}

static void request_check(struct gate *gate, const struct ready_request *ready)
{
    struct check *check = calloc(1, sizeof *check);

    if (!check) {
        refuse_since_busy(gate, ready);
        return;
    }
    check->ready = *ready;
    finish_turn(gate, check, enter(gate, check));
}

void gate_look(const struct ready_request *ready, void *context)
{
    struct gate *gate = context;
    struct users *users = users_now(gate);

    if (!users)
        admit(gate, ready, "");
    else if (!ready->request.has_credentials)
        refuse_without_credentials(gate, ready);
    else
        request_check(gate, ready);
    users_release(users);
}

/* Takes the next one of that address that need not wait any more out of the list;
 * NULL: there is none. */
static struct check *take_waiting(struct gate *gate, const struct net_address *address,
                                  enum turn *turn)
{
    struct check *check;

    pthread_mutex_lock(&gate->lock);
    for (check = TAILQ_FIRST(&gate->checks); check; check = TAILQ_NEXT(check, entry)) {
        if (check->has_paid || !address_table_are_one(&check->ready.peer, address))
            continue;
        *turn = take_turn(gate, check);
        if (*turn == TURN_REMEMBERED || *turn == TURN_UNHEARD)
            break;
    }
    if (check)
        TAILQ_REMOVE(&gate->checks, check, entry);
    pthread_mutex_unlock(&gate->lock);
    return check;
}

/* What has been verified makes way for those of its address that wait for that. */
static void leave(struct gate *gate, struct check *check)
{
    struct check *next;
    enum turn turn;

    pthread_mutex_lock(&gate->lock);
    TAILQ_REMOVE(&gate->checks, check, entry);
    pthread_mutex_unlock(&gate->lock);
    while ((next = take_waiting(gate, &check->ready.peer, &turn)))
        finish_turn(gate, next, turn);
}

/* Others may have brought the same since it paid, and been right. */
static void carry_out(struct gate *gate, struct check *check, struct crypt_data *work)
{
    const struct ready_request *ready = &check->ready;
    const struct credentials *credentials = &ready->request.credentials;
    struct users *users = users_now(gate);
    bool is_right = !users || users_remember(users, credentials, clock_ms()) ||
                    users_verify(users, credentials, clock_ms(), work);

    if (is_right)
        address_table_give(gate->wrong, &ready->peer);
    leave(gate, check);
    if (is_right)
        admit(gate, ready, users ? credentials->name : "");
    else
        refuse_wrong(gate, ready, users);
    users_release(users);
}

/* Of those that no checker has; with the lock held. */
static struct check *first_paid(struct gate *gate)
{
    struct check *check;

    for (check = TAILQ_FIRST(&gate->checks); check; check = TAILQ_NEXT(check, entry))
        if (check->has_paid && !check->is_under_way)
            break;
    return check;
}

/* NULL once the gate stops. */
static struct check *next_check(struct gate *gate)
{
    struct check *check = NULL;

    pthread_mutex_lock(&gate->lock);
    while (!gate->stopping && !(check = first_paid(gate)))
        pthread_cond_wait(&gate->changed, &gate->lock);
    if (check)
        check->is_under_way = true;
    pthread_mutex_unlock(&gate->lock);
    return check;
}

static void *checker_thread(void *argument)
{
    struct checker *self = argument;
    struct check *check;

    setpriority(PRIO_PROCESS, (id_t)gettid(), CHECKER_NICENESS);
    while ((check = next_check(self->gate))) {
        carry_out(self->gate, check, &self->work);
        check_free(check);
    }
    return NULL;
}

static int checkers_start(struct gate *gate)
{
    pthread_attr_t attributes;
    int err = pthread_attr_init(&attributes);

    if (err)
        return -err;
    err = pthread_attr_setstacksize(&attributes, CHECKER_STACK_BYTES);
    while (!err && gate->checker_count < CHECKERS) {
        struct checker *next = &gate->checkers[gate->checker_count];

        next->gate = gate;
        err = pthread_create(&next->thread, &attributes, checker_thread, next);
        if (!err)
            gate->checker_count++;
    }
    pthread_attr_destroy(&attributes);
    return -err;
}

int gate_start(struct users *users, const struct gate_exits *exits, struct gate **out)
{
    struct gate *gate = calloc(1, sizeof *gate);
    int err;

    if (!gate) {
        users_release(users);
        return -ENOMEM;
    }
    gate->exits = *exits;
    gate->users = users;
    TAILQ_INIT(&gate->checks);
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->changed, NULL);
    err = address_table_new(WRONG_AT_ONCE, WRONG_EVERY_MS, &gate->wrong);
    if (!err)
        err = checkers_start(gate);
    if (err) {
        gate_stop(gate);
        gate_free(gate);
        return err;
    }
    *out = gate;
    return 0;
}

void gate_change_users(struct gate *gate, struct users *users)
{
    struct users *before;

    pthread_mutex_lock(&gate->lock);
    before = gate->users;
    gate->users = users;
    pthread_mutex_unlock(&gate->lock);
    users_release(before);
}

void gate_stop(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->stopping = true;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
    for (size_t i = 0; i < gate->checker_count; i++)
        pthread_join(gate->checkers[i].thread, NULL);
    gate->checker_count = 0;
}

void gate_free(struct gate *gate)
{
    struct check *check;

    while ((check = TAILQ_FIRST(&gate->checks))) {
        TAILQ_REMOVE(&gate->checks, check, entry);
        close(check->ready.socket);
        check_free(check);
    }
    users_release(gate->users);
    address_table_free(gate->wrong);
    pthread_cond_destroy(&gate->changed);
    pthread_mutex_destroy(&gate->lock);
    free(gate);
}
