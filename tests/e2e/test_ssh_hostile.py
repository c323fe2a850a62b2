#!/usr/bin/python3 -B
"""Ssh clients that are let in, and then do their worst: the daemon lives on, small and
at the service of others, and afterwards there is nothing left of them."""

import socket
import time

import harness
import ssh_harness
from harness import (come_and_look, connect, how_it_ended, in_thread, receive_until_end,
                     receive_until_reset, reset, send_until_error, visit_until_reset)
from ssh_harness import Hostile, SshDaemonCase, ask, echo, needs_paramiko, source


@needs_paramiko
class HostileCase(SshDaemonCase):
    MOST_KIB = 24 << 10
    options = ("--keepalive", "2")

    def setUp(self):
        self.before_kib = self.daemon.resident_kib()

    def let_loose(self, what, *arguments):
        return self.begin(Hostile, what, *arguments)

    def port_of(self, hostile):
        return (self.daemon.host, int(hostile.expect(r"allocated (\d+)")[1]))

    def assert_well(self):
        self.assertIsNone(self.daemon.process.poll(), self.daemon.errors()[-20000:])
        self.assert_no_more_memory(self.before_kib, self.MOST_KIB)
        self.assert_serves()

    def finish(self, hostile, done=True):
        if done:
            hostile.expect("done")
        self.assert_well()
        hostile.finish()
        self.daemon.expect_rest()


class HostileRequests(HostileCase):
    def test_requests_that_nobody_knows(self):
        hostile = self.let_loose("unknown_requests", 50)
        hostile.expect("refused")
        address = self.port_of(hostile)
        hostile.expect("done")
        self.assertIn(address[1], self.daemon.ports.listening())
        self.finish(hostile, done=False)

    def test_cancelling_what_is_not_one_s_own(self):
        service = self.serve(echo)
        carrier = self.carry(service.port)
        hostile = self.let_loose("cancels", carrier.address[1])
        for _ in range(6):
            hostile.expect("refused")
        self.port_of(hostile)
        hostile.expect("granted")
        hostile.expect("refused")
        self.assertEqual(ask(carrier.address), b"?")
        carrier.leave()
        self.finish(hostile)

    def test_a_forward_that_is_asked_for_twice(self):
        hostile = self.let_loose("the_same_forward_twice")
        self.port_of(hostile)
        for _ in range(3):
            hostile.expect("refused")
        self.finish(hostile)

    def test_forwards_without_end(self):
        service = self.serve(echo)
        carrier = self.carry(service.port)
        hostile = self.let_loose("forwards_without_end", 2 * self.pairs)
        hostile.expect(f"granted {self.pairs - 1}")
        hostile.expect("done")
        self.assertEqual(ask(carrier.address), b"?")
        carrier.leave()
        hostile.finish()
        self.daemon.expect_rest()
        self.assert_well()

    def test_forwards_that_come_and_go(self):
        hostile = self.let_loose("forwards_that_come_and_go", 300)
        self.port_of(hostile)
        self.finish(hostile)

    def test_forwards_that_make_no_sense(self):
        self.finish(self.let_loose("strange_requests"))

    def test_requests_whose_answers_nobody_reads(self):
        for what in ("requests_unread", "pings_unread", "forwards_unread", "opens_unread"):
            with self.subTest(what=what):
                hostile = self.let_loose(what)
                time.sleep(2)
                self.assert_well()          # amid it
                self.finish(hostile)

    def test_logging_in_again(self):
        self.finish(self.let_loose("logins_again", "t-" + "a" * 26))


