/* The life of tunnels without a thread of their own, as a second model beside
 * tunnel.pml: carriers come, hold them and go, tunnels wait for another, the service's
 * thread closes those that have waited long enough, and a shutdown ends it all.
 * tests/model/verify runs it in the same way.
 *
 * What must hold, and where it is said:
 *   no deadlock                                       spin: invalid end states
 *   no tunnel is touched once it is freed, or freed twice
 *                                                     touch, see_through_table
 *   a tunnel is held by one carrier at most, and touched by no other then
 *                                                     take_hold, touch_own
 *   a pair is given back once for every time it was taken
 *                                                     port_pool_give, relay_free
 *   a tunnel that waits has its clients' port listening
 *                                                     wait_for_another
 *   the service's thread looks again when one more tunnel waits
 *                                                     nothing_is_forgotten
 *   no waker is asked or nudged whose thread was joined, or that is freed
 *                                                     touch_waker
 *   every carrier's thread is joined once, and freed with its stack after that
 *                                                     pthread_join, carrier_bury, service_free
 *   no carrier is touched once it is freed            touch_carrier
 *   nothing touches the service or the relay once it is freed
 *                                                     pthread_mutex_lock, touch_waker
 *   every pair that is taken comes back               ltl given_back
 *   a shutdown ends, whatever the servers do          ltl shutdown_ends
 *
 * From its steps to the code: as in tunnel.pml. Where two files call a function
 * the same, function=step says which step is this file's.
 *
 *   relay/carried.c      is_owner nudge_expirer open_for carried_open carried_open_held
 *                        carried_hold carried_let_go close_now carried_close
 *                        take_expired carried_expire carried_set_expirer
 *   relay/relay.c        relay_free enter_table leave_table tunnel_free tunnel_new
 *                        relay_refuse_new relay_wait_until_empty relay_end_all
 *   relay/reservation.c  reserve unreserve
 *   relay/tunnel.c       tunnel_close_listener
 *   relay/port_pool.c    port_pool_take port_pool_give
 *   relay/waker.c        waker_ask waker_nudge waker_poll
 *   relay/ssh_service.c  let_in step bury_ended turn=service_turn is_draining
 *                        stop_accepting service_thread service_free
 *                        ssh_service_drain ssh_service_stop
 *   relay/ssh_carrier.c  on_forward on_cancel look=carrier_look move turn=carrier_turn
 *                        leave carrier_thread start_thread carrier_start
 *                        carrier_drain carrier_ask_to_end carrier_bury
 *   relay/ssh_forward.c  hold_or_open forward_open forward_cancel
 *                        forwards_stop_listening close_tunnel end_one forwards_end
 *                        look=forward_look forwards_look
 *   rpc/rpc_server.c     rpc_server_stop
 *   server/main.c        drain serve
 *
 * Left out:
 *   relay/carried.c      token_make carried_is_token start_of why_expired
 *                        carried_admits: it looks at the table as carried_hold does
 *
 * Bytes, streams and libssh are left out, with whether a server is let in, and
 * whether ssh is offered still. So are tunnels that have a thread, settings, and
 * who has opened how many: they are tunnel.pml's. Time is left out as there: a
 * tunnel that waits may have waited long enough at any moment. A section under a
 * lock is one step. */

#ifndef PAIRS
#define PAIRS 1                         /* port pairs: one or two */
#endif
#ifndef TUNNELS
#define TUNNELS 2                       /* as many are opened at most: one or two */
#endif
#ifndef TOKENS
#define TOKENS 1                        /* of them, the first: for a token, by calls */
#endif
#ifndef CARRIERS
#define CARRIERS 2                      /* as many servers log in at most: one or two */
#endif
#ifndef REQUESTS
#define REQUESTS 2                      /* of all carriers together */
#endif
/* Further macros that make a model of one kind or another: MISHAPS; LATE, in which the
 * shutdown begins when nothing more happens by itself; NO_SHUTDOWN, for liveness; FAR,
 * in which no tunnel waits long enough; PATIENT, in which a drain takes the time that
 * it needs, no client stays, and no tunnel waits long enough; UNDRAINED, in which the
 * end begins at once, with calls that go on; CANCELS, with requests to take a forward
 * back; LIFETIME. FAULT_...: what must be found. */

