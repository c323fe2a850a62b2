#!/usr/bin/python3 -B
"""Whatever call fails, the service goes on: each call of each function that a
trip makes fails in turn, alone, and then with all of that function's that
follow. Not under sanitizers, whose own wrappers of these functions, and of
memory above all, exclude the shim's.

Memory fails alone, and as it does when it runs out: what is in use may grow by
so much and no more. That all of it fails from some call on is not tried:
xmlrpc-c 1.33.14 crashes if it gets no memory twice in a row, since its
xmlrpc_set_fault_formatted_v frees a constant (and so does its parser on its
way out); the service asks for enough before it goes there."""

import errno
import resource
import tempfile
import time

import faults
import harness
from faults import FaultyDaemon, Shim, every_pair_is_usable, troubled_trip, whole_trip
from harness import Case, wait_until

# function, errors, whether callers may have to wait while all its calls fail.
FAULTS = (
    ("accept4", ("EMFILE", "ECONNABORTED"), True),
    ("bind", ("EADDRINUSE", "ENOMEM"), False),
    ("epoll_ctl", ("ENOMEM",), True),
    ("fcntl", ("EPERM",), False),
    ("fdopen", ("ENOMEM",), False),
    ("getpeername", ("ENOTCONN",), False),
    ("getrlimit", ("EPERM",), False),
    ("getsockname", ("ENOBUFS",), False),
    ("ioctl", ("ENOMEM",), False),
    ("listen", ("EADDRINUSE",), False),
    ("mmap", ("ENOMEM",), False),
    ("mprotect", ("ENOMEM",), False),
    ("open", ("EMFILE",), False),
    ("pipe2", ("EMFILE",), False),
    ("poll", ("ENOMEM",), False),
    ("ppoll", ("ENOMEM",), False),
    ("pthread_attr_init", ("ENOMEM",), False),
    ("pthread_attr_setstack", ("EINVAL",), False),
    ("pthread_create", ("EAGAIN",), False),
    ("recv", ("ENOMEM", "ECONNRESET"), False),
    ("send", ("ENOBUFS",), False),
    ("sendmsg", ("ENOMEM", "EPIPE"), False),
    ("setrlimit", ("EPERM",), False),
    ("setsockopt", ("ENOBUFS",), False),
    ("shutdown", ("ENOTCONN",), False),
    ("socket", ("EMFILE",), False),
    ("splice", ("ENOMEM", "ECONNRESET"), False),
    ("write", ("ENOSPC",), False),
)

# Calls that are cut short by a signal, once each: nobody may notice.
INTERRUPTED = ("accept4", "epoll_wait", "ppoll", "recv", "send", "sendmsg", "sigwaitinfo", "splice")

MEMORY_STEP_BYTES = 4096
MOST_MEMORY_BYTES = 4 << 20     # more than a trip takes

MOST_CALLS = 2000       # of one function in one trip
CALM_S = 20             # in which a call is answered, one way or the other
PATIENCE_S = 0.25       # for calls that may have to wait until the trouble is over


