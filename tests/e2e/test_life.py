#!/usr/bin/python3 -B
"""The life of a tunnel: who may attach, what ends it, how its ports come back."""

import os
import socket
import time
import xmlrpc.client

import harness
from harness import (Case, DaemonCase, PortBlock, address_of, come_and_look, connect, fault_of,
                     how_it_ended, in_thread, is_refused, receive_exactly, receive_until_end,
                     receive_until_reset, reset, wait_until)

CYCLES = int(os.environ.get("E2E_CYCLES", "2000"))


class OneConnectionEach(DaemonCase):
    def test_the_server_port_stops_listening_once_the_server_is_attached(self):
        tunnel = self.open_tunnel()
        tunnel.attach()
        wait_until(lambda: tunnel.server_address[1] not in self.daemon.ports.listening(),
                   "the server port stopped listening")
        self.assertTrue(is_refused(tunnel.server_address))
        self.assertIn(tunnel.client_address[1], self.daemon.ports.listening())

    def test_the_client_port_stops_listening_once_the_client_is_there(self):
        tunnel = self.open_tunnel()
        server, client = tunnel.both()
        self.assertEqual(self.daemon.ports.listening(), [])
        self.assertTrue(is_refused(tunnel.client_address))
        client.sendall(b"still here")
        self.assertEqual(receive_exactly(server, 10), b"still here")

    def test_a_second_client_gets_a_refusal_or_a_reset_and_never_the_stream(self):
        tunnel = self.open_tunnel()
        first = tunnel.connect()
        first.sendall(b"1")
        try:
            second = tunnel.connect()
        except (ConnectionRefusedError, ConnectionResetError):
            second = None
        server = tunnel.attach()
        self.assertEqual(receive_exactly(server, 1), b"1")
        server.sendall(b"for the first")
        self.assertEqual(receive_exactly(first, 13), b"for the first")
        if second:
            self.assertEqual(receive_until_reset(second), b"")


class WhoMayAttach(DaemonCase):
    def test_another_address_is_turned_away_and_attaches_nothing(self):
        tunnel = self.open_tunnel()
        for _ in range(3):
            began = time.monotonic()
            come_and_look(tunnel.server_address, "127.0.0.2")
            self.assertLess(time.monotonic() - began, 20)
        server, client = tunnel.both()
        server.sendall(b"the opener's")
        self.assertEqual(receive_exactly(client, 12), b"the opener's")

    def test_the_opener_attaches_from_any_loopback_address_it_opened_from(self):
        tunnel = self.open_tunnel(source="127.0.0.7")
        come_and_look(tunnel.server_address, "127.0.0.1")
        tunnel.both()

    def test_strangers_that_keep_coming_do_not_keep_the_opener_out(self):
        tunnel = self.open_tunnel()
        strangers = [in_thread(come_and_look, tunnel.server_address, "127.0.0.2")
                     for _ in range(30)]
        for stranger in strangers:
            stranger.result()
        tunnel.both()

    def test_clients_may_come_from_anywhere(self):
        tunnel = self.open_tunnel()
        server = tunnel.attach()
        client = tunnel.connect(source="127.0.0.9")
        client.sendall(b"x")
        self.assertEqual(receive_exactly(server, 1), b"x")


class AnyoneMayAttach(DaemonCase):
    options = ("--attach-from", "any")

    def test_another_address_may_attach(self):
        tunnel = self.open_tunnel()
        server = tunnel.attach(source="127.0.0.2")
        client = tunnel.connect()
        server.sendall(b"hello")
        self.assertEqual(receive_exactly(client, 5), b"hello")


