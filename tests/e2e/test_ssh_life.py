#!/usr/bin/python3 -B
"""The life of ssh's tunnels: how long they wait, who gets them back, and how the
daemon begins, reloads and ends with them."""

import os
import signal
import stat
import time
import unittest

import harness
import ssh_harness
from harness import (PortBlock, TUNNELD, connect, fault_of, how_it_ended, in_thread, is_refused,
                     receive_exactly, receive_until_end, receive_until_reset, run, send_until_error,
                     wait_until)
from ssh_harness import (AUTOSSH, DBCLIENT, PARAMIKO, SSH, Autossh, Dbclient, Paramiko, Ssh, SshCase,
                         SshDaemonCase, Token, ask, check_pattern, echo, make_key, send_pattern, source)

needs_ssh = unittest.skipUnless(SSH and ssh_harness.KEYSCAN, "ssh is not installed")
needs_autossh = unittest.skipUnless(AUTOSSH and SSH, "autossh is not installed")
needs_paramiko = unittest.skipUnless(PARAMIKO, "paramiko is not installed")
KEEPALIVE_S = 1
PROMPTLY_S = 5


class LifeCase(SshCase):
    """With a daemon for each test, unless it is told otherwise, that reserves for long."""

    options = ("--reserve", "60", "--attach-timeout", "60")

    def setUp(self):
        self.daemon = self.start_ssh_daemon("--drain", "1", *self.options)

    def end(self, within_s=PROMPTLY_S):
        """Told to end, the daemon does, whatever waits."""
        began = time.monotonic()
        self.daemon.signal(signal.SIGTERM)
        self.assertEqual(self.daemon.wait(), 0, self.daemon.errors())
        self.assertLess(time.monotonic() - began, within_s)
        self.assertEqual(self.daemon.rest_of_output(), "")
        self.assertEqual(self.daemon.ports.listening(), [])

    def drop(self, carrier):
        """Kills it; the daemon has noticed when this returns."""
        since = self.daemon.counts()["threads"]
        carrier.kill()
        wait_until(lambda: self.daemon.counts()["threads"] < since, "the carrier's thread has ended")

    def drop_ssh(self, autossh):
        """The same of one that comes back by itself."""
        since = len(self.daemon.errors())
        autossh.drop()
        self.daemon.log_line("waits for its server", since)

    def listens(self, address):
        return address[1] in self.daemon.ports.listening()


