/* The life of a tunnel, as a model that spin checks exhaustively: every order
 * in which the threads' steps and the peers' doings can fall. tests/model/verify
 * runs it, in several sizes and with faults put in that it must find.
 *
 * What must hold, and where it is said:
 *   no deadlock                                       spin: invalid end states
 *   no descriptor is closed twice, used after its close,
 *     or left open                                    close_descriptor, use, free
 *   a pair is given back once for every time it was taken, and only with all
 *     sockets closed; the one that rested longest is taken first
 *                                                     queue_pop, queue_push, port_pool_give
 *   no tunnel is touched once it is freed             touch
 *   nothing touches the relay once it is freed        pthread_mutex_lock, relay_free
 *   only a transfer that is whole is closed as such   socket_close
 *   every pair that is taken comes back               ltl given_back
 *   a shutdown ends, whatever the peers do            ltl shutdown_ends
 *
 * From its steps to the code: a step is called as its function. Steps call each
 * other in the order in which the functions do; test_map.py holds both to it,
 * and sees that each function of these files is in the model or left out of it
 * by name.
 *
 *   relay/relay.c        reserve unreserve enter_table leave_table tunnel_free
 *                        tunnel_thread start_thread tunnel_new relay_open_tunnel
 *                        relay_tunnel_address relay_refuse_new
 *                        relay_wait_until_empty relay_end_all relay_free
 *   relay/tunnel.c       tunnel_serve tunnel_accept tunnel_close_listener
 *   relay/backend_tcp.c  meeting_deadline party_accept party_attend meeting_wait
 *                        meeting_hold relay_bytes tcp_serve
 *   relay/duplex.c       deadline timed_out move_both duplex_relay duplex_run
 *   relay/port_pool.c    pair_listen queue_pop queue_push queue_push_front
 *                        port_pool_take port_pool_give
 *   relay/waker.c        waker_own waker_ask waker_poll
 *   relay/socket.c       socket_close socket_reset
 *   rpc/rpc_server.c     worker rpc_server_stop
 *   server/main.c        drain serve
 *
 * Left out:
 *   relay/relay.c        relay_backend_names backend_find try_to_listen relay_new
 *                        release_pools uris_fill relay_counts relay_settings
 *   relay/tunnel.c       tunnel_admits: a stranger is one that it does not admit
 *   relay/backend_tcp.c  tcp_open party_interest: see revents
 *   relay/duplex.c       interest end_of_error half_open progress duplex_end_text
 *   relay/port_pool.c    port_pool_new port_pool_free listen_on port_pool_size
 *                        is_held_by_another port_pool_resting port_pool_index
 *   relay/waker.c        ignore waker_set_up_process clock_ms poll_once
 *
 * Bytes are left out too, with flow.c and the pools of buffers and pipes: they
 * are the thread's own, and the other tests'. Time is: a deadline that has been
 * set may pass at any moment. A section under a lock is one step, unless it
 * looks at what others change without the lock. */

#ifndef PAIRS
#define PAIRS 2                         /* port pairs */
#endif
#ifndef TUNNELS
#define TUNNELS 2                       /* calls of openTunnel, by two workers */
#endif
#ifndef MOST
#define MOST 2                          /* tunnels at once: max_tunnels */
#endif
#ifndef MISHAPS
#define MISHAPS 1                       /* at most; see mishap */
#endif
/* Further macros that make a model of one size or another: LOOK_UP, with calls
 * of getTunnelAddress; NO_SHUTDOWN; IDLE_TIMEOUT; CLOCK, for liveness; STRANGERS; BRIEF, in
 * which a tunnel's service is a single wait. FAULT_...: what must be found. */

#define NONE 255
#define SERVER 0
#define CLIENT 1
#define of(tunnel, side) ((tunnel) * 2 + (side))

