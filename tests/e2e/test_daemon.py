#!/usr/bin/python3 -B
"""The daemon as its operator sees it: options, files, log, signals, its end."""

import os
import re
import signal
import socket
import time

import harness
from harness import (Case, PortBlock, TUNNELD, fault_of, in_thread, receive_exactly,
                     receive_until_end, receive_until_reset, run, send_until_error, wait_until)

OPTIONS = ("listen", "users", "open-to-all", "host", "relay-listen", "ports", "max-tunnels",
           "tunnels-per-user", "tunnels-per-address", "opens-per-minute", "lifetime", "rate",
           "connections", "connections-per-address", "request-timeout", "request-size",
           "trusted-proxy", "attach-timeout", "linger", "idle-timeout", "keepalive",
           "attach-from", "log-level",
           "log-addresses", "drain")

BAD_VALUES = (
    ("listen", "8000"), ("listen", "127.0.0.1"), ("listen", "127.0.0.1:x"),
    ("listen", "127.0.0.1:70000"), ("listen", "::1:8000"), ("listen", "[::1:8000"),
    ("listen", "no.such.address:8000"), ("open-to-all", "maybe"), ("host", "a b"),
    ("host", "x/y"), ("host", "h:80"),
    ("relay-listen", "127.0.0.1:80"), ("relay-listen", "nowhere"), ("ports", "8010"),
    ("ports", "9000-8000"), ("ports", "0-10"), ("ports", "8010-70000"), ("ports", "a-b"),
    ("ports", "8010-8010"), ("ports", "-8010-8020"), ("max-tunnels", "0"), ("max-tunnels", "-1"),
    ("max-tunnels", "many"), ("max-tunnels", "99999999999999999999"), ("tunnels-per-user", "-1"),
    ("tunnels-per-address", "x"), ("opens-per-minute", "60001"), ("lifetime", "1.5"),
    ("rate", "1k"), ("connections", "7"), ("connections", "16385"),
    ("connections-per-address", "-1"), ("request-timeout", "0"), ("request-size", "1023"),
    ("request-size", "65537"), ("trusted-proxy", "proxy"), ("trusted-proxy", "127.0.0.1:80"),
    ("attach-timeout", "-1"),
    ("attach-timeout", "1.5"), ("attach-timeout", "1s"), ("linger", "soon"), ("linger", "0x10"),
    ("idle-timeout", "-5"), ("idle-timeout", "999999999999"), ("keepalive", "0"), ("drain", "x"),
    ("attach-from", "everyone"), ("attach-from", "Any"), ("log-level", "loud"),
    ("log-addresses", "maybe"), ("log-addresses", "1"))


class Options(Case):
    def assert_refused(self, arguments, *pieces):
        done = run([TUNNELD, *arguments])
        self.assertGreater(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout, "")
        for piece in pieces:
            self.assertIn(piece, done.stderr)

    def config_file(self, text):
        path = os.path.join(self.temporary_folder(), "tunneld.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def test_a_bad_value_is_named_with_its_option(self):
        for option, value in BAD_VALUES:
            with self.subTest(option=option, value=value):
                self.assert_refused([f"--{option}={value}"], option, value)

    def test_a_bad_value_in_a_file_is_named_with_file_and_line(self):
        for option, value in BAD_VALUES:
            with self.subTest(option=option, value=value):
                path = self.config_file(f"# a comment\n\n{option} = {value}\n")
                self.assert_refused(["--config", path], path, ":3", option, value, "expected")

    def test_an_unknown_key_is_named_with_file_and_line(self):
        path = self.config_file("linger = 3\nlingre = 3\n")
        self.assert_refused(["--config", path], path, ":2", "lingre")

    def test_a_line_that_is_no_setting_is_named(self):
        path = self.config_file("linger = 3\nnonsense\n")
        self.assert_refused(["--config", path], path, ":2")

    def test_a_missing_file_is_named(self):
        self.assert_refused(["--config", "/nowhere/tunneld.conf"], "/nowhere/tunneld.conf",
                            "No such file")

    def test_what_is_no_option_is_refused(self):
        self.assert_refused(["--lingre", "3"], "lingre")
        self.assert_refused(["surprise"], "surprise")
        self.assert_refused(["--linger"], "linger")

    def test_help_names_every_option(self):
        done = run([TUNNELD, "--help"])
        self.assertEqual(done.returncode, 0, done.stderr)
        for option in (*OPTIONS, "config"):
            self.assertIn(f"--{option}", done.stdout)

    def test_the_version_is_told(self):
        done = run([TUNNELD, "--version"])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"\d+\.\d+")

    def test_every_option_is_a_key_and_the_command_line_wins(self):
        path = self.config_file("# all of them\n"
                                "listen = 127.0.0.1:0\nhost = from-file.example.org\n"
                                "relay-listen = 127.0.0.1\nports = 1000-1003\n"
                                "max-tunnels = 2\nattach-timeout = 33\nlinger = 3\n"
                                "idle-timeout = 0\nkeepalive = 9\nattach-from = any\nlog-level = debug\n"
                                "log-addresses = no\ndrain = 1\n")
        daemon = self.start_daemon("--config", path, listen_on=None)
        tunnel = self.open_tunnel(daemon)
        self.assertIn("//from-file.example.org:", tunnel.server_uri)
        self.assertGreaterEqual(tunnel.server_address[1], daemon.ports.low)     # not the file's
        tunnel.attach(source="127.0.0.2")
        other = self.open_tunnel(daemon)
        self.assertIn("limit reached", fault_of(daemon.rpc().Tunnel.openTunnel).faultString)
        tunnel.end()
        other.end()
        daemon.stop()
        daemon = self.start_daemon("--host", "typed.example.org", "--config", path,
                                   "--max-tunnels", "1", listen_on=None)
        tunnel = self.open_tunnel(daemon)
        self.assertIn("//typed.example.org:", tunnel.server_uri)
        self.assertIn("limit reached", fault_of(daemon.rpc().Tunnel.openTunnel).faultString)
        tunnel.end()
        daemon.stop()

    def test_a_busy_port_is_told_at_once(self):
        holder = harness.listen()
        self.addCleanup(holder.close)
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        began = time.monotonic()
        self.assert_refused(["--listen", address], address, "in use", "gives its tunnels some time")
        self.assertLess(time.monotonic() - began, 20)

    def test_an_address_that_is_not_here_is_told(self):
        self.assert_refused(["--listen", "192.0.2.1:8000", "--open-to-all"], "192.0.2.1", "assign")


