#!/usr/bin/python3 -B
"""Tunnels by webmux: many clients over a connection of the server, or a few."""

import signal
import socket
import time

import harness
from harness import (address_of, connect, fault_of, in_thread, receive_exactly, receive_until_end,
                     receive_until_reset, reset, wait_until)
from webmux_harness import FIN, RST, SYN, WINDOW, Control, Data, Opcode, WebmuxCase, exchange


class Opening(WebmuxCase):
    def test_the_clients_port_is_that_after_the_servers(self):
        tunnel = self.open_webmux()
        self.assertRegex(tunnel.server_uri, r"^webmux://127\.0\.0\.1:\d+$")
        port = address_of(tunnel.server_uri)[1]
        self.assertEqual(tunnel.client_uri, f"tcp://127.0.0.1:{port + 1}")
        self.assertEqual(self.daemon.ports.listening(), [port, port + 1])

    def test_both_ports_listen_for_the_whole_life(self):
        tunnel = self.open_webmux()
        carrier = tunnel.carrier()
        tunnel.connect()
        carrier.accept()
        self.assertEqual(len(self.daemon.ports.listening()), 2)

    def test_the_address_is_unknown_once_the_tunnel_is_over(self):
        tunnel = self.open_webmux()
        tunnel.carrier().close()
        wait_until(lambda: not tunnel.is_open(), "it is over")
        self.assertEqual(fault_of(self.daemon.rpc().Tunnel.getTunnelAddress,
                                  tunnel.server_uri).faultCode, 2)


class Bytes(WebmuxCase):
    def test_bytes_arrive_both_ways(self):
        tunnel = self.open_webmux()
        carrier = tunnel.carrier()
        client = tunnel.connect()
        stream = carrier.accept()
        client.sendall(b"to the server")
        self.assertEqual(stream.receive_exactly(13), b"to the server")
        stream.send(b"to the client")
        self.assertEqual(receive_exactly(client, 13), b"to the client")

    def test_urgent_data_hold_nothing_up(self):
        tunnel = self.open_webmux()
        client = tunnel.connect()           # no server is there yet: all of it waits in the socket
        client.sendall(b"before")
        client.send(b"!", socket.MSG_OOB)
        client.sendall(b"after")
        time.sleep(0.1)
        carrier = tunnel.carrier()
        self.assertEqual(carrier.accept().receive_exactly(11), b"beforeafter")

    def test_a_server_may_speak_first(self):
        tunnel = self.open_webmux()
        carrier = tunnel.carrier()
        client = tunnel.connect()
        carrier.accept().send(b"hello")
        self.assertEqual(receive_exactly(client, 5), b"hello")

    def test_many_clients_at_once_get_what_is_theirs(self):
        tunnel = self.open_webmux()
        carrier = tunnel.carrier()
        beside = []
        for number in range(40):
            client = tunnel.connect()
            stream = carrier.accept()
            beside.append(in_thread(exchange, stream, client, 100000 + number, number))
        for thread in beside:
            thread.result()
        wait_until(lambda: carrier.count == 0, "all sessions are over")
        self.assertIsNone(carrier.failure)

    def test_large_patterns_arrive_exactly_both_ways(self):
        tunnel = self.open_webmux()
        carrier = tunnel.carrier()
        client = tunnel.connect()
        exchange(carrier.accept(), client, 24 << 20, "large")

    def test_a_thousand_short_clients_leave_nothing(self):
        tunnel = self.open_webmux()
        carrier = tunnel.carrier(service=lambda stream: stream.echo())
        before = None
        for number in range(1000):
            with connect(tunnel.client_address) as client:
                client.sendall(b"%d" % number)
                client.shutdown(socket.SHUT_WR)
                self.assertEqual(receive_until_end(client), b"%d" % number)
            if number == 300:
                wait_until(lambda: carrier.count == 0, "all sessions are over")
                before = wait_until(self.daemon.steady_counts, "it rests"), self.daemon.resident_kib()
        wait_until(lambda: carrier.count == 0, "all sessions are over")
        wait_until(lambda: self.daemon.has_no_more_than(before[0]), "no more descriptors")
        self.assertLess(self.daemon.resident_kib() - before[1], 4096)


