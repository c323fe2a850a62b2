#!/usr/bin/python3 -B
"""tristero-tunnel expose where the way to the proxy leads through another proxy, which the
environment names: nothing may go past it."""

import unittest

import harness
from detour import Detour
from expose_harness import ExposeCase, address_of_url, fetch
from harness import TUNNEL, how_it_ended, in_thread, listen, run
from ssh_harness import SSH, SshDaemon


class ByDetour(ExposeCase):
    def setUp(self):
        super().setUp()
        self.detour = self.run_server(Detour())

    def by_way(self, variable, scheme):
        return {"NO_PROXY": "", variable: self.detour.url(scheme)}

    def check_all_goes_there(self, *arguments):
        program = self.expose(self.web(), *arguments, env=self.by_way("ALL_PROXY", "socks5h"))
        _, address = address_of_url(program.line())
        self.assertEqual(fetch(address), b"hello from behind /")
        asked = set(self.detour.asked)
        self.assertIn(f"SOCKS 127.0.0.1:{self.daemon.port}", asked)
        self.assertEqual(len(asked), 2, "where XML-RPC is, and where servers attach")

    def test_webmux_goes_by_socks(self):
        self.check_all_goes_there()

    @unittest.skipUnless(SSH, "there is no ssh")
    def test_ssh_goes_by_socks(self):
        self.check_all_goes_there("--backend", "ssh")

    def test_webmux_goes_by_connect(self):
        program = self.expose(self.web(), env=self.by_way("https_proxy", "http"))
        self.assertEqual(fetch(address_of_url(program.line())[1]), b"hello from behind /")
        self.assertEqual(len(self.detour.asked), 1)

    @unittest.skipUnless(SSH, "there is no ssh")
    def test_ssh_goes_by_connect(self):
        program = self.expose(self.web(), "--backend", "ssh", env=self.by_way("https_proxy", "http"))
        self.assertEqual(fetch(address_of_url(program.line())[1]), b"hello from behind /")
        self.assertEqual(self.detour.asked, [f"CONNECT 127.0.0.1:{self.daemon.ssh_port}"])

    @unittest.skipUnless(SSH, "there is no ssh")
    def test_ssh_takes_only_the_proxy_s_own_key(self):
        """Whoever sits where the connection leads has another key than XML-RPC tells."""
        with SshDaemon() as other:
            self.detour.leads_to = ("127.0.0.1", other.ssh_port)
            done = run([TUNNEL, "--proxy", self.daemon.url, "expose", str(self.web()), "--backend",
                        "ssh"], env=self.by_way("https_proxy", "http"))
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("Host key verification failed", done.stderr)

    def refusal_of_ssh_that_hears(self, said):
        with listen() as silent:
            def speak():
                connection, _ = silent.accept()
                with connection:
                    connection.sendall(said)
                    how_it_ended(connection)

            self.detour.leads_to = silent.getsockname()
            speaking = in_thread(speak)
            done = run([TUNNEL, "--proxy", self.daemon.url, "--timeout", "5", "expose",
                        str(self.web()), "--backend", "ssh"], env=self.by_way("https_proxy", "http"))
            speaking.result()
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        return done.stderr

    @unittest.skipUnless(SSH, "there is no ssh")
    def test_a_proxy_that_says_nothing_to_ssh_is_waited_for_as_long_as_was_said(self):
        self.assertIn("timed out", self.refusal_of_ssh_that_hears(b""))

    @unittest.skipUnless(SSH, "there is no ssh")
    def test_a_proxy_that_stands_still_amid_the_login_is_waited_for_as_long_as_was_said(self):
        self.assertIn("timed out", self.refusal_of_ssh_that_hears(b"SSH-2.0-slow\r\n"))

    def test_a_detour_that_is_not_there_is_told_as_what_is_not_there(self):
        port = self.closed_port()
        done = run([TUNNEL, "--proxy", self.daemon.url, "expose", str(self.web())],
                   env={"NO_PROXY": "", "https_proxy": f"http://alice:secret@127.0.0.1:{port}"})
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, rf"can't attach to webmux://\S+: Failed to connect to 127.0.0.1 port {port}\b"
                                      r".*: Connection refused\n$")
        self.assertNotIn("secret", done.stderr)

    def test_a_password_of_the_detour_is_told_to_nobody(self):
        done = run([TUNNEL, "--proxy", self.daemon.url, "expose", str(self.web())],
                   env={"NO_PROXY": "", "https_proxy": "https://alice:secret@127.0.0.1:1"})
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("127.0.0.1:1", done.stderr)
        self.assertNotIn("secret", done.stderr)


if __name__ == "__main__":
    harness.main()
