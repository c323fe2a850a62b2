"""talks: what the two ends of a stream do with each other, however the server attaches. Each
gets the server's and the client's end, or a process in the place of one."""

import contextlib
import time

import harness
from life import LARGEST, LINGER_S, Wrong, all_results, some_size

PEER_LARGEST = LARGEST // 4


def whole(life, server, client):
    """Both send all they have and finish, both at once."""
    ends = server, client
    sizes = [life.some_size() for _ in ends]
    pause_s = 0.002 if life.chance.random() < 0.3 else 0

    def send_all(end, size):
        end.send(size)
        end.finish()

    def receive_all(end, size):
        end.receive_exactly(size, pause_s if size < 1 << 20 else 0)
        end.expect_end()

    all_results([life.beside(send_all, end, size) for end, size in zip(ends, sizes)] +
                [life.beside(receive_all, end, size) for end, size in zip(ends, reversed(sizes))])
    life.count_bytes(sum(sizes))


def question_and_answer(life, server, client):
    """The client finishes, the server reads to the end, answers and closes."""
    sizes = life.some_size(), life.some_size()
    asking = life.beside(lambda: (client.send(sizes[0]), client.finish()))
    server.receive_exactly(sizes[0])
    server.expect_end()
    asking.result()
    answering = life.beside(lambda: (server.send(sizes[1]), server.close()))
    client.receive_exactly(sizes[1])
    client.expect_end()
    answering.result()
    client.close()
    life.count_bytes(sum(sizes))


def small_talk(life, server, client):
    """Questions and answers in turn."""
    for _ in range(life.chance.randrange(1, 200)):
        size = some_size(life.chance, 16384) + 1
        for one, other in ((client, server), (server, client)):
            one.send(size)
            other.receive_exactly(size)
        life.count_bytes(2 * size)
    for one, other in ((client, server), (server, client)):
        one.finish()
        other.expect_end()


def broken_off(life, server, client):
    """One is reset in the middle, and for the other it must not look complete."""
    one, other = life.chance.sample((server, client), 2)
    breaks_after = life.chance.randrange(life.some_size() + 1)
    if life.chance.random() < 0.5:
        sending = life.beside(lambda: (one.send(breaks_after), one.reset()))
        other.expect_reset()
        sending.result()
    else:           # the one who breaks off is the reader
        sending = life.beside(harness.send_until_error, other.connection)
        life.pause(0.3)
        one.reset()
        if not isinstance(sending.result(), ConnectionError):
            raise Wrong("a writer noticed nothing of its reader's reset")
    life.count_bytes(other.gets.position)


def broken_off_somehow(life, server, client):
    """The same where a reset may look like an end."""
    one, other = life.chance.sample((server, client), 2)
    one.send(life.chance.randrange(life.some_size() + 1))
    one.reset()
    other.expect_no_more()
    life.count_bytes(other.gets.position)


# --- those that wait for time to pass

LATE_S = 1.5 * LINGER_S


def _read_late(life, one, other):
    size = life.chance.randrange(1 << 19, 1 << 21)      # less is soon in the reader's system
    sending = life.beside(lambda: (one.send(size), one.finish()))
    time.sleep(life.chance.choice((0.1, LATE_S)))
    other.receive_exactly(size)
    other.expect_end()
    sending.result()
    other.close()
    one.expect_end()
    life.count_bytes(size)


def slow_reader(life, server, client):
    """Takes longer than the linger time for what the other has sent and finished."""
    _read_late(life, *life.chance.sample((server, client), 2))


def slow_client(life, server, client):
    """The same, where whoever is before the server takes all for it."""
    _read_late(life, server, client)


def _leave_hanging(life, one, other):
    size = some_size(life.chance, 65536)
    one.send(size)
    one.finish()
    other.receive_exactly(size)
    other.expect_end()
    one.expect_reset()


def left_hanging(life, server, client):
    """One finishes, the other falls silent: both are reset after the linger time."""
    _leave_hanging(life, *life.chance.sample((server, client), 2))


def client_left_hanging(life, server, client):
    """The same, where a reset may look like an end to the server."""
    _leave_hanging(life, client, server)


# --- with a process at one end

def freeze_and_thaw(life, peer, other):
    """The peer is frozen and thawed in the middle, both ways at once."""
    sizes = some_size(life.chance, PEER_LARGEST), some_size(life.chance, PEER_LARGEST)
    peer.tell("send", other.gets_seed, sizes[0])
    peer.tell("finish")
    peer.tell("receive", other.sends_seed, sizes[1])
    peer.tell("end")
    talking = [life.beside(lambda: (other.send(sizes[1]), other.finish())),
               life.beside(lambda: (other.receive_exactly(sizes[0]), other.expect_end()))]
    for _ in range(life.chance.randrange(1, 4)):
        life.pause(0.1)
        peer.freeze()
        life.pause(LINGER_S / 4)        # not for the linger time, which silence must not reach
        peer.thaw()
    all_results(talking)
    peer.expect("sent", "finished", "received", "end")
    life.count_bytes(sum(sizes))


def kill(life, peer, other):
    """The peer is killed in the middle, frozen or not. Its system ends or resets what it held,
    so the other sees either; what came was right."""
    peer.tell("send", other.gets_seed, LARGEST)
    peer.tell("receive", other.sends_seed, LARGEST)

    def talk(talk_on):
        with contextlib.suppress(ConnectionError):
            talk_on()

    talking = [life.beside(talk, lambda: other.send(LARGEST)), life.beside(talk, other.receive)]
    life.pause(0.2)
    if life.chance.random() < 0.5:
        peer.freeze()
        life.pause(0.2)
    peer.kill()
    all_results(talking)
    life.count_bytes(other.gets.position)