#define NONE 255
#define SERVER 0
#define CLIENT 1
#define of(tunnel, side) ((tunnel) * 2 + (side))
#define bit(tunnel) (1 << (tunnel))

mtype = { CANCELED, NUDGED, TIMED_OUT, READY, QUIET };  /* what waker_poll returns */
mtype = { NO_THREAD, RUNNING, OVER, JOINED };
mtype = { NOWHERE, HERE, ENDED };                       /* the list that a carrier is in */

/* --- the world */

bool silent;            /* the servers that are here do nothing more */
byte requests;          /* how often servers may yet ask for something */
byte logins;            /* as many may yet log in */

#ifdef MISHAPS
#define may_fail true   /* the system may lack memory or threads */
#else
#define may_fail false
#endif
#if defined(PATIENT) || defined(FAR)
#define time_may_pass false
#else
#define time_may_pass true
#endif
#ifdef PATIENT
#define may_have_streams false
#define may_be_cut false
#else
#define may_have_streams true
#define may_be_cut true
#endif
#ifdef LIFETIME
#define has_lifetime true
#else
#define has_lifetime false
#endif

/* --- locks: what is left of them is that they are there, with what they are in */

#define relay_lock 0
#define service_lock 1
bool is_freed[2];                       /* the relay, the service */

inline pthread_mutex_lock(lock)
{
    assert(!is_freed[lock])
}

inline pthread_mutex_unlock(lock)
{
    assert(!is_freed[lock])
}

/* --- threads: the carriers', by number, and the service's */

#define SERVICE CARRIERS
#define NOBODY (CARRIERS + 1)           /* has the wakers of tunnels without a thread */

mtype thread[CARRIERS + 1] = NO_THREAD;
bool has_stack[CARRIERS];
bool carrier_exists[CARRIERS];

#define touch_carrier(carrier) assert(carrier_exists[carrier])

inline pthread_join(joined)
{
    assert(thread[joined] == RUNNING || thread[joined] == OVER);
    d_step { thread[joined] == OVER -> thread[joined] = JOINED }
}

/* --- relay/waker.c: by thread */

bool asked[CARRIERS + 2];
bool nudged[CARRIERS + 2];
byte awaited;                           /* tunnels, by bit: for whose time the service's waits */
byte due;                               /* of them: whose time has come for sure */

#define touch_waker(waker) \
    assert((waker) == NOBODY || \
           ((waker) == SERVICE && !is_freed[service_lock] && thread[SERVICE] != JOINED) || \
           ((waker) < CARRIERS && carrier_exists[waker] && thread[waker] != JOINED))

/* The flag and the signal, for which there is a thread until it is joined: one that
 * finds the flag may end before whoever raised it comes to the signal. That a thread
 * which waits is woken is tunnel.pml's to say. */
inline waker_ask(waker)
{
    touch_waker(waker);
    asked[waker] = true
}

inline waker_nudge(waker)
{
    touch_waker(waker);
    nudged[waker] = true
}

#define is_left_alone(waker) (!asked[waker] && !nudged[waker])
#define has_deadline(waker) ((waker) == SERVICE && awaited && time_may_pass)
#define has_news(waker) ((waker) == SERVICE && logins || (waker) != SERVICE && !silent)

/* It looks at the flags, and waits: for a deadline, or a descriptor. */
inline waker_poll(waker, ready)
{
#ifdef FAULT_NUDGE_IS_CLEARED_FIRST
    nudged[waker] = false;
#endif
    if
    :: d_step { asked[waker] -> ready = CANCELED }
    :: d_step { !asked[waker] && nudged[waker] -> nudged[waker] = false; ready = NUDGED }
    :: d_step { is_left_alone(waker) && has_deadline(waker) -> due = awaited; ready = TIMED_OUT }
    :: d_step { is_left_alone(waker) && has_news(waker) -> ready = READY }
    fi
}

/* --- struct tunnel. One that is freed is no other's again. */

bool exists[TUNNELS];                   /* between calloc and free */
byte pair[TUNNELS] = NONE;
bool has_token[TUNNELS];                /* or else its owner is whoever has the key */
bool is_held[TUNNELS];                  /* as the code has it: under relay_lock */
byte holder[TUNNELS] = NONE;            /* as it is: the carrier */
bool listens[TUNNELS * 2];
byte opened = TOKENS;                   /* those before are opened already, or for calls to open */