class Output(Case):
    def test_only_the_ready_line_is_printed_and_it_is_exact(self):
        daemon = self.start_daemon("--drain", "1")
        self.assertRegex(daemon.ready_line, r"^serving http://127\.0\.0\.1:[1-9]\d*/RPC2$")
        tunnel = self.open_tunnel(daemon)
        tunnel.both()
        fault_of(daemon.rpc().Tunnel.openTunnel, "x")
        tunnel.end()
        daemon.stop()       # looks at the rest of standard output

    def trip_from_other_addresses(self, *options):
        daemon = self.start_daemon("--drain", "1", "--log-level", "debug", *options)
        tunnel = self.open_tunnel(daemon, source="127.0.0.21")
        server = tunnel.attach()
        stranger_tunnel = self.open_tunnel(daemon, source="127.0.0.21")
        harness.come_and_look(stranger_tunnel.server_address, "127.0.0.23")
        client = tunnel.connect(source="127.0.0.22")
        client.sendall(b"x")
        receive_exactly(server, 1)
        proxy = daemon.rpc(source="127.0.0.24")
        fault_of(proxy.Tunnel.getTunnelAddress, "nonsense")
        with harness.connect(("127.0.0.1", daemon.port), source="127.0.0.25") as bad:
            bad.sendall(b"GET / HTTP/1.0\r\n\r\n")
            receive_until_end(bad)
        tunnel.end()
        stranger_tunnel.end()
        daemon.expect_rest()
        log = daemon.errors()
        daemon.stop()
        return log

    def test_the_log_names_tunnels_by_id_and_no_addresses(self):
        log = self.trip_from_other_addresses()
        self.assertRegex(log, r"tunnel 1 ")
        self.assertRegex(log, r"tunnel 2 ")
        self.assertNotRegex(log, r"127\.0\.0\.2\d")
        for line in log.splitlines():
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (error|warning|info|debug) ")

    def test_the_log_tells_addresses_only_if_told_to(self):
        log = self.trip_from_other_addresses("--log-addresses", "yes")
        for address in ("127.0.0.21", "127.0.0.22", "127.0.0.23"):
            self.assertIn(address, log)

    def test_the_log_level_is_kept(self):
        daemon = self.start_daemon("--log-level", "error", "--drain", "1")
        tunnel = self.open_tunnel(daemon)
        tunnel.both()
        tunnel.end()
        daemon.expect_rest()
        self.assertEqual(daemon.errors(), "")
        daemon.stop()

    def test_foreign_text_cannot_forge_log_lines(self):
        daemon = self.start_daemon("--log-level", "debug")
        fault_of(daemon.rpc().Tunnel.openTunnel, "x\n2026-01-01T00:00:00Z info forged\x1b[2J")
        fault_of(daemon.rpc().Tunnel.getTunnelAddress, "x\n2026-01-01T00:00:00Z info forged")
        daemon.drop_connections()
        daemon.expect_rest()
        self.assertFalse(re.search(r"^\S+ info forged", daemon.errors(), re.MULTILINE))
        self.assertNotIn("\x1b", daemon.errors())
        daemon.stop()


