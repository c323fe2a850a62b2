#!/usr/bin/python3 -B
"""Whatever call fails while the service starts, it says so and ends, or serves
as ever; and whatever call fails while it ends, it ends. Not under sanitizers;
see test_faults.py."""

import errno
import select
import signal

import faults
import harness
from faults import FaultyDaemon, Shim
from harness import Case

# Of the start, and how they fail.
START = (
    ("memory", "ENOMEM"), ("bind", "EADDRINUSE"), ("dup2", "EBUSY"), ("epoll_create1", "EMFILE"),
    ("epoll_ctl", "ENOMEM"), ("eventfd", "EMFILE"), ("fcntl", "EBADF"), ("fdopen", "ENOMEM"),
    ("getrlimit", "EPERM"), ("getsockname", "ENOBUFS"), ("listen", "EADDRINUSE"),
    ("open", "EMFILE"), ("pthread_attr_init", "ENOMEM"), ("pthread_attr_setstacksize", "EINVAL"),
    ("pthread_create", "EAGAIN"), ("pthread_sigmask", "EINVAL"), ("setrlimit", "EPERM"),
    ("setsockopt", "ENOBUFS"), ("sigaction", "EINVAL"), ("socket", "EMFILE"), ("write", "ENOSPC"),
)
# Of the end, with a tunnel that has to be cut.
END = (
    ("memory", "ENOMEM"), ("epoll_ctl", "ENOMEM"), ("ppoll", "ENOMEM"), ("setsockopt", "ENOBUFS"),
    ("shutdown", "ENOTCONN"), ("sigwaitinfo", "EINTR"), ("write", "ENOSPC"),
)
MOST_CALLS = 2000       # of one function at the start


class WithShim(Case):
    def setUp(self):
        self.shim = Shim()
        self.addCleanup(self.shim.clean_up)
        self.users = faults.users_file(self.temporary_folder())
        self.ports = harness.PortBlock(4)
        self.addCleanup(self.ports.release)

    def every_call(self, name, error, run):
        for number in range(1, MOST_CALLS):
            for last in (number, Shim.FOR_EVER):
                with self.subTest(call=number, lasts=last != number):
                    self.shim.fail(name, getattr(errno, error), number, last)
                    run()
                    failed = self.shim["failed"]
            if not failed:
                return
        raise AssertionError(f"more than {MOST_CALLS} calls of {name}")


class EachCallOfTheStart(WithShim):
    def starts_or_says_why(self):
        program = self.start_program(
            [harness.TUNNELD, "--listen", "127.0.0.1:0", "--ports", str(self.ports),
             "--users", self.users, *FaultyDaemon.OPTIONS], env=self.shim.environment)
        select.select([program.process.stdout], [], [], harness.WAIT_S)
        try:
            line = program.line()
        except AssertionError:          # it closed its output
            self.shim.heal()
            self.assertGreater(program.wait(), 0, program.errors())
            self.assertRegex(program.errors(), r"(?m)^tristero-tunneld: .{10}")
        else:
            self.shim.heal()
            self.serves(program, line.split()[1])
        program.clean_up()

    def serves(self, program, url):
        program.url = url.replace("//", "//user:secret@")
        faults.relay_trip(program, harness.WAIT_S)
        program.signal(signal.SIGTERM)
        self.assertEqual(program.wait(), 0, program.errors())


class EachCallOfTheEnd(WithShim):
    def ends(self):
        seen, failing = self.shim["first"], self.shim["function"]
        last = self.shim["last"]
        self.shim.heal()
        daemon = FaultyDaemon(self.shim, self.users, "--drain", "0", ports=self.ports)
        self.addCleanup(daemon.clean_up)
        server, client = self.open_tunnel(daemon).both()
        self.shim["first"], self.shim["last"], self.shim["seen"] = seen, last, 0
        self.shim["function"] = failing
        daemon.signal(signal.SIGTERM)
        self.assertEqual(daemon.wait(), 0, daemon.errors())
        for connection in (server, client):
            self.assertEqual(harness.receive_until_reset(connection), b"")
        self.assertEqual(self.ports.listening(), [])


def add_tests():
    def starting(name, error):
        return lambda self: self.every_call(name, error, self.starts_or_says_why)

    def ending(name, error):
        return lambda self: self.every_call(name, error, self.ends)

    for name, error in START:
        setattr(EachCallOfTheStart, f"test_{name}_fails_with_{error}", starting(name, error))
    for name, error in END:
        setattr(EachCallOfTheEnd, f"test_{name}_fails_with_{error}", ending(name, error))


add_tests()

if __name__ == "__main__":
    harness.main()
