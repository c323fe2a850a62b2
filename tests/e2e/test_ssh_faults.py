#!/usr/bin/python3 -B
"""Whatever call fails while a server comes by ssh and a client through it, the
service goes on: each call of each function that such a trip makes fails in turn.
Not under sanitizers, as test_faults.py is not. Memory is left out: libssh does not
always look whether it got any."""

import errno
import unittest

import harness
import ssh_harness
from faults import Shim
from harness import connect, wait_until
from ssh_harness import SSH, Ssh, SshCase, SshDaemon, ask, echo

FAULTS = (
    ("accept4", ("EMFILE", "ECONNABORTED")),
    ("epoll_create1", ("EMFILE",)),
    ("epoll_ctl", ("ENOMEM",)),
    ("epoll_pwait", ("ENOMEM",)),
    ("getpeername", ("ENOTCONN",)),
    ("getsockname", ("ENOBUFS",)),
    ("ioctl", ("ENOMEM",)),
    ("listen", ("EADDRINUSE",)),
    ("mmap", ("ENOMEM",)),
    ("mprotect", ("ENOMEM",)),
    ("poll", ("ENOMEM",)),
    ("ppoll", ("ENOMEM",)),
    ("pthread_attr_init", ("ENOMEM",)),
    ("pthread_attr_setstack", ("EINVAL",)),
    ("pthread_create", ("EAGAIN",)),
    ("recv", ("ECONNRESET",)),
    ("send", ("ENOBUFS", "EPIPE")),
    ("setsockopt", ("ENOBUFS",)),
    ("shutdown", ("ENOTCONN",)),
    ("socket", ("EMFILE",)),
)
MOST_CALLS = 200        # of one function in one trip
TRIP_S = 12             # in which a trip has ended, one way or the other


@unittest.skipUnless(SSH and ssh_harness.KEYSCAN, "ssh is not installed")
class EachCallOfATrip(SshCase):
    def setUp(self):
        self.shim = Shim()
        self.addCleanup(self.shim.clean_up)
        self.daemon = SshDaemon("--drain", "1", "--reserve", "0", "--attach-timeout", "2", "--linger",
                                "2", "--ssh-login-timeout", "3", "--ssh-handshakes-per-address", "0",
                                env=self.shim.environment)
        self.addCleanup(self.daemon.clean_up)
        self.service = self.serve(echo)
        self.known_hosts = self.daemon.known_hosts
        self.trip()
        self.at_rest = wait_until(self.daemon.steady_counts, "the daemon is at rest")

    def trip(self):
        with Ssh(self.daemon, self.service.port) as address:
            self.assertEqual(ask(address, b"x" * 100000), b"x" * 100000)

    def troubled_trip(self):
        """May fail, but soon, and not by the end of the daemon."""
        client = Ssh(self.daemon, self.service.port)
        try:
            wait_until(lambda: client.ports() or client.process.poll() is not None, "in or not", TRIP_S)
            if client.ports():
                with connect(client.address) as visitor:
                    visitor.settimeout(TRIP_S)
                    visitor.sendall(b"?")
                    visitor.recv(1)
        except (ConnectionError, TimeoutError):
            pass
        finally:
            client.clean_up()

    def test_each_fails(self):
        for function, errors in FAULTS:
            before = self.shim.calls(function)
            self.trip()
            wait_until(lambda: self.daemon.has_no_more_than(self.at_rest), "nothing is left", TRIP_S)
            calls = min(self.shim.calls(function) - before, MOST_CALLS)
            for error in errors:
                with self.subTest(function=function, error=error):
                    step = max(1, calls // 8)       # the first, the last, and some between
                    for number in sorted({1, 2, *range(1, calls + 1, step), max(calls, 1)}):
                        self.shim.fail(function, getattr(errno, error), number)
                        self.troubled_trip()
                        self.shim.heal()
                    self.assertIsNone(self.daemon.process.poll(), self.daemon.errors()[-3000:])
                    self.trip()
                    wait_until(lambda: self.daemon.has_no_more_than(self.at_rest),
                               f"nothing is left: {self.daemon.counts()}, {self.at_rest}", TRIP_S)
        self.daemon.stop()


if __name__ == "__main__":
    harness.main()