class Timeouts(DaemonCase):
    options = ("--attach-timeout", "4", "--linger", "4")

    def assert_took(self, began, least_s=3.8):
        self.assertGreater(time.monotonic() - began, least_s)
        self.assertLess(time.monotonic() - began, 20)

    def test_a_tunnel_without_a_server_ends_and_its_pair_comes_back(self):
        began = time.monotonic()
        tunnel = self.open_tunnel()
        wait_until(lambda: not self.daemon.ports.listening(), "the pair came back")
        self.assert_took(began)
        self.assertTrue(is_refused(tunnel.server_address))
        self.assertTrue(is_refused(tunnel.client_address))
        self.assertIn("unknown tunnel", fault_of(self.daemon.rpc().Tunnel.getTunnelAddress,
                                                 tunnel.server_uri).faultString)

    def test_a_client_whose_server_never_comes_gets_a_reset(self):
        began = time.monotonic()
        tunnel = self.open_tunnel()
        client = tunnel.connect()
        client.sendall(b"anybody?")
        self.assertEqual(receive_until_reset(client), b"")
        self.assert_took(began)

    def test_strangers_do_not_lengthen_the_attach_timeout(self):
        began = time.monotonic()
        tunnel = self.open_tunnel()
        while self.daemon.ports.listening() and time.monotonic() - began < 20:
            try:
                connect(tunnel.server_address, source="127.0.0.2").close()
            except ConnectionError:
                pass
            time.sleep(0.1)
        self.assert_took(began)

    def test_an_attached_server_outlives_the_attach_timeout(self):
        tunnel = self.open_tunnel()
        server = tunnel.attach()
        time.sleep(6)
        client = tunnel.connect()
        client.sendall(b"late")
        self.assertEqual(receive_exactly(server, 4), b"late")

    def test_a_half_closed_silent_tunnel_ends_after_the_linger_time(self):
        for finisher in (0, 1):
            with self.subTest(finisher=("server", "client")[finisher]):
                pair = self.open_tunnel().both()
                began = time.monotonic()
                pair[finisher].shutdown(socket.SHUT_WR)
                self.assert_proper_end(pair[1 - finisher])
                self.assertEqual(receive_until_reset(pair[finisher]), b"")
                self.assert_took(began)

    def test_a_half_closed_tunnel_that_is_not_silent_lives_on(self):
        server, client = self.open_tunnel().both()
        client.shutdown(socket.SHUT_WR)
        self.assert_proper_end(server)
        for _ in range(7):
            time.sleep(1)
            server.sendall(b".")
        server.close()
        self.assert_proper_end(client, b".......")

    def test_a_server_that_left_before_its_client_came_does_not_hold_the_pair(self):
        for leave in (socket.socket.close, reset):
            with self.subTest(leave=leave.__name__):
                tunnel = self.open_tunnel()
                leave(tunnel.attach())
                wait_until(lambda: not self.daemon.ports.listening(), "the pair came back")


class WhenTheServerIsGone(DaemonCase):
    def test_a_reset_of_the_server_before_its_client_came_ends_the_tunnel(self):
        tunnel = self.open_tunnel()
        server = tunnel.attach()
        wait_until(lambda: tunnel.server_address[1] not in self.daemon.ports.listening(),
                   "it is attached")
        reset(server)
        self.daemon.expect_rest()
        self.assertTrue(is_refused(tunnel.client_address))


class IdleTime(DaemonCase):
    options = ("--idle-timeout", "4")

    def test_a_tunnel_without_a_byte_ends(self):
        began = time.monotonic()
        server, client = self.open_tunnel().both()
        self.assertEqual(receive_until_reset(client), b"")
        self.assertEqual(receive_until_reset(server), b"")
        self.assertGreater(time.monotonic() - began, 3.8)
        self.assertLess(time.monotonic() - began, 20)

    def test_a_byte_now_and_then_keeps_it_alive(self):
        pair = self.open_tunnel().both()
        for number in range(7):
            time.sleep(1)
            pair[number % 2].sendall(b".")
            self.assertEqual(receive_exactly(pair[1 - number % 2], 1), b".")


