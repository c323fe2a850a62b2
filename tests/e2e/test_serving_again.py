#!/usr/bin/python3 -B
"""Serving by the library: coming back after a lost connection, and a proxy that starts anew."""

import os
import re
import signal
import threading
import time

import harness
from harness import PortBlock, address_of, how_it_ended, listen, receive_exactly, reset, wait_until
from serving_harness import NO_PROXIES, ServingCase, is_connecting_to

WINDOW = bytes.fromhex("000000d000001000")      # SetDefaultCredit, with which a proxy begins


class ComingBack(ServingCase):
    def test_after_a_lost_connection_it_is_at_the_same_address(self):
        daemon, server = self.start(2)
        client = self.client(server)
        client.sendall(b"x")
        receive_exactly(client, 1)
        self.assertEqual(self.cut_carriers(server), 2)
        self.assertEqual(how_it_ended(client), "reset")
        self.assertRegex(server.wait_for("left"), ": the connection that carried it was lost$")
        while len(attached := [line for line in server.seen if line.startswith("attached ")]) < 2:
            server.wait_for("attached")             # the first may be back before the client has left
        for line in attached:
            self.assertIn(f"tcp://{server.address[0]}:{server.address[1]} ", line)
        self.assert_echoes(server)
        self.assertEqual(server.statistics()["lost"], 2)

    def test_waits_grow_when_it_is_lost_as_soon_as_it_has_attached(self):
        daemon, server = self.start()
        for number in range(3):
            before = time.monotonic()
            self.assertEqual(self.cut_carriers(server), 1)
            wait_ms = int(re.search(r"wait=(\d+)", server.wait_for("lost"))[1])
            self.assertTrue(500 << number <= wait_ms <= 1000 << number, wait_ms)
            server.wait_for("attached")
            self.assertGreaterEqual(time.monotonic() - before, wait_ms / 1000)

    def test_a_tunnel_whose_address_could_not_be_asked_for_is_used_nevertheless(self):
        once, then = listen(port=self.closed_port()), listen()
        self.addCleanup(then.close)
        gone, spoilt = set(), []
        ports = [each.getsockname()[1] for each in (once, then)]
        url, opened = self.fake_proxy(*ports, gone=gone, on_address=lambda: spoilt and spoilt.pop(),
                                      on_open=lambda count: count == 2 and spoilt.append("spoilt"))
        server = self.start_server(url)
        carrier, _ = self.accept(once)
        once.close()
        gone.add(ports[0])
        reset(carrier)
        self.assertIn("spoilt", server.wait_for("retrying"))
        server.wait_for("moved")
        self.accept(then)
        self.assertEqual(opened, ports)

    def test_of_a_proxy_that_starts_anew_it_gets_a_new_address(self):
        ports = PortBlock(16)
        self.addCleanup(ports.release)
        listen_on = f"127.0.0.1:{self.closed_port()}"
        daemon = self.start_daemon("--drain", "0", ports=ports, listen_on=listen_on)
        server = self.start_server(daemon.url)
        self.assert_echoes(server)
        daemon.process.kill()
        daemon.wait()
        server.wait_for("lost")
        waits = [int(re.search(r"wait=(\d+)", server.wait_for("retrying"))[1]) for _ in range(3)]
        for number, wait_ms in enumerate(waits, 1):     # the loss had the first
            self.assertTrue(500 << number <= wait_ms <= 1000 << number, waits)
        other = self.start_daemon("--drain", "0", listen_on=listen_on)
        moved = server.wait_for("moved")
        server.address = address_of(moved.split()[1])
        self.assertIn(server.address[1], other.ports.listening())
        self.assert_echoes(server)
        self.stop(server)

    def test_services_of_one_program_get_tunnels_of_their_own_when_a_proxy_starts_anew(self):
        listeners = [listen(port=self.closed_port()) for _ in range(3)]
        first, second, third = (listener.getsockname()[1] for listener in listeners)
        gone = set()

        def on_open(count):
            if count == 3:                  # it gives the same port first as it did before
                listeners[0] = listen(port=first)

        url, opened = self.fake_proxy(first, second, first, third, gone=gone, on_open=on_open)
        service = self.echo_service()
        path = os.path.join(self.temporary_folder(), "services.conf")
        with open(path, "w", encoding="ascii") as file:
            file.write(f"[a]\nservice = {service}\n[b]\nservice = {service}\n")
        program = self.start_program([harness.TUNNEL, "--proxy", url, "expose", "--config", path],
                                     env=NO_PROXIES)
        of_first, of_second = [self.accept(listener)[0] for listener in listeners[:2]]
        self.assertEqual({int(program.line().rpartition(":")[2]) for _ in range(2)}, {first + 1, second + 1})
        for listener in listeners[:2]:
            listener.close()
        gone.add(second)
        reset(of_second)
        wait_until(lambda: listeners[0].fileno() >= 0, "it opens another tunnel")
        carrier, _ = self.accept(listeners[0])
        carrier.sendall(WINDOW)
        wait_until(lambda: "attached again, at a new address" in program.errors(), "it knows its tunnel")
        reset(of_first)
        self.accept(listeners[2])                   # and so does the other
        self.assertEqual(opened, [first, second, first, third])
        for listener in listeners:
            listener.close()

    def test_it_stops_while_a_call_hangs(self):
        listener = listen(port=self.closed_port())
        is_answering, is_called = threading.Event(), threading.Event()
        is_answering.set()

        def on_address():
            if not is_answering.is_set():
                is_called.set()
            is_answering.wait(harness.WAIT_S)

        url, _ = self.fake_proxy(listener.getsockname()[1], on_address=on_address)
        self.addCleanup(is_answering.set)
        server = self.start_server(url)
        carrier, _ = self.accept(listener)
        listener.close()
        is_answering.clear()
        reset(carrier)
        self.assertTrue(is_called.wait(harness.WAIT_S), "it asks whether the tunnel is gone")
        began = time.monotonic()
        self.stop(server)
        self.assertLess(time.monotonic() - began, 15)

    def test_it_stops_while_it_tries(self):
        daemon = self.start_daemon("--drain", "0")
        server = self.start_server(daemon.url)
        daemon.process.kill()
        daemon.wait()
        server.wait_for("retrying")
        began = time.monotonic()
        self.stop(server)
        self.assertLess(time.monotonic() - began, 15)