@needs_ssh
class Reserve(LifeCase):
    def test_the_same_token_regains_its_address(self):
        service, token = self.serve(echo), Token(self.daemon)
        for _ in range(3):
            carrier = self.carry(service.port, login=token.login)
            self.assertEqual(carrier.address, token.address)
            self.assertEqual(ask(token.address), b"?")
            self.drop(carrier)
            self.assertTrue(self.listens(token.address))
            self.assertEqual(self.daemon.rpc().Tunnel.getTunnelAddress(token.uri), token.client_uri)
        self.end()

    def test_clients_that_come_meanwhile_wait_and_are_served(self):
        for login in (Token(self.daemon).login, "jane"):
            with self.subTest(login=login):
                service = self.serve(echo)
                carrier = self.carry(service.port, login=login)
                address = carrier.address
                self.drop(carrier)
                waiting = [self.connect(address) for _ in range(5)]
                for number, client in enumerate(waiting):
                    client.sendall(b"%d" % number)
                waiting[0].settimeout(0.5)
                self.assertRaises(TimeoutError, waiting[0].recv, 1)
                waiting[0].settimeout(harness.WAIT_S)
                carrier = self.carry(service.port, login=login)
                self.assertEqual(carrier.address, address)
                for number, client in enumerate(waiting):
                    self.assertEqual(receive_exactly(client, 1), b"%d" % number)
        self.end()

    def test_the_same_name_from_the_same_address_regains_its_address(self):
        service = self.serve(echo)
        carrier = self.carry(service.port, login="jane")
        address = carrier.address
        self.drop(carrier)
        other = self.carry(service.port, login="joe")
        self.assertNotEqual(other.address, address)
        elsewhere = self.carry(service.port, login="jane", options=("BindAddress=127.0.0.2",))
        self.assertNotEqual(elsewhere.address, address)
        back = self.carry(service.port, login="jane")
        self.assertEqual(back.address, address)
        self.assertEqual(ask(address), b"?")
        more = self.carry(service.port, login="jane")
        self.assertNotIn(more.address, (address, other.address, elsewhere.address))
        self.end()

    def test_names_that_look_alike_are_others(self):
        service = self.serve(echo)
        for one, other in (("x" * 100 + "a", "x" * 100 + "b"), ("\u00fcber", "\u00f6ber"), ("jane", "Jane")):
            with self.subTest(one=one, other=other):
                carrier = self.carry(service.port, login=one)
                address = carrier.address
                self.drop(carrier)
                self.assertNotEqual(self.carry(service.port, login=other).address, address)
        self.end()

    def test_each_of_several_addresses_is_regained_once(self):
        ports = [self.serve(echo).port for _ in range(3)]
        carrier = self.carry(*ports, login="jane")
        before = set(carrier.addresses)
        self.drop(carrier)
        back = self.carry(*ports, login="jane")
        self.assertEqual(set(back.addresses), before)
        for address in before:
            self.assertEqual(ask(address), b"?")
        self.end()

    def test_a_fixed_port_is_regained_by_its_owner_alone(self):
        service = self.serve(echo)
        carrier = self.carry(service.port, login="jane")
        address = carrier.address
        self.drop(carrier)
        target = f"{address[1]}:127.0.0.1:{service.port}"
        for how in ({"login": "joe"}, {"login": "jane", "options": ("BindAddress=127.0.0.2",)}):
            with self.subTest(**how):
                status, said = self.begin(Ssh, target, **how).refused()
                self.assertEqual(status, 255)
                self.assertIn("remote port forwarding failed for listen port", said)
        back = self.carry(target, login="jane")
        self.assertEqual(back.address, address)
        self.assertEqual(ask(address), b"?")
        self.end()

    def test_a_fixed_port_that_is_in_use_is_refused(self):
        service = self.serve(echo)
        carrier = self.carry(service.port, login="jane")
        target = f"{carrier.address[1]}:127.0.0.1:{service.port}"
        for login in ("jane", "joe"):
            with self.subTest(login=login):
                self.assertIn("remote port forwarding failed", self.begin(Ssh, target, login=login).refused()[1])
        self.assertEqual(ask(carrier.address), b"?")
        self.end()

    def test_streams_of_before_are_reset_and_do_not_come_back(self):
        service = self.serve()
        carrier = self.carry(service.port, login="jane")
        client, _ = self.both(carrier.address, service)
        self.drop(carrier)
        self.assertEqual(receive_until_reset(client), b"")
        back = self.carry(service.port, login="jane")
        self.both(back.address, service)
        self.end()

    def test_a_frozen_ssh_is_noticed_and_its_place_can_be_taken(self):
        daemon = self.daemon = self.start_ssh_daemon("--drain", "1", "--keepalive", str(KEEPALIVE_S), *self.options)
        service = self.serve()
        carrier = self.carry(service.port, login="jane")
        address = carrier.address
        client, _ = self.both(address, service)
        carrier.freeze()
        began = time.monotonic()
        self.assertEqual(receive_until_reset(client), b"")
        self.assertLess(time.monotonic() - began, 5 * KEEPALIVE_S + 3)
        back = self.carry(service.port, login="jane", daemon=daemon)
        self.assertEqual(back.address, address)
        self.both(address, service)
        carrier.thaw()
        carrier.wait()
        self.both(address, service)
        self.end()

    def test_a_farewell_leaves_nothing_that_another_could_take(self):
        service = self.serve(echo)
        carrier = self.carry(service.port, login="jane")
        address = carrier.address
        carrier.leave()
        target = f"{address[1]}:127.0.0.1:{service.port}"
        self.assertIn("remote port forwarding failed", self.begin(Ssh, target, login="joe").refused()[1])
        self.end()


@needs_ssh
class ReserveIsOver(LifeCase):
    options = ("--reserve", "2", "--attach-timeout", "60")

    def test_the_pair_comes_back_and_the_token_is_dead(self):
        service, token = self.serve(echo), Token(self.daemon)
        carrier = self.carry(service.port, login=token.login)
        carrier.ready()
        self.drop(carrier)
        dropped = time.monotonic()
        waiting = self.connect(token.address)
        self.assertEqual(receive_until_reset(waiting), b"")
        self.assertGreater(time.monotonic() - dropped, 1)
        self.assertLess(time.monotonic() - dropped, 8)
        self.assertFalse(self.listens(token.address))
        self.assertTrue(is_refused(token.address))
        fault = fault_of(self.daemon.rpc().Tunnel.getTunnelAddress, token.uri)
        self.assertIn("unknown tunnel", fault.faultString)
        self.assertIn("Permission denied", self.begin(Ssh, service.port, login=token.login).refused()[1])
        self.daemon.stop()

    def test_a_fixed_port_is_not_given_any_more(self):
        service = self.serve(echo)
        carrier = self.carry(service.port, login="jane")
        address = carrier.address
        self.drop(carrier)
        wait_until(lambda: not self.listens(address), "the pair is back")
        target = f"{address[1]}:127.0.0.1:{service.port}"
        self.assertIn("remote port forwarding failed for listen port",
                      self.begin(Ssh, target, login="jane").refused()[1])
        self.daemon.stop()

    def test_each_drop_begins_a_reserve_of_its_own(self):
        service, token = self.serve(echo), Token(self.daemon)
        for _ in range(4):
            carrier = self.carry(service.port, login=token.login)
            self.assertEqual(ask(token.address), b"?")
            time.sleep(0.7)
            self.drop(carrier)
        self.assertTrue(self.listens(token.address))
        self.carry(service.port, login=token.login).leave()
        self.daemon.stop()