class EachCallOfATrip(Case):
    """They share a daemon; what was left of it shows after each of them, or at
    the end."""

    @classmethod
    def setUpClass(cls):
        cls.shim = Shim()
        cls.addClassCleanup(cls.shim.clean_up)
        folder = tempfile.TemporaryDirectory(prefix="tristero-e2e-")
        cls.addClassCleanup(folder.cleanup)
        cls.users = faults.users_file(folder.name)
        cls.start()

    @classmethod
    def start(cls):
        cls.daemon = FaultyDaemon(cls.shim, cls.users, pairs=100)
        cls.addClassCleanup(cls.daemon.clean_up)
        whole_trip(cls.daemon)
        whole_trip(cls.daemon)
        cls.daemon.expect_rest()
        cls.blocks = cls.shim["blocks"]

    @classmethod
    def tearDownClass(cls):
        every_pair_is_usable(cls.daemon)
        whole_trip(cls.daemon)
        cls.daemon.stop()

    def survive(self, name, error, lasts, trip):
        """Lets call 1 fail, then 2, and so on, until a trip makes no such call."""
        for number in range(1, MOST_CALLS):
            with self.subTest(call=number):
                self.shim.fail(name, getattr(errno, error), number,
                               Shim.FOR_EVER if lasts else number)
                try:
                    trip()
                finally:
                    self.shim.heal()
                    if self.daemon.process.poll() is not None:
                        self.fail_and_start_again()
                whole_trip(self.daemon)
            if not self.shim["failed"]:
                return
        raise AssertionError(f"more than {MOST_CALLS} calls of {name} in a trip")

    def fail_and_start_again(self):
        died_of = f"the daemon ended with {self.daemon.process.poll()}: {self.daemon.errors()[-300:]}"
        self.daemon.clean_up()
        self.start()
        raise AssertionError(died_of)

    def expect_nothing_left(self, but_memory=False):
        self.daemon.expect_rest()
        if but_memory:
            type(self).blocks = self.shim["blocks"]
        # what has been closed is freed a moment later
        wait_until(lambda: self.shim["blocks"] <= self.blocks, "no block of memory is left")

    def test_memory_fails(self):
        self.survive("memory", "ENOMEM", False, lambda: troubled_trip(self.daemon, CALM_S))
        # xmlrpc-c leaks a few where it runs out of memory
        self.expect_nothing_left(but_memory=True)

    def test_memory_runs_out(self):
        for more in range(0, MOST_MEMORY_BYTES, MEMORY_STEP_BYTES):
            with self.subTest(bytes=more):
                self.shim.allow_memory(more)
                try:
                    troubled_trip(self.daemon, CALM_S)
                finally:
                    self.shim.heal()
                    if self.daemon.process.poll() is not None:
                        self.fail_and_start_again()
                whole_trip(self.daemon)
            if not self.shim["failed"]:
                break
        self.assertGreater(more, 100 * 1024)
        self.expect_nothing_left(but_memory=True)

    def is_interrupted(self, name):
        self.survive(name, "EINTR", False, lambda: whole_trip(self.daemon))
        self.expect_nothing_left()

    def fails_alone(self, name, error):
        self.survive(name, error, False, lambda: troubled_trip(self.daemon, CALM_S))
        self.expect_nothing_left()

    def goes_on_failing(self, name, error, waits):
        self.survive(name, error, True,
                     lambda: troubled_trip(self.daemon, PATIENCE_S if waits else CALM_S, waits))
        self.expect_nothing_left()


class AddressSpace(Case):
    def test_without_any_left_calls_get_faults_and_tunnels_relay(self):
        shim = Shim()
        self.addCleanup(shim.clean_up)
        daemon = FaultyDaemon(shim, faults.users_file(self.temporary_folder()))
        self.addCleanup(daemon.clean_up)
        server, client = self.open_tunnel(daemon).both()
        with open(f"/proc/{daemon.pid}/statm", encoding="ascii") as statm:
            used = int(statm.read().split()[0]) * resource.getpagesize()
        before = resource.prlimit(daemon.pid, resource.RLIMIT_AS, (used, -1))
        for _ in range(50):
            troubled_trip(daemon, CALM_S)
            client.sendall(b"still")
            self.assertEqual(harness.receive_exactly(server, 5), b"still")
        with self.assertRaises(faults.CLEAN_FAILURES):
            faults.relay_trip(daemon, CALM_S)
        resource.prlimit(daemon.pid, resource.RLIMIT_AS, before)
        client.close()
        server.close()
        whole_trip(daemon)
        daemon.stop()


class Clock(Case):
    YEARS_S = 10 * 365 * 86400

    def test_a_wrong_clock_matters_to_the_log_alone(self):
        shim = Shim()
        self.addCleanup(shim.clean_up)
        daemon = FaultyDaemon(shim, faults.users_file(self.temporary_folder()))
        self.addCleanup(daemon.clean_up)
        for jump_s in (self.YEARS_S, -self.YEARS_S, -1, 3600, 0):
            with self.subTest(jump_s=jump_s):
                began = time.monotonic()
                server, client = self.open_tunnel(daemon).both()
                waiting = harness.Tunnel(daemon)    # three seconds long
                year = time.gmtime(time.time() + jump_s).tm_year
                shim["clock_s"] = jump_s
                self.assertIn(waiting.server_address[1], daemon.ports.listening())
                whole_trip(daemon)
                self.assertIn(f"\n{year}-", daemon.errors())
                server.sendall(b"on time")
                self.assertEqual(harness.receive_exactly(client, 7), b"on time")
                wait_until(lambda: not daemon.ports.listening(), "the attach timeout")
                self.assertGreater(time.monotonic() - began, 2.9)
                client.close()
                server.close()
                daemon.expect_rest()
        daemon.stop()


def add_test(name, how, *arguments):
    setattr(EachCallOfATrip, f"test_{name}", lambda self: how(self, *arguments))


def add_tests():
    for name, errors, waits in FAULTS:
        for error in errors:
            add_test(f"{name}_fails_with_{error}", EachCallOfATrip.fails_alone, name, error)
        add_test(f"{name}_goes_on_failing", EachCallOfATrip.goes_on_failing, name, errors[0], waits)
    for name in INTERRUPTED:
        add_test(f"{name}_is_interrupted", EachCallOfATrip.is_interrupted, name)


add_tests()

if __name__ == "__main__":
    harness.main()
