#!/usr/bin/python3 -B
"""The command tristero-tunnel: open, address, and expose over tcp."""

import http.server
import json
import os
import re
import signal
import threading
import time
import urllib.request

import harness
from harness import (DaemonCase, TUNNEL, address_of, connect, how_it_ended, in_thread,
                     receive_exactly, receive_until_end, receive_until_reset, run, wait_until)


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"hello from behind " + self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def fetch(address, path="/"):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address[0]}:{address[1]}{path}", timeout=harness.WAIT_S) as answer:
        return answer.read()


class CommandCase(DaemonCase):
    def command(self, *arguments, proxy=None, **how):
        return run([TUNNEL, "--proxy", proxy or self.daemon.url, *arguments], **how)

    def assert_fails(self, done, *pieces):
        self.assertGreater(done.returncode, 0, done.stdout)
        self.assertEqual(done.stdout, "")
        for piece in pieces:
            self.assertIn(piece, done.stderr)


class Asking(CommandCase):
    def test_open_prints_both_uris(self):
        done = self.command("open")
        self.assertEqual(done.returncode, 0, done.stderr)
        match = re.fullmatch(r"server (tcp://\S+)\nclient (tcp://\S+)\n", done.stdout)
        self.assertTrue(match, done.stdout)
        server_address, client_address = address_of(match[1]), address_of(match[2])
        self.assertEqual(client_address[1], server_address[1] + 1)
        with connect(server_address) as server, connect(client_address) as client:
            client.sendall(b"through")
            self.assertEqual(receive_exactly(server, 7), b"through")

    def test_open_prints_json_for_programs(self):
        done = self.command("open", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        uris = json.loads(done.stdout)
        self.assertEqual(address_of(uris["client"])[1], address_of(uris["server"])[1] + 1)
        harness.discard(address_of(uris["server"]))

    def test_address_prints_the_client_uri(self):
        tunnel = self.open_tunnel()
        done = self.command("address", tunnel.server_uri)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout, tunnel.client_uri + "\n")

    def test_the_proxy_may_come_from_the_environment(self):
        done = run([TUNNEL, "open"], env={"TRISTERO_PROXY": self.daemon.url})
        self.assertEqual(done.returncode, 0, done.stderr)
        harness.discard(address_of(done.stdout.split()[1]))

    def test_the_proxy_of_the_command_line_wins(self):
        done = run([TUNNEL, "--proxy", self.daemon.url, "open"],
                   env={"TRISTERO_PROXY": "http://127.0.0.1:1/RPC2"})
        self.assertEqual(done.returncode, 0, done.stderr)
        harness.discard(address_of(done.stdout.split()[1]))

    def test_faults_of_the_proxy_are_told(self):
        self.assert_fails(self.command("address", "nonsense"), "nonsense")
        self.assert_fails(self.command("address", "tcp://127.0.0.1:1"), "tcp://127.0.0.1:1")

    def test_a_proxy_that_is_not_there_is_told(self):
        began = time.monotonic()
        self.assert_fails(self.command("open", proxy="http://127.0.0.1:1/RPC2"), "127.0.0.1:1")
        self.assertLess(time.monotonic() - began, 10)

    def test_a_proxy_that_is_none_is_told(self):
        web = http.server.HTTPServer(("127.0.0.1", 0), _Handler)
        self.addCleanup(web.server_close)
        serving = threading.Thread(target=web.serve_forever)
        serving.start()
        self.addCleanup(serving.join)
        self.addCleanup(web.shutdown)
        self.assert_fails(self.command("open", proxy=f"http://127.0.0.1:{web.server_port}/RPC2"))
        self.assert_fails(self.command("open", proxy="nonsense"))

    def test_no_proxy_at_all_is_told(self):
        environment = {key: value for key, value in os.environ.items() if key != "TRISTERO_PROXY"}
        done = run(["/usr/bin/env", "-u", "TRISTERO_PROXY", TUNNEL, "open"], env=environment)
        self.assert_fails(done, "--proxy")

    def test_wrong_words_are_told(self):
        for words in ((), ("opne",), ("open", "more"), ("address",), ("expose",),
                      ("expose", "0"), ("expose", "70000"), ("expose", "x"), ("open", "--bad"),
                      ("expose", "--tunnels", "0", "80"), ("expose", "--tunnels", "x", "80"),
                      ("expose", "80", "--backend", "tpc"), ("expose", "80", "--dir", "/"),
                      ("expose", "unix:"), ("expose", "unix:" + 200 * "x"), ("expose", "--dir", ""),
                      ("expose", "80", "--json", "--qr"), ("expose", "80", "--json", "--quiet"),
                      ("expose", "80", "--backend", "ssh", "--once"),
                      ("expose", "80", "--backend", "ssh", "--tunnels", "2"),
                      ("expose", "80", "--backend", "ssh", "--server-first")):
            with self.subTest(words=words):
                done = self.command(*words)
                self.assert_fails(done)
                self.assertEqual(done.returncode, 2)
                self.assertNotEqual(done.stderr, "")

    def test_numbers_are_digits_alone(self):
        for option, backend in (("--tunnels", "tcp"), ("--connections", "webmux"), ("--timeout", "tcp")):
            for number in (" 5", "+5", "-5", "5 ", "5.", "0x5", "", "\u0665", "99999999999999999999"):
                with self.subTest(option=option, number=number):
                    done = self.command("expose", "80", "--backend", backend, option, number)
                    self.assert_fails(done, "expected a whole number from 1 to ")
                    self.assertEqual(done.returncode, 2)

    def test_help_and_version_are_told(self):
        done = run([TUNNEL, "--help"])
        self.assertEqual(done.returncode, 0, done.stderr)
        for word in ("open", "address", "expose", "--proxy", "--once", "--tunnels", "--json"):
            self.assertIn(word, done.stdout)
        self.assertEqual(run([TUNNEL, "--version"]).returncode, 0)


