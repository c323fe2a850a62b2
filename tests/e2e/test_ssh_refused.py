#!/usr/bin/python3 -B
"""What the ssh backend does not do, whom it does not let in, and that it lives on at the
service of others whatever it is sent before that."""

import os
import random
import socket
import subprocess
import time
import unittest

import harness
import ssh_harness
from harness import (connect, how_it_ended, in_thread, receive_exactly, receive_until_end, reset, run,
                     wait_until)
from ssh_harness import (PARAMIKO, SSH, Paramiko, Peer, Ssh, SshCase, SshDaemonCase, Token, ask, echo,
                         make_key, needs_paramiko, needs_ssh)

FORWARD_FAILED = "remote port forwarding failed for listen port"


class RefusedCase(SshDaemonCase):
    def assert_fails(self, arguments, *patterns, targets=(), after=(), options=(), **how):
        """ssh, as if by hand, must end by itself, and say one of these."""
        client = self.begin(Ssh, *targets, arguments=arguments, after=after, options=options, **how)
        self.assertNotEqual(client.wait(), 0, client.errors())
        for pattern in patterns:
            self.assertRegex(client.errors(), pattern)
        return client


@needs_ssh
class Requests(RefusedCase):
    """What an ssh server usually does, and this one does not."""

    def test_a_command(self):
        client = self.assert_fails((), "exec request failed|request failed", after=("id",))
        self.assertNotIn("uid=", client.rest_of_output())

    def test_a_command_beside_a_forward(self):
        service = self.serve(echo)
        client = self.assert_fails((), targets=(service.port,), after=("id",))
        self.assertNotIn("uid=", client.rest_of_output())

    def test_a_subsystem(self):
        self.assert_fails(("-s",), "subsystem request failed", after=("sftp",))

    def test_the_program_sftp(self):
        sftp = ssh_harness.shutil.which("sftp")
        if not sftp:
            self.skipTest("sftp is not installed")
        done = run([sftp, "-F", "/dev/null", "-b", "/dev/null", "-o", "StrictHostKeyChecking=yes",
                    "-o", f"UserKnownHostsFile={self.daemon.known_hosts}", "-P", str(self.daemon.ssh_port),
                    f"someone@{self.daemon.ssh_host}"])
        self.assertNotEqual(done.returncode, 0)

    def test_a_way_to_other_machines(self):
        """direct-tcpip, of -L, -D and -W."""
        service = self.serve(echo)
        client = self.assert_fails(("-W", f"127.0.0.1:{service.port}"), "open failed|forwarding failed")
        self.assertEqual(client.rest_of_output(), "")
        self.assertEqual(service.served, 0)

    def test_a_local_forward(self):
        service = self.serve(echo)
        port = self.closed_port()
        client = self.begin(Ssh, arguments=("-N", "-L", f"127.0.0.1:{port}:127.0.0.1:{service.port}"))
        self.through_ssh(client, port, b"?")
        self.assertEqual(service.served, 0)

    def test_a_dynamic_forward(self):
        service = self.serve(echo)
        port = self.closed_port()
        client = self.begin(Ssh, arguments=("-N", "-D", f"127.0.0.1:{port}"))
        self.through_ssh(client, port, b"\x04\x01" + service.port.to_bytes(2, "big") + b"\x7f\0\0\1\0?")
        self.assertEqual(service.served, 0)

    def through_ssh(self, client, port, words):
        """Nothing is there at the other end of ssh's own port."""
        client.authenticated()
        wait_until(lambda: port in harness.listening_ports(), "ssh listens")
        with connect(("127.0.0.1", port)) as caller:
            caller.sendall(words)
            try:
                answer = receive_until_end(caller)
            except ConnectionResetError:
                answer = b""
        self.assertNotIn(b"?", answer)
        client.said("open failed")
        self.assertIsNone(client.process.poll(), client.errors())       # it may have forwards, too

    def test_a_tunnel_of_packets(self):
        """tun@openssh.com. Without the right to make a device, ssh does not even ask."""
        client = self.begin(Ssh, arguments=("-N", "-w", "any:any"))
        client.said("Authenticated|open failed|Tunnel")
        self.assert_serves()

    def test_a_socket_of_a_file_system(self):
        path = os.path.join(self.temporary_folder(), "socket")
        client = self.begin(Ssh, arguments=("-N", "-R", f"{path}:127.0.0.1:9"))
        self.assertNotEqual(client.wait(), 0, client.errors())
        self.assertFalse(os.path.exists(path))

    def test_x11(self):
        client = self.begin(Ssh, self.serve(echo).port, arguments=("-tt", "-Y", "-o", "XAuthLocation=/nowhere"),
                            stdin=subprocess.PIPE, env={"DISPLAY": "127.0.0.1:77"})
        client.said("X11 forwarding request failed")
        self.assertEqual(ask(client.address), b"?")

    @needs_paramiko
    def test_every_request_of_a_session_that_is_none_of_ours(self):
        names = ("exec", "subsystem", "x11", "auth-agent-req@openssh.com", "auth-agent-req", "nonsense",
                 "xon-xoff", "break", "eow@openssh.com")
        for name in names:
            with self.subTest(name=name):
                peer = self.begin(Peer, "channel_request", name)
                peer.expect("refused")
                peer.finish()

    @needs_paramiko
    def test_every_channel_but_a_session(self):
        kinds = ("direct-tcpip", "forwarded-tcpip", "x11", "auth-agent@openssh.com", "nonsense",
                 "direct-streamlocal@openssh.com", "tun@openssh.com")
        peer = self.begin(Peer, "opens", *kinds)
        for kind in kinds:
            with self.subTest(kind=kind):
                peer.expect(r"refused \d+")
        peer.finish()