#define touch(tunnel) assert(exists[tunnel])
#define touch_own(carrier, tunnel) assert(exists[tunnel] && holder[tunnel] == (carrier))

inline tunnel_close_listener(tunnel, side)
{
    touch(tunnel);
    listens[of(tunnel, side)] = false
}

inline take_hold(carrier, tunnel)
{
    assert(exists[tunnel] && holder[tunnel] == NONE);
    holder[tunnel] = carrier;
    is_held[tunnel] = true
}

inline wait_for_another(carrier, tunnel)
{
    touch_own(carrier, tunnel);
    assert(listens[of(tunnel, CLIENT)]);
    holder[tunnel] = NONE;
    is_held[tunnel] = false;
    due = due & ~bit(tunnel)
}

/* --- relay/port_pool.c: any pair that is not in use */

bool is_in_use[PAIRS];

inline port_pool_take(tunnel, err)
{
    pair[tunnel] = (!is_in_use[0] -> 0 : PAIRS - 1);
    err = is_in_use[pair[tunnel]];
    if
    :: err -> pair[tunnel] = NONE
    :: else ->
        is_in_use[pair[tunnel]] = true;
        listens[of(tunnel, SERVER)] = true;
        listens[of(tunnel, CLIENT)] = true
    fi
}

inline port_pool_give(tunnel)
{
    touch(tunnel);
    assert(!listens[of(tunnel, SERVER)] && !listens[of(tunnel, CLIENT)]);
    assert(is_in_use[pair[tunnel]]);
    is_in_use[pair[tunnel]] = false
}

/* --- relay/relay.c */

byte alive;                             /* these four under relay_lock */
byte table[PAIRS] = NONE;               /* the tunnel, by its pair */
bool refusing;
bool ending;
bool waits_until_empty;                 /* on emptied: the main thread */
bool is_shut_down;

inline see_through_table()
{
    assert(table[0] == NONE || exists[table[0]]);
    assert(table[PAIRS - 1] == NONE || exists[table[PAIRS - 1]])
}

/* What must be so by then: all is given back that tunnels had. */
inline relay_free()
{
    d_step {
        assert(alive == 0 && !is_in_use[0] && !is_in_use[PAIRS - 1]);
        assert(table[0] == NONE && table[PAIRS - 1] == NONE);
        is_freed[relay_lock] = true
    }
}

inline reserve(err)
{
    pthread_mutex_lock(relay_lock);
    err = refusing;
    if
    :: !err -> alive++
    :: else
    fi;
    pthread_mutex_unlock(relay_lock)
}

inline unreserve()
{
    pthread_mutex_lock(relay_lock);
    assert(alive > 0);
    alive--;
    if
    :: alive == 0 -> waits_until_empty = false
    :: else
    fi;
    pthread_mutex_unlock(relay_lock)
}

inline enter_table(tunnel, err)
{
    d_step {
        pthread_mutex_lock(relay_lock);
        touch(tunnel);
#ifdef FAULT_ENTERS_WHILE_ENDING
        err = false;
#else
        err = ending;
#endif
        if
        :: !err ->
            assert(table[pair[tunnel]] == NONE);
            table[pair[tunnel]] = tunnel
        :: else
        fi;
        pthread_mutex_unlock(relay_lock)
    }
}

inline leave_table(tunnel)
{
    d_step {
        pthread_mutex_lock(relay_lock);
        touch(tunnel);
        assert(table[pair[tunnel]] == tunnel);
        table[pair[tunnel]] = NONE;
        pthread_mutex_unlock(relay_lock)
    }
}

/* Nobody reads of it any more, so it is wiped. */
inline free(tunnel)
{
    touch(tunnel);
    exists[tunnel] = false;
    has_token[tunnel] = false;
    is_held[tunnel] = false;
    holder[tunnel] = NONE;
    pair[tunnel] = NONE;
    due = due & ~bit(tunnel)
}

/* One step, as tunnel_new is: tunnel.pml takes both apart. */
inline tunnel_free(tunnel)
{
    d_step {
        tunnel_close_listener(tunnel, SERVER);
        tunnel_close_listener(tunnel, CLIENT);
        port_pool_give(tunnel);
        free(tunnel);
        unreserve()
    }
}

