#!/usr/bin/python3 -B
"""The daemon as a service of systemd, confined by its unit."""

import os
import re
import shutil
import signal
import socket
import sys
import unittest

import harness
import ssh_harness
from harness import Case, SRCDIR, TUNNELD, is_sanitized, run

UNIT = os.path.abspath(os.environ.get("TRISTERO_UNIT")
                       or os.path.join(SRCDIR, "build", "server", "tristero-tunneld.service"))
E2E = os.path.join(SRCDIR, "tests", "e2e")
SYSTEMD_ANALYZE = shutil.which("systemd-analyze")
try:
    import seccomp
except ImportError:
    seccomp = None


def has_ssh():
    """Whether the daemon was built with it, and there is a client to try it."""
    done = run([TUNNELD, "--listen", "127.0.0.1:0", "--ssh-listen", "127.0.0.1:0",
                "--state-dir", "/dev/null"])
    return bool(ssh_harness.SSH and ssh_harness.KEYSCAN) and "built without" not in done.stderr


class ServiceManager:
    """What listens where NOTIFY_SOCKET says."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(harness.WAIT_S)

    def hear(self):
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().splitlines())

    def close(self):
        self._socket.close()


class Notifications(Case):
    def start_notifying(self, *options):
        manager = ServiceManager(self.temporary_folder())
        self.addCleanup(manager.close)
        return manager, self.start_daemon(*options, env={"NOTIFY_SOCKET": manager.path})

    def test_it_is_ready_once_it_serves_and_tells_where(self):
        manager, daemon = self.start_notifying()
        state = manager.hear()
        self.assertEqual(state["READY"], "1")
        self.assertEqual(state["STATUS"], daemon.ready_line)

    def test_it_tells_that_it_stops_and_asks_for_the_time_of_draining(self):
        manager, daemon = self.start_notifying("--drain", "600")
        manager.hear()
        server, client = self.open_tunnel(daemon).both()
        daemon.signal(signal.SIGTERM)
        state = manager.hear()
        self.assertEqual(state["STOPPING"], "1")
        self.assertGreater(int(state["EXTEND_TIMEOUT_USEC"]), 600 * 10**6)
        self.assertLess(int(state["EXTEND_TIMEOUT_USEC"]), 660 * 10**6)
        harness.reset(server)
        harness.reset(client)
        self.assertEqual(daemon.wait(), 0, daemon.errors())

    def test_a_service_manager_that_is_gone_is_done_without(self):
        daemon = self.start_daemon("--drain", "1", env={"NOTIFY_SOCKET": "/nowhere/notify"})
        tunnel = self.open_tunnel(daemon)
        tunnel.both()
        tunnel.end()
        self.assertIn("can't notify the service manager", daemon.errors())
        daemon.stop()


class TheUnit(Case):
    @unittest.skipUnless(SYSTEMD_ANALYZE, "systemd-analyze is not installed")
    def test_systemd_finds_little_exposed(self):
        done = run([SYSTEMD_ANALYZE, "security", "--offline=true", "--no-pager",
                    "--threshold=20", UNIT])
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    @unittest.skipUnless(SYSTEMD_ANALYZE, "systemd-analyze is not installed")
    def test_systemd_understands_every_line(self):
        with open(UNIT, encoding="utf-8") as unit:
            text = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={TUNNELD}", unit.read())
        path = os.path.join(self.temporary_folder(), os.path.basename(UNIT))
        with open(path, "w", encoding="utf-8") as unit:
            unit.write(text)
        done = run([SYSTEMD_ANALYZE, "verify", "--man=no", path])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, "")

    def test_it_has_the_folder_where_the_daemon_keeps_its_key_by_itself(self):
        with open(UNIT, encoding="utf-8") as unit:
            said = dict(re.findall(r"(?m)^(StateDirectory\w*)=(\S+)$", unit.read()))
        told = run([TUNNELD, "--help"]).stdout
        self.assertIn(f"(default: /var/lib/{said['StateDirectory']})\n", told)
        self.assertEqual(said["StateDirectoryMode"], "0700")

    def test_its_limits_fit_the_most_tunnels_there_can_be(self):
        with open(UNIT, encoding="utf-8") as unit:
            limits = dict(re.findall(r"(?m)^(LimitNOFILE|TasksMax)=(\d+)$", unit.read()))
        done = run(["prlimit", "--nofile=1000:1000", TUNNELD, "--listen", "127.0.0.1:0",
                    "--ports", "1-65535", "--max-tunnels", "1000000",
                    "--ssh-listen", "127.0.0.1:0"])
        tunnels, needed = re.search(r"(\d+) tunnels need (\d+) open desc", done.stderr).groups()
        # and a third one for each, if all of them are of webmux
        self.assertGreaterEqual(int(limits["LimitNOFILE"]), int(needed) + int(tunnels))
        daemon = self.start_daemon("--drain", "1")
        self.assertGreaterEqual(int(limits["TasksMax"]),
                                int(tunnels) + daemon.start_counts["threads"])
        daemon.stop()


@unittest.skipUnless(SYSTEMD_ANALYZE and seccomp, "no systemd-analyze, or no python3-seccomp")
@unittest.skipIf(is_sanitized(), "sanitizers make system calls of their own")
class UnderTheUnitsFilter(Case):
    """The other end-to-end tests, the daemon being confined as by the unit."""

    def assert_passes(self, *arguments):
        done = run([sys.executable, "-B", os.path.join(E2E, arguments[0]), *arguments[1:]],
                   timeout_s=harness.TEST_LIMIT_S - 10,
                   env={"TRISTERO_TUNNELD": os.path.join(E2E, "confined.py"),
                        "TRISTERO_UNIT": UNIT, "CONFINED_TUNNELD": TUNNELD,
                        "E2E_BULK_MIB": "16"})
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("PASS", done.stdout)

    def test_a_call_that_is_not_in_it_kills(self):
        """Or else the tests below would tell nothing."""
        done = run([os.path.join(E2E, "confined.py"), "/"],
                   env={"TRISTERO_UNIT": UNIT, "CONFINED_TUNNELD": shutil.which("chroot")})
        self.assertEqual(done.returncode, -signal.SIGSYS)

    def test_the_trip(self):
        self.assert_passes("test_trip.py")

    def test_calls(self):
        self.assert_passes("test_rpc.py")

    def test_relaying(self):
        self.assert_passes("test_relaying.py")

    def test_starting_and_ending(self):
        self.assert_passes("test_daemon.py", "Options", "Output", "TheEnd")

    def test_notifications(self):
        self.assert_passes("test_service.py", "Notifications")

    @unittest.skipUnless(has_ssh(), "built without ssh, or there is no client")
    def test_the_trips_by_ssh(self):
        self.assert_passes("test_ssh.py", "Trips")

    @unittest.skipUnless(has_ssh(), "built without ssh, or there is no client")
    def test_making_the_key_of_ssh_and_reading_it_again(self):
        self.assert_passes("test_ssh_configured.py", "HostKey", "Keys")


if __name__ == "__main__":
    harness.main()