@needs_ssh
class NoReserve(LifeCase):
    options = ("--reserve", "0")

    def test_a_drop_is_the_end_of_a_tunnel(self):
        service, token = self.serve(echo), Token(self.daemon)
        by_token = self.carry(service.port, login=token.login)
        direct = self.carry(service.port)
        addresses = (token.address, direct.address)
        for each in (by_token, direct):
            each.kill()
        wait_until(lambda: not self.daemon.ports.listening(), "the pairs are back", PROMPTLY_S)
        for address in addresses:
            self.assertTrue(is_refused(address))
        self.daemon.stop()


class Restarts(LifeCase):
    """Clients that come back by themselves."""

    @needs_autossh
    def test_autossh_regains_its_address_again_and_again(self):
        service = self.serve(echo)
        carrier = self.carry(service.port, kind=Autossh)
        address = carrier.address
        for number in (2, 3):
            self.assertEqual(ask(address), b"?")
            self.drop_ssh(carrier)
            client = self.connect(address)
            client.sendall(b"x")
            self.assertEqual(receive_exactly(client, 1), b"x")
            wait_until(lambda: len(carrier.ports()) == number, "ssh was told its address again")
        self.assertEqual(set(carrier.ports()), {address[1]})
        self.end()

    @needs_autossh
    def test_autossh_regains_the_address_of_a_token(self):
        service, token = self.serve(echo), Token(self.daemon)
        carrier = self.carry(service.port, kind=Autossh, login=token.login)
        self.assertEqual(ask(token.address), b"?")
        self.drop_ssh(carrier)
        self.assertEqual(ask(token.address), b"?")
        self.end()

    @unittest.skipUnless(DBCLIENT and SSH, "dbclient and ssh are not installed")
    def test_dbclient_started_again_regains_its_address(self):
        service = self.serve(echo)
        carrier = self.carry(service.port, kind=Dbclient, login="jane")
        address = carrier.address
        self.drop(carrier)
        self.assertEqual(self.carry(service.port, kind=Dbclient, login="jane").address, address)
        self.assertEqual(ask(address), b"?")
        self.end()

    @needs_paramiko
    def test_paramiko_started_again_regains_its_address(self):
        service = self.serve(echo)
        carrier = self.carry(service.port, kind=Paramiko, login="jane")
        address = carrier.address
        self.drop(carrier)
        self.assertEqual(self.carry(service.port, kind=Paramiko, login="jane").address, address)
        self.assertEqual(ask(address), b"?")
        self.end()