inline tunnel_new(tunnel, token, err)
{
    reserve(err);
    if
    :: !err ->
        port_pool_take(tunnel, err);
        if
        :: err -> unreserve()
        :: else -> exists[tunnel] = true; has_token[tunnel] = token
        fi
    :: else
    fi
}

inline relay_refuse_new()
{
    d_step {
        pthread_mutex_lock(relay_lock);
        refusing = true;
        pthread_mutex_unlock(relay_lock)
    }
}

/* A wait gives up the lock: each time round is one section under it. */
inline relay_wait_until_empty()
{
    do
    :: d_step {
        alive ->
        pthread_mutex_lock(relay_lock);
        waits_until_empty = true;
        pthread_mutex_unlock(relay_lock)
       };
        if
        :: !waits_until_empty
        :: may_be_cut -> waits_until_empty = false; break
        fi
    :: else -> break
    od
}

/* Tunnels' wakers are nobody's here. */
inline relay_end_all()
{
    d_step {
        pthread_mutex_lock(relay_lock);
        refusing = true;
        ending = true;
        see_through_table();
        waker_ask(NOBODY);
        pthread_mutex_unlock(relay_lock)
    };
#ifndef FAULT_END_ALL_DOES_NOT_EXPIRE
    carried_expire(next);
#endif
    do
    :: d_step { alive -> waits_until_empty = true }; !waits_until_empty
    :: else -> break
    od
}

/* --- relay/carried.c */

byte expirer = SERVICE;                 /* under relay_lock: whose waker is nudged */

inline nudge_expirer()
{
    if
    :: expirer != NONE -> waker_nudge(expirer)
    :: else
    fi
}

inline open_for(tunnel, token, err)
{
    d_step {
        tunnel_new(tunnel, token, err);
        if
        :: !err -> tunnel_close_listener(tunnel, SERVER)
        :: else
        fi
    }
}

inline carried_open(tunnel, err)
{
    open_for(tunnel, true, err);
    if
    :: !err ->
        enter_table(tunnel, err);
        if
        :: err -> tunnel_free(tunnel)
        :: else ->
#ifdef FAULT_READ_AFTER_ENTERING
            touch(tunnel);
#endif
#ifndef FAULT_OPENS_WITHOUT_NUDGE
            d_step {
                pthread_mutex_lock(relay_lock);
                nudge_expirer();
                pthread_mutex_unlock(relay_lock)
            }
#endif
        fi
    :: else
    fi
}

inline carried_open_held(carrier, tunnel, err)
{
    d_step {
        open_for(tunnel, false, err);
#ifndef FAULT_IS_HELD_AFTER_ENTERING
        if
        :: !err -> take_hold(carrier, tunnel)
        :: else
        fi
#endif
    };
    if
    :: !err ->
        enter_table(tunnel, err);
#ifdef FAULT_IS_HELD_AFTER_ENTERING
        d_step { take_hold(carrier, tunnel) };
#endif
        if
        :: err -> tunnel_free(tunnel)
        :: else
        fi
    :: else
    fi
}

/* There is one token that servers come with: the first tunnel's. */
#define is_owner(tunnel, token) (has_token[tunnel] == token && (!token || (tunnel) == 0))

#ifdef FAULT_HOLDS_WHAT_IS_HELD
#define may_be_held(tunnel) true
#else
#define may_be_held(tunnel) (!is_held[tunnel])
#endif

/* port: the pair whose it is, or NONE for any. */
#define fits(index, token, port) \
    (table[index] != NONE && is_owner(table[index], token) && may_be_held(table[index]) && \
     (port == NONE || port == (index)))

inline carried_hold(carrier, token, port, found)
{
    d_step {
        pthread_mutex_lock(relay_lock);
        see_through_table();
        found = (fits(0, token, port) -> table[0] : NONE);
        if
        :: fits(PAIRS - 1, token, port) && table[PAIRS - 1] < found -> found = table[PAIRS - 1]
        :: else
        fi;
        if
        :: found != NONE -> take_hold(carrier, found)
        :: else
        fi;
        pthread_mutex_unlock(relay_lock)
    }
}

