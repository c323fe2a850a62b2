#!/usr/bin/env python3
"""The command and the library, against a proxy of the tests' own."""
import asyncio
import fcntl
import http.server
import itertools
import os
import re
import signal
import socket
import sys
import threading
import time

import common
import harness
from fake_proxy import FakeProxy
from harness import (Case, Pattern, address_of, connect, how_it_ended, in_thread, listen, main,
                     receive_exactly, receive_until_end, receive_until_reset, reset, run,
                     visit_until_reset, wait_until)
from tristero_tunnel import Tunnel, TunnelError

COMMAND = [sys.executable, "-B", "-m", "tristero_tunnel", "expose"]
ENVIRONMENT = {"PYTHONPATH": common.PACKAGE_FOLDER}
MIB = 1 << 20


class Service:
    """Calls talk(connection) in a thread for each connection, also for the first one,
    by which the command finds out whether HTTP is spoken."""

    def __init__(self, talk, listener=None):
        self._listener = listener or listen(backlog=512)
        self._listener.settimeout(None)
        self._talk = talk
        self.where = self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def echo(connection):
    with connection:
        try:
            while piece := connection.recv(65536):
                connection.sendall(piece)
        except OSError:
            pass


class ProxyCase(Case):
    def setUp(self):
        self.proxy = FakeProxy()
        self.addCleanup(self.proxy.close)

    def serve(self, talk, listener=None):
        service = Service(talk, listener)
        self.addCleanup(service.close)
        return service

    def expose(self, where, *options):
        """The command, once it has printed its first line."""
        program = self.start_program([*COMMAND, str(where), "--proxy", self.proxy.url, *options],
                                     env=ENVIRONMENT)
        self.first_line = program.line()
        wait_until(lambda: self.proxy.carriers, "it is attached")
        return program

    def expose_service(self, talk, *options):
        return self.expose(self.serve(talk).where[1], *options)

    def connect(self, **how):
        client = connect(self.proxy.client_address, **how)
        self.addCleanup(client.close)
        return client

    def expect_error(self, program, text):
        wait_until(lambda: text in program.errors(), f'"{text}" in the log')


