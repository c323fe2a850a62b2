#!/usr/bin/python3 -B
"""What the daemon gives up by itself, however it was started."""

import os
import re
import resource
import signal
import sys
import unittest

import harness
from harness import Case, TUNNELD, is_sanitized, receive_exactly

try:
    import seccomp
except ImportError:
    seccomp = None

SECRET = b"between server and client alone"

# Cores that go to a program are made whatever the limit; this makes files so.
IGNORING_CORE_LIMITS = """
import os, resource, seccomp, sys
calls = seccomp.SyscallFilter(seccomp.ALLOW)
calls.add_rule(seccomp.ERRNO(0), "prlimit64", seccomp.Arg(1, seccomp.EQ, resource.RLIMIT_CORE))
calls.load()
os.execv(sys.argv[1], sys.argv[1:])
"""


def cores_are_files():
    """In the folder of the program, that is; they may also go to another program."""
    with open("/proc/sys/kernel/core_pattern", encoding="ascii") as pattern:
        return re.fullmatch(r"[\w.%-]+", pattern.read().strip())


class Confinement(Case):
    def setUp(self):
        self.ports = harness.PortBlock(2)
        self.addCleanup(self.ports.release)

    def status(self, daemon):
        with open(f"/proc/{daemon.pid}/status", encoding="ascii") as status:
            return dict(line.rstrip("\n").split(":\t", 1) for line in status)

    def test_it_gains_no_privileges_and_its_files_are_its_own(self):
        daemon = self.start_daemon("--drain", "1")
        self.assertEqual(self.status(daemon)["NoNewPrivs"], "1")
        self.assertEqual(self.status(daemon)["Umask"], "0077")
        daemon.stop()

    def test_its_user_can_still_look_into_it(self):
        daemon = self.start_daemon("--drain", "1")
        self.assertEqual(os.stat(f"/proc/{daemon.pid}/fd").st_uid, os.geteuid())
        daemon.stop()

    def crash(self, daemon):
        """Whether the system says that there is a core."""
        daemon.signal(signal.SIGABRT)
        status = os.waitpid(daemon.pid, 0)[1]
        daemon.process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(daemon.process.returncode, -signal.SIGABRT)
        return os.WCOREDUMP(status)

    def start_in(self, folder, *through):
        """A daemon of a user who wants cores."""
        limits = resource.getrlimit(resource.RLIMIT_CORE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_CORE, limits)
        resource.setrlimit(resource.RLIMIT_CORE, (limits[1], limits[1]))
        daemon = self.start_program([*through, TUNNELD, "--listen", "127.0.0.1:0", "--ports",
                                     str(self.ports)], cwd=folder)
        daemon.url = daemon.line().split()[1]
        return daemon

    @unittest.skipUnless(cores_are_files(), "cores are not files here")
    def test_a_crash_leaves_no_core(self):
        folder = self.temporary_folder()
        self.assertFalse(self.crash(self.start_in(folder)))
        self.assertEqual(os.listdir(folder), [])

    def test_no_memory_goes_into_a_core_whatever_its_limit(self):
        daemon = self.start_daemon("--drain", "1")
        with open(f"/proc/{daemon.pid}/coredump_filter", encoding="ascii") as kinds:
            self.assertEqual(int(kinds.read(), 16), 0)
        daemon.stop()

    @unittest.skipUnless(cores_are_files() and seccomp, "no core files, or no python3-seccomp")
    @unittest.skipIf(is_sanitized(), "sanitizers map so much that their cores have no end")
    def test_a_core_whose_limit_is_ignored_has_no_bytes_of_users(self):
        folder = self.temporary_folder()
        daemon = self.start_in(folder, sys.executable, "-c", IGNORING_CORE_LIMITS)
        with harness.rpc(daemon.url) as proxy:
            host, port = harness.address_of(proxy.Tunnel.openTunnel())
        with harness.connect((host, port)) as server, harness.connect((host, port + 1)) as client:
            server.sendall(SECRET)
            self.assertEqual(receive_exactly(client, len(SECRET)), SECRET)
            self.assertTrue(self.crash(daemon))
        with open(os.path.join(folder, *os.listdir(folder)), "rb") as core:
            self.assertFalse(SECRET in core.read())     # assertNotIn would print it

    @unittest.skipUnless(cores_are_files() and seccomp, "no core files, or no python3-seccomp")
    @unittest.skipIf(os.system("unshare -rm true"), "no namespaces here")
    @unittest.skipIf(is_sanitized(), "sanitizers need /proc")
    def test_without_proc_there_is_no_core_at_all(self):
        daemon = self.start_in(self.temporary_folder(), "unshare", "-rm", "sh", "-c",
                               'mount -t tmpfs none /proc && exec "$@"', "sh",
                               sys.executable, "-c", IGNORING_CORE_LIMITS)
        self.assertFalse(self.crash(daemon))


if __name__ == "__main__":
    harness.main()