/* Whether it may wait at all is for its settings to say. */
inline carried_let_go(carrier, tunnel)
{
    if
    :: d_step {
        !refusing ->
        pthread_mutex_lock(relay_lock);
        wait_for_another(carrier, tunnel);
#ifndef FAULT_GOES_WITHOUT_NUDGE
        nudge_expirer();
#endif
        pthread_mutex_unlock(relay_lock)
       }
    :: true ->
#ifdef FAULT_LETS_GO_AND_CLOSES
        is_held[tunnel] = false;
#endif
        carried_close(tunnel)
    fi
}

inline close_now(tunnel)
{
    tunnel_free(tunnel)
}

inline carried_close(tunnel)
{
#ifdef FAULT_CLOSES_WITHOUT_LEAVING_TABLE
    close_now(tunnel)
#else
    leave_table(tunnel);
    close_now(tunnel)
#endif
}

#define waits(index) (table[index] != NONE && !is_held[table[index]])
#define must_close(index) (waits(index) && (refusing || (due & bit(table[index]))))
#define may_close(index) (waits(index) && !refusing && time_may_pass)
#ifdef FAULT_LEAVES_TABLE_AFTER_THE_LOCK
#define take_out(index) expired = table[index]
#else
#define take_out(index) expired = table[index]; table[index] = NONE
#endif

/* It may be time for one, or not yet. next: those that wait on. */
inline take_expired(expired, next)
{
    if
    :: d_step {
        true ->
        pthread_mutex_lock(relay_lock);
        see_through_table();
        next = 0;
        if
        :: must_close(0) -> take_out(0)
        :: !must_close(0) && must_close(PAIRS - 1) -> take_out(PAIRS - 1)
        :: else ->
            next = (waits(0) -> bit(table[0]) : 0);
            next = next | (waits(PAIRS - 1) -> bit(table[PAIRS - 1]) : 0)
        fi;
        pthread_mutex_unlock(relay_lock)
       }
    :: d_step { may_close(0) -> take_out(0) }
#if PAIRS > 1
    :: d_step { may_close(1) -> take_out(1) }
#endif
    fi
}

inline carried_expire(next)
{
    do
    :: true ->
        take_expired(expired, next);
#ifdef FAULT_LEAVES_TABLE_AFTER_THE_LOCK
        if
        :: expired != NONE -> leave_table(expired)
        :: else
        fi;
#endif
        if
        :: expired == NONE -> break
        :: else -> close_now(expired); expired = NONE
        fi
    od
}

inline carried_set_expirer(waker)
{
    d_step {
        pthread_mutex_lock(relay_lock);
        expirer = waker;
        pthread_mutex_unlock(relay_lock)
    }
}

/* --- relay/ssh_forward.c: which tunnels a carrier has in hand is its thread's */

bool is_drained[CARRIERS];              /* carrier->draining */

/* A token is good for one tunnel. */
inline hold_or_open(carrier, token, port, tunnel)
{
    if
    :: token && (forward[0] || forward[TUNNELS - 1])
    :: else ->
        carried_hold(carrier, token, port, tunnel);
        if
        :: d_step {
            tunnel == NONE && !token && port == NONE && opened < TUNNELS ->
            tunnel = opened;
            opened++
           };
            carried_open_held(carrier, tunnel, err);
            if
            :: err -> tunnel = NONE; err = false
            :: else
            fi
        :: else
        fi
    fi
}

inline forward_open(carrier, token, port)
{
    if
    :: is_drained[carrier]
    :: else ->
        hold_or_open(carrier, token, port, tunnel);
        if
        :: d_step {
            tunnel != NONE ->
            touch_own(carrier, tunnel);
            forward[tunnel] = true;
            tunnel = NONE
           }
        :: else
        fi
    fi
}

inline forward_cancel(carrier, tunnel)
{
    d_step {
        touch_own(carrier, tunnel);
        is_cancelled[tunnel] = true;
        tunnel_close_listener(tunnel, CLIENT)
    }
}

inline forwards_stop_listening(carrier)
{
    tunnel = 0;
    do
    :: tunnel < TUNNELS ->
        if
        :: forward[tunnel] -> touch_own(carrier, tunnel); tunnel_close_listener(tunnel, CLIENT)
        :: else
        fi;
        tunnel++
    :: else -> break
    od;
    tunnel = NONE
}

inline close_tunnel(carrier, tunnel)
{
    d_step {
        touch_own(carrier, tunnel);
        forward[tunnel] = false;
        is_cancelled[tunnel] = false
    };
    carried_close(tunnel);
    tunnel = NONE
}

