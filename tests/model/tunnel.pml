/* The life of a tunnel, as a model that spin checks exhaustively: every order
 * in which the threads' steps and the peers' doings can fall. tests/model/verify
 * runs it, in several sizes and with faults put in that it must find.
 *
 * What must hold, and where it is said:
 *   no deadlock                                       spin: invalid end states
 *   no descriptor is closed twice, used after its close,
 *     or left open                                    close_descriptor, use, free
 *   a pair is given back once for every time it was taken, and only with all
 *     sockets closed; none is taken that has not rested while another has, and
 *     if none has, the one that rested longest        queue_pop, queue_push, port_pool_give
 *   whoever sees the count of tunnels go down finds the pair
 *                                                     unreserve
 *   no tunnel is touched once it is freed             touch
 *   every thread is joined once, and its stack freed after that; nobody waits
 *     for ever to join one                            pthread_join, thread_stack_free, relay_free
 *   settings are freed once, after the last of their tunnels and a change, and
 *     not used after that                             use_settings, free_settings, relay_free
 *   no opener stays counted                           relay_free
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
 *   relay/relay.c        bury relay_free enter_table leave_table end_thread
 *                        tunnel_free tunnel_thread start_thread tunnel_new
 *                        relay_open_tunnel relay_tunnel_address
 *                        relay_refuse_new relay_wait_until_empty relay_end_all
 *   relay/reservation.c  shared_settings_new relay_change_settings count_opener
 *                        reserve unreserve
 *   relay/thread_stack.c thread_stack_new thread_stack_start thread_stack_free
 *   relay/tunnel.c       tunnel_end tunnel_until_ms tunnel_accept
 *                        tunnel_close_listener
 *   relay/backend_tcp.c  meeting_deadline party_accept party_attend meeting_wait
 *                        meeting_hold relay_bytes tcp_serve
 *   relay/duplex.c       half_open deadline lingered timed_out move_both
 *                        duplex_relay duplex_run
 *   relay/port_pool.c    pair_listen queue_at queue_draw queue_pop queue_push
 *                        queue_put_back port_pool_take port_pool_give
 *   relay/waker.c        waker_own waker_ask waker_poll
 *   relay/socket.c       socket_close socket_reset
 *   rpc/rpc_server.c     worker rpc_server_stop
 *   server/main.c        drain reload heed_signals serve
 *
 * Left out:
 *   relay/relay.c        relay_backend_names backend_find try_to_listen relay_new
 *                        relay_counts is_carried has_backend relay_set_ssh
 *                        relay_ssh tunnel_at tunnel_find
 *                        tell_to_drain: of webmux, with the life of tcp otherwise
 *   relay/reservation.c  release_pools relay_settings
 *                        forget_opener: it and has_epoll take no step of their own
 *   relay/thread_stack.c guard_bytes
 *   relay/tunnel.c       fill_uri tunnel_server_uri tunnel_client_uri
 *                        tunnel_take_descriptor tunnel_give_descriptor
 *                        descriptors_take descriptors_give
 *                        tunnel_accept_client
 *                        tunnel_turn_away
 *                        tunnel_admits: a stranger is one that it does not admit
 *   relay/backend_tcp.c  meeting_too_late party_interest: see revents
 *   relay/duplex.c       interest end_of_error progress is_held_back
 *                        duplex_end_text
 *   relay/port_pool.c    port_pool_new port_pool_free listen_on port_pool_size
 *                        is_held_by_another port_pool_resting port_pool_index
 *   relay/waker.c        ignore waker_set_up_process clock_ms poll_once raise_flag
 *                        waker_nudge look_up time_left_ms epoll_once waker_epoll
 *
 * Bytes are left out too, with flow.c, rate.c and the pools of buffers and pipes:
 * they are the thread's own, and the other tests'. Of tally.c, how many are
 * counted is left. Time is left out: a deadline that has been
 * set may pass at any moment. A section under a lock is one step, unless it
 * looks at what others change without the lock. */

#ifndef PAIRS
#define PAIRS 2                         /* port pairs: one or two */
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
 * of getTunnelAddress; NO_SHUTDOWN; RELOAD, with a change of settings before the
 * shutdown; USED_BEFORE, with pairs that have not rested yet; IDLE_TIMEOUT;
 * LIFETIME; CLOCK, for liveness; STRANGERS; BRIEF, in which a tunnel's service is a
 * single wait. FAULT_...: what must be found. */