class Keys(SshCase):
    """Owners that are known by their keys, and the file of those."""

    def setUp(self):
        self.folder = self.temporary_folder()
        self.file = os.path.join(self.folder, "authorized_keys")
        self.jane, self.janes_line = make_key(self.folder, "jane")
        self.joe, self.joes_line = make_key(self.folder, "joe")

    def write(self, *lines):
        """As editors do: the file is whole at every moment."""
        with open(self.file + ".new", "w", encoding="utf-8") as file:
            file.write("".join(lines))
        os.chmod(self.file + ".new", 0o600)
        os.rename(self.file + ".new", self.file)

    def start(self, *lines, options=("--reserve", "1"), **how):
        self.write(*lines)
        self.daemon = self.start_ssh_daemon("--drain", "1", "--ssh-authorized-keys", self.file, *options, **how)

    def reload(self, expected="info the configuration was read again"):
        before = self.daemon.errors().count(expected)
        self.daemon.signal(signal.SIGHUP)
        wait_until(lambda: self.daemon.errors().count(expected) > before,
                   f"{expected} in the log: {self.daemon.errors()}", 10)

    def gets_in(self, identity, **how):
        """Whether whoever has that key is served."""
        with ssh_harness.Service(echo) as service:
            carrier = self.begin(Ssh, service.port, identity=identity, **how)
            wait_until(lambda: carrier.process.poll() is not None or carrier.ports(), "in or not")
            if carrier.process.poll() is not None:
                self.assertIn("Permission denied", carrier.errors())
                return False
            self.assertEqual(ask(carrier.address), b"?")
            carrier.leave()
            return True

    @needs_ssh
    def test_who_has_a_key_gets_in_and_nobody_else(self):
        self.start("# ours\n\n", self.janes_line)
        self.assertTrue(self.gets_in(self.jane))
        self.assertFalse(self.gets_in(self.joe))
        self.assertFalse(self.gets_in(None))
        self.daemon.stop()

    @needs_ssh
    def test_every_usual_kind_of_key_will_do(self):
        pairs = [make_key(self.folder, kind, kind) for kind in ("rsa", "ecdsa", "ed25519")]
        self.start(*(line for _, line in pairs))
        for path, line in pairs:
            with self.subTest(kind=line.split()[0]):
                self.assertTrue(self.gets_in(path))
        self.daemon.stop()

    @needs_ssh
    def test_a_token_needs_no_key(self):
        self.start(self.janes_line)
        token = Token(self.daemon)
        self.assertTrue(self.gets_in(None, login=token.login))
        self.daemon.stop()

    @needs_ssh
    def test_keys_come_and_go_and_live_carriers_do_not_notice(self):
        self.start(self.janes_line)
        service = self.serve()
        carrier = self.carry(service.port, identity=self.jane)
        client, server = self.both(carrier.address, service)
        sending = in_thread(send_pattern, server, 1, 8 << 20, False)
        self.write(self.joes_line)
        self.assertFalse(self.gets_in(self.joe))        # until it is told
        self.reload()
        check_pattern(client, 1, 8 << 20, end=False)
        sending.result()
        self.assertTrue(self.gets_in(self.joe))
        self.assertFalse(self.gets_in(self.jane))
        self.both(carrier.address, service)
        client.sendall(b"still here")
        self.assertEqual(receive_exactly(server, 10), b"still here")
        carrier.leave()
        self.daemon.stop()

    @needs_ssh
    def test_a_bad_file_changes_nothing_and_is_told_with_its_line(self):
        self.start(self.janes_line)
        for text in ("nonsense\n", "ssh-ed25519 AAAA\n", "ssh-ed25519 !!!! x\n"):
            with self.subTest(text=text):
                self.write("# of today\n", text)
                self.reload("error the configuration stays as it was: ")
                self.assertIn(self.file + ":2", self.daemon.errors())
        os.unlink(self.file)
        self.reload("error the configuration stays as it was: ")
        self.assertIn("No such file", self.daemon.errors())
        self.assertTrue(self.gets_in(self.jane))
        self.write(self.janes_line)
        self.reload()
        self.daemon.stop()

    @needs_ssh
    def test_a_key_s_owner_regains_the_address_by_whatever_name_and_from_wherever(self):
        self.start(self.janes_line, self.joes_line, options=("--reserve", "60"))
        service = self.serve(echo)
        carrier = self.carry(service.port, identity=self.jane, login="here")
        address = carrier.address
        carrier.kill()
        wait_until(
            lambda: address[1] in self.daemon.ports.listening(), "the address is reserved")
        other = self.carry(service.port, identity=self.joe, login="here")
        self.assertNotEqual(other.address, address)
        refused = self.begin(Ssh, f"{address[1]}:127.0.0.1:{service.port}", identity=self.joe, login="here")
        self.assertIn("remote port forwarding failed", refused.refused()[1])
        back = wait_until(lambda: self.regained(service, address), "jane has her address again")
        self.assertEqual(ask(back.address), b"?")
        self.daemon.signal(signal.SIGTERM)
        self.assertEqual(self.daemon.wait(), 0, self.daemon.errors())

    def regained(self, service, address):
        back = self.begin(Ssh, f"{address[1]}:127.0.0.1:{service.port}", identity=self.jane, login="there",
                          options=("BindAddress=127.0.0.2",))
        wait_until(lambda: back.process.poll() is not None or back.ports(), "granted or not")
        return back if back.ports() else None

    @needs_ssh
    def test_many_bad_logins_do_not_keep_the_others_out(self):
        self.start(self.janes_line, options=("--reserve", "1", "--ssh-handshakes-per-address", "0"))
        refused = [self.begin(Ssh, 9, identity=self.joe) for _ in range(12)]
        self.assertTrue(self.gets_in(self.jane))
        for each in refused:
            each.wait()
        self.daemon.stop()