/* One tunnel of those that the connection ends with. */
inline end_one(carrier, tunnel)
{
    bool was_cancelled;

    d_step {
        touch_own(carrier, tunnel);
        was_cancelled = is_cancelled[tunnel];
        forward[tunnel] = false;
        is_cancelled[tunnel] = false
    };
    if
    :: was_cancelled -> carried_close(tunnel)
    :: else -> carried_let_go(carrier, tunnel)
    fi;
    tunnel = NONE;
    was_cancelled = false
}


/* Whether it may be over: one that was taken back may have streams still. */
#define forward_look(tunnel) (forward[tunnel] && (has_lifetime || is_cancelled[tunnel]))

inline forwards_look(carrier)
{
#if defined(CANCELS) || defined(LIFETIME)
    do
    :: d_step { forward_look(0) -> tunnel = 0 }; close_tunnel(carrier, tunnel)
#if TUNNELS > 1
    :: d_step { forward_look(1) -> tunnel = 1 }; close_tunnel(carrier, tunnel)
#endif
    :: may_have_streams || !(forward_look(0) || forward_look(TUNNELS - 1)) -> break
    od
#else
    skip
#endif
}

/* --- relay/ssh_carrier.c */

mtype list[CARRIERS] = NOWHERE;         /* these three under service_lock */
bool draining;
bool stopping;
bool waits_for_carriers;                /* on carrier_ended: the main thread */

inline on_forward(carrier, token)
{
    if
    :: port = NONE
    :: port = 0
#if PAIRS > 1
    :: port = 1
#endif
    fi;
    forward_open(carrier, token, port);
    port = NONE
}

inline on_cancel(carrier)
{
    if
    :: forward[0] -> forward_cancel(carrier, 0)
#if TUNNELS > 1
    :: forward[1] -> forward_cancel(carrier, 1)
#endif
    :: else
    fi
}

/* What a server does: it asks for something, or has gone. */
inline move(carrier, token)
{
    if
    :: d_step { requests > 0 -> requests-- }; on_forward(carrier, token)
#ifdef CANCELS
    :: d_step { requests > 0 -> requests-- }; on_cancel(carrier)
#endif
    :: has_failed = true
    fi
}

inline carrier_look(carrier)
{
    forwards_look(carrier);
    if
    :: d_step { is_drained[carrier] -> forwards_stop_listening(carrier); has_failed = true }
    :: d_step { is_drained[carrier] && may_have_streams -> forwards_stop_listening(carrier) }
    :: else
    fi
}

inline carrier_turn(carrier, token)
{
    carrier_look(carrier);
    if
    :: has_failed
    :: else ->
        waker_poll(carrier, ready);
        if
        :: d_step { ready == CANCELED -> ready = QUIET; has_failed = true }
        :: d_step { ready == READY -> ready = QUIET }; move(carrier, token)
        :: d_step { ready == NUDGED -> ready = QUIET }
        fi
    fi
}

inline leave(carrier)
{
    d_step {
        pthread_mutex_lock(service_lock);
        touch_carrier(carrier);
        assert(list[carrier] == HERE);
        list[carrier] = ENDED;
#ifndef FAULT_NO_WORD_OF_THE_END
        waits_for_carriers = false;
#endif
        if
#ifdef FAULT_NUDGES_AFTER_STOP
        :: true ->
#elif defined(FAULT_GOES_WITHOUT_NUDGE)
        :: false ->
#else
        :: !stopping ->
#endif
            waker_nudge(SERVICE)
        :: else
        fi;
        pthread_mutex_unlock(service_lock)
    }
}

inline forwards_end(carrier)
{
    do
    :: d_step { forward[0] -> tunnel = 0 }; end_one(carrier, tunnel)
#if TUNNELS > 1
    :: d_step { forward[1] -> tunnel = 1 }; end_one(carrier, tunnel)
#endif
    :: else -> break
    od
}

proctype carrier_thread(byte carrier; bool token)
{
    bool has_failed, err;
    bool forward[TUNNELS], is_cancelled[TUNNELS];
    mtype ready = QUIET;
    byte tunnel = NONE, port = NONE;

    do
    :: !has_failed -> carrier_turn(carrier, token)
    :: else -> break
    od;
    forwards_end(carrier);
    atomic { assert(has_stack[carrier]); leave(carrier) };
    atomic { assert(has_stack[carrier]); thread[carrier] = OVER }
}

