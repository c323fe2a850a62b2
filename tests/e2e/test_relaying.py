#!/usr/bin/python3 -B
"""The rules of relaying: exact bytes, ends, resets, back pressure."""

import hashlib
import os
import random
import signal
import socket
import sys
import threading
import time

import harness
from harness import (DaemonCase, bounce_bytes, in_thread, receive_exactly, receive_until_end,
                     receive_until_reset, reset, send_until_error, start, wait_until)

BULK_BYTES = int(os.environ.get("E2E_BULK_MIB", "100")) << 20


def send_random(connection, count):
    """Sends count random bytes and the end; returns their digest."""
    digest = hashlib.sha256()
    while count:
        block = os.urandom(min(count, 1 << 20))
        connection.sendall(block)
        digest.update(block)
        count -= len(block)
    connection.shutdown(socket.SHUT_WR)
    return digest.hexdigest()


def digest_until_end(connection):
    digest, count = hashlib.sha256(), 0
    while block := connection.recv(1 << 20):
        digest.update(block)
        count += len(block)
    return digest.hexdigest(), count


class Bytes(DaemonCase):
    def test_bulk_both_ways_at_once_arrives_exactly(self):
        server, client = self.open_tunnel().both()
        down = in_thread(send_random, server, BULK_BYTES)
        up = in_thread(send_random, client, BULK_BYTES)
        at_client = in_thread(digest_until_end, client)
        at_server = in_thread(digest_until_end, server)
        self.assertEqual(at_client.result(), (down.result(), BULK_BYTES))
        self.assertEqual(at_server.result(), (up.result(), BULK_BYTES))

    def test_pieces_of_every_size_arrive_in_order(self):
        server, client = self.open_tunnel().both()
        sizes = [1, 2, 3, 1000, 1447, 1448, 4095, 4096, 4097, 16383, 16385, 65535, 65536,
                 65537, 262143, 262145] + [random.randint(1, 90000) for _ in range(60)]
        sent = [random.randbytes(size) for size in sizes]

        def send_all(connection):
            for piece in sent:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)

        sending = in_thread(send_all, server)
        self.assertEqual(receive_until_end(client), b"".join(sent))
        sending.result()
        sending = in_thread(send_all, client)
        self.assertEqual(receive_until_end(server), b"".join(sent))
        sending.result()

    def test_single_bytes_go_back_and_forth_without_delay(self):
        server, client = self.open_tunnel().both()
        self.assertLess(bounce_bytes(client, server, 500), 20)  # Nagle would make it 40

    def test_urgent_data_does_not_disturb_the_stream(self):
        server, client = self.open_tunnel().both()
        client.sendall(b"before")
        client.send(b"!", socket.MSG_OOB)
        client.sendall(b"after")
        client.shutdown(socket.SHUT_WR)
        self.assertIn(receive_until_end(server), (b"beforeafter", b"before!after"))


class WhoComesFirst(DaemonCase):
    def test_a_server_that_speaks_first_is_heard(self):
        tunnel = self.open_tunnel()
        server = tunnel.attach()
        server.sendall(b"220 mail.example.org ESMTP\r\n")
        time.sleep(0.3)
        client = tunnel.connect()
        self.assertEqual(receive_exactly(client, 28), b"220 mail.example.org ESMTP\r\n")
        client.sendall(b"QUIT\r\n")
        self.assertEqual(receive_exactly(server, 6), b"QUIT\r\n")

    def test_all_that_a_server_sent_before_its_client_came_is_kept(self):
        tunnel = self.open_tunnel()
        server = tunnel.attach()
        sending = in_thread(send_random, server, 3 << 20)
        time.sleep(0.3)
        client = tunnel.connect()
        digest, count = digest_until_end(client)
        self.assertEqual((digest, count), (sending.result(), 3 << 20))

    def test_what_a_server_sent_before_finishing_is_kept_for_its_client(self):
        tunnel = self.open_tunnel()
        server = tunnel.attach()
        server.sendall(b"bye")
        server.shutdown(socket.SHUT_WR)
        time.sleep(0.3)
        client = tunnel.connect()
        self.assertEqual(receive_until_end(client), b"bye")

    def test_a_client_that_comes_first_is_held_until_the_server_attaches(self):
        tunnel = self.open_tunnel()
        client = tunnel.connect()
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        client.settimeout(0.5)
        self.assertRaises(TimeoutError, client.recv, 1)
        client.settimeout(harness.WAIT_S)
        server = tunnel.attach()
        self.assertEqual(receive_exactly(server, 18), b"GET / HTTP/1.0\r\n\r\n")
        server.sendall(b"200")
        self.assertEqual(receive_exactly(client, 3), b"200")

    def test_a_client_that_came_first_and_finished_gets_its_answer(self):
        tunnel = self.open_tunnel()
        client = tunnel.connect()
        client.sendall(b"x")
        client.shutdown(socket.SHUT_WR)
        time.sleep(0.2)
        server = tunnel.attach()
        self.assertEqual(receive_until_end(server), b"x")
        server.sendall(b"answer")
        server.close()
        self.assertEqual(receive_until_end(client), b"answer")


