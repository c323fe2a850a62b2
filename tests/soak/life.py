"""life: what all kinds of lives share: the two ends of a stream, and what one life takes and
gives back."""

import collections
import contextlib
import errno
import os
import random
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import harness                  # noqa: E402
from harness import Pattern, reset      # noqa: E402

LARGEST = 32 << 20
LARGEST_OF_MANY = 4 << 20       # where one life has several clients
LINGER_S = 4
ATTACH_TIMEOUT_S = 5
RESERVE_S = 4
IN_TIME_S = 0.75 * RESERVE_S    # who came back within that, came back within the reserve

# weight: how often it is played for each time the rarest one is. at_least_s: what it waits for
# by its nature, so that it is not begun shortly before the end.
Kind = collections.namedtuple("Kind", "play weight at_least_s", defaults=(0,))


class Wrong(AssertionError):
    """Something that the proxy must not do."""


class TooLate(Exception):
    """The machine was so slow that what was to be seen could not be."""


def some_size(chance, largest=LARGEST):
    """As many small as large ones, and nothing at all now and then."""
    return 0 if chance.random() < 0.1 else int(2 ** chance.uniform(0, largest.bit_length() - 1))


class End:
    """One end of a stream in this process: sends one pattern and checks another. An end that
    may be cut short finds an end that is none, when a program before it was killed: for it
    that is a ConnectionError, as a reset is. For a client of the proxy it is wrong."""

    def __init__(self, connection, chance, sends, gets, may_be_cut_short=False):
        self.connection = connection
        self.chance = random.Random(chance.random())
        self.sends_seed, self.gets_seed = sends, gets
        self.sends, self.gets = Pattern(sends), Pattern(gets)
        self.largest_piece = self.chance.choice((1, 2, 8, 64, 256)) * 4096
        self._may_be_cut_short = may_be_cut_short

    def send(self, count):
        while count:
            piece = self.sends.take(min(count, self.largest_piece))
            self.connection.sendall(piece)
            count -= len(piece)

    def finish(self):
        try:
            self.connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            raise ConnectionResetError("there is no connection any more to be finished") from error

    def receive(self, count=None, pause_s=0.0):
        """count bytes, or all until the end; how many came."""
        got = 0
        while count is None or got < count:
            if pause_s:
                time.sleep(self.chance.random() * pause_s)
            room = self.largest_piece if count is None else min(self.largest_piece, count - got)
            piece = self.connection.recv(room)
            if not piece:
                break
            self.gets.check(piece)
            got += len(piece)
        return got

    def receive_exactly(self, count, pause_s=0.0):
        got = self.receive(count, pause_s)
        if got != count:
            told = f"the stream ended after {got} of {count} bytes"
            raise ConnectionAbortedError(told) if self._may_be_cut_short else Wrong(told)

    def expect_end(self):
        if rest := self.connection.recv(1):
            raise Wrong(f"{rest!r} after all that was sent")

    def expect_reset(self):
        """Whatever came before it was right; an end would be a lie."""
        with contextlib.suppress(ConnectionResetError):
            self.receive()
            raise Wrong("a proper end where a reset was due")

    def expect_no_more(self):
        """An end or a reset; whatever came before it was right."""
        with contextlib.suppress(ConnectionError):
            self.receive()

    def reset(self):
        reset(self.connection)

    def close(self):
        self.connection.close()


class Life:
    """What one life takes, and gives back at its end. largest: bytes of a stream."""

    def __init__(self, soak, chance, largest=LARGEST):
        self.soak, self.daemon, self.chance, self.largest = soak, soak.daemon, chance, largest
        self._left = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._left.close()

    def branch(self):
        """With chance of its own, for one of many clients; what it takes goes with the context."""
        return Life(self.soak, random.Random(self.chance.random()), LARGEST_OF_MANY)

    def at_end(self, function, *arguments):
        self._left.callback(function, *arguments)

    def new_seeds(self):
        """One for each direction."""
        return [self.chance.randrange(1 << 32) for _ in range(2)]

    def beside(self, function, *arguments):
        return harness.in_thread(function, *arguments)

    def some_size(self):
        return some_size(self.chance, self.largest)

    def pause(self, most_s):
        time.sleep(self.chance.random() * most_s)

    def buffers(self):
        """Small ones make the proxy wait for this end."""
        return {"receive_buffer": 16384, "send_buffer": 16384} if self.chance.random() < 0.3 else {}

    def peer(self, address):
        """A process that is connected there."""
        peer = harness.Peer(address, self.chance.choice((0, 16384)))
        self.at_end(peer.clean_up)
        return peer

    def count_bytes(self, count):
        self.soak.tally.add_bytes(count)


def all_results(threads):
    for thread in threads:
        thread.result()
