#!/usr/bin/python3 -B
"""Whatever call fails while a server attaches by webmux and a client comes through it,
the service goes on: each call of each function that such a trip makes fails in turn.
Not under sanitizers, as test_faults.py is not."""

import errno
import functools

import harness
from faults import CLEAN_FAILURES, Shim
from harness import Case, Daemon, connect, receive_exactly, reset, rpc, wait_until
from webmux_harness import FIN, SYN, Data, Flags, Raw, address_of

FAULTS = (
    ("accept4", ("EMFILE", "ECONNABORTED")),
    ("epoll_create1", ("EMFILE",)),
    ("epoll_ctl", ("ENOMEM",)),
    ("epoll_pwait", ("ENOMEM",)),
    ("getpeername", ("ENOTCONN",)),
    ("memory", ("ENOMEM",)),
    ("recv", ("ECONNRESET",)),
    ("send", ("ENOBUFS", "EPIPE")),
    ("setsockopt", ("ENOBUFS",)),
    ("shutdown", ("ENOTCONN",)),
)
PAYLOAD = b"x" * 4000
TRIP_S = 3              # in which a trip has ended, one way or the other


class EachCallOfATrip(Case):
    def setUp(self):
        self.shim = Shim()
        self.addCleanup(self.shim.clean_up)
        self.daemon = Daemon("--drain", "1", "--reserve", "0", "--attach-timeout", "5", "--linger",
                             "5", env=self.shim.environment)
        self.addCleanup(self.daemon.clean_up)
        self.trip()
        self.at_rest = wait_until(self.daemon.steady_counts, "the daemon is at rest")

    def trip(self):
        """A client comes before its server, is echoed, and both end."""
        with rpc(self.daemon.url) as proxy:
            server_uri = proxy.Tunnel.openTunnel("webmux")
            client_uri = proxy.Tunnel.getTunnelAddress(server_uri)
        client = connect((self.daemon.host, address_of(client_uri)[1]))
        server = Raw((self.daemon.host, address_of(server_uri)[1]))
        server.frame = functools.partial(Raw.frame, server, TRIP_S)
        try:
            client.settimeout(TRIP_S)
            client.sendall(PAYLOAD)
            session = server.hear_of(3, SYN).session
            server.say(Data(session, SYN))
            got = b""
            while len(got) < len(PAYLOAD):
                got += server.hear_of(session, Flags.NONE).payload
            server.say(Data(session, Flags.NONE, got))
            self.assertEqual(receive_exactly(client, len(PAYLOAD)), PAYLOAD)
            server.say(Data(session, FIN))
            self.assertEqual(client.recv(1), b"")
            client.close()
            server.hear_of(session, FIN)
        finally:
            if client.fileno() >= 0:
                reset(client)
            server.close()

    def troubled_trip(self):
        """May fail, but soon, and not by the end of the daemon."""
        try:
            self.trip()
        except (*CLEAN_FAILURES, OSError, AssertionError):
            pass

    def test_each_fails(self):
        for function, errors in FAULTS:
            before = self.shim.calls(function)
            self.trip()
            self.wait_for_rest()
            calls = self.shim.calls(function) - before
            for error in errors:
                with self.subTest(function=function, error=error):
                    step = max(1, calls // 4)       # the first, the last, and some between
                    for number in sorted({1, *range(1, calls + 1, step), calls}):
                        self.shim.fail(function, getattr(errno, error), number)
                        self.troubled_trip()
                        self.shim.heal()
                    self.assertIsNone(self.daemon.process.poll(), self.daemon.errors()[-3000:])
                    self.wait_for_rest()
                    self.trip()
        self.daemon.stop()

    def wait_for_rest(self):
        wait_until(lambda: self.daemon.has_no_more_than(self.at_rest),
                   f"nothing is left: {self.daemon.counts()}, {self.at_rest}")


if __name__ == "__main__":
    harness.main()