class Ends(DaemonCase):
    def test_a_client_that_finished_sending_gets_its_answer(self):
        tunnel = self.open_tunnel()
        server, client = tunnel.attach(), tunnel.connect()
        client.sendall(b"x")
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(receive_until_end(server), b"x")
        answer = random.randbytes(1 << 20)
        sending = in_thread(lambda: (server.sendall(answer), server.close()))
        self.assertEqual(receive_until_end(client), answer)
        sending.result()

    def test_a_server_that_finished_sending_gets_its_answer(self):
        server, client = self.open_tunnel().both()
        server.sendall(b"x")
        server.shutdown(socket.SHUT_WR)
        self.assertEqual(receive_until_end(client), b"x")
        answer = random.randbytes(1 << 20)
        sending = in_thread(lambda: (client.sendall(answer), client.close()))
        self.assertEqual(receive_until_end(server), answer)
        sending.result()

    def test_everything_sent_before_a_close_is_delivered_to_a_slow_reader(self):
        server, client = self.open_tunnel().both()
        sent = random.randbytes(2 << 20)
        sending = in_thread(lambda: (server.sendall(sent), server.close()))
        time.sleep(0.5)
        client.shutdown(socket.SHUT_WR)
        time.sleep(0.5)
        self.assertEqual(receive_until_end(client), sent)
        sending.result()

    def test_the_end_comes_right_after_the_last_byte_whatever_the_amount(self):
        for count in range(1, 81):
            server, client = self.open_tunnel().both()
            server.shutdown(socket.SHUT_WR)
            sent = bytes(count * 16384)
            sending = in_thread(lambda: (client.sendall(sent), client.close()))
            began = time.monotonic()
            self.assertEqual(len(receive_until_end(server)), len(sent))
            self.assertLess(time.monotonic() - began, 20)
            sending.result()
            server.close()
            self.daemon.expect_rest()

    def test_an_end_arrives_as_an_end_and_not_as_a_reset(self):
        for closer in (0, 1):
            with self.subTest(closer=("server", "client")[closer]):
                pair = self.open_tunnel().both()
                pair[closer].close()
                self.assert_proper_end(pair[1 - closer])
                pair[1 - closer].close()


class Resets(DaemonCase):
    def both_ways(self, test):
        for breaker in (0, 1):
            with self.subTest(breaker=("server", "client")[breaker]):
                pair = self.open_tunnel().both()
                test(pair[breaker], pair[1 - breaker])

    def test_a_reset_reaches_the_other_side(self):
        def test(one, other):
            reset(one)
            self.assertEqual(receive_until_reset(other), b"")
        self.both_ways(test)

    def test_a_reset_in_the_middle_of_a_transfer_reaches_its_reader(self):
        def test(one, other):
            def send_and_break():
                one.sendall(bytes(1 << 20))
                reset(one)
            breaking = in_thread(send_and_break)
            self.assertLessEqual(len(receive_until_reset(other)), 1 << 20)
            breaking.result()
        self.both_ways(test)

    def test_a_reset_in_the_middle_of_a_transfer_reaches_its_writer(self):
        def test(one, other):
            writing = in_thread(send_until_error, other)
            receive_exactly(one, 1 << 20)
            reset(one)
            self.assertIsInstance(writing.result(), ConnectionError)
        self.both_ways(test)

    def test_a_reset_after_a_half_close_is_no_end(self):
        def test(one, other):
            other.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_until_end(one), b"")
            one.sendall(b"half an answer")
            self.assertEqual(receive_exactly(other, 14), b"half an answer")
            reset(one)
            self.assertEqual(receive_until_reset(other), b"")
        self.both_ways(test)

    def test_a_reset_reaches_a_writer_whose_reader_had_stopped(self):
        def test(one, other):
            writing = in_thread(send_until_error, other)
            time.sleep(0.5)         # everything between the two is full
            reset(one)
            self.assertIsInstance(writing.result(), ConnectionError)
        self.both_ways(test)

    def test_a_close_with_bytes_unread_is_a_reset_for_the_sender(self):
        server, client = self.open_tunnel().both()
        writing = in_thread(send_until_error, server)
        time.sleep(0.3)
        client.close()
        self.assertIsInstance(writing.result(), ConnectionError)