@needs_ssh
class BindAddresses(RefusedCase):
    def test_addresses_where_no_pairs_listen(self):
        for bind in ("127.0.0.2", "192.0.2.1", "[::1]", "example.org", "10.0.0.1", "localhost.example.org"):
            with self.subTest(bind=bind):
                self.assert_fails(("-N",), FORWARD_FAILED, targets=(f"{bind}:0:127.0.0.1:9",))
        wait_until(lambda: not self.daemon.ports.listening(), "nothing was opened")

    @needs_paramiko
    def test_what_is_no_address_at_all(self):
        binds = ("x" * 500, "127.0.0.1:22", "\u2603", "127.1", "0", "127.0.0.1%lo")
        peer = self.begin(Peer, "forward", *(f"{bind}/0" for bind in binds))
        for bind in binds:
            with self.subTest(bind=bind):
                peer.expect("refused")

    def test_ports_that_were_never_the_owner_s(self):
        beyond = self.daemon.ports.high + 1
        for port in (22, 80, self.daemon.port, self.daemon.ssh_port, self.daemon.ports.low,
                     self.daemon.ports.low + 1, self.daemon.ports.high, beyond, 65535):
            with self.subTest(port=port):
                since = len(self.daemon.errors())
                self.assert_fails(("-N",), f"{FORWARD_FAILED} {port}", targets=(f"{port}:127.0.0.1:9",))
                self.daemon.log_line(rf"\b{port}\b", since)
        wait_until(lambda: not self.daemon.ports.listening(), "nothing was opened")

    def test_a_refused_forward_leaves_the_others_of_its_connection(self):
        service = self.serve(echo)
        client = self.begin(Ssh, f"0:127.0.0.1:{service.port}", "80:127.0.0.1:9",
                            options=("ExitOnForwardFailure=no",))
        client.said(f"{FORWARD_FAILED} 80")
        port = int(client.said(r"Allocated port (\d+)")[1])
        self.assertEqual(ask((self.daemon.host, port)), b"?")


@needs_ssh
class Limits(RefusedCase):
    options = ("--max-tunnels", "2")

    def test_more_tunnels_than_the_daemon_may_have(self):
        service = self.serve(echo)
        carrier = self.carry(service.port, self.serve(echo).port)
        self.assert_fails(("-N",), FORWARD_FAILED, targets=(service.port,))
        self.daemon.log_line("max-tunnels")
        for backend in ("tcp", "ssh"):
            fault = harness.fault_of(self.daemon.rpc().Tunnel.openTunnel, backend)
            self.assertEqual(fault.faultCode, 4)
        for address in carrier.addresses:
            self.assertEqual(ask(address), b"?")
        carrier.leave()
        wait_until(lambda: not self.daemon.ports.listening(), "the pairs are back")
        self.assertEqual(ask(self.carry(service.port).address), b"?")


