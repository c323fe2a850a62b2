#!/usr/bin/python3 -B
"""Servers of webmux tunnels that break the rules, and clients that mean harm."""

import os
import time

import harness
from harness import connect, in_thread, receive_exactly, receive_until_reset, reset, wait_until
from webmux_harness import (FIN, RST, SYN, Control, Daemon, Data, Opcode, WebmuxCase, WebmuxTunnel,
                            encode)


def word(value):
    return value.to_bytes(4, "little")


def long_data(session, count):
    """The header of a frame of so many bytes, by the long form."""
    return word(0x80000000 | session << 18) + word(count)


class Wrong(WebmuxCase):
    """Each ends the carrier, with the reason in the log and a reset for its clients, and
    the tunnel waits for another."""

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--drain", "0", "--reserve", "60")
        cls.tunnel = WebmuxTunnel(cls.daemon)

    @classmethod
    def tearDownClass(cls):
        cls.daemon.signal(harness.signal.SIGTERM)
        status = cls.daemon.wait()
        cls.daemon.clean_up()
        assert status == 0, status

    def assert_ends_the_carrier(self, reason, *frames):
        before = self.daemon.errors().count(reason)
        raw = self.tunnel.raw()
        client = self.tunnel.connect()
        raw.hear(Data(3, SYN))
        raw.say(Data(3, SYN))
        raw.say_until_end(*frames)
        receive_until_reset(client)
        raw.close()
        client.close()
        wait_until(lambda: self.daemon.errors().count(reason) > before, reason)
        raw = self.tunnel.raw()
        client = self.tunnel.connect()
        raw.hear(Data(3, SYN))
        client.close()
        raw.close()

    def test_more_than_the_credit(self):
        self.assert_ends_the_carrier("sent more than its credit", Data(3, payload=bytes(262000)),
                                     long_data(3, (16 << 20) + 1))

    def test_more_than_the_credit_at_once(self):
        self.assert_ends_the_carrier("sent more than its credit", long_data(3, 0xFFFFFFFF))

    def test_an_unknown_control_frame(self):
        for opcode in range(6, 16):
            self.assert_ends_the_carrier("sent a control frame that there is not",
                                         word(0x40000000 | opcode << 26))

    def test_a_control_frame_of_the_wrong_form(self):
        for opcode, is_long in ((0, 0), (1, 0), (2, 1), (3, 0), (4, 0), (5, 1)):
            frame = word(0x40000000 | is_long << 31 | opcode << 26) + word(0) * is_long
            self.assert_ends_the_carrier("a header of the wrong length", frame)

    def test_a_reserved_session(self):
        for session in (0, 1):
            for flags in (SYN, FIN, RST, FIN & ~FIN):
                self.assert_ends_the_carrier("sent a frame of a reserved session",
                                             Data(session, flags))

    def test_a_second_confirmation(self):
        self.assert_ends_the_carrier("opened a session that is open", Data(3, SYN))

    def test_late_data_beyond_the_credit(self):
        reason = "sent more than its credit"
        before = self.daemon.errors().count(reason)
        raw = self.tunnel.raw()
        client = self.tunnel.both(raw)
        reset(client)
        raw.hear_of(3, RST)
        raw.say_until_end(*[Data(3, payload=bytes(262000))] * 5)
        raw.close()
        wait_until(lambda: self.daemon.errors().count(reason) > before, reason)