class Ends(WebmuxCase):
    def setUp(self):
        self.tunnel = self.open_webmux()
        self.carrier = self.tunnel.carrier()
        self.client = self.tunnel.connect()
        self.stream = self.carrier.accept()

    def test_a_client_that_has_ended_is_sent_to(self):
        self.client.sendall(b"last")
        self.client.shutdown(socket.SHUT_WR)
        self.assertEqual(self.stream.receive_until_end(), b"last")
        self.stream.send(b"answer")
        self.stream.finish()
        self.assertEqual(receive_until_end(self.client), b"answer")

    def test_a_server_that_has_ended_is_sent_to(self):
        self.stream.send(b"last")
        self.stream.finish()
        self.assertEqual(receive_until_end(self.client), b"last")
        self.client.sendall(b"answer")
        self.client.shutdown(socket.SHUT_WR)
        self.assertEqual(self.stream.receive_until_end(), b"answer")

    def test_a_servers_reset_is_one_for_the_client_after_what_came_before(self):
        self.stream.send(b"before")
        self.stream.reset()
        self.assertEqual(receive_until_reset(self.client), b"before")

    def test_a_clients_reset_is_one_for_the_server_after_what_came_before(self):
        self.client.sendall(bytes(5000))
        reset(self.client)
        got = b""
        with self.assertRaises(ConnectionResetError):
            while True:
                got += self.stream.recv()
        self.assertLessEqual(len(got), 5000)
        wait_until(lambda: self.carrier.count == 0, "the session is over")

    def test_a_client_that_leaves_ends_what_the_server_sends_it(self):
        self.client.close()
        self.assertEqual(self.stream.receive_until_end(), b"")
        with self.assertRaises(ConnectionResetError):
            for _ in range(500):
                self.stream.send(bytes(65536))

    def test_what_was_sent_before_a_reset_arrives_in_frames(self):
        tunnel = self.open_webmux()
        raw = tunnel.raw()
        client = tunnel.both(raw)
        client.sendall(b"x" * 1000)
        reset(client)
        raw.hear(Data(3, payload=b"x" * 1000), Data(3, RST))


    def test_what_was_sent_before_a_reset_arrives_though_nobody_was_accepting(self):
        tunnel = self.open_webmux()
        raw = tunnel.raw()
        self.daemon.signal(signal.SIGSTOP)
        try:
            client = tunnel.connect()
            client.sendall(b"before")
            reset(client)
        finally:
            self.daemon.signal(signal.SIGCONT)
        raw.hear(Data(3, SYN), Data(3, payload=b"before"), Data(3, RST))


class Profile(WebmuxCase):
    """Frame by frame."""

    def setUp(self):
        self.tunnel = self.open_webmux()
        self.raw = self.tunnel.raw()

    def test_a_refusal_resets_the_client(self):
        client = self.tunnel.connect()
        self.raw.hear(Data(3, SYN))
        self.raw.say(Data(3, RST))
        receive_until_reset(client)
        self.raw.hear_nothing(0.2)

    def test_a_confirmation_may_bring_all_there_is(self):
        client = self.tunnel.connect()
        self.raw.hear(Data(3, SYN))
        self.raw.say(Data(3, SYN | FIN, b"all"))
        self.assertEqual(receive_until_end(client), b"all")
        client.close()
        self.raw.hear(Data(3, FIN))

    def test_frames_are_as_long_as_the_server_likes(self):
        self.raw.say(Control(Opcode.SET_MSS, 0, 10))
        client = self.tunnel.both(self.raw)
        client.sendall(b"0123456789" * 2)
        self.raw.hear(Data(3, payload=b"0123456789"), Data(3, payload=b"0123456789"))

    def test_frames_of_any_length_are_taken(self):
        client = self.tunnel.both(self.raw)
        data = harness.Pattern("long").take(WINDOW)
        sender = in_thread(self.raw.say, Data(3, payload=data))
        self.assertEqual(receive_exactly(client, len(data)), data)
        sender.result()

    def test_without_credit_nothing_is_sent(self):
        client = self.tunnel.both(self.raw)
        self.raw.say(Control(Opcode.SET_DEFAULT_CREDIT, 0, 100))    # of later ones
        self.raw.say(Data(3, RST))
        receive_until_reset(client)
        client = self.tunnel.connect()
        client.sendall(b"a" * 150)
        self.raw.hear(Data(5, SYN), Data(5, payload=b"a" * 100))
        self.raw.hear_nothing(0.2)
        self.raw.say(Data(5, SYN))
        self.raw.hear_nothing(0.2)
        self.raw.say(Control(Opcode.ADD_CREDIT, 5, 20))
        self.raw.hear(Data(5, payload=b"a" * 20))
        self.raw.say(Control(Opcode.ADD_CREDIT, 5, 30))
        self.raw.hear(Data(5, payload=b"a" * 30))
        client.shutdown(socket.SHUT_WR)     # an end needs no credit
        self.raw.hear(Data(5, FIN))

    def test_a_server_opens_no_sessions(self):
        self.raw.say(Data(8, SYN), Data(9, SYN))
        self.raw.hear(Data(8, RST), Data(9, RST))
        self.tunnel.both(self.raw)

    def test_frames_without_data_do_nothing(self):
        client = self.tunnel.both(self.raw)
        self.raw.say(*[Data(3)] * 20000)
        self.raw.say(*[Control(Opcode.NO_OP)] * 20000)
        self.raw.say(*[Control(Opcode.ADD_CREDIT, 3, 0)] * 1000)
        self.raw.say(Data(3, payload=b"!"))
        self.assertEqual(receive_exactly(client, 1), b"!")

    def test_data_after_an_end_reset_the_client(self):
        client = self.tunnel.both(self.raw)
        self.raw.say(Data(3, FIN, b"all"), Data(3, payload=b"more"))
        self.assertEqual(receive_until_end(client), b"all")
        self.raw.hear(Data(3, RST))
        harness.send_until_error(client)


if __name__ == "__main__":
    harness.main()