@needs_ssh
class Idlers(SshCase):
    """Servers that log in and have no tunnel."""

    def daemon_with(self, *options):
        self.daemon = self.start_ssh_daemon("--drain", "1", "--reserve", "1", *options)
        return self.daemon

    def test_those_without_a_tunnel_count_as_those_that_are_not_in(self):
        daemon = self.daemon_with("--ssh-handshakes-per-address", "3", "--attach-timeout", "30")
        daemon.known_hosts
        carrier = self.carry(self.serve(echo).port)
        for _ in range(3):
            self.begin(Ssh).authenticated()
        with connect(daemon.ssh_address) as one_more:
            self.assertEqual(one_more.recv(1), b"")
        daemon.log_line("ssh-handshakes-per-address")
        self.assertEqual(ask(carrier.address), b"?")
        with connect(daemon.ssh_address, source="127.0.0.2") as another:
            self.assertEqual(another.recv(4), b"SSH-")

    def test_those_who_came_first_make_room_for_newcomers(self):
        daemon = self.daemon_with("--ssh-handshakes", "4", "--ssh-handshakes-per-address", "100",
                                  "--attach-timeout", "30")
        daemon.known_hosts              # which is a newcomer, too: not later, amid the others
        first = self.carry(self.serve(echo).port)
        for _ in range(6):
            self.begin(Ssh).authenticated()
        wait_until(lambda: daemon.errors().count("it had no tunnel, and had to make room") == 3,
                   "there is room")
        self.assertEqual(ask(self.carry(self.serve(echo).port).address), b"?")
        self.assertEqual(ask(first.address), b"?")

    @unittest.skipUnless(PARAMIKO, "paramiko is not installed")
    def test_who_gives_its_tunnel_back_counts_again(self):
        daemon = self.daemon_with("--ssh-handshakes-per-address", "1", "--attach-timeout", "30")
        carrier = self.carry(self.serve(echo).port, kind=Paramiko)
        carrier.tell("cancel", carrier.address[1])
        carrier.expect("cancelled")
        wait_until(lambda: not daemon.ports.listening(), "the tunnel is gone")

        def is_one_too_many():
            with connect(daemon.ssh_address) as one_more:
                return one_more.recv(1) == b""
        wait_until(is_one_too_many, "it counts, soon after its tunnel's end")

    def test_an_address_opens_so_many_tunnels_in_a_minute(self):
        self.daemon_with("--opens-per-minute", "2")
        for _ in range(2):
            self.carry(self.serve(echo).port).leave()
            wait_until(lambda: not self.daemon.ports.listening(), "the pairs are back")
        _, said = self.begin(Ssh, self.serve(echo).port).refused()
        self.assertIn("remote port forwarding failed", said)
        self.daemon.log_line("opens-per-minute")

    def test_nothing_is_compressed(self):
        self.daemon_with()
        client = self.begin(Ssh, self.serve(echo).port, options=("Compression=yes",))
        self.assertEqual(ask(client.address), b"?")
        self.assertRegex(client.errors(), "kex: server->client .* compression: none")
        self.assertRegex(client.errors(), "kex: client->server .* compression: none")


