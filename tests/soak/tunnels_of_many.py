"""tunnels_of_many: what the lives of tunnels of many clients share, however their server
attaches: which of its ends belongs to which client, and what was cut on purpose."""

import contextlib
import queue
import select
import socket
import time

import talks
from harness import WAIT_S, connect, receive_exactly, reset
from life import End, Wrong

NAME_BYTES = 8

TALKS = (talks.whole, talks.question_and_answer, talks.small_talk, talks.broken_off)
SLOW_TALKS = (talks.slow_client, talks.left_hanging)


class Cuts:
    """What was cut on purpose. Whoever is cut meanwhile is so by right."""

    def __init__(self):
        self.count = 0
        self._under_way = 0

    @contextlib.contextmanager
    def cutting(self):
        """Until what was cut is as it was before."""
        self._under_way += 1
        self.count += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self.count += 1

    def may_explain(self, count_before):
        return self._under_way or self.count != count_before


class Reception:
    """Where the server's ends come in, each in a thread of its own, in whatever order: clients
    say a name first. By ssh they may be cut short: it makes an end of the reset of what it is
    before, and of its own death."""

    def __init__(self, make_end=End, may_be_cut_short=False):
        self._make_end, self.may_be_cut_short = make_end, may_be_cut_short
        self._expected = {}             # by name: a queue for the connection

    def arrive(self, connection, cuts=None):
        """Until its life is done with it; at once if it is a stranger's, or is cut already.
        cuts: those of the way that it came, whenever, if that is known."""
        with contextlib.suppress(ConnectionError, AssertionError):
            expected = self._expected.get(receive_exactly(connection, NAME_BYTES))
            if expected:
                done = queue.Queue()
                expected.put((connection, cuts, done))
                done.get()

    @contextlib.contextmanager
    def expect(self, life):
        """A name for a client to say, and what then waits for the server's end of it. That
        looks now and then whether the client is still there."""
        name = life.chance.randbytes(NAME_BYTES)
        expected = self._expected[name] = queue.Queue()
        done = []

        def server(look=lambda: None):
            deadline = time.monotonic() + WAIT_S
            while time.monotonic() < deadline:
                with contextlib.suppress(queue.Empty):
                    connection, cuts, is_done = expected.get(timeout=0.05)
                    done.append(is_done)
                    end = self._make_end(connection, life.chance, *life.new_seeds(), self.may_be_cut_short)
                    end.cuts = cuts
                    return end
                look()
            raise Wrong(f"a client was not served within {WAIT_S} s")

        try:
            yield name, server
        finally:
            del self._expected[name]
            for each in done:
                each.put(True)


def _refuse_end(client, may_be_cut_short):
    """Nobody has served this client so far. A reset is an exception of its own."""
    if select.select([client], [], [], 0)[0] and not client.recv(1, socket.MSG_PEEK):
        told = "a client that nobody has served saw a proper end"
        raise ConnectionAbortedError(told) if may_be_cut_short else Wrong(told)


def visit(life, reception, find_address, talk, cuts):
    """One client and what it talks, which is whole, or cut by right: by the way that it came,
    or by whatever was cut if it did not come so far."""
    before, address = cuts.count, None
    try:
        address = find_address()
        with life, connect(address, **life.buffers()) as connection, \
                reception.expect(life) as (name, wait_for_server):
            connection.sendall(name)
            server = wait_for_server(lambda: _refuse_end(connection, reception.may_be_cut_short))
            if server.cuts:
                cuts, before = server.cuts, 0
            client = End(connection, life.chance, server.gets_seed, server.sends_seed)
            talk(life, server, client)
            if connection.fileno() >= 0:
                reset(connection)
    except Exception as error:
        if not isinstance(error, ConnectionError) or not cuts.may_explain(before):
            raise Wrong(f"{talk.__name__} at {address}: {error!r}") from error


def visits(life, reception, address, cuts, kinds=TALKS, most=5):
    """Some of them at once, which the caller waits for."""
    return [life.beside(visit, life.branch(), reception, lambda: address, life.chance.choice(kinds), cuts)
            for _ in range(life.chance.randrange(1, most + 1))]


def visit_by_peer(life, reception, address):
    """A client that is a process of its own, to be frozen or killed."""
    with life.branch() as life, reception.expect(life) as (name, wait_for_server):
        peer = life.peer(address)
        peer.tell("say", name.hex())
        peer.expect("said")
        life.chance.choice((talks.freeze_and_thaw, talks.kill))(life, peer, wait_for_server())