mtype = { CANCELED, FAILED, TIMED_OUT, READY };         /* what waker_poll returns */
mtype = { QUIET, CONNECTION, STRANGER, END, RESET };    /* what happened on a socket */
mtype = { FINISHED, CUT };                              /* how duplex_run ended */
mtype = { OK, HELD, NO_DESCRIPTOR };                    /* what pair_listen returns */
mtype = { NOT_SERVING, MEETING, RELAYING };

/* --- the world */

bool silent;            /* the peers do nothing more */
byte mishaps;           /* how often the system may yet lack descriptors, memory or threads,
                         * another program hold a port, or bytes wait for a slow reader */

inline mishap()
{
    atomic { mishaps > 0; mishaps-- }
}

/* --- struct tunnel, and its thread's state. By tunnel, or by tunnel and side. */

bool exists[TUNNELS];                   /* between calloc and free */
byte pair[TUNNELS] = NONE;
bool has_listener[TUNNELS * 2];         /* the variable is not -1 */
bool has_socket[TUNNELS * 2];
bool ended[TUNNELS * 2];                /* the end of that side's stream was seen */
bool paused[TUNNELS];                   /* accept_again_ms lies ahead */
mtype phase[TUNNELS] = NOT_SERVING;

#define touch(tunnel) assert(exists[tunnel])

/* The same descriptors as the kernel knows them. */
bool listener_open[TUNNELS * 2];
bool socket_open[TUNNELS * 2];
bool accepted_open[TUNNELS];            /* between accept and party->socket */
bool listening[PAIRS * 2];              /* somebody on that port */

#define use(is_open) assert(is_open)

inline close_descriptor(is_open)
{
    assert(is_open);
    is_open = false
}

#define is_all_closed(tunnel) \
    (!listener_open[of(tunnel, SERVER)] && !listener_open[of(tunnel, CLIENT)] && \
     !socket_open[of(tunnel, SERVER)] && !socket_open[of(tunnel, CLIENT)] && \
     !accepted_open[tunnel])

/* --- locks */

bool relay_lock, pool_lock;             /* held */
bool relay_is_freed;

inline pthread_mutex_lock(lock)
{
    atomic {
        assert(!relay_is_freed);
        !lock;
        lock = true
    }
}

inline pthread_mutex_unlock(lock)
{
    assert(!relay_is_freed && lock);
    lock = false
}

/* --- deadlines. What is owed is said once more, apart from the code's way to
 * it, so that a deadline forgotten there is found. */

#define has(tunnel, side) has_socket[of(tunnel, side)]
#define has_ended(tunnel, side) ended[of(tunnel, side)]

#ifdef FAULT_HALF_CLOSED_SERVER_STAYS
#define meeting_deadline(tunnel) (!has(tunnel, SERVER))
#else
#define meeting_deadline(tunnel) \
    (!has(tunnel, SERVER) || (!has(tunnel, CLIENT) && has_ended(tunnel, SERVER)))
#endif

#ifdef IDLE_TIMEOUT
#define has_idle_timeout true
#else
#define has_idle_timeout false
#endif
#define is_half_open(tunnel) (has_ended(tunnel, SERVER) != has_ended(tunnel, CLIENT))
#ifdef FAULT_NO_LINGER
#define deadline(tunnel) has_idle_timeout
#else
#define deadline(tunnel) (has_idle_timeout || is_half_open(tunnel))
#endif

#define has_deadline(tunnel) \
    ((phase[tunnel] == MEETING && meeting_deadline(tunnel)) || \
     (phase[tunnel] == RELAYING && deadline(tunnel)))
#define may_wait_for_ever(tunnel) \
    ((phase[tunnel] == MEETING && has(tunnel, SERVER) && !has_ended(tunnel, SERVER)) || \
     (phase[tunnel] == RELAYING && !has_idle_timeout && !is_half_open(tunnel)))

/* Whether a deadline has passed is the clock's to say. Without one it may have
 * or not, which is as good for safety and makes fewer states. */
#ifdef CLOCK
bool passed[TUNNELS];
#define may_have_passed(tunnel) passed[tunnel]
#define must_have_passed(tunnel) passed[tunnel]
#define from_now_on(tunnel) passed[tunnel] = false
#else
#define may_have_passed(tunnel) true
#define must_have_passed(tunnel) false
#define from_now_on(tunnel) skip
#endif