class TheEnd(Case):
    def test_it_ends_at_once_when_nothing_is_alive(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            daemon = self.start_daemon("--drain", "60")
            daemon.signal(number)
            self.assertEqual(daemon.wait(), 0, daemon.errors())

    def test_live_tunnels_finish_and_no_new_ones_open(self):
        daemon = self.start_daemon("--drain", "60")
        server, client = self.open_tunnel(daemon).both()
        daemon.signal(signal.SIGTERM)
        fault = wait_until(lambda: self.shutting_down(daemon), "new tunnels are refused")
        self.assertGreater(fault.faultCode, 0)
        body = os.urandom(1 << 20)
        sending = in_thread(lambda: (server.sendall(body), server.shutdown(socket.SHUT_WR)))
        self.assertEqual(receive_until_end(client), body)
        sending.result()
        client.sendall(b"thanks")
        client.close()
        self.assertEqual(receive_until_end(server), b"thanks")
        server.close()
        self.assertEqual(daemon.wait(), 0, daemon.errors())
        self.assertEqual(daemon.rest_of_output(), "")

    def shutting_down(self, daemon):
        try:
            with daemon.rpc() as proxy:
                harness.discard(harness.address_of(proxy.Tunnel.openTunnel()))
        except harness.xmlrpc.client.Fault as fault:
            self.assertIn("shutting down", fault.faultString)
            return fault
        return None

    def test_what_has_not_finished_when_draining_ends_is_reset(self):
        daemon = self.start_daemon("--drain", "1")
        server, client = self.open_tunnel(daemon).both()
        held = self.open_tunnel(daemon).connect()
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        for connection in (server, client, held):
            self.assertEqual(receive_until_reset(connection), b"")
        self.assertEqual(daemon.wait(), 0, daemon.errors())
        self.assertGreater(time.monotonic() - began, 0.8)
        self.assertLess(time.monotonic() - began, 20)

    def test_a_second_signal_ends_it_at_once(self):
        daemon = self.start_daemon("--drain", "60")
        server, client = self.open_tunnel(daemon).both()
        daemon.signal(signal.SIGTERM)
        wait_until(lambda: self.shutting_down(daemon), "it drains")
        daemon.signal(signal.SIGINT)
        self.assertGreaterEqual(daemon.wait(), 0, daemon.errors())
        self.assertEqual(receive_until_reset(server), b"")
        self.assertEqual(receive_until_reset(client), b"")

    def test_a_full_pipe_between_the_peers_does_not_hold_up_the_end(self):
        daemon = self.start_daemon("--drain", "1")
        server, _client = self.open_tunnel(daemon).both()
        writing = in_thread(send_until_error, server)
        time.sleep(0.5)
        daemon.signal(signal.SIGTERM)
        self.assertEqual(daemon.wait(), 0, daemon.errors())
        self.assertIsInstance(writing.result(), ConnectionError)

    def test_a_killed_daemon_shows_a_reset_and_never_an_end(self):
        daemon = self.start_daemon()
        idle = self.open_tunnel(daemon).both()
        server, client = self.open_tunnel(daemon).both()
        waiting = self.open_tunnel(daemon).attach()
        waiting.sendall(b"banner")
        half, other = self.open_tunnel(daemon).both()
        half.shutdown(socket.SHUT_WR)
        self.assertEqual(receive_until_end(other), b"")
        writing = in_thread(send_until_error, server)
        receive_exactly(client, 1 << 20)
        daemon.process.kill()
        daemon.process.wait()
        receive_until_reset(client)
        self.assertIsInstance(writing.result(), ConnectionError)
        for connection in (*idle, half):
            self.assertEqual(receive_until_reset(connection), b"")
        self.assertEqual(harness.how_it_ended(waiting), "reset")
        self.assertEqual(daemon.ports.listening(), [])

    def test_the_same_ports_serve_again_at_once(self):
        ports = PortBlock(4)
        self.addCleanup(ports.release)
        listen_on = f"127.0.0.1:{self.closed_port()}"
        first = self.start_daemon("--drain", "0", ports=ports, listen_on=listen_on)
        server, _client = self.open_tunnel(first).both()
        first.signal(signal.SIGTERM)
        self.assertEqual(first.wait(), 0, first.errors())
        server.close()
        second = self.start_daemon("--drain", "1", ports=ports, listen_on=listen_on)
        tunnel = self.open_tunnel(second)
        tunnel.both()
        tunnel.end()
        second.stop()

    def test_it_ends_well_when_nobody_reads_its_log(self):
        read_end, write_end = os.pipe()
        os.close(read_end)
        ports = PortBlock(2)
        self.addCleanup(ports.release)
        daemon = harness.start([TUNNELD, "--listen", "127.0.0.1:0", "--ports", str(ports),
                                "--drain", "1"], stdout=harness.subprocess.PIPE, stderr=write_end)
        os.close(write_end)
        self.addCleanup(daemon.stdout.close)
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.kill)
        url = daemon.stdout.readline().decode().split()[1]
        with harness.rpc(url) as proxy:
            proxy.Tunnel.openTunnel()
        daemon.terminate()
        self.assertEqual(daemon.wait(harness.WAIT_S), 0)


if __name__ == "__main__":
    harness.main()
