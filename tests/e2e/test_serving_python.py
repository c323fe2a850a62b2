#!/usr/bin/python3 -B
"""Serving by the Python package, against the real daemon."""

import signal
import socket

import harness
from detour import Detour
from harness import (Pattern, address_of, connect, how_it_ended, in_thread, listen, receive_exactly,
                     reset, wait_until)
from serving_harness import BAD_PROXIES, NO_PROXIES, DetourCase, ServingCase


class Python(ServingCase):
    def start_expose(self, service, *options):
        daemon = self.start_daemon("--drain", "0", "--reserve", "30")
        program = self.start_package(daemon.url, service, *options)
        return daemon, program, address_of(program.line())

    def test_it_serves_through_the_daemon(self):
        _, program, address = self.start_expose(self.echo_service(), "--carriers", "2")

        def talk(number):
            pattern, check = Pattern(number), Pattern(number)
            with connect(address) as client:
                def send():
                    for _ in range(8):
                        client.sendall(pattern.take(100000 + number))
                    client.shutdown(socket.SHUT_WR)
                sender = in_thread(send)
                while piece := client.recv(1 << 20):
                    check.check(piece)
                sender.result()
            self.assertEqual(check.position, 8 * (100000 + number))

        for thread in [in_thread(talk, number) for number in range(10)]:
            thread.result()
        program.signal(signal.SIGTERM)
        self.assertEqual(program.wait(), 0)

    def test_slow_clients_and_resets(self):
        listener = listen()
        self.addCleanup(listener.close)
        _, _, address = self.start_expose(listener.getsockname()[1])
        with listener.accept()[0] as asking:
            asking.recv(65536)
            asking.sendall(b"no HTTP")
        slow = connect(address, receive_buffer=4096)
        service, _ = self.accept(listener)
        pattern, check = Pattern("slow"), Pattern("slow")

        def send():
            for _ in range(16):
                service.sendall(pattern.take(1 << 20))
            service.shutdown(socket.SHUT_WR)

        sender = in_thread(send)
        for who in ("client", "service"):
            client = connect(address)
            other, _ = self.accept(listener)
            client.sendall(b"?")
            self.assertEqual(receive_exactly(other, 1), b"?")
            reset(client if who == "client" else other)
            self.assertEqual(how_it_ended(other if who == "client" else client), "reset")
        while piece := slow.recv(1 << 20):
            check.check(piece)
        sender.result()
        self.assertEqual(check.position, 16 << 20)
        slow.close()
        service.close()

    def test_it_comes_back_to_its_address_after_a_loss(self):
        daemon, program, address = self.start_expose(self.echo_service())
        for _ in range(2):
            client = connect(address)
            client.sendall(b"?")
            self.assertEqual(receive_exactly(client, 1), b"?")
            program.address = address
            self.cut_carriers(program)
            self.assertEqual(how_it_ended(client), "reset")
            client.close()
            with connect(address) as client:
                client.sendall(b"again")
                self.assertEqual(receive_exactly(client, 5), b"again")

    def test_it_attaches_at_once_to_a_tunnel_just_opened(self):
        once, then = listen(port=self.closed_port()), listen()
        self.addCleanup(then.close)
        gone, ports = set(), [each.getsockname()[1] for each in (once, then)]
        url, _ = self.fake_proxy(*ports, gone=gone)
        program = self.start_package(url, self.echo_service())
        program.line()
        carrier, _ = self.accept(once)
        once.close()
        gone.add(ports[0])
        reset(carrier)
        self.accept(then)
        wait_until(lambda: program.errors().count("is attached") == 2, "it attaches")
        self.assertRegex(program.errors(), "the address changed .*\n.*carrier 1 is attached")


class ByWayOf(DetourCase):
    def start_serving(self, url, environment):
        return self.start_package(url, self.echo_service(), env=environment)

    def test_an_http_proxy_carries_calls_and_the_connection(self):
        proxy = self.run_server(Detour())
        rpc_port, port = self.serve(http_proxy=proxy.url("http"))
        self.assertEqual(proxy.asked, [f"CONNECT {self.NAME}:{rpc_port}"] * 2 +
                         [f"CONNECT {self.NAME}:{port - 1}"])

    def test_that_of_https_goes_first_for_the_connection(self):
        calls, carriers = self.run_server(Detour()), self.run_server(Detour())
        _, port = self.serve(http_proxy=calls.url("http"), https_proxy=carriers.url("http"))
        self.assertEqual(len(calls.asked), 2)
        self.assertEqual(carriers.asked, [f"CONNECT {self.NAME}:{port - 1}"])

    def test_a_socks_proxy_resolves_the_names(self):
        proxy = self.run_server(Detour())
        rpc_port, port = self.serve(ALL_PROXY=proxy.url("socks5h"))
        self.assertEqual(proxy.asked, [f"SOCKS {self.NAME}:{rpc_port}"] * 2 +
                         [f"SOCKS {self.NAME}:{port - 1}"])

    def test_hosts_of_no_proxy_are_connected_to_directly(self):
        daemon = self.start_daemon("--drain", "0", "--reserve", "30")
        program = self.start_package(daemon.url, self.echo_service(), env={
            "NO_PROXY": "127.0.0.0/8", "ALL_PROXY": "socks5h://127.0.0.1:1"})
        with connect(address_of(program.line())) as client:
            client.sendall(b"?")
            self.assertEqual(receive_exactly(client, 1), b"?")

    def test_nothing_goes_past_one_that_is_lost(self):
        proxy = self.run_server(Detour(self.closed_port()))
        daemon = self.start_daemon("--drain", "0", "--reserve", "30")
        program = self.start_package(daemon.url, self.echo_service(), env={
            **NO_PROXIES, "https_proxy": proxy.url("http").replace("//", "//alice:secret@")})
        program.line()
        proxy.shutdown()
        proxy.server_close()
        self.cut_connections(program, proxy.server_address[1])
        wait_until(lambda: f"by way of {proxy.url('http')}: Connection refused" in program.errors(),
                   "it can't attach")
        self.assertEqual(program.errors().count("is attached"), 1)
        self.assertNotIn("secret", program.errors())

    def test_passwords_of_proxies_are_not_told(self):
        daemon, service = self.start_daemon("--drain", "0"), self.echo_service()
        for proxy in BAD_PROXIES:
            for name, what in (("http_proxy", "call"), ("https_proxy", "attach to")):
                program = self.start_package(daemon.url, service, env={**NO_PROXIES, name: proxy})
                with self.subTest(proxy=proxy, name=name):
                    self.assertEqual(program.wait(), 1)
                    self.assertIn(f"can't {what} ", program.errors())
                    self.assertIn(proxy.rpartition("@")[2], program.errors())
                    self.assertNotIn("sec", program.errors())


if __name__ == "__main__":
    harness.main()