@needs_ssh
class Tokens(RefusedCase):
    def test_a_second_forward_with_a_token(self):
        token = Token(self.daemon)
        client = self.begin(Ssh, self.serve(echo).port, self.serve(echo).port, login=token.login)
        status, said = client.refused()
        self.assertEqual(status, 255)
        self.assertIn("remote port forwarding failed", said)

    def test_a_second_forward_leaves_the_first(self):
        token = Token(self.daemon)
        client = self.begin(Ssh, self.serve(echo).port, self.serve(echo).port, login=token.login,
                            options=("ExitOnForwardFailure=no",))
        client.said("remote port forwarding failed")
        self.assertEqual(int(client.said(r"Allocated port (\d+)")[1]), token.address[1])
        self.assertEqual(ask(token.address), b"?")

    def test_another_port_than_its_own(self):
        token = Token(self.daemon)
        self.assert_fails(("-N",), FORWARD_FAILED, login=token.login, targets=(f"{token.address[1] - 1}:127.0.0.1:9",))

    def test_a_second_connection_does_not_disturb_the_first(self):
        service, token = self.serve(), Token(self.daemon)
        first = self.carry(service.port, login=token.login)
        client, server = self.both(first.address, service)
        self.assert_fails(("-N",), login=token.login, targets=(f"0:127.0.0.1:{service.port}",))
        client.sendall(b"still here")
        self.assertEqual(receive_exactly(server, 10), b"still here")
        self.both(first.address, service)

    def test_one_that_never_was(self):
        for login in ("t-" + "a" * 26, "t-" + "2" * 26, "t-" + "z7" * 13):
            with self.subTest(login=login):
                self.assert_fails(("-N",), "Permission denied", login=login, targets=(9,))

    def test_one_that_is_nearly_right(self):
        """Another text than a token is a name; it may come in, but never to the tunnel."""
        token = Token(self.daemon)
        for login in (token.login[:-1], token.login + "a", token.login.upper(), token.login[2:]):
            with self.subTest(login=login):
                client = self.begin(Ssh, 9, login=login)
                wait_until(lambda: client.process.poll() is not None or client.ports(), "in or not")
                self.assertNotIn(token.address[1], client.ports())

    def test_one_from_another_address(self):
        service, token = self.serve(echo), Token(self.daemon)
        for source_address in ("127.0.0.2", "127.0.0.3"):
            self.assert_fails(("-N", "-b", source_address), "Permission denied", login=token.login,
                              targets=(service.port,))
        self.assertEqual(self.carry(service.port, login=token.login).address, token.address)
        self.assertEqual(ask(token.address), b"?")

    def test_one_that_another_address_opened(self):
        service, token = self.serve(echo), Token(self.daemon, source="127.0.0.2")
        self.assert_fails(("-N",), "Permission denied", login=token.login, targets=(service.port,))
        self.carry(service.port, login=token.login, arguments=("-N", "-b", "127.0.0.2"))
        self.assertEqual(ask(token.address), b"?")

    def test_tokens_are_dead_after_their_tunnels(self):
        service, token = self.serve(echo), Token(self.daemon)
        self.carry(service.port, login=token.login).kill()
        wait_until(lambda: token.address[1] not in self.daemon.ports.listening(), "the reserve is over")
        self.assert_fails(("-N",), "Permission denied", login=token.login, targets=(service.port,))


@needs_ssh
class AnyAddress(RefusedCase):
    options = ("--attach-from", "any")

    def test_a_token_may_be_used_from_anywhere(self):
        service, token = self.serve(echo), Token(self.daemon)
        self.carry(service.port, login=token.login, arguments=("-N", "-b", "127.0.0.2"))
        self.assertEqual(ask(token.address), b"?")


