#!/usr/bin/python3 -B
"""Slow readers of webmux tunnels: they stall nobody, take bounded memory, and lose
nothing."""

import time

import harness
from harness import (Pattern, connect, in_thread, more_than_fits, receive_exactly, receive_until_reset,
                     wait_until)
from webmux_harness import WINDOW, Control, Data, Opcode, WebmuxCase, exchange

MIB = 1 << 20


class SlowClients(WebmuxCase):
    def fill(self, stream, name):
        """Sends until no more is taken; the pattern to check by."""
        pattern = Pattern(name)
        while stream.unsent < 4 * MIB:
            stream.send(pattern.take(65536), and_wait=False)
        return pattern

    def test_one_that_does_not_read_stalls_nobody_and_gets_all_later(self):
        tunnel = self.open_webmux()
        carrier = tunnel.carrier()
        stuck = tunnel.connect(receive_buffer=4096)
        stuck_stream = carrier.accept()
        sent = self.fill(stuck_stream, "stuck")
        stuck_stream.finish()
        for number in range(3):
            client = tunnel.connect()
            exchange(carrier.accept(), client, 4 * MIB, number)
        check = Pattern("stuck")
        while piece := stuck.recv(MIB):
            check.check(piece)
        self.assertEqual(check.position, sent.position)

    def test_many_that_do_not_read_take_bounded_memory(self):
        tunnel = self.open_webmux()
        carrier = tunnel.carrier()
        before_kib = self.daemon.resident_kib()
        stuck = []
        for number in range(30):
            stuck.append(tunnel.connect(receive_buffer=4096))
            in_thread(self.fill, carrier.accept(), number)
        time.sleep(2)
        grown_kib = self.daemon.resident_kib() - before_kib
        if not harness.is_sanitized():
            self.assertLess(grown_kib, 72 * 1024)
        client = tunnel.connect()
        exchange(carrier.accept(), client, MIB, "beside")

    def test_many_that_became_slow_are_all_kept(self):
        tunnel = self.open_webmux()
        carriers = [tunnel.carrier() for _ in range(2)]
        slow = []
        for number in range(100):
            client = tunnel.connect(receive_buffer=4096)
            wait_until(lambda: any(not carrier.streams.empty() for carrier in carriers), "it is there")
            carrier = next(carrier for carrier in carriers if not carrier.streams.empty())
            slow.append(client)
            in_thread(self.fill, carrier.accept(), number)
            receive_exactly(client, 2 * MIB)        # as long as it reads, its window grows
        time.sleep(1)
        if not harness.is_sanitized():
            self.assertLess(self.daemon.resident_kib(), 120 * 1024)
        self.assertEqual(sum(carrier.count for carrier in carriers), 100)
        for client in slow:
            receive_exactly(client, MIB)


class SlowServers(WebmuxCase):
    def test_one_that_does_not_read_a_session_stalls_no_other(self):
        tunnel = self.open_webmux()
        carrier = tunnel.carrier()
        stuck = tunnel.connect()
        stream = carrier.accept()
        pattern, check = Pattern("up"), Pattern("up")
        count_mib = more_than_fits() // MIB + 1

        def send():
            for _ in range(count_mib):
                stuck.sendall(pattern.take(MIB))
            stuck.shutdown(1)

        sender = in_thread(send)
        for number in range(3):
            client = tunnel.connect()
            exchange(carrier.accept(), client, MIB, number)
        self.assertTrue(sender.is_alive())
        while piece := stream.recv():
            check.check(piece)
        sender.result()
        self.assertEqual(check.position, count_mib * MIB)

    def test_one_that_does_not_read_its_carrier_holds_its_clients_back(self):
        tunnel = self.open_webmux()
        raw = tunnel.raw(receive_buffer=4096)
        client = tunnel.both(raw)
        pattern, check = Pattern("up"), Pattern("up")
        count_mib = more_than_fits() // MIB + 1
        raw.say(Control(Opcode.ADD_CREDIT, 3, count_mib * MIB))
        before_kib = self.daemon.resident_kib()

        def send():
            for _ in range(count_mib):
                client.sendall(pattern.take(MIB))

        sender = in_thread(send)
        time.sleep(1)
        self.assertTrue(sender.is_alive())
        self.assertLess(self.daemon.resident_kib() - before_kib, 4096)
        other = tunnel.carrier()            # and nobody else
        exchange_client = tunnel.connect()
        exchange(other.accept(), exchange_client, MIB, "beside")
        while check.position < count_mib * MIB:
            check.check(raw.hear_of(3).payload)
        sender.result()

    def test_the_window_grows_for_a_client_that_keeps_up(self):
        tunnel = self.open_webmux()
        raw = tunnel.raw()
        client = tunnel.both(raw)
        reader = in_thread(receive_exactly, client, 64 * MIB)
        allowed, sent = WINDOW, 0
        most = 0
        while sent < 64 * MIB:
            most = max(most, allowed - sent)
            count = min(allowed - sent, 64 * MIB - sent, 250000)
            if count:
                raw.say(Data(3, payload=bytes(count)))
                sent += count
            raw.connection.setblocking(False)
            try:
                raw._decoder.feed(raw.connection.recv(65536))
            except BlockingIOError:
                pass
            raw.connection.setblocking(True)
            raw.connection.settimeout(harness.WAIT_S)
            while (frame := raw._decoder.next()) is not None:
                self.assertEqual((frame.opcode, frame.session), (Opcode.ADD_CREDIT, 3))
                allowed += frame.value
        reader.result()
        self.assertGreater(most, 2 * MIB)
        self.assertLessEqual(most, 16 * MIB)


class GonePeers(WebmuxCase):
    def test_a_frozen_client_stalls_nobody(self):
        tunnel = self.open_webmux()
        carrier = tunnel.carrier()
        frozen = harness.Peer(tunnel.client_address, receive_buffer=4096)
        self.addCleanup(frozen.clean_up)
        stream = carrier.accept()
        frozen.freeze()
        stream.send(bytes(8 * MIB), and_wait=False)
        client = tunnel.connect()
        exchange(carrier.accept(), client, MIB, "beside")
        frozen.kill()
        with self.assertRaises(ConnectionResetError):
            while True:
                stream.recv()
                stream.send(bytes(65536))

    def test_a_killed_server_resets_its_clients(self):
        tunnel = self.open_webmux()
        server = harness.Peer(tunnel.server_address)
        self.addCleanup(server.clean_up)
        wait_until(lambda: tunnel.attached() > 0, "it is attached")
        client = connect(tunnel.client_address)
        server.kill()
        receive_until_reset(client)
        client.close()


if __name__ == "__main__":
    harness.main()
