#!/usr/bin/python3 -B
"""What ssh's tunnels tell: who came, the lines of a session, the log, the proxy's key."""

import os
import re
import subprocess

import harness
import ssh_harness
from harness import address_of, connect, receive_exactly, receive_until_reset, run
from ssh_harness import Peer, Ssh, SshCase, SshDaemonCase, Token, ask, echo, needs_paramiko, needs_ssh


class Origins(SshDaemonCase):
    """What the carrier is told of who its clients are."""

    def origin(self, daemon):
        peer = self.begin(Peer, "origins", self.serve(echo).port, daemon=daemon)
        port = int(peer.expect(r"allocated (\d+)")[1])
        with connect((daemon.host, port), source="127.0.0.88") as client:
            client.sendall(b"x")
            receive_exactly(client, 1)
            match = peer.expect(r"from (\S+) (\d+) at (\S+) (\d+)")
            self.assertEqual(int(match[4]), port)
            return match[1], int(match[2]), client.getsockname()[1]

    @needs_paramiko
    def test_the_server_does_not_learn_where_its_clients_are(self):
        host, port, real_port = self.origin(self.daemon)
        self.assertEqual(host, "127.0.0.1")
        self.assertNotEqual(port, real_port)

    @needs_paramiko
    def test_the_server_learns_it_if_the_operator_says_so(self):
        daemon = self.start_ssh_daemon("--reveal-clients", "--drain", "1", "--reserve", "1")
        host, port, real_port = self.origin(daemon)
        self.assertEqual((host, port), ("127.0.0.88", real_port))


@needs_ssh
class Sessions(SshDaemonCase):
    """What people see who leave out -N."""

    def session(self, *targets, terminal=True):
        return self.begin(Ssh, *targets, arguments=("-tt",) if terminal else ("-T",), stdin=subprocess.PIPE)

    def line_with(self, carrier, pattern):
        for _ in range(20):
            line = carrier.line()
            if match := re.search(pattern, line):
                return match
        self.fail(f"no line like {pattern!r}")

    def test_the_addresses_are_shown_and_each_client_comes_and_goes(self):
        for terminal in (True, False):
            with self.subTest(terminal=terminal):
                session = self.session(self.serve(echo).port, self.serve(echo).port, terminal=terminal)
                shown = {address_of(self.line_with(session, r"(tcp://[0-9.]+:\d+)")[1]) for _ in range(2)}
                self.assertEqual(shown, set(session.addresses))
                for number in (1, 2):
                    self.assertEqual(ask(session.addresses[number % 2]), b"?")
                    match = self.line_with(session, r"client (\d+) connected")
                    self.line_with(session, rf"client {match[1]}\b.*closed")

    def test_the_lines_do_not_tell_where_clients_are(self):
        session = self.session(self.serve(echo).port)
        with connect(session.address, source="127.0.0.88") as client:
            client.sendall(b"x")
            receive_exactly(client, 1)
        while "closed" not in (line := session.line()):
            self.assertNotIn("127.0.0.88", line)
        self.assertNotIn("127.0.0.88", line)

    def test_the_lines_of_a_terminal_begin_at_its_left(self):
        session = self.session(self.serve(echo).port)
        self.assertTrue(session.line().endswith("\r"))

    def test_control_c_ends_it(self):
        session = self.session(self.serve(echo).port)
        address = session.address
        self.line_with(session, "tcp://")
        client = self.connect(address)
        client.sendall(b"x")
        receive_exactly(client, 1)
        session.process.stdin.write(b"\x03")
        session.process.stdin.flush()
        session.wait()
        self.assertEqual(receive_until_reset(client), b"")

    def test_other_keys_do_nothing(self):
        session = self.session(self.serve(echo).port)
        session.process.stdin.write(b"exit\r\nls\r\n\x1b[A\x00\xff" * 100)
        session.process.stdin.flush()
        self.assertEqual(ask(session.address), b"?")
        self.assertIsNone(session.process.poll())

    def test_a_session_that_nobody_reads_holds_up_nothing(self):
        session = self.session(self.serve(echo).port)
        address = session.address
        for _ in range(200):
            self.assertEqual(ask(address), b"?")

    def test_without_a_forward_it_gives_a_hint_and_fails(self):
        for terminal in (True, False):
            with self.subTest(terminal=terminal):
                session = self.session(terminal=terminal)
                self.assertNotIn(session.wait(), (0, 255), session.errors())
                self.assertIn("-R", session.rest_of_output() + session.errors().split("debug1")[-1])

    def test_who_is_refused_is_told_why(self):
        service = self.serve(echo).port
        low = self.daemon.ports.low
        for terminal, targets, why in (
                (True, (f"{low}:127.0.0.1:{service}",), rf"refused to forward port {low}: \w"),
                (False, (f"192.0.2.1:0:127.0.0.1:{service}",), "refused to forward port 0: the address is not the")):
            with self.subTest(targets=targets):
                session = self.begin(Ssh, *targets, arguments=("-tt" if terminal else "-T",), stdin=subprocess.PIPE,
                                     options=("ExitOnForwardFailure=no",))
                self.assertEqual(session.wait(), 1, session.errors())
                told = session.rest_of_output()
                self.assertRegex(told, why)
                self.assertNotIn("This is no machine", told)

    def test_who_is_refused_one_of_two_sees_both(self):
        service = self.serve(echo).port
        session = self.begin(Ssh, f"{self.daemon.ports.low}:127.0.0.1:{service}", service, arguments=("-tt",),
                             stdin=subprocess.PIPE, options=("ExitOnForwardFailure=no",))
        line = self.line_with(session, rf"refused to forward port {self.daemon.ports.low}: ")
        self.assertTrue(line.string.endswith("\r"), line.string)
        self.line_with(session, r"tcp://[0-9.]+:\d+")

    def test_of_many_refusals_the_rest_is_counted(self):
        service, low = self.serve(echo).port, self.daemon.ports.low
        session = self.begin(Ssh, *(f"{low + number}:127.0.0.1:{service}" for number in range(11)),
                             arguments=("-T",), stdin=subprocess.PIPE, options=("ExitOnForwardFailure=no",))
        self.assertEqual(session.wait(), 1, session.errors())
        told = session.rest_of_output()
        self.assertEqual(told.count("refused to forward port "), 8)
        self.assertRegex(told, r"and 3 more\n")