/* With nobody to shut the service down, a tunnel that may wait for ever ends
 * only by its peers, so they don't fall silent there. With STRANGERS these never do. */
#ifdef STRANGERS
#define peers_stir(tunnel) \
    (!silent || may_wait_for_ever(tunnel) || (phase[tunnel] == MEETING && !has(tunnel, SERVER)))
#elif defined(NO_SHUTDOWN)
#define peers_stir(tunnel) (!silent || may_wait_for_ever(tunnel))
#else
#define peers_stir(tunnel) (!silent)
#endif

/* --- relay/waker.c */

bool asked[TUNNELS];
bool owned[TUNNELS];
bool has_owner[TUNNELS];                /* waker->owner is set */
bool signalled[TUNNELS];                /* the signal is pending */

inline waker_own(tunnel)
{
#ifdef FAULT_OWNED_BEFORE_OWNER
    touch(tunnel);
    owned[tunnel] = true;
    has_owner[tunnel] = true;
#else
    touch(tunnel);
    has_owner[tunnel] = true;
    owned[tunnel] = true;
#endif
}

inline kill_owner(tunnel)
{
    atomic {
        assert(has_owner[tunnel]);
#ifndef FAULT_NO_SIGNAL
        signalled[tunnel] = true
#endif
    }
}

inline waker_ask(tunnel)
{
#ifdef FAULT_OWNED_IS_READ_FIRST
    touch(tunnel);
    if
    :: owned[tunnel] -> asked[tunnel] = true; kill_owner(tunnel)
    :: else -> asked[tunnel] = true
    fi
#else
    atomic { touch(tunnel); asked[tunnel] = true };
    if
    :: atomic { owned[tunnel] -> touch(tunnel); kill_owner(tunnel) }
    :: atomic { else -> touch(tunnel) }
    fi
#endif
}

/* The choice at the end is ppoll: a signal, a deadline, a descriptor, an error. */
inline waker_poll(tunnel, ready)
{
    do
    :: atomic { asked[tunnel] -> ready = CANCELED; break }
    :: else ->
#ifdef FAULT_SIGNAL_IS_NOT_BLOCKED
        signalled[tunnel] = false;
#endif
        if
        :: atomic { signalled[tunnel] -> signalled[tunnel] = false }
        :: atomic { has_deadline(tunnel) && may_have_passed(tunnel) -> ready = TIMED_OUT; break }
        :: atomic { paused[tunnel] -> paused[tunnel] = false; ready = TIMED_OUT; break }
        :: atomic {
            peers_stir(tunnel) &&
            (!paused[tunnel] || has(tunnel, SERVER) || has(tunnel, CLIENT)) ->
            ready = READY;
            break
           }
        :: atomic { mishap() -> ready = FAILED; break }
        fi
    od
}

/* What ppoll says of one side, by what is asked of it: party_interest in a
 * meeting, interest in a relay. An end is told once, a reset always. */
inline revents(tunnel, side, event)
{
    if
    :: !has(tunnel, side) && !paused[tunnel] ->
        use(listener_open[of(tunnel, side)]);
        if
        :: event = CONNECTION
        :: side == SERVER -> event = STRANGER
        fi
    :: has(tunnel, side) && !has_ended(tunnel, side) ->
        use(socket_open[of(tunnel, side)]);
        event = END
    :: has(tunnel, side) ->
        use(socket_open[of(tunnel, side)]);
        event = RESET
    fi
}

inline revents_of_both(tunnel, ready, server_event, client_event)
{
    server_event = QUIET;
    client_event = QUIET;
    if
    :: ready != READY
    :: ready == READY && (!paused[tunnel] || has(tunnel, SERVER)) ->
        revents(tunnel, SERVER, server_event)
    :: ready == READY && (!paused[tunnel] || has(tunnel, CLIENT)) ->
        revents(tunnel, CLIENT, client_event)
    :: ready == READY && (!paused[tunnel] || (has(tunnel, SERVER) && has(tunnel, CLIENT))) ->
        revents(tunnel, SERVER, server_event);
        revents(tunnel, CLIENT, client_event)
    fi
}

