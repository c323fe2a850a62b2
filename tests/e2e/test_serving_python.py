#!/usr/bin/python3 -B
"""Serving by the Python package, against the real daemon."""

import os
import signal
import socket
import sys

import harness
from harness import Pattern, address_of, connect, how_it_ended, in_thread, listen, receive_exactly, reset
from serving_harness import ServingCase

class Python(ServingCase):
    """python -m tristero_tunnel expose, against the real daemon."""

    def start_expose(self, service, *options, daemon_options=()):
        daemon = self.start_daemon("--drain", "0", "--reserve", "30", *daemon_options)
        program = self.start_program(
            [sys.executable, "-B", "-m", "tristero_tunnel", "expose", str(service), "--proxy",
             daemon.url, *options],
            env={"PYTHONPATH": os.path.join(harness.SRCDIR, "clients", "python")})
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
        listener.accept()[0].close()        # it has asked whether the service speaks HTTP
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


if __name__ == "__main__":
    harness.main()
