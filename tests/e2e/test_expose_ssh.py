#!/usr/bin/python3 -B
"""tristero-tunnel expose --backend ssh: the installed ssh carries the tunnel."""

import os
import signal
import time
import unittest

import harness
from expose_harness import ExposeCase, address_of_url, fetch
from harness import TUNNEL, connect, receive_exactly, run, visit_until_reset, wait_until
from ssh_harness import SSH, SshDaemon


def children_of(pid):
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as children:
            found += map(int, children.read().split())
    return found


@unittest.skipUnless(SSH, "there is no ssh")
class Carrying(ExposeCase):
    def expose(self, *arguments, **how):
        return super().expose(*arguments, "--backend", "ssh", **how)

    def test_many_clients_are_served_at_once_at_one_address(self):
        program = self.expose(self.line_service())
        _, address = address_of_url(program.line())
        clients = [connect(address) for _ in range(20)]
        for number, client in enumerate(clients):
            client.sendall(b"a%d\n" % number)
        for number, client in enumerate(clients):
            wanted = (b"a%d" % number)[::-1] + b"\n"
            self.assertEqual(receive_exactly(client, len(wanted)), wanted)
            client.close()

    def test_a_lost_ssh_is_started_again_at_the_same_address(self):
        program = self.expose(self.web())
        _, address = address_of_url(program.line())
        for number in range(1, 3):
            os.kill(children_of(program.pid)[0], signal.SIGKILL)
            wait_until(lambda: program.errors().count("attached again") == number, "it is back")
            self.assertEqual(fetch(address), b"hello from behind /")
        self.assertEqual(program.errors().count("lost the connection"), 2)

    def test_waits_grow_when_ssh_is_lost_as_soon_as_it_has_attached(self):
        program = self.expose(self.web(), "--json")
        self.event(program, "address")
        for number in range(3):
            before = time.monotonic()
            os.kill(children_of(program.pid)[0], signal.SIGKILL)
            wait_ms = self.event(program, "lost")["wait_ms"]
            self.assertTrue(500 << number <= wait_ms <= 1000 << number, wait_ms)
            self.event(program, "attached")
            self.assertGreaterEqual(time.monotonic() - before, wait_ms / 1000)

    def test_a_new_address_is_printed_where_the_old_one_is_gone(self):
        with SshDaemon() as first:
            ports, url, ssh = first.ports, first.url, first.ssh_port
            program = self.start_program([TUNNEL, "--proxy", url, "expose", str(self.web()),
                                          "--backend", "ssh"])
            address_of_url(program.line())
            first.process.kill()
            first.process.wait()
            wait_until(lambda: "next try" in program.errors(), "it tries again")
            with SshDaemon(listen_on=f"127.0.0.1:{first.port}", ssh_listen=f"127.0.0.1:{ssh}",
                           ports=ports, state_dir=first.state_dir):
                _, address = address_of_url(program.line())
                self.assertEqual(fetch(address), b"hello from behind /")
                wait_until(lambda: "at a new address" in program.errors(), "it is told")

    def test_a_service_that_is_down_is_told_and_the_tunnel_stays(self):
        port = self.closed_port()
        program = self.expose(port)
        _, address = address_of_url(program.line())
        self.assertEqual(visit_until_reset(address), b"")
        wait_until(lambda: f"can't reach the service at 127.0.0.1:{port}" in program.errors(), "it is told")
        self.web(port)
        self.assertEqual(fetch(address), b"hello from behind /")

    def test_ssh_ends_with_a_command_that_is_killed(self):
        program = self.expose(self.web())
        program.line()
        child, = children_of(program.pid)
        program.process.kill()
        program.process.wait()
        wait_until(lambda: not os.path.exists(f"/proc/{child}"), "ssh has ended")

    def test_a_machine_without_ssh_is_told(self):
        done = run([TUNNEL, "--proxy", self.daemon.url, "expose", str(self.web()), "--backend", "ssh"],
                   env={"PATH": self.temporary_folder()})
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("can't start ssh: No such file", done.stderr)

    def test_the_user_s_own_configuration_is_not_looked_at(self):
        home = self.temporary_folder()
        os.mkdir(os.path.join(home, ".ssh"))
        with open(os.path.join(home, ".ssh", "config"), "w", encoding="ascii") as file:
            file.write("Host *\n  Port 1\n  ProxyCommand false\n")
        program = self.expose(self.web(), env={"HOME": home})
        self.assertEqual(fetch(address_of_url(program.line())[1]), b"hello from behind /")

    def test_a_proxy_without_ssh_is_told(self):
        daemon = self.start_daemon()
        done = run([TUNNEL, "--proxy", daemon.url, "expose", str(self.web()), "--backend", "ssh"])
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("ssh", done.stderr)


if __name__ == "__main__":
    harness.main()