class Stopping(ServingCase):
    """expose, before it has an address."""

    def assert_stops(self, program):
        began = time.monotonic()
        program.signal(signal.SIGINT)
        self.assertEqual(program.wait(), 0)
        self.assertLess(time.monotonic() - began, 2.8)      # what is served would get three
        self.assertEqual(program.errors(), "")

    def start_expose(self, url, backend):
        return self.start_program([harness.TUNNEL, "--proxy", url, "expose", "--backend", backend,
                                   str(self.echo_service())], env=NO_PROXIES)

    def test_it_stops_while_the_first_call_hangs(self):
        for backend in ("webmux", "ssh"):
            is_called, goes_on = threading.Event(), threading.Event()

            def hang(_, is_called=is_called, goes_on=goes_on):
                is_called.set()
                goes_on.wait(harness.WAIT_S)

            url, _ = self.fake_proxy(1, on_open=hang)
            self.addCleanup(goes_on.set)
            program = self.start_expose(url, backend)
            self.assertTrue(is_called.wait(harness.WAIT_S))
            with self.subTest(backend=backend):
                self.assert_stops(program)

    def test_it_stops_while_it_attaches_for_the_first_time(self):
        port = self.hanging_service()
        url, _ = self.fake_proxy(port)
        program = self.start_expose(url, "webmux")
        wait_until(lambda: is_connecting_to(port), "it attaches")
        self.assert_stops(program)


if __name__ == "__main__":
    harness.main()