@needs_ssh
class WhoGetsIn(SshCase):
    def refused(self, daemon, **how):
        client = self.begin(Ssh, 9, daemon=daemon, **how)
        _, said = client.refused()
        self.assertIn("Permission denied", said)

    def test_with_users_and_no_keys_only_tokens_do(self):
        users = os.path.join(self.temporary_folder(), "users")
        done = run(["htpasswd", "-nbB", "jo", "word"])
        with open(users, "w", encoding="ascii") as file:
            file.write(done.stdout.strip() + "\n")
        os.chmod(users, 0o600)
        daemon = self.start_ssh_daemon("--drain", "1", "--reserve", "1", "--users", users, user="jo:word")
        for login in ("jo", "root", ""):
            self.refused(daemon, login=login or None)
        token = Token(daemon)
        carrier = self.carry(self.serve(echo).port, daemon=daemon, login=token.login)
        self.assertEqual(ask(carrier.address), b"?")
        carrier.leave()
        daemon.stop()

    def daemon_with_a_key(self):
        """It, the key that it lets in, one that it does not, and the first one's public half."""
        folder = self.temporary_folder()
        (right, line), (wrong, _) = make_key(folder, "right"), make_key(folder, "wrong")
        path = os.path.join(folder, "authorized_keys")
        with open(path, "w", encoding="ascii") as file:
            file.write(line)
        os.chmod(path, 0o600)
        daemon = self.start_ssh_daemon("--drain", "1", "--reserve", "1", "--ssh-authorized-keys", path)
        return daemon, right, wrong, line.split()[1]

    def test_a_wrong_key_and_no_key(self):
        daemon, right, wrong, _ = self.daemon_with_a_key()
        self.refused(daemon, identity=wrong)
        self.refused(daemon)
        token = Token(daemon)
        self.refused(daemon, identity=wrong, login="t-" + "a" * 26)
        carrier = self.carry(self.serve(echo).port, daemon=daemon, identity=right)
        self.assertEqual(ask(carrier.address), b"?")
        by_token = self.carry(self.serve(echo).port, daemon=daemon, login=token.login, identity=wrong)
        self.assertEqual(by_token.address, token.address)
        for each in (carrier, by_token):
            each.leave()
        daemon.stop()

    @unittest.skipUnless(PARAMIKO, "paramiko is not installed")
    def test_a_key_without_its_secret_half(self):
        """Whoever knows only the public key can ask, and may not be let in."""
        daemon, right, wrong, public = self.daemon_with_a_key()
        for what, key in (("question", wrong), ("no signature", wrong), ("wrong signature", wrong),
                          ("signature of another user", right), ("question, then a service", wrong),
                          ("another algorithm", wrong), ("right signature", right)):
            with self.subTest(what=what):
                done = run([PARAMIKO, "-B", os.path.join(harness.HERE, "ssh_forger.py"), daemon.ssh_host,
                            str(daemon.ssh_port), key, public, what])
                due = "let in" if what == "right signature" else "not let in"
                self.assertEqual(done.stdout.strip(), due, done.stderr)
        daemon.expect_rest()
        daemon.stop()