@needs_ssh
class AttachTimeout(SshDaemonCase):
    options = ("--attach-timeout", "2")

    def test_a_token_that_nobody_uses_dies_and_its_pair_comes_back(self):
        began = time.monotonic()
        token = Token(self.daemon)
        client = self.connect(token.address)
        client.sendall(b"anybody?")
        self.assertEqual(receive_until_reset(client), b"")
        self.assertGreater(time.monotonic() - began, 1.5)
        self.assertLess(time.monotonic() - began, 8)
        self.assertTrue(is_refused(token.address))
        self.assertIn("unknown tunnel",
                      fault_of(self.daemon.rpc().Tunnel.getTunnelAddress, token.uri).faultString)
        self.assertIn("Permission denied", self.begin(Ssh, 9, login=token.login).refused()[1])

    def test_an_ssh_that_never_asks_for_a_forward_does_not_lengthen_it(self):
        token = Token(self.daemon)
        self.begin(Ssh, login=token.login).authenticated()
        wait_until(lambda: token.address[1] not in self.daemon.ports.listening(), "the pair is back", 8)

    def test_who_is_attached_outlives_it(self):
        token = Token(self.daemon)
        carrier = self.carry(self.serve(echo).port, login=token.login)
        carrier.ready()
        time.sleep(3)
        self.assertEqual(ask(token.address), b"?")

    def test_clients_that_come_first_are_held_until_ssh_comes(self):
        token = Token(self.daemon)
        clients = [self.connect(token.address) for _ in range(3)]
        for client in clients:
            client.sendall(b"GET")
        self.carry(self.serve(echo).port, login=token.login)
        for client in clients:
            self.assertEqual(receive_exactly(client, 3), b"GET")


@needs_ssh
class Keepalive(SshDaemonCase):
    options = ("--keepalive", str(KEEPALIVE_S))

    def test_a_carrier_that_answers_is_never_cut(self):
        kinds = [Ssh] + [Dbclient] * bool(DBCLIENT) + [Paramiko] * bool(PARAMIKO)
        carriers = [self.carry(self.serve(echo).port, kind=kind) for kind in kinds]
        time.sleep(5 * KEEPALIVE_S + 3)
        for carrier in carriers:
            with self.subTest(kind=carrier.name):
                self.assertEqual(ask(carrier.address), b"?")

    def test_a_frozen_carrier_s_streams_are_reset_whatever_they_were_at(self):
        silent, other, pushing = self.serve(), self.serve(), self.serve(source(1, 1 << 30))
        carrier = self.carry(silent.port, other.port, pushing.port)
        addresses = carrier.addresses
        idle, _ = self.both(addresses[0], silent)
        writer, _ = self.both(addresses[1], other)
        reader = self.connect(addresses[2])
        receive_exactly(reader, 1 << 20)
        carrier.freeze()
        began = time.monotonic()
        writing = in_thread(send_until_error, writer)
        self.assertEqual(receive_until_reset(idle), b"")
        receive_until_reset(reader)
        self.assertIsInstance(writing.result(), ConnectionError)
        self.assertLess(time.monotonic() - began, 5 * KEEPALIVE_S + 3)

    def test_a_short_freeze_loses_nothing(self):
        service = self.serve()
        carrier = self.carry(service.port)
        client, server = self.both(carrier.address, service)
        carrier.freeze()
        sending = in_thread(send_pattern, client, 1, 4 << 20)
        time.sleep(2 * KEEPALIVE_S)
        carrier.thaw()
        check_pattern(server, 1, 4 << 20)
        sending.result()


