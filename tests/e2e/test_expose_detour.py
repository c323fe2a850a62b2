#!/usr/bin/python3 -B
"""tristero-tunnel expose where the way to the proxy leads through another proxy, which the
environment names: nothing may go past it."""

import socket
import socketserver
import threading
import unittest

import harness
from expose_harness import ExposeCase, address_of_url, fetch
from harness import TUNNEL, run
from ssh_harness import SSH, SshDaemon


def _copy(source, to):
    try:
        while data := source.recv(65536):
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class _Handler(socketserver.BaseRequestHandler):
    """By socks5, and by CONNECT."""

    def handle(self):
        first = self.request.recv(1)
        goal = self._socks_goal() if first == b"\x05" else self._connect_goal(first)
        self.server.goals.append(goal)
        with socket.create_connection(self.server.leads_to or goal) as beyond:
            self.request.sendall(b"\x05\x00\x00\x01\0\0\0\0\0\0" if first == b"\x05" else
                                 b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=_copy, args=(beyond, self.request))
            back.start()
            _copy(self.request, beyond)
            back.join()

    def _exactly(self, count):
        return harness.receive_exactly(self.request, count)

    def _socks_goal(self):
        self._exactly(self._exactly(1)[0])
        self.request.sendall(b"\x05\x00")
        kind = self._exactly(4)[3]
        host = (self._exactly(self._exactly(1)[0]).decode() if kind == 3 else
                socket.inet_ntoa(self._exactly(4)))
        return host, int.from_bytes(self._exactly(2), "big")

    def _connect_goal(self, request):
        while not request.endswith(b"\r\n\r\n"):
            request += self._exactly(1)
        host, port = request.split()[1].decode().split(":")
        return host, int(port)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    leads_to = None             # wherever it is asked to lead

    def handle_error(self, *_):
        pass


class Detour(ExposeCase):
    def setUp(self):
        super().setUp()
        self.detour = self._serve(_Server(("127.0.0.1", 0), _Handler))
        self.detour.goals = []

    def by_way(self, variable, scheme):
        return {"NO_PROXY": "", variable: f"{scheme}://127.0.0.1:{self.detour.server_address[1]}"}

    def check_all_goes_there(self, *arguments):
        program = self.expose(self.web(), *arguments, env=self.by_way("ALL_PROXY", "socks5h"))
        _, address = address_of_url(program.line())
        self.assertEqual(fetch(address), b"hello from behind /")
        goals = set(self.detour.goals)
        self.assertIn(("127.0.0.1", self.daemon.port), goals)
        self.assertEqual(len(goals), 2, "where XML-RPC is, and where servers attach")

    def test_webmux_goes_by_socks(self):
        self.check_all_goes_there()

    @unittest.skipUnless(SSH, "there is no ssh")
    def test_ssh_goes_by_socks(self):
        self.check_all_goes_there("--backend", "ssh")

    def test_webmux_goes_by_connect(self):
        program = self.expose(self.web(), env=self.by_way("https_proxy", "http"))
        self.assertEqual(fetch(address_of_url(program.line())[1]), b"hello from behind /")
        self.assertEqual(len(self.detour.goals), 1)

    @unittest.skipUnless(SSH, "there is no ssh")
    def test_ssh_goes_by_connect(self):
        program = self.expose(self.web(), "--backend", "ssh", env=self.by_way("https_proxy", "http"))
        self.assertEqual(fetch(address_of_url(program.line())[1]), b"hello from behind /")
        self.assertEqual(self.detour.goals, [("127.0.0.1", self.daemon.ssh_port)])

    @unittest.skipUnless(SSH, "there is no ssh")
    def test_ssh_takes_only_the_proxy_s_own_key(self):
        """Whoever sits where the connection leads has another key than XML-RPC tells."""
        with SshDaemon() as other:
            self.detour.leads_to = ("127.0.0.1", other.ssh_port)
            done = run([TUNNEL, "--proxy", self.daemon.url, "expose", str(self.web()), "--backend",
                        "ssh"], env=self.by_way("https_proxy", "http"))
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("Host key verification failed", done.stderr)

    @unittest.skipUnless(SSH, "there is no ssh")
    def test_a_proxy_that_says_nothing_to_ssh_is_waited_for_as_long_as_was_said(self):
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            self.detour.leads_to = silent.getsockname()
            done = run([TUNNEL, "--proxy", self.daemon.url, "--timeout", "2", "expose",
                        str(self.web()), "--backend", "ssh"], env=self.by_way("https_proxy", "http"))
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("timed out", done.stderr)

    def test_a_password_of_the_detour_is_told_to_nobody(self):
        done = run([TUNNEL, "--proxy", self.daemon.url, "expose", str(self.web())],
                   env={"NO_PROXY": "", "https_proxy": "https://alice:secret@127.0.0.1:1"})
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("127.0.0.1:1", done.stderr)
        self.assertNotIn("secret", done.stderr)


if __name__ == "__main__":
    harness.main()