class SlowReaders(DaemonCase):
    PUSHED_BYTES = 96 << 20

    def test_a_slow_reader_slows_the_writer_and_takes_no_memory(self):
        for reader in ("client", "server"):
            with self.subTest(reader=reader):
                self.push_at_a_reader_that_stopped(reader)

    def push_at_a_reader_that_stopped(self, reader):
        tunnel = self.open_tunnel()
        server = tunnel.attach(receive_buffer=65536, send_buffer=65536)
        client = tunnel.connect(receive_buffer=65536, send_buffer=65536)
        source, sink = (server, client) if reader == "client" else (client, server)
        before_kib = self.daemon.resident_kib()
        pushed = 0
        digest = hashlib.sha256()
        finished = threading.Event()

        def push():
            nonlocal pushed
            while pushed < self.PUSHED_BYTES:
                block = os.urandom(65536)
                source.sendall(block)
                digest.update(block)
                pushed += len(block)
            source.shutdown(socket.SHUT_WR)
            finished.set()

        pushing = in_thread(push)
        at_rest = -1
        while at_rest != pushed:
            at_rest = pushed
            self.assertFalse(finished.wait(0.7), "the writer was never slowed")
        self.assertLess(pushed, 48 << 20)
        self.assertLess(self.daemon.resident_kib() - before_kib, 8 << 10)
        self.assertEqual(digest_until_end(sink), (digest.hexdigest(), self.PUSHED_BYTES))
        pushing.result()

    def test_a_frozen_peer_holds_up_nobody_else_and_can_go_on(self):
        tunnel = self.open_tunnel()
        server = tunnel.attach()
        reader = start([sys.executable, "-c",
                        "import hashlib, socket, sys\n"
                        "s = socket.socket()\n"
                        "s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)\n"
                        "s.connect(('127.0.0.1', int(sys.argv[1])))\n"
                        "s.settimeout(120)\n"
                        "h = hashlib.sha256()\n"
                        "while b := s.recv(65536): h.update(b)\n"
                        "print(h.hexdigest())\n", str(tunnel.client_address[1])],
                       stdout=harness.subprocess.PIPE, text=True)
        self.addCleanup(reader.stdout.close)
        self.addCleanup(reader.wait)
        self.addCleanup(reader.kill)
        wait_until(lambda: tunnel.client_address[1] not in self.daemon.ports.listening(),
                   "the reader is connected")
        reader.send_signal(signal.SIGSTOP)
        sending = in_thread(send_random, server, 96 << 20)
        time.sleep(0.5)
        self.assertTrue(sending.is_alive())
        self.open_tunnel().both()
        reader.send_signal(signal.SIGCONT)
        self.assertEqual(reader.communicate(timeout=60)[0].strip(), sending.result())

    def test_an_idle_tunnel_costs_no_processor_time(self):
        self.open_tunnel().both()
        tunnel = self.open_tunnel()
        tunnel.attach().sendall(b"x" * 100000)      # waits for a client that doesn't come
        half, other = self.open_tunnel().both()
        half.shutdown(socket.SHUT_WR)
        self.assertEqual(receive_until_end(other), b"")
        before = self.processor_seconds()
        time.sleep(2)
        self.assertLess(self.processor_seconds() - before, 0.4)

    def processor_seconds(self):
        with open(f"/proc/{self.daemon.pid}/stat", encoding="ascii") as stat:
            field = stat.read().rsplit(")", 1)[1].split()
        return (int(field[11]) + int(field[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    harness.main()