/* --- relay/port_pool.c */

byte queue[PAIRS];
byte first, resting;
bool is_at_rest[PAIRS];
byte rested_least = NONE;

inline queue_pop(index)
{
    atomic {
        pthread_mutex_lock(pool_lock);
        if
        :: resting ->
            index = queue[first];
            first = (first + 1) % PAIRS;
            resting--;
            assert(resting == 0 || index != rested_least);
            assert(is_at_rest[index]);
            is_at_rest[index] = false
        :: else -> index = NONE
        fi;
        pthread_mutex_unlock(pool_lock)
    }
}

inline queue_push(index)
{
    atomic {
        pthread_mutex_lock(pool_lock);
        assert(!is_at_rest[index]);
        is_at_rest[index] = true;
#ifdef FAULT_YOUNGEST_FIRST
        first = (first + PAIRS - 1) % PAIRS;
        queue[first] = index;
#else
        queue[(first + resting) % PAIRS] = index;
#endif
        resting++;
        rested_least = index;
        pthread_mutex_unlock(pool_lock)
    }
}

inline queue_push_front(index)
{
    atomic {
        pthread_mutex_lock(pool_lock);
        assert(!is_at_rest[index]);
        is_at_rest[index] = true;
        first = (first + PAIRS - 1) % PAIRS;
        queue[first] = index;
        resting++;
        pthread_mutex_unlock(pool_lock)
    }
}

/* A mishap: another program holds a port, or there is no descriptor. None of
 * our own tunnels may be listening there still. */
inline pair_listen(tunnel, index, result)
{
    if
    :: mishap() ->
        if
        :: result = HELD
        :: result = NO_DESCRIPTOR
        fi
    :: atomic {
        assert(!listening[of(index, SERVER)] && !listening[of(index, CLIENT)]);
        listening[of(index, SERVER)] = true;
        listening[of(index, CLIENT)] = true;
        listener_open[of(tunnel, SERVER)] = true;
        listener_open[of(tunnel, CLIENT)] = true;
        has_listener[of(tunnel, SERVER)] = true;
        has_listener[of(tunnel, CLIENT)] = true;
        pair[tunnel] = index;
        result = OK
       }
    fi
}

inline port_pool_take(tunnel, err)
{
    atomic { tries = resting; err = true };
    do
    :: err && tries > 0 ->
        atomic {
            tries--;
            queue_pop(index);
            if
            :: index == NONE -> break
            :: else
            fi
        };
        pair_listen(tunnel, index, listened);
        if
        :: listened == OK -> err = false
        :: listened == NO_DESCRIPTOR ->
#ifndef FAULT_UNTRIED_PAIR_IS_LOST
            queue_push_front(index);
#endif
            break
        :: listened == HELD -> queue_push(index)
        fi
    :: else -> break
    od;
    index = NONE;
    tries = 0
}

inline port_pool_give(tunnel)
{
    touch(tunnel);
    assert(is_all_closed(tunnel));
    queue_push(pair[tunnel])
}

/* --- relay/socket.c, relay/tunnel.c */

inline socket_close(tunnel, side)
{
    assert(has_ended(tunnel, SERVER) && has_ended(tunnel, CLIENT));
    close_descriptor(socket_open[of(tunnel, side)])
}

inline socket_reset(tunnel, side)
{
    if
    :: has(tunnel, side) -> close_descriptor(socket_open[of(tunnel, side)])
    :: else
    fi
}

inline tunnel_close_listener(tunnel, side)
{
    atomic {
        touch(tunnel);
        if
        :: has_listener[of(tunnel, side)] ->
            close_descriptor(listener_open[of(tunnel, side)]);
            listening[of(pair[tunnel], side)] = false
        :: else
        fi;
#ifndef FAULT_CLOSED_LISTENER_IS_KEPT
        has_listener[of(tunnel, side)] = false
#endif
    }
}