@needs_ssh
class TheEnd(SshCase):
    def every_state(self, *options):
        self.daemon = self.start_ssh_daemon("--reserve", "60", *options)
        self.service = self.serve()
        carrier = self.carry(self.service.port)
        self.carry(self.serve(echo).port)                   # idle
        self.client, self.server = self.both(carrier.address, self.service)
        Token(self.daemon)                                  # waits for its first ssh
        dropped = self.carry(self.serve(echo).port)
        self.waiting = self.connect(self.drop(dropped))
        self.begin(Ssh).authenticated()                     # without a tunnel
        self.handshake = self.connect(self.daemon.ssh_address)
        return carrier

    def drop(self, carrier):
        address = carrier.address
        before = self.daemon.counts()["threads"]
        carrier.kill()
        wait_until(lambda: self.daemon.counts()["threads"] < before, "the carrier's thread has ended")
        return address

    def test_live_streams_finish_and_no_new_ones_begin(self):
        carrier = self.every_state("--drain", "20")
        address = carrier.address
        self.daemon.signal(signal.SIGTERM)
        self.daemon.log_line("drain")
        sending = in_thread(send_pattern, self.server, 1, 4 << 20)
        check_pattern(self.client, 1, 4 << 20)
        sending.result()
        began = time.monotonic()
        self.assertEqual(self.how_a_newcomer_ends(address), "reset")
        self.assertLess(time.monotonic() - began, PROMPTLY_S)
        self.client.sendall(b"thanks")
        self.client.close()
        self.assertEqual(receive_until_end(self.server), b"thanks")
        self.server.close()
        began = time.monotonic()
        self.assertEqual(self.daemon.wait(), 0, self.daemon.errors())
        self.assertLess(time.monotonic() - began, PROMPTLY_S)
        self.assertEqual(self.daemon.rest_of_output(), "")

    def how_a_newcomer_ends(self, address):
        try:
            with connect(address) as client:
                return how_it_ended(client)
        except (ConnectionRefusedError, ConnectionResetError):
            return "reset"

    def test_what_has_not_finished_when_draining_ends_is_reset(self):
        carrier = self.every_state("--drain", "1")
        began = time.monotonic()
        self.daemon.signal(signal.SIGTERM)
        self.assertEqual(receive_until_reset(self.client), b"")
        self.assertEqual(receive_until_reset(self.waiting), b"")
        self.assertEqual(self.daemon.wait(), 0, self.daemon.errors())
        self.assertLess(time.monotonic() - began, 8)
        self.assertNotEqual(carrier.wait(), 0)
        self.assertEqual(self.daemon.ports.listening(), [])

    def test_it_ends_at_once_when_no_stream_is_alive(self):
        daemon = self.start_ssh_daemon("--drain", "20", "--reserve", "60")
        carrier = self.carry(self.serve(echo).port, daemon=daemon)
        self.assertEqual(ask(carrier.address), b"?")
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        self.assertEqual(daemon.wait(), 0, daemon.errors())
        self.assertLess(time.monotonic() - began, PROMPTLY_S)
        carrier.wait()

    def test_a_second_signal_ends_it_at_once(self):
        self.every_state("--drain", "60")
        self.daemon.signal(signal.SIGTERM)
        self.daemon.log_line("drain")
        began = time.monotonic()
        self.daemon.signal(signal.SIGINT)
        self.assertGreaterEqual(self.daemon.wait(), 0, self.daemon.errors())
        self.assertLess(time.monotonic() - began, PROMPTLY_S)
        self.assertEqual(receive_until_reset(self.client), b"")

    def test_a_frozen_carrier_does_not_hold_up_the_end(self):
        carrier = self.every_state("--drain", "1")
        writing = in_thread(send_until_error, self.client)
        carrier.freeze()
        time.sleep(0.3)
        self.daemon.signal(signal.SIGTERM)
        self.assertEqual(self.daemon.wait(), 0, self.daemon.errors())
        self.assertIsInstance(writing.result(), ConnectionError)

    def test_a_killed_daemon_shows_a_reset_and_never_an_end(self):
        self.every_state("--drain", "1")
        self.daemon.process.kill()
        self.daemon.process.wait()
        for client in (self.client, self.waiting):
            self.assertEqual(receive_until_reset(client), b"")
        self.assertEqual(self.daemon.ports.listening(), [])

    def test_a_restarted_daemon_is_found_again_by_autossh(self):
        if not AUTOSSH:
            self.skipTest("autossh is not installed")
        folder, ports = self.temporary_folder(), PortBlock(4)
        first = self.start_ssh_daemon("--drain", "0", state_dir=folder, ports=ports)
        service = self.serve(echo)
        carrier = self.carry(service.port, kind=Autossh, daemon=first)
        self.assertEqual(ask(carrier.address), b"?")
        first.signal(signal.SIGTERM)
        self.assertEqual(first.wait(), 0, first.errors())
        second = self.start_ssh_daemon("--drain", "0", state_dir=folder, ports=ports,
                                       ssh_listen=f"127.0.0.1:{first.ssh_port}")
        wait_until(lambda: len(carrier.ports()) == 2, f"it has an address again: {carrier.errors()[-2000:]}")
        self.assertEqual(ask(("127.0.0.1", carrier.ports()[1])), b"?")
        second.signal(signal.SIGTERM)
        self.assertEqual(second.wait(), 0, second.errors())