#define NONE 255
#define SERVER 0
#define CLIENT 1
#define of(tunnel, side) ((tunnel) * 2 + (side))

mtype = { CANCELED, FAILED, TIMED_OUT, READY };         /* what waker_poll returns */
mtype = { QUIET, CONNECTION, STRANGER, END, RESET };    /* what happened on a socket */
mtype = { FINISHED, CUT };                              /* how duplex_run ended */
mtype = { OK, HELD, NO_DESCRIPTOR };                    /* what pair_listen returns */
mtype = { NOT_SERVING, MEETING, RELAYING };
mtype = { NO_THREAD, RUNNING, OVER, JOINED };

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
byte settings_of[TUNNELS];              /* the block, in the tunnel and in its reservation */
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

/* --- settings: the block that there is from the start, and the one of a reload */

byte settings;                          /* under relay_lock: for the next tunnel */
byte opened_with[2];                    /* under relay_lock: tunnels, by block */
bool settings_exist[2];

#define use_settings(tunnel) assert(settings_exist[settings_of[tunnel]])

inline free_settings(block)
{
    assert(settings_exist[block]);
    settings_exist[block] = false
}

/* --- threads, and relay/thread_stack.c */

mtype thread[TUNNELS] = NO_THREAD;
bool has_stack[TUNNELS];

inline pthread_join(joined)
{
    assert(thread[joined] == RUNNING || thread[joined] == OVER);
    atomic { thread[joined] == OVER -> thread[joined] = JOINED }
}

inline thread_stack_new(tunnel, err)
{
    if
    :: atomic { has_stack[tunnel] = true; err = false }
    :: mishap() -> err = true
    fi
}

inline thread_stack_free(tunnel)
{
    atomic {
        assert(thread[tunnel] == NO_THREAD || thread[tunnel] == JOINED);
        assert(has_stack[tunnel]);
        has_stack[tunnel] = false
    }
}

/* --- deadlines. What is owed is said once more, apart from the code's way to
 * it, so that a deadline forgotten there is found. */

#define has(tunnel, side) has_socket[of(tunnel, side)]
#define has_ended(tunnel, side) ended[of(tunnel, side)]

#ifdef LIFETIME
#define has_lifetime true
#else
#define has_lifetime false
#endif
#define tunnel_until_ms(tunnel) has_lifetime

#ifdef FAULT_HALF_CLOSED_SERVER_STAYS
#define meeting_deadline(tunnel) (tunnel_until_ms(tunnel) || !has(tunnel, SERVER))
#elif defined(FAULT_LIFETIME_ENDS_NO_MEETING)
#define meeting_deadline(tunnel) \
    (!has(tunnel, SERVER) || (!has(tunnel, CLIENT) && has_ended(tunnel, SERVER)))
#else
#define meeting_deadline(tunnel) \
    (tunnel_until_ms(tunnel) || !has(tunnel, SERVER) || \
     (!has(tunnel, CLIENT) && has_ended(tunnel, SERVER)))
#endif

#ifdef IDLE_TIMEOUT
#define has_idle_timeout true
#else
#define has_idle_timeout false
#endif
#define half_open(tunnel) (has_ended(tunnel, SERVER) != has_ended(tunnel, CLIENT))
#ifdef FAULT_NO_LINGER
#define deadline(tunnel) (has_lifetime || has_idle_timeout)
#elif defined(FAULT_LIFETIME_ENDS_NO_RELAY)
#define deadline(tunnel) (has_idle_timeout || half_open(tunnel))
#else
#define deadline(tunnel) (has_lifetime || has_idle_timeout || half_open(tunnel))
#endif

#define has_deadline(tunnel) \
    ((phase[tunnel] == MEETING && meeting_deadline(tunnel)) || \
     (phase[tunnel] == RELAYING && deadline(tunnel)))
#define may_wait_for_ever(tunnel) \
    (!has_lifetime && \
     ((phase[tunnel] == MEETING && has(tunnel, SERVER) && !has_ended(tunnel, SERVER)) || \
      (phase[tunnel] == RELAYING && !has_idle_timeout && !half_open(tunnel))))

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
        assert(has_owner[tunnel] && thread[tunnel] == RUNNING);
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
byte rested;                            /* as many in front are known to have */
bool is_at_rest[PAIRS];
bool has_rested[PAIRS];
byte rested_least = NONE;