/* READY: with a socket; QUIET: whoever knocked has gone; FAILED: no descriptor. */
inline tunnel_accept(tunnel, side, accepted)
{
    use(listener_open[of(tunnel, side)]);
    if
    :: mishap() -> accepted = FAILED
    :: mishap() -> accepted = QUIET
    :: true ->
        assert(!accepted_open[tunnel]);
        accepted_open[tunnel] = true;
        accepted = READY
    fi
}

/* --- relay/backend_tcp.c */

inline party_accept(tunnel, side, event)
{
    tunnel_accept(tunnel, side, accepted);
    if
    :: accepted == QUIET
    :: accepted == FAILED -> paused[tunnel] = true
    :: accepted == READY && event == STRANGER ->
#ifndef FAULT_STRANGER_IS_LEFT_OPEN
        close_descriptor(accepted_open[tunnel])     /* socket_reset */
#endif
    :: accepted == READY && event == CONNECTION ->
        accepted_open[tunnel] = false;
        socket_open[of(tunnel, side)] = true;
        has(tunnel, side) = true;
        if
        :: side == SERVER -> from_now_on(tunnel)
        :: else
        fi;
        tunnel_close_listener(tunnel, side)
    fi
}

inline party_attend(tunnel, side, event)
{
    if
    :: !has(tunnel, side) && event != QUIET -> party_accept(tunnel, side, event)
    :: !has(tunnel, side) && event == QUIET
    :: has(tunnel, side) && event == END ->
        has_ended(tunnel, side) = true;
        if
        :: side == SERVER -> from_now_on(tunnel)
        :: else
        fi
    :: has(tunnel, side) && event == RESET -> has_failed = true
    :: has(tunnel, side) && event == QUIET
    fi
}

inline meeting_wait(tunnel)
{
    waker_poll(tunnel, ready);
    atomic {
        if
        :: ready == CANCELED || ready == FAILED -> has_failed = true
        :: else ->
            revents_of_both(tunnel, ready, server_event, client_event);
            party_attend(tunnel, SERVER, server_event);
            if
            :: has_failed
            :: else -> party_attend(tunnel, CLIENT, client_event)
            fi;
            if
#ifdef FAULT_DEADLINE_NEEDS_QUIET
            :: ready == TIMED_OUT && meeting_deadline(tunnel) -> has_failed = true
            :: ready != TIMED_OUT
#else
            :: meeting_deadline(tunnel) && may_have_passed(tunnel) -> has_failed = true
#endif
            :: !meeting_deadline(tunnel) || !must_have_passed(tunnel)
            fi
        fi;
        server_event = QUIET;
        client_event = QUIET;
        accepted = QUIET;
        ready = QUIET
    }
}

inline meeting_hold(tunnel)
{
    phase[tunnel] = MEETING;
    do
    :: has_failed || (has(tunnel, SERVER) && has(tunnel, CLIENT)) -> break
    :: else -> meeting_wait(tunnel)
    od
}

inline relay_bytes(tunnel)
{
    duplex_run(tunnel);
    atomic { if
#ifdef FAULT_A_CUT_LOOKS_WHOLE
    :: true ->
#else
    :: result == FINISHED ->
#endif
        socket_close(tunnel, SERVER);
        socket_close(tunnel, CLIENT)
    :: else ->
        socket_reset(tunnel, SERVER);
        socket_reset(tunnel, CLIENT)
    fi }
}

#ifdef BRIEF
/* What other threads see of it: it waits, without a deadline, and ends. */
inline tcp_serve(tunnel)
{
    phase[tunnel] = RELAYING;
    waker_poll(tunnel, ready);
    atomic { ready = QUIET; phase[tunnel] = NOT_SERVING }
}
#else
inline tcp_serve(tunnel)
{
    meeting_hold(tunnel);
    if
    :: !has_failed -> relay_bytes(tunnel)
    :: else ->
        atomic {
            socket_reset(tunnel, SERVER);
            socket_reset(tunnel, CLIENT)
        }
    fi;
    atomic {
        has(tunnel, SERVER) = false;        /* what follows knows no sockets */
        has(tunnel, CLIENT) = false;
        has_ended(tunnel, SERVER) = false;
        has_ended(tunnel, CLIENT) = false;
        phase[tunnel] = NOT_SERVING;
        from_now_on(tunnel);
        paused[tunnel] = false
    }
}
#endif

