#!/usr/bin/python3 -B
"""Who gets an address of ssh back, after a drop and after a restart of the daemon."""

import signal
import time
import unittest

import harness
from harness import fault_of, is_refused, receive_exactly, receive_until_reset, wait_until
from ssh_harness import (DBCLIENT, SSH, Autossh, Dbclient, Paramiko, Ssh, SshCase, Token, ask, echo,
                         needs_autossh, needs_paramiko, needs_ssh)

KEEPALIVE_S = 1
PROMPTLY_S = 20     # for a busy machine; what is waited for would last longer, or for ever


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

    def test_clients_that_come_as_the_connection_is_lost_wait_and_are_served(self):
        service = self.serve(echo)
        carrier = self.carry(service.port, login="jane")
        address = carrier.address
        self.daemon.freeze()            # then it finds the clients and the loss at once
        carrier.kill()
        waiting = [self.connect(address) for _ in range(3)]
        for number, client in enumerate(waiting):
            client.sendall(b"%d" % number)
        self.daemon.thaw()
        self.assertEqual(self.carry(service.port, login="jane").address, address)
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
        self.assertLess(time.monotonic() - began, 5 * KEEPALIVE_S + PROMPTLY_S)
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
    options = ("--reserve", "8", "--attach-timeout", "60")

    def test_the_pair_comes_back_and_the_token_is_dead(self):
        service, token = self.serve(echo), Token(self.daemon)
        carrier = self.carry(service.port, login=token.login)
        carrier.ready()
        dropped = time.monotonic()
        self.drop(carrier)
        waiting = self.connect(token.address)
        self.assertEqual(receive_until_reset(waiting), b"")
        self.assertGreater(time.monotonic() - dropped, 7.5)
        self.assertLess(time.monotonic() - dropped, 8 + PROMPTLY_S)
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
            time.sleep(2.5)
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
        wait_until(lambda: not self.daemon.ports.listening(), "the pairs are back")
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


class SilentLoss(LifeCase):
    options = (*LifeCase.options, "--keepalive", str(3 * KEEPALIVE_S))      # two logins come before

    @needs_autossh
    def test_who_asks_for_its_port_regains_it_once_a_silent_loss_is_noticed(self):
        service = self.serve(echo)
        lost = self.carry(service.port, login="jane")
        lost.freeze()
        asks_for_any = self.carry(service.port, login="jane")
        self.assertNotEqual(asks_for_any.address, lost.address)
        asks_for_its_own = self.begin(Autossh, f"{lost.address[1]}:127.0.0.1:{service.port}", login="jane")
        asks_for_its_own.said("remote port forwarding failed for listen port")
        self.daemon.log_line("is gone from ssh: the server does not answer any more")
        self.assertEqual(asks_for_its_own.address, lost.address)
        self.assertEqual(ask(lost.address), b"?")
        asks_for_its_own.clean_up()
        lost.clean_up()
        self.end()


if __name__ == "__main__":
    harness.main()