class Hostile(WebmuxCase):
    def start(self):
        tunnel = self.open_webmux()
        raw = tunnel.raw()
        return tunnel, raw, tunnel.both(raw)

    def works(self, tunnel):
        """Another carrier, and a client of it."""
        carrier = tunnel.carrier()
        client = tunnel.connect()
        stream = carrier.accept()
        client.sendall(b"?")
        self.assertEqual(stream.receive_exactly(1), b"?")
        return carrier

    def test_a_flood_of_openings_is_refused_and_costs_nothing(self):
        tunnel, raw, client = self.start()
        before_kib = self.daemon.resident_kib()
        flood = b"".join(encode(Data(session, SYN)) for session in range(2, 256) if session != 3)
        sender = in_thread(raw.say, *[flood] * 400)
        reader = in_thread(raw.hear_of, 3)
        sender.result()
        raw.say(Data(3, payload=b"!"))
        self.assertEqual(receive_exactly(client, 1), b"!")
        client.sendall(b"?")
        self.assertEqual(reader.result().payload, b"?")
        self.assertLess(self.daemon.resident_kib() - before_kib, 4096)

    def test_a_server_that_takes_no_answer_costs_nothing(self):
        tunnel, raw, client = self.start()
        before_kib = self.daemon.resident_kib()
        flood = b"".join(encode(Data(session, payload=b"x")) for session in range(4, 256))
        sender = in_thread(raw.say, *[flood] * 3000)
        self.works(tunnel)
        sender.result()
        self.assertLess(self.daemon.resident_kib() - before_kib, 4096)

    def test_garbage_ends_the_carrier_or_is_nothing(self):
        tunnel, raw, client = self.start()
        for _ in range(40):
            with connect(tunnel.server_address) as garbage:
                try:
                    for _ in range(20):
                        garbage.sendall(os.urandom(5000))
                except OSError:
                    pass
        client.sendall(b"?")
        self.assertEqual(raw.hear_of(3).payload, b"?")

    def test_what_is_no_webmux_attaches_nothing_that_lasts(self):
        tunnel, raw, client = self.start()
        with connect(tunnel.server_address) as browser:
            browser.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.1)
        raw.say(Data(3, payload=b"!"))
        self.assertEqual(receive_exactly(client, 1), b"!")

    def test_a_giant_frame_of_nobody_holds_up_its_own_carrier_only(self):
        for frame in (long_data(7, 0xFFFFFFFF),
                      word(0xC0000000) + word(0xFFFFFFFF)):     # an atom's name
            tunnel, raw, _ = self.start()
            before_kib = self.daemon.resident_kib()
            raw.say(frame, *[bytes(1 << 20)] * 30)
            self.works(tunnel)
            self.assertLess(self.daemon.resident_kib() - before_kib, 4096)

    def test_half_a_header_holds_up_its_own_carrier_only(self):
        tunnel, raw, client = self.start()
        raw.say(encode(Data(3, payload=b"!!!!"))[:3])
        client.sendall(b"?")
        self.assertEqual(raw.hear_of(3).payload, b"?")
        carrier = self.works(tunnel)
        raw.say(encode(Data(3, payload=b"!!!!"))[3:])
        self.assertEqual(receive_exactly(client, 4), b"!!!!")
        carrier.close()

    def test_a_connection_that_says_nothing_is_a_carrier_that_comes_last(self):
        tunnel = self.open_webmux()
        silent = tunnel.raw(greets=False)
        carrier = tunnel.carrier()
        for _ in range(5):
            tunnel.connect()
        silent.hear(Data(3, SYN))
        time.sleep(2.2)                 # without an answer
        for _ in range(5):
            tunnel.connect()
        for _ in range(7):
            carrier.accept()

    def test_credit_without_end_is_no_more_than_bytes(self):
        tunnel, raw, client = self.start()
        raw.say(*[Control(Opcode.ADD_CREDIT, 3, 0xFFFFFFFF)] * 1000)
        raw.say(Control(Opcode.SET_DEFAULT_CREDIT, 0, 0), Control(Opcode.SET_DEFAULT_CREDIT, 0, 1))
        client.sendall(b"?" * 1000)
        self.assertEqual(raw.hear_of(3).payload[:1], b"?")

    def test_clients_that_come_and_go_leave_others_alone(self):
        tunnel = self.open_webmux()
        carrier = tunnel.carrier(service=lambda stream: stream.echo())
        for _ in range(500):
            reset(connect(tunnel.client_address))
        client = tunnel.connect()
        client.sendall(b"still here")
        self.assertEqual(receive_exactly(client, 10), b"still here")
        self.assertIsNone(carrier.failure)

    def test_carriers_that_come_and_go_leave_nothing(self):
        tunnel, raw, client = self.start()
        wait_until(lambda: tunnel.attached() > 0, "it is there")
        before = wait_until(self.daemon.steady_counts, "the daemon is at rest")
        for _ in range(200):
            reset(connect(tunnel.server_address))
        wait_until(lambda: self.daemon.has_no_more_than(before), "no more descriptors")
        client.sendall(b"?")
        self.assertEqual(raw.hear_of(3).payload, b"?")


if __name__ == "__main__":
    harness.main()