/* --- relay/duplex.c */

/* A mishap: bytes still wait for a slow reader. */
inline timed_out(tunnel)
{
    if
    :: has_idle_timeout || is_half_open(tunnel) -> result = CUT
    :: mishap() -> from_now_on(tunnel)
    fi
}

/* The end of one side's stream is passed on to the other side. */
inline move(tunnel, side, event)
{
    if
    :: event == END ->
        use(socket_open[of(tunnel, 1 - side)]);
        has_ended(tunnel, side) = true;
        from_now_on(tunnel)
    :: else
    fi
}

inline move_both(tunnel)
{
    move(tunnel, SERVER, server_event);
    move(tunnel, CLIENT, client_event)
}

inline duplex_relay(tunnel)
{
    do
    :: has_ended(tunnel, SERVER) && has_ended(tunnel, CLIENT) -> result = FINISHED; break
    :: result == CUT -> break
    :: else ->
        waker_poll(tunnel, ready);
        atomic {
            if
            :: ready == CANCELED || ready == FAILED -> result = CUT
            :: ready == TIMED_OUT -> timed_out(tunnel)
            :: ready == READY ->
                revents_of_both(tunnel, ready, server_event, client_event);
                move_both(tunnel);
                if
                :: server_event == RESET || client_event == RESET -> result = CUT
                :: else
                fi
            fi;
            server_event = QUIET;
            client_event = QUIET;
            ready = QUIET
        }
    od
}

inline duplex_run(tunnel)
{
    atomic {
        phase[tunnel] = RELAYING;
        from_now_on(tunnel);
        paused[tunnel] = false;
        has_ended(tunnel, SERVER) = false;  /* what the meeting saw, a read finds again */
        has_ended(tunnel, CLIENT) = false
    };
    duplex_relay(tunnel)
}

/* --- relay/tunnel.c */

inline tunnel_serve(tunnel)
{
    tcp_serve(tunnel);
    atomic {
        tunnel_close_listener(tunnel, SERVER);
        tunnel_close_listener(tunnel, CLIENT);
        has_failed = false;             /* the thread knows no more of it */
        result = QUIET
    }
}

/* --- relay/relay.c */

byte alive;                             /* these four under relay_lock */
byte table[PAIRS] = NONE;               /* the tunnel, by its pair */
bool refusing;
bool ending;
bool main_waits;                        /* on emptied; a broadcast takes it back */
bool is_shut_down;

inline reserve(err)
{
    atomic {
        pthread_mutex_lock(relay_lock);
        if
        :: refusing || alive >= MOST -> err = true
        :: else -> alive++; err = false
        fi;
        pthread_mutex_unlock(relay_lock)
    }
}

inline unreserve()
{
    atomic {
        pthread_mutex_lock(relay_lock);
        assert(alive > 0);
        alive--;
        if
#ifndef FAULT_NO_BROADCAST
        :: alive == 0 -> main_waits = false
#endif
        :: else
        fi;
        pthread_mutex_unlock(relay_lock)
    }
}

