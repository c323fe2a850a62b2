#!/usr/bin/python3 -B
"""Tunnels by webmux: many clients over a connection of the server, or a few."""

import signal
import socket
import time

import harness
from harness import (address_of, connect, fault_of, in_thread,
                     receive_exactly, receive_until_end, receive_until_reset, reset, wait_until)
from webmux_harness import (FIN, RST, SYN, Carrier, Control, Data, Opcode, WebmuxCase, exchange)


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
                before = self.daemon.counts(), self.daemon.resident_kib()
        wait_until(lambda: carrier.count == 0, "all sessions are over")
        wait_until(lambda: self.daemon.counts() == before[0], "the same descriptors")
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


class Slots(WebmuxCase):
    """Sessions whose client has not taken all, while their id is used again."""

    def test_an_id_that_is_used_again_leaves_its_last_client_alone(self):
        tunnel = self.open_webmux()
        carrier = tunnel.carrier()
        slow = tunnel.connect(receive_buffer=4096)
        stream = carrier.accept()
        pattern, check = harness.Pattern("slow"), harness.Pattern("slow")
        while not stream.unsent:
            stream.send(pattern.take(65536), and_wait=False)
            time.sleep(0.02)
        stream.finish()
        slow.shutdown(socket.SHUT_WR)
        self.assertEqual(stream.receive_until_end(), b"")
        while carrier.count:                # all has been sent when the session is over
            check.check(slow.recv(4096))
        others, ids = [], set()
        for _ in range(127):
            others.append((tunnel.connect(), carrier.accept()))
            ids.add(others[-1][1].id)
        self.assertIn(stream.id, ids)
        while piece := slow.recv(1 << 20):
            check.check(piece)
        self.assertEqual(check.position, pattern.position)
        slow.close()
        for client, other in others:
            client.sendall(b"?")
            self.assertEqual(other.receive_exactly(1), b"?")
            other.send(b"!")
            self.assertEqual(receive_exactly(client, 1), b"!")

    def test_127_clients_have_a_place_and_the_next_waits_for_one(self):
        tunnel = self.open_webmux()
        carrier = tunnel.carrier()
        clients = [tunnel.connect() for _ in range(127)]
        streams = [carrier.accept() for _ in range(127)]
        self.assertEqual(sorted(stream.id for stream in streams), list(range(3, 256, 2)))
        late = tunnel.connect()
        late.sendall(b"late")
        time.sleep(0.3)
        self.assertTrue(carrier.streams.empty())
        reset(clients[5])
        self.assertEqual(carrier.accept().receive_exactly(4), b"late")

    def test_clients_that_come_and_break_off_at_once_confuse_nobody(self):
        tunnel = self.open_webmux()
        raw = tunnel.raw()
        client = tunnel.both(raw)
        for _ in range(140):
            reset(connect(tunnel.client_address))
        time.sleep(0.2)
        last = tunnel.connect()
        last.sendall(b"last")
        # A server that is slow to hear: all its answers come after all openings.
        opened = {3}
        for _ in range(3000):
            frame = raw.frame()
            if isinstance(frame, Control):
                continue
            if frame.flags == SYN:
                self.assertNotIn(frame.session, opened)
                opened.add(frame.session)
                raw.say(Data(frame.session, SYN, b"for %d" % frame.session))
            elif frame.flags == RST:
                opened.discard(frame.session)
            elif frame.payload == b"last":
                raw.say(Data(frame.session, payload=b", yes"))
                break
            elif frame.session not in opened:
                raw.say(Data(frame.session, RST))
        self.assertEqual(receive_exactly(last, 4 + len(str(frame.session)) + 5),
                         b"for %d, yes" % frame.session)
        client.sendall(b"still here")
        self.assertEqual(raw.hear_of(3).payload, b"still here")