class Handshakes(SshCase):
    TIMEOUT_S = 2

    def setUp(self):
        self.options = ("--drain", "1", "--reserve", "1", "--ssh-login-timeout", str(self.TIMEOUT_S))

    def silent(self, daemon, address="127.0.0.1"):
        connection = self.connect(daemon.ssh_address, source=address)
        if not receive_exactly(connection, 4) == b"SSH-":
            self.fail("no banner")
        return connection

    def assert_ended_soon(self, connection, began, least_s, most_s):
        how_it_ended(connection)
        self.assertGreater(time.monotonic() - began, least_s)
        self.assertLess(time.monotonic() - began, most_s)

    def test_who_does_not_log_in_in_time_is_cut(self):
        daemon = self.start_ssh_daemon(*self.options)
        for words in (b"", b"SSH-2.0-x", b"SSH-2.0-x\r\n", b"SSH-2.0-x\r\n" + bytes(3)):
            with self.subTest(words=words):
                began = time.monotonic()
                connection = self.silent(daemon)
                connection.sendall(words)
                self.assert_ended_soon(connection, began, 0.8 * self.TIMEOUT_S, self.TIMEOUT_S + 20)
        daemon.stop()

    def test_bytes_now_and_then_do_not_lengthen_it(self):
        daemon = self.start_ssh_daemon(*self.options)
        began = time.monotonic()
        connection = self.silent(daemon)

        def drip():
            while time.monotonic() - began < 30:
                connection.sendall(b"S")
                time.sleep(0.1)
        dripping = in_thread(drip)
        self.assert_ended_soon(connection, began, 0.8 * self.TIMEOUT_S, self.TIMEOUT_S + 20)
        self.assertRaises(ConnectionError, dripping.result)
        daemon.stop()

    @needs_ssh
    def test_a_client_frozen_amid_its_login_is_cut_and_holds_up_nobody(self):
        daemon = self.daemon = self.start_ssh_daemon(*self.options[:-1], "20", "--ssh-handshakes-per-address", "0")
        daemon.known_hosts      # or it would be asked for while all wait
        for milliseconds in range(0, 200, 20):
            client = self.begin(Ssh, 9)
            time.sleep(milliseconds / 1000)
            client.freeze()
        self.assert_serves()
        for number in range(3):
            self.silent(daemon, f"127.0.0.{number + 2}")
        self.doCleanups()

    @needs_ssh
    def test_an_address_has_no_more_than_its_share(self):
        daemon = self.daemon = self.start_ssh_daemon(*self.options[:-1], "20", "--ssh-handshakes-per-address", "2")
        daemon.known_hosts
        held = [self.silent(daemon, "127.0.0.3") for _ in range(2)]
        began = time.monotonic()
        for _ in range(3):
            self.turned_away(daemon, "127.0.0.3")
        self.assertLess(time.monotonic() - began, 15)
        self.assert_serves()                            # others
        daemon.log_line("ssh-handshakes-per-address")
        for each in held:
            each.close()
        wait_until(lambda: self.lets_in(daemon, "127.0.0.3"), "it has its share again")
        daemon.stop()

    def turned_away(self, daemon, address):
        try:
            with connect(daemon.ssh_address, source=address) as connection:
                how_it_ended(connection)
        except ConnectionResetError:
            pass

    def lets_in(self, daemon, address):
        try:
            with connect(daemon.ssh_address, source=address) as connection:
                return connection.recv(4) == b"SSH-"
        except ConnectionResetError:
            return False

    @needs_ssh
    def test_who_is_slow_makes_room_for_others(self):
        daemon = self.daemon = self.start_ssh_daemon(*self.options, "--ssh-handshakes", "8",
                                                     "--ssh-handshakes-per-address", "4",
                                                     "--ssh-login-timeout", "100")
        daemon.known_hosts
        slow = [connect(daemon.ssh_address, source=f"127.0.0.{2 + number // 4}") for number in range(8)]
        carrier = self.carry(self.serve(echo).port)
        self.assertEqual(ask(carrier.address), b"?")
        self.assertEqual(receive_until_end(slow[0])[:4], b"SSH-")
        daemon.log_line("ssh-handshakes refused")
        for each in slow:
            each.close()

    def test_who_is_in_does_not_count(self):
        daemon = self.daemon = self.start_ssh_daemon(*self.options, "--ssh-handshakes-per-address", "1",
                                                     "--ssh-handshakes", "1")
        daemon.known_hosts
        service = self.serve(echo)
        for _ in range(4):
            wait_until(lambda: self.lets_in(daemon, "127.0.0.1"), "a handshake may begin")
            carrier = wait_until(lambda: self.carried(service), "there is room")
            self.assertEqual(ask(carrier.address), b"?")
        self.doCleanups()

    def carried(self, service):
        client = self.begin(Ssh, service.port)
        wait_until(lambda: client.process.poll() is not None or client.ports(), "in or not")
        return client if client.ports() else None

    @needs_ssh
    def test_a_crowd_that_does_nothing_keeps_the_others_out_for_a_moment_at_most(self):
        daemon = self.daemon = self.start_ssh_daemon(*self.options, "--ssh-handshakes", "4",
                                                     "--ssh-handshakes-per-address", "0")
        daemon.known_hosts
        crowd = []
        for number in range(20):
            try:
                crowd.append(self.connect(daemon.ssh_address, source=f"127.0.0.{number + 2}"))
            except ConnectionResetError:
                pass
        service = self.serve(echo)
        began = time.monotonic()
        carrier = wait_until(lambda: self.carried(service), "somebody else gets in")
        self.assertLess(time.monotonic() - began, self.TIMEOUT_S + 20)
        self.assertEqual(ask(carrier.address), b"?")
        daemon.log_line("ssh-handshakes")
        carrier.leave()
        daemon.stop()

    @needs_ssh
    def test_any_number_from_one_address_if_it_is_told_so(self):
        daemon = self.daemon = self.start_ssh_daemon(*self.options[:-1], "20", "--ssh-handshakes-per-address", "0")
        for _ in range(30):
            self.silent(daemon)
        self.assert_serves()
        self.doCleanups()