@needs_ssh
class Cycles(SshDaemonCase):
    def test_carriers_that_come_and_go_leave_nothing(self):
        service = self.serve()
        for number in range(30):
            carrier = self.carry(service.port)
            client, server = self.both(carrier.address, service)
            if number % 3 == 0:
                carrier.kill()
                self.assertEqual(receive_until_reset(client), b"")
            elif number % 3 == 1:
                client.close()
                self.assertEqual(receive_until_end(server), b"")
                carrier.leave()
            else:
                carrier.leave()
                receive_until_reset(client)
        self.daemon.expect_rest()

    def test_memory_does_not_grow_with_carriers_that_have_gone(self):
        service = self.serve(source(1, 1 << 20))

        def some(count):
            for _ in range(count):
                carrier = self.carry(service.port)
                check_pattern(self.connect(carrier.address), 1, 1 << 20)
                carrier.leave()
            self.daemon.expect_rest()

        some(10)
        before_kib = self.daemon.resident_kib()
        some(25)
        self.assert_no_more_memory(before_kib, 4 << 10)


class HostKey(SshCase):
    def key_path(self, folder):
        return os.path.join(folder, "ssh_host_ed25519_key")

    @needs_ssh
    def test_it_is_made_once_and_kept(self):
        folder = self.temporary_folder()
        first = self.start_ssh_daemon("--drain", "0", state_dir=folder)
        with open(self.key_path(folder), "rb") as file:
            content = file.read()
        first.stop()
        second = self.start_ssh_daemon("--drain", "0", state_dir=folder)
        self.assertEqual(second.fingerprint, first.fingerprint)
        second.stop()
        with open(self.key_path(folder), "rb") as file:
            self.assertEqual(file.read(), content)

    def test_another_folder_has_another_key(self):
        daemons = [self.start_ssh_daemon("--drain", "0") for _ in range(2)]
        self.assertNotEqual(*(daemon.fingerprint for daemon in daemons))
        for daemon in daemons:
            daemon.stop()

    def test_nobody_else_may_read_it_whatever_the_umask(self):
        for mask in (0o000, 0o077):
            with self.subTest(umask=oct(mask)):
                before = os.umask(mask)
                try:
                    daemon = self.start_ssh_daemon("--drain", "0")
                finally:
                    os.umask(before)
                mode = os.stat(self.key_path(daemon.state_dir)).st_mode
                self.assertTrue(stat.S_ISREG(mode))
                self.assertEqual(stat.S_IMODE(mode), 0o600)
                daemon.stop()

    def test_its_folder_is_made_for_its_owner_alone(self):
        folder = os.path.join(self.temporary_folder(), "new")
        daemon = self.start_ssh_daemon("--drain", "0", state_dir=folder)
        self.assertEqual(stat.S_IMODE(os.stat(folder).st_mode), 0o700)
        daemon.stop()

    @needs_ssh
    def test_one_that_openssh_made_is_taken(self):
        folder = self.temporary_folder()
        make_key(folder, "ssh_host_ed25519_key")
        told = run([ssh_harness.KEYGEN, "-l", "-f", self.key_path(folder)]).stdout
        daemon = self.start_ssh_daemon("--drain", "0", state_dir=folder)
        self.assertEqual(told.split()[1], daemon.fingerprint)
        daemon.stop()

    def test_a_signal_amid_the_first_start_leaves_a_whole_key_or_none(self):
        ports = PortBlock(4)
        self.addCleanup(ports.release)
        for milliseconds in range(0, 60, 6):
            folder = self.temporary_folder()
            daemon = harness.start([TUNNELD, "--listen", "127.0.0.1:0", "--ports", str(ports), "--ssh-listen",
                                    "127.0.0.1:0", "--state-dir", folder],
                                   stdout=harness.subprocess.DEVNULL, stderr=harness.subprocess.PIPE)
            time.sleep(milliseconds / 1000)
            daemon.kill()
            daemon.communicate(timeout=harness.WAIT_S)
            if os.path.exists(self.key_path(folder)):
                self.assertGreater(os.stat(self.key_path(folder)).st_size, 100)
                again = self.start_ssh_daemon("--drain", "0", state_dir=folder)
                again.stop()


