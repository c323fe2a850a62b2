#!/usr/bin/python3 -B
"""What --rate does to the streams of an ssh tunnel."""

import contextlib
import socket
import time

import harness
from harness import Pattern, how_it_ended, in_thread, receive_until_end, reset
from ssh_harness import check_pattern, discard, echo, needs_ssh, source
from test_ssh_slow import SlowCase


@needs_ssh
class Rate(SlowCase):
    RATE = 1_000_000
    options = ("--rate", str(RATE))

    def test_at_a_limited_rate_all_arrives_in_the_time_that_it_takes_and_steadily(self):
        amount = 3 * self.RATE
        # Nobody else is there whose bytes could wake the carrier.
        address = self.carry(self.serve(source(1, amount)).port).address
        began = last = time.monotonic()
        client = self.connect(address)
        pattern, gaps_s = Pattern(1), []
        while piece := client.recv(65536):
            pattern.check(piece)
            now = time.monotonic()
            gaps_s.append(now - last)
            last = now
        self.assertEqual(pattern.position, amount)
        self.assertLess(max(gaps_s), 8)         # it is no question to the server that wakes it
        self.assertGreater(last - began, (amount - 1.5 * self.RATE) / self.RATE)     # some of it is credit
        self.assertLess(last - began, amount / self.RATE + 10)

    def test_at_a_limited_rate_a_tunnel_s_bulk_holds_up_no_other_tunnel(self):
        amount = 2 * self.RATE
        pushing, echoing = self.carry(self.serve(source(1, amount)).port, self.serve(echo).port).addresses
        with self.bystander(echoing):
            check_pattern(self.connect(pushing), 1, amount)

    def test_at_a_limited_rate_a_client_s_bytes_arrive_in_the_time_that_it_takes(self):
        amount = 3 * self.RATE
        client = self.connect(self.carry(self.serve(discard).port).address)
        began = time.monotonic()
        client.sendall(bytes(amount))
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(receive_until_end(client), b"%d" % amount)
        self.assertLess(time.monotonic() - began, amount / self.RATE + 10)


@needs_ssh
class ClientsShareARate(SlowCase):
    RATE = 200_000
    SECONDS = 6
    options = ("--rate", str(RATE))

    def streams(self, count):
        """The ends of so many: each a client's, and its server's."""
        service = self.serve()
        address = self.carry(service.port).address
        return [self.both(address, service) for _ in range(count)]

    @staticmethod
    def pour(into):
        with contextlib.suppress(OSError):
            while True:
                into.sendall(bytes(65536))

    @staticmethod
    def count(connection, until):
        """How many bytes come until that time."""
        count = 0
        while (left_s := until - time.monotonic()) > 0:
            connection.settimeout(left_s)
            with contextlib.suppress(TimeoutError):
                count += len(connection.recv(1 << 16))
        return count

    def assert_shared(self, flows):
        """Each flow, from one end to the other, gets half of its fair share or more."""
        until = time.monotonic() + self.SECONDS
        counting = [in_thread(self.count, to, until) for _, to in flows]
        for whence, _ in flows:
            in_thread(self.pour, whence)
        counts = [each.result() for each in counting]
        self.assertGreater(min(counts), sum(counts) / len(flows) / 2, counts)
        self.assertGreater(sum(counts), self.RATE * self.SECONDS / 3, counts)
        self.assertLess(sum(counts), self.RATE * (self.SECONDS + 2), counts)
        for _, to in flows:
            reset(to)

    def test_downloads_at_once_get_about_the_same(self):
        self.assert_shared([(server, client) for client, server in self.streams(3)])

    def test_uploads_at_once_get_about_the_same(self):
        self.assert_shared(self.streams(3))

    def test_an_upload_beside_downloads_gets_about_the_same(self):
        (client, server), *others = self.streams(3)
        self.assert_shared([(client, server)] + [(other, client) for client, other in others])

    def test_both_ways_of_one_client_get_about_the_same(self):
        (client, server), = self.streams(1)
        self.assert_shared([(client, server), (server, client)])

    def test_a_client_with_small_messages_is_answered_soon_beside_downloads(self):
        (talker, talked_to), *others = self.streams(3)
        in_thread(echo, talked_to)
        for client, server in others:
            in_thread(self.pour, server)
            in_thread(self.pour, client)
            in_thread(self.count, client, time.monotonic() + 60)
            in_thread(self.count, server, time.monotonic() + 60)
        time.sleep(2)                   # the second's worth that passes at once has passed
        talker.settimeout(10)
        for number in range(20):
            self.assertEqual(self.echo_of(talker, b"%08d" % number), b"%08d" % number)
        for client, server in others:
            reset(client)


@needs_ssh
class IdleAtARate(SlowCase):
    """Each client has its turn after far more than the idle time."""

    COUNT, AMOUNT = 250, 100
    options = ("--rate", "2000", "--idle-timeout", "3")

    def test_a_client_whose_bytes_the_rate_holds_back_is_not_idle(self):
        address = self.carry(self.serve(source(1, self.AMOUNT)).port).address
        clients = [self.connect(address) for _ in range(self.COUNT)]
        for checking in [in_thread(check_pattern, client, 1, self.AMOUNT) for client in clients]:
            checking.result()

    def test_a_client_whose_bytes_the_rate_lets_nobody_read_is_not_idle(self):
        address = self.carry(self.serve(discard).port).address
        clients = [self.connect(address) for _ in range(self.COUNT)]
        for client in clients:
            client.sendall(bytes(self.AMOUNT))
            client.shutdown(socket.SHUT_WR)
        for reading in [in_thread(receive_until_end, client) for client in clients]:
            self.assertEqual(reading.result(), b"%d" % self.AMOUNT)

    def test_a_silent_client_beside_them_is_idle(self):
        service = self.serve()
        address = self.carry(service.port).address
        silent, _ = self.both(address, service)
        (client, server), (other, others_server) = (self.both(address, service) for _ in range(2))
        in_thread(ClientsShareARate.pour, server)
        in_thread(ClientsShareARate.pour, other)
        silent.settimeout(15)
        self.assertEqual(how_it_ended(silent), "reset")
        self.assertGreater(ClientsShareARate.count(client, time.monotonic() + 3), 0)
        self.assertGreater(ClientsShareARate.count(others_server, time.monotonic() + 3), 0)


if __name__ == "__main__":
    harness.main()