class _QuietServer(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        pass                # broken connections belong to these tests


class Exposing(CommandCase):
    # An expose that ends between open and attach leaves its tunnel to this.
    options = ("--attach-timeout", "3")

    def setUp(self):
        self.web = _QuietServer(("127.0.0.1", 0), _Handler)
        serving = threading.Thread(target=self.web.serve_forever)
        serving.start()
        self.addCleanup(self.web.server_close)
        self.addCleanup(serving.join)
        self.addCleanup(self.web.shutdown)

    def expose(self, *arguments):
        return self.start_program([TUNNEL, "--proxy", self.daemon.url, "expose", "--backend", "tcp",
                                   *arguments])

    def address(self, program):
        """The next address that it prints for clients."""
        line = program.line()
        match = re.search(r"[a-z]+://(127\.0\.0\.1):(\d+)", line)
        self.assertTrue(match, line)
        return match[1], int(match[2])

    def interrupt(self, program, further=0):
        """Once it has told so many further addresses: who ends between attaching and that has
        its tunnel linger, as a server that ended before its client."""
        for _ in range(further):
            self.address(program)
        program.signal(signal.SIGINT)
        self.assertIn(program.wait(), (0, 130, -signal.SIGINT), program.errors())
        self.daemon.expect_rest()

    def test_a_web_server_is_reached_again_and_again(self):
        program = self.expose(str(self.web.server_port))
        for number in range(5):
            self.assertEqual(fetch(self.address(program), f"/{number}"),
                             b"hello from behind /%d" % number)
        self.interrupt(program, further=1)

    def test_the_service_may_be_on_another_host(self):
        program = self.expose(f"localhost:{self.web.server_port}")
        self.assertEqual(fetch(self.address(program)), b"hello from behind /")
        self.interrupt(program, further=1)

    def test_an_address_that_cannot_be_printed_ends_it(self):
        done = run(["/bin/sh", "-c", 'exec "$@" >&-', "sh", TUNNEL, "--proxy", self.daemon.url,
                    "expose", "--backend", "tcp", str(self.web.server_port)], timeout_s=20)
        self.assert_fails(done, "standard output")

    def test_once_is_once(self):
        program = self.expose("--once", str(self.web.server_port))
        self.assertEqual(fetch(self.address(program)), b"hello from behind /")
        self.assertEqual(program.wait(), 0, program.errors())
        self.assertEqual(program.rest_of_output(), "")

    def test_several_clients_at_once_have_several_tunnels(self):
        service = harness.listen()
        self.addCleanup(service.close)
        program = self.expose("--tunnels", "3", str(service.getsockname()[1]))
        clients = []
        for _ in range(3):
            clients.append(connect(self.address(program)))
        served = []
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
            served.append(service.accept()[0])
        for connection in served:
            connection.settimeout(harness.WAIT_S)
            connection.sendall(b"you are " + receive_exactly(connection, 1))
            connection.close()
        for number, client in enumerate(clients):
            self.assertEqual(receive_until_end(client), b"you are %d" % number)
            client.close()
        self.interrupt(program, further=3)

    def test_a_client_of_a_service_that_is_down_gets_a_reset_and_expose_goes_on(self):
        port = self.closed_port()
        program = self.expose(str(port))
        for _ in range(2):
            with connect(self.address(program)) as client:
                client.sendall(b"anybody?")
                self.assertEqual(receive_until_reset(client), b"")
        service = harness.listen(port=port)
        self.addCleanup(service.close)
        client = connect(self.address(program))
        self.addCleanup(client.close)
        client.sendall(b"now?")
        connection = service.accept()[0]
        self.addCleanup(connection.close)
        self.assertEqual(receive_exactly(connection, 4), b"now?")
        self.interrupt(program)

    def test_a_service_that_speaks_first_is_heard(self):
        service = harness.listen()
        self.addCleanup(service.close)
        program = self.expose("--server-first", str(service.getsockname()[1]))

        def greet():
            with service.accept()[0] as connection:
                connection.settimeout(harness.WAIT_S)
                connection.sendall(b"220 hello\r\n")
                return receive_until_end(connection)

        greeting = in_thread(greet)
        with connect(self.address(program)) as client:
            self.assertEqual(receive_exactly(client, 11), b"220 hello\r\n")
            client.sendall(b"QUIT\r\n")
            client.shutdown(harness.socket.SHUT_WR)
            self.assertEqual(greeting.result(), b"QUIT\r\n")
            receive_until_end(client)
        self.interrupt(program, further=1)

    def test_ends_and_resets_pass_through_the_command(self):
        service = harness.listen()
        self.addCleanup(service.close)
        program = self.expose(str(service.getsockname()[1]))
        with connect(self.address(program)) as client:
            client.sendall(b"x")
            client.shutdown(harness.socket.SHUT_WR)
            connection = service.accept()[0]
            connection.settimeout(harness.WAIT_S)
            self.assertEqual(receive_until_end(connection), b"x")
            answer = os.urandom(3 << 20)
            sending = in_thread(lambda: (connection.sendall(answer), connection.close()))
            self.assertEqual(receive_until_end(client), answer)
            sending.result()
        with connect(self.address(program)) as client:
            client.sendall(b"x")
            connection = service.accept()[0]
            connection.settimeout(harness.WAIT_S)
            receive_exactly(connection, 1)
            harness.reset(connection)
            self.assertEqual(receive_until_reset(client), b"")
        client = connect(self.address(program))
        client.sendall(b"x")
        connection = service.accept()[0]
        connection.settimeout(harness.WAIT_S)
        receive_exactly(connection, 1)
        harness.reset(client)
        self.assertEqual(receive_until_reset(connection), b"")
        connection.close()
        self.interrupt(program, further=1)

    def test_sigterm_ends_it_and_leaves_nothing(self):
        program = self.expose("--tunnels", "2", str(self.web.server_port))
        self.address(program)
        self.address(program)
        program.signal(signal.SIGTERM)
        self.assertIn(program.wait(), (0, 143, -signal.SIGTERM), program.errors())
        self.daemon.expect_rest()

    def test_a_killed_command_leaves_no_tunnel(self):
        program = self.expose(str(self.web.server_port))
        address = self.address(program)
        wait_until(lambda: address[1] - 1 not in self.daemon.ports.listening(), "it is attached")
        client = connect(address)
        client.sendall(b"GET ")
        time.sleep(0.3)
        program.process.kill()
        program.process.wait()
        self.assertIn(how_it_ended(client), ("end", "reset"))
        client.close()
        self.daemon.expect_rest()


if __name__ == "__main__":
    harness.main()