@needs_ssh
class TheLog(SshCase):
    def test_it_tells_what_happens_without_secrets_and_addresses(self):
        daemon = self.start_ssh_daemon("--drain", "1", "--reserve", "1", "--log-level", "debug")
        token = Token(daemon, source="127.0.0.21")
        carrier = self.carry(self.serve(echo).port, daemon=daemon, login=token.login,
                             options=("BindAddress=127.0.0.21",))
        with connect(carrier.address, source="127.0.0.22") as client:
            client.sendall(b"x")
            receive_exactly(client, 1)
        carrier.kill()
        refused = self.begin(Ssh, 9, daemon=daemon, login=token.login)      # from another address
        refused.wait()
        daemon.expect_rest()
        log = daemon.errors()
        self.assertNotIn(token.login[2:], log)
        self.assertNotIn("127.0.0.21", log)
        self.assertNotIn("127.0.0.22", log)
        for line in log.splitlines():
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (error|warning|info|debug) ")
        daemon.stop()

    @needs_paramiko
    def test_foreign_text_cannot_forge_lines(self):
        daemon = self.start_ssh_daemon("--drain", "1", "--reserve", "1", "--log-level", "debug")
        forged = "x\n2026-01-01T00:00:00Z info forged\x1b[2J"
        peer = self.begin(Peer, "forward", forged.replace("\n", "\r") + "/0", "/0", daemon=daemon, login=forged)
        peer.expect("refused")      # of ssh's own programs some take no such names
        peer.expect(r"granted \d+")
        peer.kill()
        with connect(daemon.ssh_address) as client:
            client.sendall(b"SSH-2.0-x\x1b[2J info forged\r\n")
        with connect(daemon.ssh_address) as client:
            client.sendall(forged.encode() + b"\r\n\r\n")
        daemon.expect_rest()
        self.assertFalse(re.search(r"^\S+ info forged", daemon.errors(), re.MULTILINE))
        self.assertNotIn("\x1b", daemon.errors())
        daemon.stop()


@needs_ssh
class HostKey(SshDaemonCase):
    def hostkey(self, *arguments, **how):
        return run([harness.TUNNEL, *arguments], **how)

    def test_the_command_prints_what_known_hosts_needs(self):
        done = self.hostkey("hostkey", "--proxy", self.daemon.url)
        self.assertEqual(done.returncode, 0, done.stderr)
        comment, line = done.stdout.splitlines()
        self.assertTrue(comment.startswith("#"))
        self.assertIn(self.daemon.fingerprint, comment)
        self.assertRegex(line, rf"^\[127\.0\.0\.1\]:{self.daemon.ssh_port} ssh-ed25519 AAAA\S+$")
        self.assertIn(self.daemon.host_key, line)

    def test_ssh_keygen_sees_the_same_fingerprint_in_it(self):
        for words in (("hostkey", "--proxy", self.daemon.url), ("--proxy", self.daemon.url, "hostkey")):
            path = os.path.join(self.temporary_folder(), "known_hosts")
            with open(path, "w", encoding="ascii") as file:
                file.write(self.hostkey(*words).stdout)
            told = run([ssh_harness.KEYGEN, "-l", "-f", path])
            self.assertEqual(told.returncode, 0, told.stderr)
            self.assertEqual(told.stdout.split()[1], self.daemon.fingerprint)

    def test_ssh_comes_in_with_what_it_printed(self):
        path = os.path.join(self.temporary_folder(), "known_hosts")
        with open(path, "w", encoding="ascii") as file:
            file.write(self.hostkey("hostkey", env={"TRISTERO_PROXY": self.daemon.url}).stdout)
        carrier = self.carry(self.serve(echo).port, options=(f"UserKnownHostsFile={path}",))
        self.assertEqual(ask(carrier.address), b"?")

    def test_a_proxy_without_ssh_is_told(self):
        daemon = self.start_daemon("--drain", "1")
        done = self.hostkey("hostkey", "--proxy", daemon.url)
        self.assertGreater(done.returncode, 0)
        self.assertEqual(done.stdout, "")
        self.assertNotEqual(done.stderr, "")
        daemon.stop()

    def test_the_key_on_the_wire_is_the_one_in_the_file(self):
        path = os.path.join(self.daemon.state_dir, "ssh_host_ed25519_key")
        told = run([ssh_harness.KEYGEN, "-l", "-f", path])
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertEqual(told.stdout.split()[1], self.daemon.fingerprint)
        self.assertIn("ED25519", told.stdout)


if __name__ == "__main__":
    harness.main()