inline enter_table(tunnel, err)
{
    atomic {
        pthread_mutex_lock(relay_lock);
        touch(tunnel);
        err = ending;
#ifdef FAULT_ENTERS_WHILE_ENDING
        err = false;
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
    atomic {
        pthread_mutex_lock(relay_lock);
        touch(tunnel);
        table[pair[tunnel]] = NONE;
        pthread_mutex_unlock(relay_lock)
    }
}

/* The pair and the waker are wiped as calloc would for the next: nobody reads
 * them any more. */
inline free(tunnel)
{
    atomic {
        touch(tunnel);
        assert(is_all_closed(tunnel));
        exists[tunnel] = false;
#ifndef FAULT_LEAVES_TABLE_AFTER_FREE
        pair[tunnel] = NONE;
#endif
        asked[tunnel] = false;
        owned[tunnel] = false;
        has_owner[tunnel] = false;
        signalled[tunnel] = false
    }
}

inline tunnel_free(tunnel)
{
#ifdef FAULT_GIVES_BEFORE_CLOSING
    port_pool_give(tunnel);
    tunnel_close_listener(tunnel, SERVER);
    tunnel_close_listener(tunnel, CLIENT);
    free(tunnel);
    unreserve()
#elif defined(FAULT_COUNTS_DOWN_FIRST)
    tunnel_close_listener(tunnel, SERVER);
    tunnel_close_listener(tunnel, CLIENT);
    unreserve();
    port_pool_give(tunnel);
    free(tunnel)
#else
    atomic {
        tunnel_close_listener(tunnel, SERVER);
        tunnel_close_listener(tunnel, CLIENT)
    };
#ifndef FAULT_NEVER_GIVES
    port_pool_give(tunnel);
#endif
#ifdef FAULT_GIVES_TWICE
    port_pool_give(tunnel);
#endif
    free(tunnel);
    unreserve()
#endif
}

proctype tunnel_thread(byte tunnel)
{
    bool has_failed;
    mtype ready = QUIET, server_event = QUIET, client_event = QUIET;
    mtype accepted = QUIET, result = QUIET;

    waker_own(tunnel);
    tunnel_serve(tunnel);
#ifdef FAULT_LEAVES_TABLE_AFTER_FREE
    tunnel_free(tunnel);
    leave_table(tunnel)
#else
    leave_table(tunnel);
    tunnel_free(tunnel)
#endif
}

inline start_thread(tunnel, err)
{
    if
    :: run tunnel_thread(tunnel); err = false
    :: mishap() -> err = true
    fi
}

inline tunnel_new(tunnel, err)
{
    reserve(err);
    if
    :: !err ->
        if
        :: atomic { exists[tunnel] = true }; port_pool_take(tunnel, err)
        :: mishap() -> err = true
        fi;
        if
        :: err ->
            exists[tunnel] = false;
#ifndef FAULT_STAYS_COUNTED
            unreserve()
#endif
        :: else
        fi
    :: else
    fi
}

inline relay_open_tunnel(tunnel)
{
    tunnel_new(tunnel, err);
    if
    :: !err ->
        enter_table(tunnel, err);
        if
        :: !err ->
            start_thread(tunnel, err);
            if
            :: err ->
#ifndef FAULT_STAYS_IN_TABLE
                leave_table(tunnel)
#else
                skip
#endif
            :: else ->
#ifdef FAULT_READ_AFTER_START
                touch(tunnel)
#else
                skip
#endif
            fi
        :: else
        fi;
        if
        :: err -> tunnel_free(tunnel)
        :: else
        fi
    :: else
    fi
}

inline relay_tunnel_address(index, found)
{
#ifndef FAULT_LOOKS_UP_WITHOUT_LOCK
    pthread_mutex_lock(relay_lock);
#endif
    found = table[index];
    if
    :: found != NONE ->
        atomic {
            touch(found);
            assert(pair[found] == index)
        }
    :: else
    fi;
#ifndef FAULT_LOOKS_UP_WITHOUT_LOCK
    pthread_mutex_unlock(relay_lock);
#endif
    found = NONE
}

inline relay_refuse_new()
{
    atomic {
        pthread_mutex_lock(relay_lock);
        refusing = true;
        pthread_mutex_unlock(relay_lock)
    }
}

inline pthread_cond_wait()
{
    atomic {
        main_waits = true;
        pthread_mutex_unlock(relay_lock)
    };
    if
    :: !main_waits
    :: may_time_out -> main_waits = false; may_time_out = false
    fi;
    pthread_mutex_lock(relay_lock)
}

inline relay_wait_until_empty()
{
    may_time_out = true;
    pthread_mutex_lock(relay_lock);
    do
    :: alive && may_time_out -> pthread_cond_wait()
    :: else -> break
    od;
    pthread_mutex_unlock(relay_lock);
    may_time_out = false
}

inline relay_end_all()
{
    pthread_mutex_lock(relay_lock);
    refusing = true;
    ending = true;
#ifdef FAULT_ASKS_WITHOUT_LOCK
    pthread_mutex_unlock(relay_lock);
#endif
    index = 0;
    do
    :: index < PAIRS ->
        if
        :: table[index] != NONE ->
            found = table[index];
            waker_ask(found)
        :: else
        fi;
        index++
    :: else -> break
    od;
    found = NONE;
#ifdef FAULT_ASKS_WITHOUT_LOCK
    pthread_mutex_lock(relay_lock);
#endif
    do
    :: alive -> pthread_cond_wait()
    :: else -> break
    od;
    pthread_mutex_unlock(relay_lock)
}

inline relay_free()
{
    atomic {
        assert(alive == 0);
        assert(resting == PAIRS);
        index = 0;
        do
        :: index < PAIRS -> assert(table[index] == NONE && is_at_rest[index]); index++
        :: else -> break
        od;
        index = 0;
        do
        :: index < TUNNELS -> assert(!exists[index] && is_all_closed(index)); index++
        :: else -> break
        od;
        relay_is_freed = true
    }
}

/* --- rpc/rpc_server.c: the calls, and the end of those who carry them out */

byte busy;

proctype worker(byte tunnel)
{
    bool err;
    byte tries, index = NONE;
    mtype listened = QUIET;

    do
    :: tunnel < TUNNELS -> relay_open_tunnel(tunnel); tunnel = tunnel + 2
    :: else -> break
    od;
    atomic { err = false; busy-- }
}

proctype another_worker()
{
    byte index, found = NONE;

    if
    :: index = 0
    :: index = PAIRS - 1
    fi;
    relay_tunnel_address(index, found);
    atomic { index = 0; busy-- }
}

inline rpc_server_stop()
{
    busy == 0
}

/* --- server/main.c */

inline drain()
{
    relay_refuse_new();
    relay_wait_until_empty()
}

/* A signal may come at any time. The daemon takes the first order; relay.h
 * promises the second too. */
proctype serve()
{
    byte index, found = NONE;
    bool may_time_out;

    drain();
    if
    :: rpc_server_stop(); relay_end_all()
    :: relay_end_all(); rpc_server_stop()
    fi;
    relay_free();
    is_shut_down = true
}

/* --- the world's own doings */

#define tick(tunnel) atomic { !passed[tunnel] && has_deadline(tunnel) -> passed[tunnel] = true }

#ifdef CLOCK
proctype clock()
{
end:
    do
    :: tick(0)
#if TUNNELS > 1
    :: tick(1)
#endif
#if TUNNELS > 2
    :: tick(2)
#endif
    od
}
#endif

proctype peers()
{
    silent = true
}

init {
    byte index;

    atomic {
        if
        :: mishaps = 0
        :: mishaps = MISHAPS
        fi;
        do
        :: index < PAIRS -> queue[index] = index; is_at_rest[index] = true; index++
        :: else -> break
        od;
        resting = PAIRS;
        busy = 2;
        run worker(0);
        run worker(1);
#ifdef LOOK_UP
        busy++;
        run another_worker();
#endif
#ifdef CLOCK
        run clock();
#endif
        run peers();
#ifndef NO_SHUTDOWN
        run serve()
#endif
    }
}

/* LTL: what must come to pass, if no thread stands still for ever. */
#define comes_back(index) [] (!is_at_rest[index] -> <> is_at_rest[index])
#if PAIRS > 1
ltl given_back { comes_back(0) && comes_back(1) }
#else
ltl given_back { comes_back(0) }
#endif
ltl shutdown_ends { <> is_shut_down }