class Garbage(SshDaemonCase):
    options = ("--ssh-login-timeout", "10", "--ssh-handshakes-per-address", "0")

    def say(self, words):
        """Sends it, whatever happens, and takes what comes."""
        try:
            with connect(self.daemon.ssh_address) as connection:
                sending = in_thread(self.send_all, connection, words)
                how_it_ended(connection)
                sending.result()
        except ConnectionError:
            pass

    def send_all(self, connection, words):
        try:
            connection.sendall(words)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def assert_lives(self):
        with connect(self.daemon.ssh_address) as connection:
            self.assertEqual(receive_exactly(connection, 8), b"SSH-2.0-")
        if SSH:
            self.assert_serves()

    def test_banners_that_are_none(self):
        for words in (b"", b"\n", b"\r\n" * 1000, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"SSH-1.5-old\r\n",
                      b"SSH-2.0\r\n", b"SSH-2.0-\r\n", b"SSH-9.9-x\r\n", b"SSH-2.0-x\n", b"ssh-2.0-x\r\n",
                      b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"SSH-2.0-" + b"x" * 100000, b"x" * (4 << 20),
                      b"SSH-2.0-\0\0\0\r\n", b"SSH-2.0-%s%n%s%n\r\n", b"\xff" * 1000 + b"\r\n",
                      b"SSH-2.0-paramiko_\x1b[2J\r\n"):
            with self.subTest(words=words[:40]):
                self.say(words)
        self.assert_lives()

    def test_packets_that_are_none(self):
        for number, words in enumerate((bytes(4), bytes(1000), b"\xff" * 1000, b"\0\0\0\x01\0", b"\0\0\0\x0c\x04",
                                        b"\x7f\xff\xff\xff" + bytes(100), b"\0\x01\0\0\x04\x14" + bytes(1 << 16),
                                        b"\0\0\0\x0c\x0a\x14" + bytes(10), b"\0\0\0\x0c\xff\x14" + bytes(10))):
            with self.subTest(number=number):
                self.say(b"SSH-2.0-x\r\n" + words)
        self.assert_lives()

    def packet(self, payload):
        padding = 8 - (5 + len(payload)) % 8
        padding += 8 if padding < 4 else 0
        return (1 + len(payload) + padding).to_bytes(4, "big") + bytes([padding]) + payload + bytes(padding)

    def test_messages_before_their_time(self):
        """Logging in, channels and forwards, without any keys."""
        def text(word):
            return len(word).to_bytes(4, "big") + word
        forward = b"\x50" + text(b"tcpip-forward") + b"\1" + text(b"") + bytes(4)
        for payload in (b"\x05" + text(b"ssh-userauth"), b"\x05" + text(b"ssh-connection"),
                        b"\x32" + text(b"x") + text(b"ssh-connection") + text(b"none"), forward,
                        b"\x5a" + text(b"session") + bytes(12), b"\x15", b"\x34", b"\x14", b"\x1e" + text(bytes(32)),
                        b"\x01" + bytes(4) + text(b"bye") + text(b""), b"\x03" + bytes(4), b"\x02" + text(b"x"),
                        b"\x04\1" + text(b"\x1b[2Jx\n") + text(b""), b"", bytes([255])):
            with self.subTest(payload=payload[:20]):
                self.say(b"SSH-2.0-x\r\n" + self.packet(payload) + self.packet(forward))
        self.assert_lives()
        wait_until(lambda: not self.daemon.ports.listening(), "nothing was opened")

    def test_offers_of_keys_that_make_no_sense(self):
        chance = random.Random(1)
        for number in range(60):
            names = [chance.choice((b"", b"none", b"curve25519-sha256", b"ssh-ed25519", b"x" * 3000, b",,,,",
                                    b"aes128-ctr,none", b"\xff\xfe")) for _ in range(10)]
            payload = b"\x14" + bytes(16) + b"".join(len(name).to_bytes(4, "big") + name for name in names)
            payload += bytes([number % 2]) + bytes(4)
            if number % 3 == 0:
                payload = payload[:chance.randrange(len(payload))]
            self.say(b"SSH-2.0-x\r\n" + self.packet(payload))
        self.assert_lives()

    def test_bytes_of_chance(self):
        chance = random.Random(2)
        for _ in range(60):
            self.say(b"SSH-2.0-x\r\n" * chance.randrange(2) + chance.randbytes(chance.randrange(3000)))
        self.assert_lives()

    def test_many_that_connect_and_go(self):
        for number in range(300):
            try:
                connection = connect(self.daemon.ssh_address)
                (reset if number % 2 else socket.socket.close)(connection)
            except ConnectionError:
                pass
        self.assert_lives()
        self.daemon.expect_rest()


if __name__ == "__main__":
    harness.main()