inline start_thread(carrier, token, err)
{
    if
    :: has_stack[carrier] = true; thread[carrier] = RUNNING; run carrier_thread(carrier, token)
    :: may_fail -> err = true
    fi
}

inline carrier_start(carrier, token)
{
    carrier_exists[carrier] = true;
#ifdef FAULT_DRAINING_IS_READ_FIRST
    is_drained[carrier] = draining;
#endif
    atomic {
        pthread_mutex_lock(service_lock);
#ifndef FAULT_DRAINING_IS_READ_FIRST
        is_drained[carrier] = draining;
#endif
        start_thread(carrier, token, err);
        if
        :: err -> carrier_exists[carrier] = false; err = false
        :: else -> list[carrier] = HERE
        fi;
        pthread_mutex_unlock(service_lock)
    }
}

inline carrier_drain(carrier)
{
    touch_carrier(carrier);
    is_drained[carrier] = true;
#ifndef FAULT_DRAINS_CARRIERS_WITHOUT_NUDGE
    waker_nudge(carrier)
#endif
}

inline carrier_ask_to_end(carrier)
{
    touch_carrier(carrier);
    waker_ask(carrier)
}

inline carrier_bury(carrier)
{
#ifndef FAULT_FREES_WITHOUT_JOINING
    pthread_join(carrier);
#endif
    d_step {
        touch_carrier(carrier);
        assert(has_stack[carrier]);
        has_stack[carrier] = false;
        carrier_exists[carrier] = false
    }
}

/* --- relay/ssh_service.c */

inline let_in()
{
    carrier = logins;
    if
    :: TOKENS > 0 -> carrier_start(carrier, true)
    :: TUNNELS > TOKENS -> carrier_start(carrier, false)
    fi;
    carrier = NONE
}

inline step()
{
    if
    :: logins -> logins--; let_in()
    :: else                             /* they were dropped */
    fi
}

inline bury_ended()
{
    do
    :: true ->
        d_step {
            pthread_mutex_lock(service_lock);
            carrier = (list[CARRIERS - 1] == ENDED -> CARRIERS - 1 : NONE);
            carrier = (list[0] == ENDED -> 0 : carrier);
#ifndef FAULT_LEAVES_LIST_AFTER_FREE
            if
            :: carrier != NONE -> list[carrier] = NOWHERE
            :: else
            fi;
#endif
            pthread_mutex_unlock(service_lock)
        };
        if
        :: carrier != NONE -> carrier_bury(carrier)
        :: else -> break
        fi;
#ifdef FAULT_LEAVES_LIST_AFTER_FREE
        list[carrier] = NOWHERE
#endif
    od
}

inline service_turn()
{
    carried_expire(awaited);
    waker_poll(SERVICE, ready);
    bury_ended();
    if
    :: d_step { ready == CANCELED -> ready = QUIET; is_asked = true }
    :: d_step { ready == READY -> ready = QUIET }; step()
    :: d_step { ready == NUDGED || ready == TIMED_OUT -> ready = QUIET }
    fi
}

inline is_draining()
{
    pthread_mutex_lock(service_lock);
    must_stop = draining;
    pthread_mutex_unlock(service_lock)
}

inline stop_accepting()
{
    logins = 0
}

proctype service_thread()
{
    bool is_asked, must_stop, err;
    mtype ready = QUIET;
    byte expired = NONE, carrier = NONE;

    do
    :: !is_asked ->
        d_step {
            is_draining();
            if
            :: must_stop -> stop_accepting()
            :: else
            fi;
            must_stop = false
        };
        service_turn()
    :: else -> break
    od;
    thread[SERVICE] = OVER
}

#define is_gone(carrier) \
    (!carrier_exists[carrier] && !has_stack[carrier] && list[carrier] == NOWHERE && \
     (thread[carrier] == NO_THREAD || thread[carrier] == JOINED))

inline service_free()
{
    d_step {
        assert(is_gone(0) && is_gone(CARRIERS - 1));
        is_freed[service_lock] = true
    }
}