#define queue_at(place) queue[(first + (place)) % PAIRS]
#define other(index) ((index + 1) % PAIRS)
#define rests_shorter(index, than) (rested_least == (index) && (than) != (index))

/* Whoever came first has rested first. */
inline time_passes()
{
    if
    :: rested_least == NONE || has_rested[rested_least]
    :: else ->
        if
        :: has_rested[other(rested_least)] = true
        :: has_rested[other(rested_least)] = true; has_rested[rested_least] = true
        :: true
        fi
    fi
}

/* Those known to have rested, then the others by their age. */
inline queue_is_in_order()
{
    place = 0;
    do
    :: place < rested -> assert(has_rested[queue_at(place)]); place++
    :: place >= rested && place + 1 < resting ->
        assert(!rests_shorter(queue_at(place), queue_at(place + 1)));
        place++
    :: else -> break
    od;
    place = 0
}

inline queue_draw()
{
    do
    :: rested < resting && has_rested[queue_at(rested)] -> rested++
    :: else -> break
    od;
    place = 0;
    do
#ifdef FAULT_DRAWS_FROM_ALL
    :: place + 1 < resting -> place++
#else
    :: place + 1 < rested -> place++
#endif
    :: break
    od;
    index = queue_at(place);
    queue_at(place) = queue_at(0);
    queue_at(0) = index;
    place = 0
}

inline queue_pop(index)
{
    atomic {
        pthread_mutex_lock(pool_lock);
        if
        :: resting ->
            time_passes();
            queue_draw();
            index = queue_at(0);
            first = (first + 1) % PAIRS;
            resting--;
            if
            :: rested -> rested--
            :: else
            fi;
            queue_is_in_order();
            assert(has_rested[index] || resting == 0 ||
                   (!has_rested[other(index)] && index != rested_least));
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
        has_rested[index] = false;
        rested_least = index;
#ifdef FAULT_YOUNGEST_FIRST
        first = (first + PAIRS - 1) % PAIRS;
        queue_at(0) = index;
#else
        queue_at(resting) = index;
#endif
        resting++;
        pthread_mutex_unlock(pool_lock)
    }
}

inline queue_put_back(index)
{
    atomic {
        pthread_mutex_lock(pool_lock);
        assert(!is_at_rest[index]);
        is_at_rest[index] = true;
        first = (first + PAIRS - 1) % PAIRS;
        place = 0;
#ifndef FAULT_PUTS_BACK_IN_FRONT
        do
        :: place < resting && rests_shorter(index, queue_at(place + 1)) ->
            queue_at(place) = queue_at(place + 1);
            place++
        :: else -> break
        od;
#endif
        queue_at(place) = index;
        resting++;
        if
        :: place < rested -> rested++
        :: else
        fi;
        queue_is_in_order();
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
            queue_put_back(index);
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
    use_settings(tunnel);
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
            use_settings(tunnel);
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
    use_settings(tunnel);
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
    use_settings(tunnel)
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
        from_now_on(tunnel);
        paused[tunnel] = false
    }
}
#endif

/* --- relay/duplex.c */

/* A mishap: bytes still wait for a slow reader. */
inline lingered(tunnel)
{
    if
    :: mishap() -> bytes_waited = true; from_now_on(tunnel)
    :: bytes_waited -> bytes_waited = false; from_now_on(tunnel)
    :: !bytes_waited -> result = CUT
    fi
}

