#!/usr/bin/python3 -B
"""Hundreds of tunnels at once. Thousands of them, and what they cost, are
measured by "make bench"."""

import os
import random
import socket

import harness
from harness import Daemon, DaemonCase, PortBlock, Tunnel, receive_exactly

TUNNELS = 300
ROUNDS = 4
MESSAGE_BYTES = 4096    # small enough to fit into the sockets' buffers


MAPPINGS_KEPT_MAX = TUNNELS // 10     # the C library makes some for itself


def mappings_that_may_be_stacks(pid):
    """Writable memory with something that can't be touched below it."""
    count, below = 0, None
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps:
        for line in maps:
            addresses, access, *_rest = line.split()
            start, end = addresses.split("-")
            count += access == "rw-p" and below == start
            below = end if access == "---p" else None
    return count


class AdjacentSlots(PortBlock):
    """The ports of several slots. Those that guard the later ones lie within;
    the daemon passes over them, as over any port that others hold."""

    COUNT = 3

    def __init__(self):
        starts = range(len(self.SLOTS) - self.COUNT + 1)
        for start in random.sample(starts, len(starts)):
            bases = self.SLOTS[start:start + self.COUNT]
            self._guards = []
            try:
                for base in bases:
                    self._guards.append(harness.listen("127.0.0.1", base, backlog=0, reuse=False))
            except OSError:
                self.release()
                continue
            self.low, self.high = bases[0] + 2, bases[-1] + self.SLOT_PORTS - 1
            return
        raise AssertionError(f"no {self.COUNT} free slots of ports beside each other")

    def release(self):
        for guard in self._guards:
            guard.close()


class Load(DaemonCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--drain", "1", ports=AdjacentSlots())

    def test_hundreds_talk_at_once_and_crowd_after_crowd_leaves_nothing_behind(self):
        stacks_before = mappings_that_may_be_stacks(self.daemon.pid)
        for _ in range(2):      # the ports are too few for both, unless they are given back
            pairs = self.crowd()
            for _ in range(ROUNDS):
                self.talk(pairs)
            self.end(pairs)
            self.daemon.expect_rest()
            self.assertLess(mappings_that_may_be_stacks(self.daemon.pid),
                            stacks_before + MAPPINGS_KEPT_MAX)

    def crowd(self):
        """All are open before the first has its server, and all relay in the end."""
        tunnels = [Tunnel(self.daemon) for _ in range(TUNNELS)]
        pairs = [tunnel.both() for tunnel in tunnels]
        for pair in pairs:
            for connection in pair:
                self.addCleanup(connection.close)
        return pairs

    def talk(self, pairs):
        """Every message is under way, in both directions, before one is read."""
        messages = [(os.urandom(MESSAGE_BYTES), os.urandom(MESSAGE_BYTES)) for _ in pairs]
        for (server, client), (down, up) in zip(pairs, messages):
            server.sendall(down)
            client.sendall(up)
        for (server, client), (down, up) in zip(pairs, messages):
            self.assertEqual(receive_exactly(client, MESSAGE_BYTES), down)
            self.assertEqual(receive_exactly(server, MESSAGE_BYTES), up)

    def end(self, pairs):
        for pair in pairs:
            for connection in pair:
                connection.shutdown(socket.SHUT_WR)
        for pair in pairs:
            for connection in pair:
                self.assert_proper_end(connection)
                connection.close()


if __name__ == "__main__":
    harness.main()