class HostileChannels(HostileCase):
    def test_sessions_without_end(self):
        hostile = self.let_loose("sessions_without_end", 2000)
        self.assertLess(int(hostile.expect(r"granted (\d+)")[1]), 100)
        self.finish(hostile)

    def test_shells_without_end(self):
        self.finish(self.let_loose("shells_without_end", 200))

    def test_opens_of_every_kind_at_once(self):
        self.finish(self.let_loose("opens_at_once", 5000))

    def test_a_shell_that_is_talked_to_without_end(self):
        hostile = self.let_loose("a_shell_that_is_talked_to", 30)
        self.port_of(hostile)
        self.finish(hostile)

    def test_a_client_s_window_is_ignored(self):
        hostile = self.let_loose("window_is_ignored", 96)
        client = self.connect(self.port_of(hostile), receive_buffer=65536)
        self.assertRegex(hostile.line(), "sent|thrown out")
        hostile.expect("done")
        self.assert_well()
        hostile.finish()
        how_it_ended(client)
        self.daemon.expect_rest()

    def test_windows_beyond_all_bounds(self):
        hostile = self.let_loose("windows_are_huge")
        client = self.connect(self.port_of(hostile))
        hostile.expect("done")
        writing = in_thread(send_until_error, client)
        time.sleep(2)
        self.finish(hostile, done=False)
        self.assertIsInstance(writing.result(), ConnectionError)

    def test_packets_of_a_byte_or_none(self):
        hostile = self.let_loose("tiny_packets", 0, 1, 9, 11)
        address = self.port_of(hostile)
        hostile.expect("done")
        clients = [self.connect(address) for _ in range(4)]
        talking = [in_thread(self.how_a_talker_ends, client) for client in clients]
        time.sleep(1)
        self.finish(hostile, done=False)
        self.assertEqual([each.result() for each in talking], ["reset"] * 4)

    def how_a_talker_ends(self, client):
        try:
            client.sendall(bytes(20000))
        except ConnectionError:         # which tells of the reset, once
            return "reset"
        return how_it_ended(client)

    def test_packets_that_have_room_for_their_header_alone(self):
        hostile = self.let_loose("tiny_packets", 10)
        address = self.port_of(hostile)
        hostile.expect("done")
        client = self.connect(address)
        client.sendall(b"?")
        self.assertEqual(how_it_ended(client), "reset")
        self.finish(hostile, done=False)

    def test_a_session_whose_packets_have_room_for_their_header_alone(self):
        before = len(self.daemon.errors())
        hostile = self.let_loose("a_session_of_tiny_packets", 10)
        self.port_of(hostile)
        self.daemon.log_line("is gone from ssh: the server takes no packets", before)
        self.finish(hostile)

    def test_ends_and_closes_in_odd_orders(self):
        hostile = self.let_loose("odd_orders")
        come_and_look(self.port_of(hostile), None)
        self.finish(hostile)

    def test_channels_that_are_none(self):
        self.finish(self.let_loose("channels_that_are_none"))

    def test_a_close_without_an_end_never_looks_complete(self):
        hostile = self.let_loose("a_close_alone")
        visit_until_reset(self.port_of(hostile))
        self.finish(hostile)

    def test_an_end_and_a_close_at_once_are_an_end(self):
        hostile = self.let_loose("an_end_and_a_close")
        client = self.connect(self.port_of(hostile))
        self.assertEqual(receive_until_end(client), b"all of it")
        self.finish(hostile)

    def test_closes_that_are_never_answered(self):
        hostile = self.let_loose("closes_unanswered")
        address = self.port_of(hostile)
        hostile.expect("done")
        for number in range(600):       # more than streams are allowed
            try:
                client = connect(address)
            except ConnectionError:
                break
            (reset if number % 2 else socket.socket.close)(client)
        self.finish(hostile, done=False)

    def test_clients_that_are_never_answered(self):
        hostile = self.let_loose("opens_unanswered")
        address = self.port_of(hostile)
        hostile.expect("done")
        clients = [self.connect(address) for _ in range(20)]
        writing = [in_thread(send_until_error, client) for client in clients[:5]]
        time.sleep(1)
        self.assert_well()
        self.finish(hostile, done=False)
        for each in writing:
            self.assertIsInstance(each.result(), ConnectionError)
        for client in clients[5:]:
            self.assertEqual(receive_until_reset(client), b"")


class HostileMessages(HostileCase):
    def test_messages_of_chance(self):
        for seed in range(12):
            with self.subTest(seed=seed):
                hostile = self.let_loose("nonsense", seed, 400)
                self.port_of(hostile)
                hostile.expect("done")
                hostile.finish()
        self.assert_well()
        self.daemon.expect_rest()

    def test_key_exchanges_amiss(self):
        self.finish(self.let_loose("key_exchanges_amiss"))

    def test_key_exchanges_without_end(self):
        self.finish(self.let_loose("key_exchanges_without_end", 100))

    def test_a_key_exchange_that_is_begun_and_not_gone_on_with(self):
        hostile = self.let_loose("a_key_exchange_begun")
        address = self.port_of(hostile)
        hostile.expect("done")
        clients = []
        for _ in range(10):
            try:
                clients.append(self.connect(address))
            except ConnectionError:
                break
        writing = [in_thread(send_until_error, client) for client in clients]
        for each in writing:
            self.assertIsInstance(each.result(), ConnectionError)       # as of any carrier that is dead
        self.finish(hostile, done=False)

    def test_a_key_exchange_that_is_drawn_out_ends_with_its_carrier(self):
        hostile = self.let_loose("a_key_exchange_drawn_out")
        client = self.connect(self.port_of(hostile))
        hostile.expect("there")
        client.settimeout(75)
        writing = in_thread(send_until_error, client)
        time.sleep(5)
        self.assert_well()                  # amid it
        self.assertIsInstance(writing.result(75), ConnectionError)
        hostile.expect("done")
        self.finish(hostile, done=False)


@needs_paramiko
class Bystanders(SshDaemonCase):
    """A carrier of bulk and one of small things, while the worst of the above go on."""

    def test_a_live_transfer_does_not_suffer_from_hostile_neighbours(self):
        pushing, echoing = self.serve(source(5, 16 << 20)), self.serve(echo)
        addresses = self.carry(pushing.port, echoing.port).addresses
        hostiles = [self.begin(Hostile, *words) for words in
                    (("requests_unread",), ("opens_unread",), ("nonsense", 3, 2000), ("sessions_without_end", 500))]
        checking = in_thread(ssh_harness.check_pattern, self.connect(addresses[0]), 5, 16 << 20)
        began = time.monotonic()
        for _ in range(20):
            self.assertEqual(ask(addresses[1], b"x" * 1000), b"x" * 1000)
        self.assertLess(time.monotonic() - began, 30)
        checking.result()
        for hostile in hostiles:
            hostile.kill()
            self.assertNotRegex(hostile.errors(), "AssertionError")


if __name__ == "__main__":
    harness.main()