class Ports(Case):
    def test_the_pair_that_rested_longest_is_handed_out_first(self):
        daemon = self.start_daemon(pairs=5)
        first = [self.open_tunnel(daemon) for _ in range(3)]
        for number in (2, 0, 1):
            before = daemon.counts()["threads"]
            first[number].end()
            wait_until(lambda: daemon.counts()["threads"] < before,
                       "the tunnel's thread, which gives the pair back, has ended")
        later = [self.open_tunnel(daemon) for _ in range(5)]
        used = {tunnel.server_uri for tunnel in first}
        self.assertFalse(used & {tunnel.server_uri for tunnel in later[:2]})
        self.assertEqual([tunnel.server_uri for tunnel in later[2:]],
                         [first[number].server_uri for number in (2, 0, 1)])
        for tunnel in later:
            tunnel.end()
        daemon.stop()

    def test_a_port_that_another_program_holds_is_skipped(self):
        ports = PortBlock(3)
        holder = harness.listen("127.0.0.1", ports.low + 3)     # the second client port
        self.addCleanup(holder.close)
        daemon = self.start_daemon(ports=ports)
        tunnels = [self.open_tunnel(daemon) for _ in range(2)]
        self.assertEqual(sorted(tunnel.server_address[1] for tunnel in tunnels),
                         [ports.low, ports.low + 4])
        fault = fault_of(daemon.rpc().Tunnel.openTunnel)
        self.assertIn("no free port pair", fault.faultString)
        holder.close()
        tunnels.append(self.open_tunnel(daemon))
        self.assertEqual(tunnels[2].server_address[1], ports.low + 2)
        tunnels[2].both()
        for tunnel in tunnels:
            tunnel.end()
        daemon.stop()

    def test_no_free_pair_is_a_fault_and_passes(self):
        daemon = self.start_daemon(pairs=2)
        tunnels = [self.open_tunnel(daemon) for _ in range(2)]
        fault = fault_of(daemon.rpc().Tunnel.openTunnel)
        self.assertIn("no free port pair", fault.faultString)
        self.assertGreater(fault.faultCode, 0)
        tunnels[0].end()
        wait_until(lambda: len(daemon.ports.listening()) == 2, "one pair is back")
        tunnels.append(wait_until(lambda: self.open_or_none(daemon), "a tunnel opens again"))
        for tunnel in tunnels:
            tunnel.end()
        daemon.stop()

    def open_or_none(self, daemon):
        try:
            return self.open_tunnel(daemon)
        except harness.xmlrpc.client.Fault:
            return None

    def test_the_limit_of_tunnels_is_a_fault_and_passes(self):
        daemon = self.start_daemon("--max-tunnels", "3", pairs=8)
        tunnels = [self.open_tunnel(daemon) for _ in range(3)]
        fault = fault_of(daemon.rpc().Tunnel.openTunnel)
        self.assertIn("limit reached", fault.faultString)
        self.assertGreater(fault.faultCode, 0)
        tunnels[1].end()
        tunnels.append(wait_until(lambda: self.open_or_none(daemon), "a tunnel opens again"))
        self.assertIn("limit reached", fault_of(daemon.rpc().Tunnel.openTunnel).faultString)
        for tunnel in tunnels:
            tunnel.end()
        daemon.stop()

    def test_an_odd_port_at_the_end_of_the_range_is_not_used(self):
        ports = PortBlock(3)
        ports.high -= 1
        daemon = self.start_daemon(ports=ports)
        tunnels = [self.open_tunnel(daemon) for _ in range(2)]
        self.assertIn("no free port pair", fault_of(daemon.rpc().Tunnel.openTunnel).faultString)
        self.assertNotIn(ports.high, ports.listening())
        for tunnel in tunnels:
            tunnel.end()
        daemon.stop()


class Cycles(DaemonCase):
    pairs = 12

    def open_soon(self, proxy):
        """Ends that both peers have seen may have to wait for a processor, a dozen of them."""
        def open_if_possible():
            try:
                return proxy.Tunnel.openTunnel()
            except xmlrpc.client.Fault as fault:
                self.assertIn("no free port pair", fault.faultString)
                return None
        return wait_until(open_if_possible, "a pair is free")

    def test_many_cycles_leave_descriptors_threads_and_ports_where_they_were(self):
        proxy = self.daemon.rpc()
        for number in range(CYCLES):
            server_uri = self.open_soon(proxy)
            server = connect(address_of(server_uri))
            client = connect(address_of(proxy.Tunnel.getTunnelAddress(server_uri)))
            client.sendall(b"ping")
            if receive_exactly(server, 4) != b"ping":
                self.fail(f"cycle {number}")
            server.sendall(b"pong")
            if receive_exactly(client, 4) != b"pong":
                self.fail(f"cycle {number}")
            (reset if number % 10 == 9 else socket.socket.close)(server)
            how_it_ended(client)
            client.close()
        self.daemon.expect_rest()
        tunnels = [self.open_tunnel() for _ in range(self.pairs)]
        self.assertIn("no free port pair",
                      fault_of(self.daemon.rpc().Tunnel.openTunnel).faultString)
        for tunnel in tunnels:
            tunnel.end()
        self.daemon.expect_rest()

    def test_tunnels_at_the_same_time_do_not_mix(self):
        def talk(number):
            tunnel = self.open_tunnel()
            server, client = tunnel.both()
            word = b"%08d" % number
            for _ in range(50):
                client.sendall(word)
                assert receive_exactly(server, 8) == word
                server.sendall(word[::-1])
                assert receive_exactly(client, 8) == word[::-1]
            client.close()
            assert receive_until_end(server) == b""
            server.close()

        for talking in [in_thread(talk, number) for number in range(self.pairs)]:
            talking.result()


if __name__ == "__main__":
    harness.main()