class Relaying(ProxyCase):
    def test_bytes_arrive_exactly_both_ways(self):
        self.expose_service(echo)
        client = self.connect()
        sent, expected = Pattern(1), Pattern(1)

        def send():
            for _ in range(64):
                client.sendall(sent.take(MIB // 2))
            client.shutdown(socket.SHUT_WR)

        sender = in_thread(send)
        while piece := client.recv(MIB):
            expected.check(piece)
        sender.result()
        self.assertEqual(expected.position, 32 * MIB)

    def test_a_client_that_finishes_still_gets_the_answer(self):
        def answer_at_the_end(connection):
            with connection:
                connection.sendall(b"got " + receive_until_end(connection))

        self.expose_service(answer_at_the_end)
        client = self.connect()
        client.sendall(b"all of it")
        client.shutdown(socket.SHUT_WR)
        self.assert_proper_end(client, b"got all of it")

    def test_a_service_that_finishes_first_still_gets_the_rest(self):
        got = []

        def finish_first(connection):
            with connection:
                connection.sendall(b"bye")
                connection.shutdown(socket.SHUT_WR)
                got.append(receive_until_end(connection))

        self.expose_service(finish_first)
        client = self.connect()
        self.assertEqual(receive_until_end(client), b"bye")
        client.sendall(bytes(3 * MIB))
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: bytes(3 * MIB) in got, "the service got the rest")

    def test_a_reset_of_the_service_reaches_the_client(self):
        def break_off(connection):
            connection.recv(1)
            reset(connection)

        self.expose_service(break_off)
        client = self.connect()
        client.sendall(b"?")
        receive_until_reset(client)

    def test_a_reset_of_the_client_reaches_the_service(self):
        endings = []
        self.expose_service(lambda connection: endings.append(how_it_ended(connection)))
        client = self.connect()
        client.sendall(b"?")
        reset(client)
        wait_until(lambda: "reset" in endings, "the service saw the reset")

    def test_a_reset_reaches_a_service_that_does_not_read(self):
        endings = []
        may_read = threading.Event()

        def read_late(connection):
            may_read.wait()
            endings.append(how_it_ended(connection))

        program = self.expose_service(read_late)
        client = self.connect()
        client.settimeout(0.5)
        with self.assertRaises(socket.timeout):
            client.sendall(bytes(64 * MIB))
        reset(client)
        self.expect_error(program, "was cut")
        may_read.set()
        wait_until(lambda: "reset" in endings, "the service saw the reset")

    @staticmethod
    def _send_all(client):
        try:
            client.sendall(bytes(64 * MIB))
        except OSError:
            pass

    def test_a_hundred_clients_at_once_each_get_their_own(self):
        self.expose_service(echo)
        clients = [self.connect() for _ in range(100)]
        blocks = [Pattern(number).take(100000) for number in range(len(clients))]

        def talk(client, block):
            client.sendall(block)
            client.shutdown(socket.SHUT_WR)
            return receive_until_end(client)

        talks = [in_thread(talk, *both) for both in zip(clients, blocks)]
        for block, each in zip(blocks, talks):
            self.assertEqual(each.result(), block)

    def test_ids_go_round_with_many_short_clients(self):
        self.expose_service(echo)
        for number in range(300):
            with connect(self.proxy.client_address) as client:
                client.sendall(b"%d" % number)
                client.shutdown(socket.SHUT_WR)
                self.assertEqual(receive_until_end(client), b"%d" % number)

    def test_stuck_clients_stall_nobody_and_take_little(self):
        """Clients that never read what a service sends without end."""
        def flood_or_echo(connection):
            with connection:
                try:
                    if connection.recv(1) == b"f":
                        while True:
                            connection.sendall(bytes(65536))
                    echo(connection)
                except OSError:
                    pass

        program = self.expose_service(flood_or_echo)
        before = self._resident_kib(program)
        for _ in range(10):
            self.connect(receive_buffer=4096).sendall(b"f")
        for _ in range(20):
            client = self.connect()
            client.sendall(b"e" + bytes(MIB))
            self.assertEqual(receive_exactly(client, MIB), bytes(MIB))
            client.close()
        # A block for each; what they have of credit waits at the proxy.
        self.assertLess(self._resident_kib(program) - before, 24 * 1024)

    def test_a_stuck_service_stalls_no_other_client_and_takes_no_more_than_credit(self):
        stop = threading.Event()
        self.addCleanup(stop.set)

        def stick_or_echo(connection):
            if connection.recv(1) == b"s":
                stop.wait()
            echo(connection)

        program = self.expose_service(stick_or_echo)
        before = self._resident_kib(program)
        stuck = [self.connect() for _ in range(10)]
        for client in stuck:
            client.sendall(b"s")
            in_thread(self._send_all, client)
        for _ in range(20):
            client = self.connect()
            client.sendall(b"e" + bytes(MIB))
            self.assertEqual(receive_exactly(client, MIB), bytes(MIB))
            client.close()
        # For each one window, and what the allocator makes of it.
        self.assertLess(self._resident_kib(program) - before, 48 * 1024)
        for client in stuck:
            client.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _resident_kib(program):
        with open(f"/proc/{program.pid}/status", encoding="ascii") as status:
            return int(next(line.split()[1] for line in status if line.startswith("VmRSS")))


class Life(ProxyCase):
    VISITS = 400        # have more lines than lie in a small pipe and before it

    def test_the_address_of_a_service_of_http_is_a_URL_of_http(self):
        class Quiet(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
        self.addCleanup(server.server_close)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.shutdown)
        self.expose(server.server_address[1])
        self.assertEqual(self.first_line, "http://127.0.0.1:%d/" % self.proxy.client_address[1])

    def test_the_address_of_another_service_is_a_URI_of_tcp(self):
        self.expose_service(echo)
        self.assertEqual(self.first_line, "tcp://127.0.0.1:%d" % self.proxy.client_address[1])
        self.assertEqual(self.proxy.calls, ["open webmux", "address"])

    def test_a_service_at_a_unix_socket(self):
        path = os.path.join(self.temporary_folder(), "service")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        self.serve(echo, listener)
        self.expose(f"unix:{path}")
        self._talk()

    def test_clients_wait_while_the_queue_of_a_unix_socket_is_full(self):
        path = os.path.join(self.temporary_folder(), "service")
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(path)
        listener.listen(0)
        listener.settimeout(harness.WAIT_S)
        in_thread(self.answer_question, listener)
        self.expose(f"unix:{path}")
        clients = [self.connect() for _ in range(5)]
        for client in clients:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
        time.sleep(0.5)
        for _ in clients:
            echo(listener.accept()[0])
        for client in clients:
            self.assert_proper_end(client, b"hello")

    @staticmethod
    def answer_question(listener):
        with listener.accept()[0] as asking:
            asking.recv(65536)
            asking.sendall(b"no HTTP")

    def _talk(self):
        client = self.connect()
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        self.assert_proper_end(client, b"hello")

    def test_a_service_that_is_down_resets_its_client_and_the_tunnel_stays(self):
        port = self.closed_port()
        program = self.expose(port)
        visit_until_reset(self.proxy.client_address)
        self.expect_error(program, f"can't reach the service at 127.0.0.1:{port}: "
                                   "Connection refused")
        self.serve(echo, listen(port=port))
        self._talk()

    def test_a_lost_carrier_comes_back_to_the_same_address(self):
        program = self.expose_service(echo)
        client = self.connect()
        client.sendall(b"?")
        self.assertEqual(receive_exactly(client, 1), b"?")
        self.proxy.drop_carriers()
        receive_until_reset(client)
        self._talk()            # waits for the carrier
        self.assertEqual(self.proxy.calls.count("open webmux"), 1)
        self.expect_error(program, "carrier 1 ended")
        self.assertRegex(program.errors(), r"carrier 1 ended: [^;\n]*\n(.*\n)*.*carrier 1: next try in [01]\.\d s\n")

    def test_a_lost_tunnel_is_opened_anew_and_the_change_is_told(self):
        program = self.expose_service(echo)
        self.proxy.forget_tunnel()
        second = program.line()
        self.assertEqual(second, "tcp://127.0.0.1:%d" % self.proxy.client_address[1])
        self.expect_error(program, f"the address changed from {self.first_line} to {second}")
        self._talk()

    def test_more_carriers_take_more_clients_and_each_has_a_name_of_its_own(self):
        program = self.expose_service(echo, "--carriers", "2")
        wait_until(lambda: self.proxy.carriers == 2, "both are attached")
        clients = [self.connect() for _ in range(200)]
        for client in clients:
            client.sendall(b"?")
        for client in clients:
            self.assertEqual(receive_exactly(client, 1), b"?")
        wait_until(lambda: {int(number) for number in re.findall(r"client (\d+) is there", program.errors())} ==
                   set(range(1, 201)), "all are told")

    def test_signals_end_it_with_status_0_and_reset_its_clients(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            program = self.expose_service(echo)
            client = self.connect()
            client.sendall(b"?")
            self.assertEqual(receive_exactly(client, 1), b"?")
            program.signal(number)
            self.assertEqual(program.wait(5), 0)
            receive_until_reset(client)
            self.assertNotIn("Traceback", program.errors())
            self.assertRegex(program.errors(), r"client \d+ was cut: stopped; 1 bytes from the client, 1 to it")
            wait_until(lambda: not self.proxy.carriers, "the carrier is gone")

    @staticmethod
    def lines_told(told):
        """Of clients that came and left, with those that were left out."""
        return len(re.findall(b"is there|has finished", told)) + sum(
            map(int, re.findall(rb"tristero-tunnel: (\d+) lines were left out here", told)))

    def test_clients_are_served_while_nobody_reads_and_what_was_left_out_is_told(self):
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        command = [*COMMAND, str(self.serve(echo).where[1]), "--proxy", self.proxy.url]
        program = self.start_program(["sh", "-c", f'exec "$@" 2>&{writing}', "sh", *command], env=ENVIRONMENT,
                                     pass_fds=[writing])
        os.close(writing)
        program.line()
        for _ in range(self.VISITS):
            self._talk()
        told = b""
        while self.lines_told(told) < 2 * self.VISITS:      # the last may come after the count
            told += os.read(reading, 65536)
        self.assertIn(b"left out", told)
        for _ in range(self.VISITS):
            self._talk()
        program.signal(signal.SIGTERM)
        self.assertEqual(program.wait(5), 0)

    def test_an_output_that_takes_nothing_ends_it(self):
        done = run(["sh", "-c", 'exec "$@" >/dev/full', "sh", *COMMAND, str(self.serve(echo).where[1]),
                    "--proxy", self.proxy.url], env=ENVIRONMENT)
        self.assertEqual(done.returncode, 1)
        self.assertIn("can't write to standard output: No space left on device", done.stderr)


class CommandLine(Case):
    def status_of(self, *words, **how):
        process = run([*COMMAND, *words], env={**ENVIRONMENT, **how})
        self.assertNotIn("Traceback", process.stderr)
        return process.returncode, process.stderr

    def test_wrong_words_are_status_2(self):
        for words in ([], ["8080"], ["0", "--proxy", "http://127.0.0.1:1/"],
                      ["8080", "--proxy", "ftp://127.0.0.1/"], ["8080", "--carriers", "0"],
                      ["a/b", "--proxy", "http://127.0.0.1:1/"]):
            with self.subTest(words):
                self.assertEqual(self.status_of(*words)[0], 2)

    def test_a_proxy_that_is_not_there_is_status_1_and_no_password_is_told(self):
        port = self.closed_port()
        status, errors = self.status_of(
            "8080", TRISTERO_PROXY=f"http://alice:secret@127.0.0.1:{port}/RPC2")
        self.assertEqual(status, 1)
        self.assertEqual(errors, f"tristero-tunnel: can't call http://127.0.0.1:{port}/RPC2: "
                                 "Connection refused\n")


class BadAnswers(Case):
    """What a hostile proxy may answer to a call."""

    def expose(self, body, *words, headers=b""):
        def answer(connection):
            with connection:
                request = b""
                while not request.endswith(b"</methodCall>\n"):      # else it may see a reset
                    request += receive_exactly(connection, 1)
                try:
                    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/xml\r\n" + headers + b"\r\n")
                    for piece in body:
                        connection.sendall(piece)
                except OSError:
                    pass

        service = Service(answer)
        self.addCleanup(service.close)
        done = run([*COMMAND, "1", "--proxy", "http://127.0.0.1:%d/" % service.where[1], *words],
                   env=ENVIRONMENT)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1)
        return done.stderr

    @staticmethod
    def result(value):
        return [f"<methodResponse><params><param><value><string>{value}</string></value></param></params>"
                "</methodResponse>".encode()]

    def test_an_address_that_steers_a_terminal_is_refused(self):
        for host in ("a&#155;2Jb", "a\nb", "a b", "ä", "a" * 64, "a..b", "a." * 130 + "a"):
            with self.subTest(host):
                self.assertIn("expected scheme://host:port", self.expose(self.result(f"webmux://{host}:1")))

    def test_an_answer_that_is_no_proper_one_is_told(self):
        for value in ("<fault><value><int>1</int></value></fault>",
                      "<params><param><value><struct><member><name>a</name></member></struct></value>"
                      "</param></params>",
                      "<params><param><value><boolean>2</boolean></value></param></params>"):
            with self.subTest(value):
                answer = f"<methodResponse>{value}</methodResponse>".encode()
                self.assertIn("does not speak XML-RPC", self.expose([answer]))

    def test_an_endless_answer_takes_no_memory(self):
        endless = itertools.chain([b"<methodResponse><params><param><value><string>"],
                                  itertools.repeat(b"a" * 65536))
        self.assertIn("answered with more than", self.expose(endless))

    def test_an_answer_that_trickles_is_not_waited_for_without_end(self):
        def trickle():
            while True:
                yield b" "
                time.sleep(0.3)

        self.assertIn("did not answer in time", self.expose(trickle(), "--timeout", "1"))


class Library(ProxyCase):
    def test_a_program_serves_by_itself(self):
        async def shout(stream):
            while data := await stream.read():
                await stream.write(data.upper())
            stream.finish()

        async def serve_two():
            async with await Tunnel.open(self.proxy.url) as tunnel:
                client = in_thread(self._ask, tunnel.address)
                served = 0
                async for stream in tunnel:
                    await shout(stream)
                    served += 1
                    if served == 2:
                        break
                while client.is_alive():
                    await asyncio.sleep(0.01)
                return client.result()

        self.assertEqual(asyncio.run(serve_two()), [b"HELLO", b"HELLO"])

    @staticmethod
    def _ask(uri):
        answers = []
        for _ in range(2):
            with connect(address_of(uri)) as client:
                client.sendall(b"hello")
                client.shutdown(socket.SHUT_WR)
                answers.append(receive_until_end(client))
        return answers

    def test_a_fault_of_the_proxy_is_an_error_with_its_code(self):
        async def ask():
            tunnel = await Tunnel.open(self.proxy.url)
            try:
                await tunnel._proxy.tunnel_address("webmux://127.0.0.1:1")
            finally:
                await tunnel.close()

        with self.assertRaises(TunnelError) as caught:
            asyncio.run(ask())
        self.assertEqual(caught.exception.fault_code, 2)


if __name__ == "__main__":
    main()
