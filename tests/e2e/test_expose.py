#!/usr/bin/python3 -B
"""tristero-tunnel expose: what can be exposed, and how that is told."""

import json
import os
import re
import shutil
import signal
import socket
import time
import unittest

import harness
from expose_harness import ExposeCase, address_of_url, fetch
from harness import TUNNEL, connect, receive_exactly, run
from ssh_harness import SSH, SshDaemon

ZBARIMG = shutil.which("zbarimg")


def picture_of(rows, scale=4):
    """A PGM of half blocks, light where they are drawn."""
    upper_lower = {"\u2588": (255, 255), "\u2580": (255, 0), "\u2584": (0, 255), " ": (0, 0)}
    lines = []
    for row in rows:
        for half in (0, 1):
            pixels = b"".join(bytes([upper_lower[cell][half]]) * scale for cell in row)
            lines += [pixels] * scale
    width = len(rows[0]) * scale
    return b"P5\n%d %d\n255\n" % (width, len(lines)) + b"".join(lines)


@unittest.skipUnless(SSH, "there is no ssh")
class Telling(ExposeCase):
    def address(self, *arguments):
        program = self.expose(*arguments, "--backend", "ssh")
        return address_of_url(program.line())

    def test_the_address_is_http_where_the_service_speaks_it(self):
        scheme, address = self.address(self.web())
        self.assertEqual(scheme, "http")
        self.assertEqual(fetch(address, "/x"), b"hello from behind /x")

    def test_the_address_is_tcp_for_whatever_else_is_there_or_not(self):
        silent = harness.listen()
        self.addCleanup(silent.close)
        began = time.monotonic()
        for port in (self.line_service(), self.line_service(b"220 hello\r\n"),
                     self.closed_port(), silent.getsockname()[1]):
            self.assertEqual(self.address(port)[0], "tcp")
        self.assertLess(time.monotonic() - began, 20)

    def test_a_unix_socket_can_be_exposed_by_each_backend(self):
        path = self.local_web()
        scheme, address = self.address("unix:" + path)
        self.assertEqual(scheme, "http")
        self.assertEqual(fetch(address), b"hello from behind /")
        os.chdir(os.path.dirname(path))
        self.addCleanup(os.chdir, "/")
        self.assertEqual(fetch(self.address("unix:web")[1]), b"hello from behind /")
        program = self.expose("unix:" + path, "--backend", "tcp")
        for _ in range(2):
            self.assertEqual(fetch(address_of_url(program.line())[1]), b"hello from behind /")

    def test_a_folder_can_be_exposed_by_tcp_too(self):
        folder = self.temporary_folder()
        with open(os.path.join(folder, "file"), "wb") as file:
            file.write(b"content")
        program = self.expose("--dir", folder, "--backend", "tcp")
        for _ in range(2):
            address = program.line().split("/")[2].split(":")
            with connect((address[0], int(address[1]))) as client:
                client.sendall(b"GET /file HTTP/1.0\r\n\r\n")
                self.assertTrue(harness.receive_until_end(client).endswith(b"\r\n\r\ncontent"))

    @unittest.skipUnless(ZBARIMG, "there is no zbarimg")
    def test_a_qr_code_has_the_address(self):
        program = self.expose(self.web(), "--backend", "ssh", "--qr")
        url = program.line()
        rows = [program.line()]
        while len(rows) < (len(rows[0]) + 1) // 2:
            rows.append(program.line())
        self.assertEqual({len(row) for row in rows}, {len(rows[0])})
        picture = os.path.join(self.temporary_folder(), "code.pgm")
        with open(picture, "wb") as file:
            file.write(picture_of(rows))
        done = run([ZBARIMG, "-q", "--raw", picture])
        self.assertEqual(done.stdout.strip(), url)

    def test_json_tells_the_address_first_and_then_what_happens(self):
        program = self.expose(self.line_service(), "--backend", "tcp", "--json")
        first = json.loads(program.line())
        self.assertEqual((first["event"], first["backend"]), ("address", "tcp"))
        self.assertEqual(first["url"], first["address"])
        self.assertRegex(first["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        with connect(address_of_url(first["url"])[1]) as client:
            client.sendall(b"abc\n")
            self.assertEqual(receive_exactly(client, 4), b"cba\n")
            client.shutdown(socket.SHUT_WR)
            self.assert_proper_end(client)
        self.assertEqual(self.event(program, "client-came")["client"], 1)
        left = self.event(program, "client-left")
        self.assertEqual((left["client"], left["bytes_from_client"], left["bytes_to_client"]), (1, 4, 4))
        self.assertEqual(program.errors(), "")

    def test_a_tunnel_of_a_service_that_speaks_first_has_a_client_once_there_was_one(self):
        service = harness.listen()
        self.addCleanup(service.close)
        program = self.expose(service.getsockname()[1], "--backend", "tcp", "--server-first", "--json")
        url = json.loads(program.line())["url"]
        with service.accept()[0] as connection:
            harness.reset(connection)           # before anybody came
        while (event := json.loads(program.line()))["event"] != "address":
            self.assertNotIn("client", event)
        self.assertNotEqual(event["url"], url)
        with connect(address_of_url(event["url"])[1]) as client, service.accept()[0] as connection:
            connection.sendall(b"220 hello\r\n")
            self.assertEqual(receive_exactly(client, 11), b"220 hello\r\n")
            client.shutdown(socket.SHUT_WR)
            connection.close()
            self.assert_proper_end(client)
        came, left = (json.loads(program.line()) for _ in range(2))
        self.assertEqual((came["event"], came["client"]), ("client-came", 1))
        self.assertEqual((left["event"], left["client"], left["bytes_to_client"]), ("client-left", 1, 11))

    def test_a_service_that_speaks_first_and_is_down_has_no_client(self):
        port = self.closed_port()
        program = self.expose(port, "--backend", "tcp", "--server-first", "--json")
        event = self.event(program, "retrying")
        self.assertIn(f"can't reach the service at 127.0.0.1:{port}: Connection refused", event["text"])
        program.signal(signal.SIGTERM)
        program.wait()
        self.assertNotIn("client", program.rest_of_output())

    def expose_for_a_moment(self, *options):
        """Of tunnels whose time is over before anybody comes."""
        daemon = self.start_daemon("--drain", "0", "--lifetime", "5")
        return self.start_program([TUNNEL, "--proxy", daemon.url, "expose", str(self.web()), "--backend",
                                   "tcp", *options])

    def test_a_tunnel_of_tcp_that_nobody_used_was_lost(self):
        program = self.expose_for_a_moment("--json")
        address = self.event(program, "address")["address"]
        event = self.event(program, "lost")
        self.assertEqual(event["text"], f"{address} ended before a client came")
        self.assertGreater(event["wait_ms"], 0)

    def test_once_without_a_client_says_why_it_failed(self):
        program = self.expose_for_a_moment("--once")
        self.assertEqual(program.wait(), 1)
        self.assertIn("ended before a client came", program.errors())

    def test_a_client_of_tcp_that_is_refused_has_not_come(self):
        program = self.expose(self.closed_port(), "--backend", "tcp", "--json")
        for number in (1, 2):
            harness.visit_until_reset(address_of_url(self.event(program, "address")["url"])[1], b"?")
            event = json.loads(program.line())
            self.assertEqual((event["event"], event["client"]), ("client-refused", number))

    def test_quiet_prints_the_address_alone(self):
        program = self.expose(self.closed_port(), "--backend", "tcp", "--quiet")
        for _ in range(2):
            harness.visit_until_reset(address_of_url(program.line())[1], b"?")
        self.assertEqual(program.errors(), "")

    def test_a_reader_that_is_gone_ends_it(self):
        port = self.web()
        for arguments in (("--json",), ()):
            done = run(["/bin/sh", "-c", '"$@" | :; exit 0', "sh", TUNNEL, "--proxy", self.daemon.url,
                        "expose", str(port), "--backend", "tcp", *arguments])
            self.assertIn("standard output", done.stderr)

    def test_what_is_not_there_is_told_at_once(self):
        for arguments, word in ((("no-such-host.invalid:80",), "no-such-host.invalid"),
                                (("--dir", "/no/such/folder"), "/no/such/folder")):
            done = run([TUNNEL, "--proxy", self.daemon.url, "expose", *arguments])
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn(word, done.stderr)

    def test_signals_end_it_with_status_0(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            for backend in ("ssh", "tcp"):
                program = self.expose(self.web(), "--backend", backend)
                program.line()
                program.signal(number)
                self.assertEqual(program.wait(), 0, program.errors())

    def test_a_start_that_waits_can_be_interrupted(self):
        silent = harness.listen()
        self.addCleanup(silent.close)
        program = self.start_program([TUNNEL, "--proxy", f"http://127.0.0.1:{silent.getsockname()[1]}/RPC2",
                                      "expose", str(self.web()), "--backend", "ssh"])
        connection, _ = silent.accept()
        self.addCleanup(connection.close)
        program.signal(signal.SIGTERM)
        self.assertEqual(program.wait(), 0, program.errors())


class Busy(ExposeCase):
    """A service at a Unix socket whose queue is full for a while."""

    CLIENTS = 6

    def exposed(self, *arguments):
        """A new service: the command, and the listener."""
        path = os.path.join(self.temporary_folder(), "busy")
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(path)
        listener.listen(0)
        listener.settimeout(harness.WAIT_S)
        return self.expose("unix:" + path, *arguments), listener

    def exposed_by_webmux(self):
        """The same, and the address."""
        program, listener = self.exposed("--json")
        with listener.accept()[0] as asking:
            asking.recv(65536)
            asking.sendall(b"no HTTP")
        return program, listener, address_of_url(self.event(program, "address")["url"])[1]

    def start_clients(self, addresses):
        clients = [connect(address) for address in addresses]
        for number, client in enumerate(clients):
            self.addCleanup(client.close)
            client.sendall(b"%d" % number)
        return clients

    def check(self, listener, clients):
        said = set()
        for _ in clients:
            connection, _ = listener.accept()
            number = receive_exactly(connection, 1)
            connection.sendall(number)
            connection.close()
            said.add(number)
        self.assertEqual(len(said), len(clients))
        for number, client in enumerate(clients):
            self.assertEqual(harness.receive_until_end(client), b"%d" % number)

    def test_by_webmux_clients_wait_until_it_takes_them(self):
        program, listener, address = self.exposed_by_webmux()
        clients = self.start_clients([address] * self.CLIENTS)
        self.event(program, "client-came")          # one finds room in the queue
        time.sleep(0.5)
        self.check(listener, clients)
        for _ in range(self.CLIENTS - 1):
            self.event(program, "client-came")

    def test_by_webmux_a_client_that_leaves_meanwhile_is_told_as_refused(self):
        program, _, address = self.exposed_by_webmux()
        clients = self.start_clients([address] * 2)
        self.event(program, "client-came")
        for client in clients:
            harness.reset(client)
        self.assertIn("left before", self.event(program, "client-refused")["text"])

    def test_by_tcp_clients_wait_until_it_takes_them(self):
        program, listener = self.exposed("--backend", "tcp", "--tunnels", self.CLIENTS)
        addresses = [address_of_url(program.line())[1] for _ in range(self.CLIENTS)]
        clients = self.start_clients(addresses)
        time.sleep(0.5)
        self.check(listener, clients)


class OverIPv6(ExposeCase):
    @classmethod
    def setUpClass(cls):
        pass

    def setUp(self):
        self.need_ipv6()
        self.daemon = SshDaemon(listen_on="[::1]:0", ssh_listen="[::1]:0")
        self.addCleanup(self.daemon.clean_up)

    @classmethod
    def tearDownClass(cls):
        pass

    def check(self, backend):
        line = self.expose(self.web(), "--backend", backend).line()
        port = re.fullmatch(r"(?:http|tcp)://\[::1\]:(\d+)/?", line)[1]
        self.assertEqual(fetch(("::1", int(port))), b"hello from behind /")

    def test_by_tcp(self):
        self.check("tcp")

    def test_by_webmux(self):
        self.check("webmux")

    @unittest.skipUnless(SSH, "there is no ssh")
    def test_by_ssh(self):
        self.check("ssh")


if __name__ == "__main__":
    harness.main()
