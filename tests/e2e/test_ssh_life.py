#!/usr/bin/python3 -B
"""The life of ssh's tunnels: how long they wait, when they count as lost, and how the daemon
ends with them."""

import signal
import socket
import time

import harness
from harness import (PortBlock, connect, fault_of, how_it_ended, in_thread, is_refused, receive_exactly,
                     receive_until_end, receive_until_reset, send_until_error, wait_until)
from ssh_harness import (AUTOSSH, DBCLIENT, PARAMIKO, Autossh, Dbclient, Paramiko, Ssh, SshCase,
                         SshDaemonCase, Token, ask, check_pattern, echo, needs_ssh, send_pattern, source)

KEEPALIVE_S = 1
PROMPTLY_S = 20     # for a busy machine; what is waited for would last longer, or for ever


@needs_ssh
class AttachTimeout(SshDaemonCase):
    options = ("--attach-timeout", "8")

    def setUp(self):
        self.daemon.known_hosts         # which takes its time, too

    def test_a_token_that_nobody_uses_dies_and_its_pair_comes_back(self):
        began = time.monotonic()
        token = Token(self.daemon)
        client = self.connect(token.address)
        client.sendall(b"anybody?")
        self.assertEqual(receive_until_reset(client), b"")
        self.assertGreater(time.monotonic() - began, 7.5)
        self.assertLess(time.monotonic() - began, 8 + PROMPTLY_S)
        self.assertTrue(is_refused(token.address))
        self.assertIn("unknown tunnel",
                      fault_of(self.daemon.rpc().Tunnel.getTunnelAddress, token.uri).faultString)
        self.assertIn("Permission denied", self.begin(Ssh, 9, login=token.login).refused()[1])

    def test_an_ssh_that_never_asks_for_a_forward_does_not_lengthen_it(self):
        token = Token(self.daemon)
        self.begin(Ssh, login=token.login).authenticated()
        wait_until(lambda: token.address[1] not in self.daemon.ports.listening(), "the pair is back")

    def test_who_is_attached_outlives_it(self):
        token = Token(self.daemon)
        carrier = self.carry(self.serve(echo).port, login=token.login)
        carrier.ready()
        time.sleep(9)
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
        self.assertLess(time.monotonic() - began, 5 * KEEPALIVE_S + PROMPTLY_S)

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
class IdleTimeout(SshDaemonCase):
    IDLE_S = 2
    options = ("--idle-timeout", str(IDLE_S))

    def assert_reset_when_idle(self, client, since):
        self.assertEqual(receive_until_reset(client), b"")
        self.assertGreater(time.monotonic() - since, self.IDLE_S - 0.2)
        self.assertLess(time.monotonic() - since, self.IDLE_S + PROMPTLY_S)

    def test_a_client_is_reset_when_it_was_silent_for_so_long_and_no_sooner(self):
        address = self.carry(self.serve(echo).port).address
        talker, silent = (self.connect(address) for _ in range(2))
        began = time.monotonic()
        silent.sendall(b"?")
        self.assertEqual(receive_exactly(silent, 1), b"?")
        beside = in_thread(self.assert_reset_when_idle, silent, began)
        while time.monotonic() < began + 2 * self.IDLE_S:
            since = time.monotonic()
            talker.sendall(b"!")
            self.assertEqual(receive_exactly(talker, 1), b"!")
            time.sleep(0.1)
        beside.result()
        self.assert_reset_when_idle(talker, since)


@needs_ssh
class Linger(SshDaemonCase):
    LINGER_S = 4
    options = ("--linger", str(LINGER_S))

    def test_who_has_ended_waits_so_long_for_the_other_who_is_silent(self):
        service = self.serve()
        address = self.carry(service.port).address
        for first in (0, 1):
            with self.subTest(first=("client", "server")[first]):
                pair = self.both(address, service)
                time.sleep(self.LINGER_S + 0.5)     # silence is none before one of them has ended
                began = time.monotonic()
                pair[first].shutdown(socket.SHUT_WR)
                self.assertEqual(receive_until_end(pair[1 - first]), b"")
                how_it_ended(pair[first])
                self.assertGreater(time.monotonic() - began, self.LINGER_S - 0.2)
                self.assertLess(time.monotonic() - began, self.LINGER_S + PROMPTLY_S)


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
        carrier = self.every_state("--drain", "60")
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
        self.daemon.signal(signal.SIGTERM)
        self.assertEqual(receive_until_reset(self.client), b"")
        self.assertEqual(receive_until_reset(self.waiting), b"")
        self.assertEqual(self.daemon.wait(), 0, self.daemon.errors())
        self.assertNotEqual(carrier.wait(), 0)
        self.assertEqual(self.daemon.ports.listening(), [])

    def test_it_ends_at_once_when_no_stream_is_alive(self):
        daemon = self.start_ssh_daemon("--drain", "60", "--reserve", "60")
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
        ports = PortBlock(4)
        self.addCleanup(ports.release)
        where = {"ssh_listen": f"127.0.0.1:{self.closed_port()}", "ports": ports,
                 "state_dir": self.temporary_folder()}
        first = self.start_ssh_daemon("--drain", "0", **where)
        service = self.serve(echo)
        carrier = self.carry(service.port, kind=Autossh, daemon=first)
        self.assertEqual(ask(carrier.address), b"?")
        first.signal(signal.SIGTERM)
        self.assertEqual(first.wait(), 0, first.errors())
        second = self.start_ssh_daemon("--drain", "0", **where)
        wait_until(lambda: len(carrier.ports()) == 2, f"it has an address again: {carrier.errors()[-2000:]}")
        self.assertEqual(ask(("127.0.0.1", carrier.ports()[1])), b"?")
        second.signal(signal.SIGTERM)
        self.assertEqual(second.wait(), 0, second.errors())


@needs_ssh
class FewDescriptors(SshDaemonCase):
    """As many as 100 tunnels and 64 logins take, and the 64 that clients have at least."""

    options = ("--max-tunnels", "100")
    how = {"most_descriptors": 968}
    pairs = 100

    def test_clients_for_whom_no_descriptor_is_left_wait_until_others_have_gone(self):
        service = self.serve(echo)
        one, other = (self.carry(service.port).address for _ in range(2))
        crowd = [self.connect(one) for _ in range(63)]      # their tunnel takes one besides
        for client in crowd:
            client.sendall(b"?")
        for client in crowd:
            self.assertEqual(receive_exactly(client, 1), b"?")
        late = [self.connect(one), self.connect(other)]
        for client in late:
            client.sendall(b"?")
        for client in late:
            client.settimeout(0.3)
            self.assertRaises(TimeoutError, client.recv, 1)
            client.settimeout(harness.WAIT_S)
        for client in crowd:
            client.close()
        for client in late:
            self.assertEqual(receive_exactly(client, 1), b"?")


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

    def test_memory_that_many_carriers_took_at_once_goes_back(self):
        """Each in a thread of its own, for whose allocations there are arenas of their own."""
        service = self.serve(source(1, 4 << 20))
        before_kib = self.daemon.resident_kib()
        carriers = [self.carry(service.port) for _ in range(16)]
        clients = [self.connect(carrier.address, receive_buffer=16384) for carrier in carriers]
        wait_until(lambda: self.daemon.resident_kib() > before_kib + (8 << 10), "bytes wait for the clients")
        for checking in [harness.in_thread(check_pattern, client, 1, 4 << 20) for client in clients]:
            checking.result()
        for carrier in carriers:
            carrier.leave()
        self.daemon.expect_rest()
        self.assert_no_more_memory(before_kib, 6 << 10)


if __name__ == "__main__":
    harness.main()