class Waiting(WebmuxCase):
    options = ("--attach-timeout", "3")

    def test_clients_wait_for_a_server_and_are_served_when_it_comes(self):
        tunnel = self.open_webmux()
        clients = [tunnel.connect() for _ in range(5)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
        carrier = tunnel.carrier()
        for _ in clients:
            stream = carrier.accept()
            number = int(stream.receive_exactly(1))
            stream.send(b"yes")
            self.assertEqual(receive_exactly(clients[number], 3), b"yes")

    def test_the_tunnel_closes_with_those_who_wait_when_no_server_comes(self):
        began = time.monotonic()
        tunnel = self.open_webmux()
        client = tunnel.connect()
        receive_until_reset(client)
        self.assertGreater(time.monotonic() - began, 2.9)
        wait_until(lambda: not tunnel.is_open(), "it is closed")
        self.wait_for_log("no server attached in time")

    def test_who_leaves_while_it_waits_costs_nothing(self):
        tunnel = self.open_webmux()
        before = None
        for _ in range(20):
            reset(tunnel.connect())
        carrier = tunnel.carrier()
        client = tunnel.connect()
        client.sendall(b"here")
        while (stream := carrier.accept()) and before is None:
            try:
                before = stream.recv()
            except ConnectionResetError:
                continue
            break
        self.assertEqual(before, b"here")


class Carriers(WebmuxCase):
    def test_clients_go_to_the_carrier_that_has_the_fewest(self):
        tunnel = self.open_webmux()
        carriers = [tunnel.carrier() for _ in range(4)]
        for number in range(20):
            tunnel.connect()
            wait_until(lambda n=number: sum(carrier.count for carrier in carriers) == n + 1,
                       "it is there")
        self.assertEqual([carrier.count for carrier in carriers], [5, 5, 5, 5])

    def test_a_carrier_that_ends_takes_only_its_own_clients_along(self):
        tunnel = self.open_webmux()
        first = tunnel.carrier()
        lost = tunnel.connect()
        first.accept()
        second = tunnel.carrier()
        kept = tunnel.connect()
        stream = second.accept()
        first.close()
        receive_until_reset(lost)
        kept.sendall(b"?")
        self.assertEqual(stream.receive_exactly(1), b"?")
        tunnel.connect()
        second.accept()

    def test_16_carriers_are_taken_and_no_more(self):
        tunnel = self.open_webmux()
        carriers = [tunnel.carrier() for _ in range(16)]
        self.assertEqual(harness.come_and_look(tunnel.server_address, "127.0.0.1"), "reset")
        carriers[0].close()
        wait_until(lambda: self.comes_in(tunnel), "there is room again")

    def comes_in(self, tunnel):
        before = tunnel.attached()
        try:
            carrier = Carrier(tunnel.server_address)
        except ConnectionResetError:
            return False
        self.addCleanup(carrier.close)
        time.sleep(0.1)
        return tunnel.attached() > before

    def test_a_stranger_is_turned_away(self):
        tunnel = self.open_webmux()
        self.assertEqual(harness.come_and_look(tunnel.server_address, "127.0.0.2"), "reset")
        self.wait_for_log("turned away (hidden), which did not open it")
        carrier = tunnel.carrier()
        self.assertEqual(harness.come_and_look(tunnel.server_address, "127.0.0.2"), "reset")
        tunnel.connect(source="127.0.0.2")
        carrier.accept()

    def test_a_carrier_that_does_not_answer_comes_last(self):
        tunnel = self.open_webmux()
        tunnel.raw()                        # never confirms anything
        tunnel.connect()
        time.sleep(2.2)
        carrier = tunnel.carrier()
        for _ in range(5):
            tunnel.connect()
            carrier.accept()


class AnybodyMayAttach(WebmuxCase):
    options = ("--attach-from", "any")

    def test_a_server_may_come_from_elsewhere(self):
        tunnel = self.open_webmux()
        carrier = tunnel.carrier(source="127.0.0.2")
        tunnel.connect()
        carrier.accept()


class Places(WebmuxCase):
    options = ("--streams-per-tunnel", "3")

    def test_more_clients_wait_in_the_queue_until_one_leaves(self):
        tunnel = self.open_webmux()
        carrier = tunnel.carrier()
        clients = [tunnel.connect() for _ in range(6)]
        streams = [carrier.accept() for _ in range(3)]
        time.sleep(0.2)
        self.assertTrue(carrier.streams.empty())
        for stream in streams:
            stream.reset()
        for client in clients[:3]:
            receive_until_reset(client)
        for _ in range(3):
            carrier.accept()

    def test_the_same_while_no_server_is_attached(self):
        tunnel = self.open_webmux()
        for _ in range(6):
            tunnel.connect()
        carrier = tunnel.carrier()
        for _ in range(3):
            carrier.accept()
        time.sleep(0.2)
        self.assertTrue(carrier.streams.empty())


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
        data = harness.Pattern("long").take(1000000)
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
