#!/usr/bin/python3 -B
"""Within the rate of a webmux tunnel everybody has a share, and nobody who has gone."""

import time

import harness
from harness import in_thread, receive_exactly, receive_until_reset, reset
from webmux_harness import WebmuxCase, exchange

RATE = 200_000


class RateCase(WebmuxCase):
    options = ("--rate", str(RATE))

    def setUp(self):
        super().setUp()
        self.tunnel = self.open_webmux()
        self.carrier = self.tunnel.carrier()

    def both(self, carrier=None, **how):
        """A client, and the server's end of its stream."""
        client = self.tunnel.connect(**how)
        return client, (carrier or self.carrier).accept()

    def push(self, stream):
        """More than passes during a test."""
        stream.send(bytes(60 * RATE), and_wait=False)

    def use_up(self):
        """What may pass at once."""
        client, stream = self.both()
        stream.send(bytes(RATE), and_wait=False)
        receive_exactly(client, RATE)


class Rate(RateCase):
    def assert_shared(self, ends, receive, began):
        """What comes at some ends for four seconds; bytes may pass since it began."""
        until = time.monotonic() + 4

        def count(end):
            received = 0
            while time.monotonic() < until:
                received += receive(end)
            return received

        counts = [each.result() for each in [in_thread(count, end) for end in ends]]
        for each in counts:
            self.assertGreater(each, sum(counts) / len(counts) / 2, f"of {counts}")
        self.assertLess(sum(counts), RATE * (time.monotonic() - began + 1))

    def test_it_holds_all_streams_back_together(self):
        (down, pushing), (pulling, up) = self.both(), self.both()
        began = time.monotonic()
        senders = [in_thread(pushing.send, bytes(RATE)), in_thread(pulling.sendall, bytes(RATE))]
        receive_exactly(down, RATE)
        up.receive_exactly(RATE)
        self.assertGreater(time.monotonic() - began, 0.9)
        for sender in senders:
            sender.result()

    def test_it_loses_nothing(self):
        exchanges = [in_thread(exchange, stream, client, RATE // 2, number)
                     for number, (client, stream) in enumerate([self.both() for _ in range(3)])]
        for each in exchanges:
            each.result()

    def test_downloads_have_equal_shares(self):
        self.use_up()
        began, clients = time.monotonic(), []
        for _ in range(3):
            client, stream = self.both()
            self.push(stream)
            clients.append(client)
        self.assert_shared(clients, lambda client: len(client.recv(65536)), began)

    def test_uploads_have_equal_shares(self):
        self.use_up()
        began, streams = time.monotonic(), []
        for _ in range(3):
            client, stream = self.both()
            client.setblocking(False)
            client.send(bytes(60 * RATE))
            streams.append(stream)
        self.assert_shared(streams, lambda stream: len(stream.recv()), began)

    def test_who_sends_all_the_time_keeps_nobody_else_waiting(self):
        carriers = [self.carrier, self.tunnel.carrier()]
        (busy, pushing), (asking, answering) = [self.both(carrier) for carrier in carriers]
        self.push(pushing)
        reading = in_thread(receive_exactly, busy, 4 * RATE)
        began = time.monotonic()
        for _ in range(5):
            for client, stream in ((busy, pushing), (asking, answering)):
                client.sendall(b"?")
                stream.receive_exactly(1)
            answering.send(b"!")
            receive_exactly(asking, 1)
        self.assertLess(time.monotonic() - began, 8)    # and not until all is through
        reading.result()

    def test_a_newcomer_waits_for_no_download_that_began_before(self):
        for _ in range(3):
            self.push(self.both()[1])
        client, stream = self.both()
        began = time.monotonic()
        stream.send(b"hello")
        receive_exactly(client, 5)
        self.assertLess(time.monotonic() - began, 2)

    def test_what_was_for_a_client_that_has_gone_takes_nothing_from_the_others(self):
        self.use_up()
        for _ in range(10):
            gone, stream = self.both()
            self.push(stream)
            receive_exactly(gone, 1)
            reset(gone)
            stream.wait_for_reset()
        client, stream = self.both()
        began = time.monotonic()
        self.push(stream)
        receive_exactly(client, RATE)
        self.assertLess(time.monotonic() - began, 5)    # with what was for the others it is seven

    def test_downloads_that_it_holds_back_are_all_kept(self):
        for _ in range(90):
            self.push(self.both()[1])
        client, stream = self.both()
        stream.send(b"hello")
        receive_exactly(client, 5)
        self.assertEqual(self.carrier.count, 91)


class Idle(RateCase):
    options = (*RateCase.options, "--idle-timeout", "4")

    def test_beside_a_client_that_it_holds_back_one_that_is_idle_counts_as_such(self):
        idle, _ = self.both()
        busy, pushing = self.both()
        self.push(pushing)
        reading = in_thread(receive_exactly, busy, 6 * RATE)
        receive_until_reset(idle)
        reading.result()


if __name__ == "__main__":
    harness.main()