inline timed_out(tunnel)
{
    if
    :: has_lifetime || has_idle_timeout -> result = CUT
    :: half_open(tunnel) -> lingered(tunnel)
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
            :: ready == READY ->
                revents_of_both(tunnel, ready, server_event, client_event);
                move_both(tunnel);
                if
                :: server_event == RESET || client_event == RESET -> result = CUT
                :: has_lifetime -> result = CUT         /* however busy it is */
                :: server_event != RESET && client_event != RESET
                fi
            :: ready == TIMED_OUT -> timed_out(tunnel)
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

inline tunnel_end(tunnel)
{
    atomic {
        tunnel_close_listener(tunnel, SERVER);
        tunnel_close_listener(tunnel, CLIENT);
        has_failed = false;             /* the thread knows no more of it */
        bytes_waited = false;
        result = QUIET;
        ready = QUIET;
        phase[tunnel] = NOT_SERVING
    }
}

/* --- relay/relay.c, relay/reservation.c */

byte alive;                             /* these seven under relay_lock */
byte addresses, users;                  /* how many openers are counted */
byte table[PAIRS] = NONE;               /* the tunnel, by its pair */
bool refusing;
bool ending;
byte last_ended = NONE;                 /* whose thread is to be joined: relay->ended */
bool main_waits;                        /* on emptied; a broadcast takes it back */
bool is_shut_down;

inline shared_settings_new(err)
{
    if
    :: atomic { settings_exist[1] = true; err = false }
    :: mishap() -> err = true
    fi
}

inline bury(before)
{
    if
    :: before == NONE
    :: else ->
#ifndef FAULT_FREES_WITHOUT_JOINING
        pthread_join(before);
#endif
        thread_stack_free(before)
    fi
}

/* What must be so by then: all is given back that tunnels had. */
inline relay_free()
{
#ifndef FAULT_LAST_IS_NOT_BURIED
    bury(last_ended);
#endif
    atomic {
        assert(alive == 0 && addresses == 0 && users == 0);
        assert(resting == PAIRS);
        index = 0;
        do
        :: index < PAIRS -> assert(table[index] == NONE && is_at_rest[index]); index++
        :: else -> break
        od;
        index = 0;
        do
        :: index < TUNNELS ->
            assert(!exists[index] && is_all_closed(index) && !has_stack[index]);
            assert(thread[index] == NO_THREAD || thread[index] == JOINED);
            index++
        :: else -> break
        od;
        free_settings(settings);
        assert(!settings_exist[0] && !settings_exist[1]);
        relay_is_freed = true
    }
}

/* A mishap: the opener has too many already, or there is no memory to count it. */
inline count_opener(err)
{
    if
    :: mishap() -> err = true
    :: true ->
        addresses++;
        if
        :: users++; err = false
        :: mishap() ->
#ifndef FAULT_REFUSED_USER_STAYS_COUNTED
            addresses--;
#endif
            err = true
        fi
    fi
}

inline reserve(tunnel, err)
{
    atomic {
        pthread_mutex_lock(relay_lock);
        if
        :: refusing || alive >= MOST -> err = true
        :: else -> count_opener(err)
        fi;
        if
        :: !err ->
            alive++;
            settings_of[tunnel] = settings;
            opened_with[settings]++
        :: else
        fi;
        pthread_mutex_unlock(relay_lock)
    }
}

inline unreserve(tunnel)
{
    atomic {
        pthread_mutex_lock(relay_lock);
        assert(alive > 0);
        addresses--;
        users--;
        opened_with[settings_of[tunnel]]--;
        if
#ifdef FAULT_CURRENT_SETTINGS_ARE_FREED
        :: opened_with[settings_of[tunnel]] == 0 ->
            free_settings(settings_of[tunnel])
#elif !defined(FAULT_SETTINGS_ARE_KEPT)
        :: opened_with[settings_of[tunnel]] == 0 && settings_of[tunnel] != settings ->
            free_settings(settings_of[tunnel])
#endif
        :: else
        fi;
        settings_of[tunnel] = 0;
        alive--;
        assert(PAIRS - resting <= alive);
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

inline end_thread(tunnel)
{
#ifdef FAULT_ENDED_IS_READ_FIRST
    before = last_ended;
#endif
#ifdef FAULT_BURIES_UNDER_LOCK
    pthread_mutex_lock(relay_lock);
    before = last_ended;
    last_ended = tunnel;
    bury(before);
    pthread_mutex_unlock(relay_lock);
#else
    atomic {
        pthread_mutex_lock(relay_lock);
#ifndef FAULT_ENDED_IS_READ_FIRST
        before = last_ended;
#endif
        last_ended = tunnel;
        pthread_mutex_unlock(relay_lock)
    };
#ifndef FAULT_FORGETS_TO_BURY
    bury(before);
#endif
#endif
    before = NONE
}

inline tunnel_free(tunnel)
{
#ifdef FAULT_GIVES_BEFORE_CLOSING
    port_pool_give(tunnel);
    tunnel_close_listener(tunnel, SERVER);
    tunnel_close_listener(tunnel, CLIENT);
    free(tunnel);
    unreserve(tunnel)
#elif defined(FAULT_COUNTS_DOWN_FIRST)
    tunnel_close_listener(tunnel, SERVER);
    tunnel_close_listener(tunnel, CLIENT);
    unreserve(tunnel);
    port_pool_give(tunnel);
    free(tunnel)
#else
    atomic {
        tunnel_close_listener(tunnel, SERVER);
        tunnel_close_listener(tunnel, CLIENT);
#ifndef FAULT_NEVER_GIVES
        port_pool_give(tunnel)
#endif
    };
#ifdef FAULT_GIVES_TWICE
    port_pool_give(tunnel);
#endif
    atomic { free(tunnel); unreserve(tunnel) }
#endif
}

proctype tunnel_thread(byte tunnel)
{
    bool has_failed;
    mtype ready = QUIET, server_event = QUIET, client_event = QUIET;
    mtype accepted = QUIET, result = QUIET;
    bool bytes_waited;
    byte before = NONE;

    waker_own(tunnel);
    tcp_serve(tunnel);
#ifdef FAULT_LEAVES_TABLE_AFTER_FREE
    tunnel_end(tunnel);
    end_thread(tunnel);
    tunnel_free(tunnel);
    leave_table(tunnel);
#elif defined(FAULT_ENDS_AFTER_COUNTING_DOWN)
    leave_table(tunnel);
    tunnel_end(tunnel);
    tunnel_free(tunnel);
    end_thread(tunnel);
#else
    leave_table(tunnel);
    touch(tunnel);
    tunnel_end(tunnel);
    end_thread(tunnel);
    tunnel_free(tunnel);
#endif
    thread[tunnel] = OVER
}

inline thread_stack_start(tunnel, err)
{
    thread_stack_new(tunnel, err);
    if
    :: err
    :: else ->
        if
        :: skip
        :: mishap() ->
            err = true;
#ifndef FAULT_STACK_STAYS
            thread_stack_free(tunnel)
#endif
        fi
    fi
}

inline start_thread(tunnel, err)
{
    atomic {
        thread_stack_start(tunnel, err);
        if
        :: err
        :: else -> thread[tunnel] = RUNNING; run tunnel_thread(tunnel)
        fi
    }
}

inline tunnel_new(tunnel, err)
{
    reserve(tunnel, err);
    if
    :: !err ->
        if
        :: exists[tunnel] = true; port_pool_take(tunnel, err)
        :: mishap() -> err = true
        fi;
        if
        :: err ->
            atomic {
                exists[tunnel] = false;
#ifndef FAULT_STAYS_COUNTED
                unreserve(tunnel)
#endif
            }
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

inline relay_change_settings()
{
    shared_settings_new(err);
    if
    :: err
    :: else ->
        atomic {
            pthread_mutex_lock(relay_lock);
            settings = 1;
            if
#ifdef FAULT_SETTINGS_IN_USE_ARE_FREED
            :: true -> free_settings(0)
#else
            :: opened_with[0] == 0 -> free_settings(0)
            :: else
#endif
            fi;
            pthread_mutex_unlock(relay_lock)
        }
    fi;
    err = false
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

/* --- rpc/rpc_server.c: the calls, and the end of those who carry them out */

byte busy;

proctype worker(byte tunnel)
{
    bool err;
    byte tries, place, index = NONE;
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

inline reload()
{
    relay_change_settings()
}

inline heed_signals()
{
#ifdef RELOAD
    reload()
#else
    skip
#endif
}

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
    bool may_time_out, err;

    heed_signals();
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
        :: index < PAIRS ->
            queue[index] = index;
            is_at_rest[index] = true;
            has_rested[index] = true;
            index++
        :: else -> break
        od;
        resting = PAIRS;
        rested = PAIRS;
#ifdef USED_BEFORE
        rested_least = PAIRS - 1;
        if
        :: has_rested[PAIRS - 1] = false; rested = PAIRS - 1
        :: has_rested[PAIRS - 1] = false; has_rested[0] = false; rested = 0
        fi;
#endif
        settings_exist[0] = true;
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
#if !defined(BRIEF) || !defined(NO_SHUTDOWN)
        run peers();
#endif
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