/* Whether it is in the list of carriers that run. */
#define runs(carrier) (list[carrier] == HERE)
#ifdef FAULT_LEAVES_LIST_AFTER_FREE
#define is_here(carrier) (list[carrier] != NOWHERE)
#else
#define is_here(carrier) runs(carrier)
#endif

inline ssh_service_drain()
{
    d_step {
        pthread_mutex_lock(service_lock);
        draining = true;
        carrier = 0;
        do
        :: carrier < CARRIERS && is_here(carrier) -> carrier_drain(carrier); carrier++
        :: carrier < CARRIERS && !is_here(carrier) -> carrier++
        :: else -> break
        od;
        carrier = NONE;
        pthread_mutex_unlock(service_lock)
    };
#ifndef FAULT_DRAINS_WITHOUT_NUDGE
    waker_nudge(SERVICE)
#endif
}

inline ssh_service_stop()
{
#ifndef FAULT_EXPIRER_STAYS
    carried_set_expirer(NONE);
#endif
    d_step {
        pthread_mutex_lock(service_lock);
        stopping = true;
        pthread_mutex_unlock(service_lock)
    };
#ifndef FAULT_ASKS_CARRIERS_FIRST
    d_step { waker_ask(SERVICE) };
    pthread_join(SERVICE);
#endif
    d_step {
        pthread_mutex_lock(service_lock);
        carrier = 0;
        do
        :: carrier < CARRIERS && is_here(carrier) -> carrier_ask_to_end(carrier); carrier++
        :: carrier < CARRIERS && !is_here(carrier) -> carrier++
        :: else -> break
        od;
        carrier = NONE;
        pthread_mutex_unlock(service_lock)
    };
#ifdef FAULT_ASKS_CARRIERS_FIRST
    d_step { waker_ask(SERVICE) };
    pthread_join(SERVICE);
#endif
#ifndef FAULT_STOPS_WITHOUT_WAITING
    do
    :: d_step { runs(0) || runs(CARRIERS - 1) -> waits_for_carriers = true }; !waits_for_carriers
    :: else -> break
    od;
#endif
    bury_ended();
    stop_accepting();
    service_free()
}

/* --- rpc/rpc_server.c: the calls, and the end of those who carry them out */

bool busy;

proctype worker()
{
    bool err;

#if TOKENS > 0
    carried_open(0, err);
#endif
#if TOKENS > 1
    carried_open(1, err);
#endif
    atomic { err = false; busy = false }
}

inline rpc_server_stop()
{
    !busy
}

/* --- server/main.c */

inline drain()
{
    relay_refuse_new();
    ssh_service_drain();
    relay_wait_until_empty()
}

#define is_awaited(tunnel) \
    (!exists[tunnel] || \
     (table[pair[tunnel]] == (tunnel) && holder[tunnel] == NONE && (awaited & bit(tunnel))))

/* When nothing more happens by itself, the service's thread knows of each tunnel. */
inline nothing_is_forgotten()
{
    d_step {
        timeout;
        assert(is_awaited(0) && is_awaited(TUNNELS - 1))
    }
}

inline servers_may_stand_still()
{
    if
    :: silent = true
    :: true
    fi
}

/* A signal may come at any time. Without one, the end begins with calls that go on
 * when it could not be announced that the service serves; the daemon stops them first. */
proctype serve()
{
    byte carrier = NONE, expired = NONE, next;

#ifdef LATE
    nothing_is_forgotten();
#endif
#ifndef UNDRAINED
    drain();
    rpc_server_stop();
    servers_may_stand_still();
    ssh_service_stop();
    relay_end_all();
#else
    servers_may_stand_still();
    ssh_service_stop();
    relay_end_all();
    rpc_server_stop();
#endif
    relay_free();
    is_shut_down = true
}

#ifdef PATIENT
proctype servers()
{
    silent = true
}
#endif

init {
    atomic {
        logins = CARRIERS;
        requests = REQUESTS;
        thread[SERVICE] = RUNNING;
        busy = true;
        run service_thread();
        run worker();
#ifdef PATIENT
        run servers();
#endif
#ifndef NO_SHUTDOWN
        run serve()
#endif
    }
}

/* LTL: what must come to pass, if no thread stands still for ever. */
#define comes_back(index) [] (is_in_use[index] -> <> !is_in_use[index])
ltl given_back { comes_back(0) && comes_back(PAIRS - 1) }
ltl shutdown_ends { <> is_shut_down }
