#!/usr/bin/python3 -B
"""Many clients and carriers of a webmux tunnel: who gets a place, where, and when."""

import select
import signal
import socket
import time

import harness
from harness import connect, cpu_seconds, receive_exactly, receive_until_reset, reset, wait_until
from webmux_harness import RST, SYN, Carrier, Control, Data, WebmuxCase


class Crowd(WebmuxCase):
    def test_200_clients_may_come_at_once(self):
        """A client whom the queue has no place for tries again after a second."""
        for tunnel in (self.open_webmux(), self.open_tunnel()):
            self.daemon.signal(signal.SIGSTOP)
            self.addCleanup(self.daemon.signal, signal.SIGCONT)
            clients = {socket.socket() for _ in range(200)}
            for client in clients:
                self.addCleanup(client.close)
                client.setblocking(False)
                client.connect_ex(tunnel.client_address)
            wait_until(lambda: len(select.select([], clients, [], 0)[1]) == len(clients),
                       "all are connected", 0.9)
            self.daemon.signal(signal.SIGCONT)


class FewDescriptors(WebmuxCase):
    """As many as 100 tunnels of tcp take, and the 64 that others have at least."""

    options = ("--max-tunnels", "100", "--attach-timeout", "3")
    pairs = 100
    how = {"most_descriptors": 904}

    def test_a_tunnel_that_has_no_descriptor_left_is_not_opened(self):
        for _ in range(64):
            self.open_webmux()
        fault = harness.fault_of(self.daemon.rpc().Tunnel.openTunnel, "webmux")
        self.assertEqual(fault.faultCode, 8)
        for _ in range(36):
            self.open_tunnel()
        wait_until(lambda: not self.daemon.counts()["listening ports"], "their time is over")
        self.open_webmux().carrier()


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

    def test_once_a_server_is_there_they_wait_for_a_place_as_long_as_it_takes(self):
        tunnel = self.open_webmux()
        clients = [tunnel.connect() for _ in range(130)]
        carrier = tunnel.carrier()
        streams = [carrier.accept() for _ in range(127)]
        before_s = cpu_seconds(self.daemon)
        time.sleep(4)                   # longer than for a server
        self.assertLess(cpu_seconds(self.daemon) - before_s, 1)
        for stream in streams:
            stream.send(b"!")
        wait_until(lambda: len(select.select(clients, [], [], 0)[0]) == 127, "all of them are served")
        for client in select.select(clients, [], [], 0)[0][:3]:
            self.assertEqual(receive_exactly(client, 1), b"!")
            clients.remove(client)
            reset(client)
        for _ in range(3):
            carrier.accept().send(b"!")
        for client in clients:
            self.assertEqual(receive_exactly(client, 1), b"!")

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
        for _ in range(3):
            self.assertEqual(harness.come_and_look(tunnel.server_address, "127.0.0.1"), "reset")
        self.wait_for_log("can't take a connection of its server: it has as many as it may\n")
        self.assertEqual(self.daemon.errors().count("as many as it may"), 1)
        carriers[0].close()
        wait_until(lambda: self.comes_in(tunnel), "there is room again")

    def comes_in(self, tunnel):
        before = tunnel.attached()
        try:
            carrier = Carrier(tunnel.server_address)
        except ConnectionResetError:
            return False
        self.addCleanup(carrier.close)
        wait_until(lambda: tunnel.attached() > before or carrier.has_ended(), "it is taken or turned away")
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
        raw = tunnel.raw()                  # never confirms anything
        raw.say(Data(5, payload=b"?"))
        raw.hear(Data(5, RST))              # what it has said before is read by now
        tunnel.connect()
        raw.hear(Data(3, SYN))
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


if __name__ == "__main__":
    harness.main()
