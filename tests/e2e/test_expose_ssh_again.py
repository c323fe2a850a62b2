#!/usr/bin/python3 -B
"""tristero-tunnel expose --backend ssh: coming back after a loss, and what may fail then."""

import glob
import json
import os
import signal
import threading
import time
import unittest
import xmlrpc.server

import harness
from expose_harness import ExposeCase, address_of_url, children_of, fetch
from harness import TUNNEL, WAIT_S, PortBlock, rpc
from ssh_harness import SSH, SshDaemon


class Front:
    """What stands before a daemon, takes the calls to it, and may spoil the answers."""

    METHODS = ("openTunnel", "getTunnelAddress", "getHostKey")

    def __init__(self, case, daemon):
        self.daemon = daemon
        self.lock = threading.Lock()    # whoever holds it may replace the daemon
        self.opened = 0                 # tunnels
        self.spoils = None              # the method whose next answer is spoilt
        self.source = None              # the address that the next tunnel is opened from
        server = xmlrpc.server.SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False)
        for method in self.METHODS:
            server.register_function(self._of(method), f"Tunnel.{method}")
        case.run_server(server)
        self.url = f"http://127.0.0.1:{server.server_address[1]}/RPC2"

    def _of(self, method):
        def call(*arguments):
            with self.lock, rpc(self.daemon.url, self.source) as proxy:
                answer = getattr(proxy.Tunnel, method)(*arguments)
            if method == "openTunnel":
                self.opened += 1
                self.source = None
            if self.spoils == method:
                self.spoils = None
                return "spoilt"
            return answer
        return call


class AgainCase(ExposeCase):
    @classmethod
    def setUpClass(cls):
        pass

    @classmethod
    def tearDownClass(cls):
        pass

    def setUp(self):
        self.ports = PortBlock(16)
        self.addCleanup(self.ports.release)
        self.front = Front(self, self.start_proxy())
        self.folder = self.temporary_folder()
        self.program = self.start_program([TUNNEL, "--proxy", self.front.url, "expose", "--json",
                                           "--backend", "ssh", str(self.web())],
                                          env={"TMPDIR": self.folder})
        self.wait_for("address")

    def start_proxy(self):
        daemon = SshDaemon("--drain", "0", "--attach-timeout", "300", ports=self.ports)
        self.addCleanup(daemon.clean_up)
        return daemon

    def replace_proxy(self, spoils=None, source=None):
        """By one with another key, which knows no tunnel."""
        with self.front.lock:
            self.front.daemon.process.kill()
            self.front.daemon.process.wait()
            self.front.daemon = self.start_proxy()
            self.front.opened = 0
            self.front.spoils, self.front.source = spoils, source

    def wait_for(self, kind):
        while True:
            event = json.loads(self.program.line(2 * WAIT_S))
            if event["event"] == "address":
                self.url = event["url"]
            if event["event"] == kind:
                return event

    def lose_ssh(self):
        os.kill(children_of(self.program.pid)[0], signal.SIGKILL)
        return self.wait_for("lost")

    def assert_serves(self):
        self.assertEqual(fetch(address_of_url(self.url)[1]), b"hello from behind /")

    def assert_comes_back_by_one_tunnel(self, why):
        self.assertIn(why, self.wait_for("retrying")["text"])
        self.wait_for("moved")
        self.assert_serves()
        self.assertEqual(self.front.opened, 1)


@unittest.skipUnless(SSH, "there is no ssh")
class ComingBack(AgainCase):
    def test_a_tunnel_whose_address_could_not_be_asked_for_is_used_nevertheless(self):
        self.replace_proxy(spoils="getTunnelAddress")
        self.assert_comes_back_by_one_tunnel("spoilt")

    def test_a_key_that_could_not_be_asked_for_is_asked_for_again(self):
        self.replace_proxy(spoils="getHostKey")
        self.assert_comes_back_by_one_tunnel("spoilt")

    def test_a_key_that_could_not_be_written_is_written_later(self):
        path, = glob.glob(f"{self.folder}/tristero-tunnel-*/known_hosts")
        os.remove(path)
        os.mkdir(path)
        self.replace_proxy()
        self.assertIn(os.path.dirname(path), self.wait_for("retrying")["text"])
        os.rmdir(path)
        self.wait_for("moved")
        self.assert_serves()
        self.assertEqual(self.front.opened, 1)

    def test_a_proxy_with_another_key_is_told_and_used(self):
        self.lose_ssh()
        self.assertNotIn("text", self.wait_for("attached"))
        self.replace_proxy()
        self.assertEqual(self.wait_for("moved")["text"], "the proxy has another ssh key than before")
        self.assert_serves()

    def test_waits_grow_when_ssh_is_lost_as_soon_as_it_has_attached(self):
        for number in range(3):
            before = time.monotonic()
            wait_ms = self.lose_ssh()["wait_ms"]
            self.assertTrue(500 << number <= wait_ms <= 1000 << number, wait_ms)
            self.wait_for("attached")
            self.assertGreaterEqual(time.monotonic() - before, wait_ms / 1000)


if __name__ == "__main__":
    harness.main()
