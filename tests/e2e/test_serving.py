#!/usr/bin/python3 -B
"""Serving by the library: a program of its own, against the real daemon."""

import re
import socket
import time
import xmlrpc.server

import harness
from harness import (Pattern, how_it_ended, in_thread, listen, receive_exactly, receive_until_reset,
                     reset, visit_until_reset, wait_until)
from serving_harness import SERVE, ServingCase, is_connecting_to

class Serving(ServingCase):
    def test_clients_are_served_each_by_itself(self):
        _, server = self.start()
        for number in range(3):
            self.assert_echoes(server)
            self.assertRegex(server.wait_for("left"), rf"client={number + 1} from=4 to=4: finished")
        self.assertIn("came", server.seen[0])
        self.stop(server)

    def test_large_patterns_pass_both_kinds_of_service(self):
        for service in ("echo", self.echo_service()):
            _, server = self.start(1, service)
            client = self.client(server)
            sent, got = Pattern("large"), Pattern("large")

            def send(client=client, sent=sent):
                for _ in range(16):
                    client.sendall(sent.take(1 << 20))
                client.shutdown(socket.SHUT_WR)

            sender = in_thread(send)
            while piece := client.recv(1 << 20):
                got.check(piece)
            sender.result()
            self.assertEqual(got.position, 16 << 20)
            self.stop(server)

    def test_300_clients_over_3_connections(self):
        _, server = self.start(3, options=("--streams-per-tunnel", "400"))
        clients = [self.client(server) for _ in range(300)]
        for number, client in enumerate(clients):
            client.sendall(b"%03d" % number)
        for number, client in enumerate(clients):
            self.assertEqual(receive_exactly(client, 3), b"%03d" % number)
        wait_until(lambda: server.statistics()["clients"] == 300, "all are counted")
        self.assertEqual(server.statistics()["connections"], 3)
        self.stop(server)

    def test_a_slow_client_loses_nothing(self):
        _, server = self.start()
        slow = self.client(server, receive_buffer=4096)
        sent, got = Pattern("slow"), Pattern("slow")

        def send():
            for _ in range(24):
                slow.sendall(sent.take(1 << 20))
            slow.shutdown(socket.SHUT_WR)

        sender = in_thread(send)
        self.assert_echoes(server)
        time.sleep(1)
        while piece := slow.recv(1 << 20):
            got.check(piece)
        sender.result()
        self.assertEqual(got.position, 24 << 20)

    def test_a_clients_reset_is_the_end_of_its_stream(self):
        _, server = self.start()
        client = self.client(server)
        client.sendall(b"x")
        receive_exactly(client, 1)
        reset(client)
        self.assertRegex(server.wait_for("left"), r"client=1 from=1 to=1: the client broke off, ")

    def test_a_service_that_is_down_refuses(self):
        port = self.closed_port()
        _, server = self.start(1, port)
        self.assertEqual(visit_until_reset(server.address), b"")
        self.assertRegex(server.wait_for("refused"), r"client=1 .*: Connection refused")
        self.assertEqual(server.statistics()["refused"], 1)

    def test_each_client_is_told_as_refused_or_as_one_that_comes_and_leaves(self):
        hanging = self.hanging_service()
        _, server = self.start(1, hanging)
        client = self.client(server)
        wait_until(lambda: is_connecting_to(hanging), "the service is connected to")
        reset(client)
        self.assertRegex(server.wait_for("refused"), "client=1 .*: the client left before")
        self.client(server)
        wait_until(lambda: is_connecting_to(hanging), "the service is connected to")
        numbers = server.statistics()
        self.assertEqual((numbers["clients"], numbers["in_all"], numbers["refused"]), (0, 0, 1))
        self.stop(server)
        self.assertEqual([line.split()[0] for line in server.seen], ["refused", "statistics"])

    def test_each_who_came_has_left_when_the_server_has_stopped(self):
        _, server = self.start()
        clients = [self.client(server) for _ in range(3)]
        for client in clients:
            client.sendall(b"x")
            receive_exactly(client, 1)
        numbers = server.statistics()
        self.assertEqual((numbers["clients"], numbers["in_all"], numbers["refused"]), (3, 3, 0))
        lines = server.seen + self.stop(server).splitlines()
        self.assertEqual(sum(bool(re.match("left .*: stopped$", line)) for line in lines), 3)
        told = sorted(re.match(r"(came|left) .* (client=\d) ", line).groups() for line in lines
                      if not re.match("statistics|stopped", line))
        self.assertEqual(told, [(kind, f"client={number}") for kind in ("came", "left") for number in (1, 2, 3)])

    def test_a_service_that_breaks_off_resets_the_client(self):
        listener = listen()
        self.addCleanup(listener.close)
        _, server = self.start(1, listener.getsockname()[1])
        client = self.client(server)
        service, _ = self.accept(listener)
        service.sendall(b"before")
        reset(service)
        self.assertEqual(receive_until_reset(client), b"before")

    def test_statistics_count_what_passed(self):
        _, server = self.start(2)
        for _ in range(3):
            self.assert_echoes(server)
        client = self.client(server)
        client.sendall(b"x")
        receive_exactly(client, 1)
        due = {"clients": 1, "connections": 2, "in_all": 4, "refused": 0, "from": 13, "to": 13,
               "lost": 0, "rtt": 1}
        wait_until(lambda: server.statistics() == due, "the statistics are right")

    def test_a_signal_stops_it_and_resets_who_is_there(self):
        daemon, server = self.start()
        client = self.client(server)
        client.sendall(b"x")
        receive_exactly(client, 1)
        self.assertIn("stopped\n", self.stop(server))
        self.assertEqual(how_it_ended(client), "reset")

    def test_wrong_numbers_of_connections_are_told(self):
        daemon = self.start_daemon("--drain", "0")
        for number in (-1, 17, 1000):
            result = harness.run([SERVE, daemon.url, str(number), "echo"])
            self.assertEqual(result.returncode, 1)
            self.assertRegex(result.stdout, "^error 1: .*1 to 16 connections\n$")

    def test_a_proxy_that_is_not_there_is_told_at_once(self):
        port = self.closed_port()
        began = time.monotonic()
        result = harness.run([SERVE, f"http://127.0.0.1:{port}/RPC2", "1", "echo"])
        self.assertLess(time.monotonic() - began, 20)
        self.assertRegex(result.stdout, rf"^error 2: can't call http://127.0.0.1:{port}/RPC2: ")

    def test_a_proxy_without_webmux_is_told_at_once(self):
        proxy = xmlrpc.server.SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False)
        self.addCleanup(proxy.server_close)

        def open_tunnel(*backend):
            raise xmlrpc.server.Fault(3, "unknown backend: this proxy has tcp")

        proxy.register_function(open_tunnel, "Tunnel.openTunnel")
        in_thread(proxy.handle_request)
        result = harness.run([SERVE, f"http://127.0.0.1:{proxy.server_address[1]}/RPC2", "1", "echo"])
        self.assertRegex(result.stdout, "^error 4: .*unknown backend: this proxy has tcp")


if __name__ == "__main__":
    harness.main()