class BadConfiguration(SshCase):
    def assert_refused(self, *arguments, pieces=(), status=None):
        done = run([TUNNELD, "--listen", "127.0.0.1:0", *arguments], timeout_s=10)
        self.assertIn(done.returncode, [status] if status else [1, 2], done.stderr)
        self.assertEqual(done.stdout, "")
        for piece in pieces:
            self.assertIn(piece, done.stderr)

    def with_ssh(self, *arguments, state_dir=None):
        return ("--ssh-listen", "127.0.0.1:0", "--state-dir", state_dir or self.temporary_folder(), *arguments)

    def test_a_bad_value_is_named_with_its_option(self):
        for option, value in (("ssh-listen", "8022"), ("ssh-listen", "127.0.0.1"),
                              ("ssh-listen", "127.0.0.1:70000"), ("ssh-listen", "nowhere:22"),
                              ("reserve", "-1"), ("reserve", "soon"), ("reveal-clients", "maybe"),
                              ("streams-per-tunnel", "0"), ("streams-per-tunnel", "many"),
                              ("ssh-handshakes", "0"), ("ssh-handshakes", "x"),
                              ("ssh-handshakes-per-address", "-1"), ("ssh-login-timeout", "0"),
                              ("ssh-login-timeout", "1.5")):
            with self.subTest(option=option, value=value):
                self.assert_refused(*self.with_ssh(f"--{option}={value}"), pieces=(option, value))

    def test_help_names_every_option(self):
        told = run([TUNNELD, "--help"]).stdout
        for option in ("ssh-listen", "state-dir", "ssh-authorized-keys", "reserve", "reveal-clients",
                       "streams-per-tunnel", "ssh-handshakes", "ssh-handshakes-per-address",
                       "ssh-login-timeout"):
            self.assertIn(f"--{option}", told)

    def test_a_busy_port_is_told(self):
        holder = harness.listen()
        self.addCleanup(holder.close)
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        self.assert_refused("--ssh-listen", address, "--state-dir", self.temporary_folder(),
                            pieces=(address, "in use"))

    def test_an_address_that_is_not_here_is_told(self):
        self.assert_refused("--ssh-listen", "192.0.2.1:0", "--state-dir", self.temporary_folder(),
                            "--open-to-all", pieces=("192.0.2.1",))

    def test_a_folder_that_can_not_be_there_is_told(self):
        self.assert_refused(*self.with_ssh(state_dir="/nowhere/at/all"), pieces=("/nowhere/at/all",))

    def test_a_folder_that_is_a_file_is_told(self):
        path = os.path.join(self.temporary_folder(), "file")
        with open(path, "w", encoding="ascii"):
            pass
        self.assert_refused(*self.with_ssh(state_dir=path), pieces=(path,))

    def bad_key(self, content, mode=0o600):
        folder = self.temporary_folder()
        path = os.path.join(folder, "ssh_host_ed25519_key")
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, mode)
        self.assert_refused(*self.with_ssh(state_dir=folder), pieces=("ssh_host_ed25519_key",))
        with open(path, "rb") as file:
            self.assertEqual(file.read(), content)      # whatever it is, it is not lost

    def test_a_host_key_that_is_none_is_told_and_left_alone(self):
        for content in (b"", b"nonsense\n", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"
                        b"-----END OPENSSH PRIVATE KEY-----\n", os.urandom(5000)):
            with self.subTest(content=content[:40]):
                self.bad_key(content)

    @unittest.skipUnless(ssh_harness.KEYGEN, "ssh-keygen is not installed")
    def test_a_host_key_of_another_kind_or_that_others_may_read_is_told(self):
        folder = self.temporary_folder()
        for kind, mode in (("rsa", 0o600), ("ed25519", 0o644)):
            with self.subTest(kind=kind, mode=oct(mode)):
                path, _ = make_key(folder, kind, kind)
                with open(path, "rb") as file:
                    self.bad_key(file.read(), mode)

    def test_a_bad_file_of_keys_is_told_with_its_line(self):
        folder = self.temporary_folder()
        path = os.path.join(folder, "authorized_keys")
        self.assert_refused(*self.with_ssh("--ssh-authorized-keys", path), pieces=(path, "No such file"))
        with open(path, "w", encoding="ascii") as file:
            file.write("# ours\n\nnonsense\n")
        os.chmod(path, 0o600)
        self.assert_refused(*self.with_ssh("--ssh-authorized-keys", path), pieces=(path + ":3",), status=2)

    def test_ssh_for_everybody_on_a_public_address_needs_to_be_said(self):
        self.assert_refused("--ssh-listen", "0.0.0.0:0", "--state-dir", self.temporary_folder(),
                            pieces=("0.0.0.0", "open-to-all"))


if __name__ == "__main__":
    harness.main()
