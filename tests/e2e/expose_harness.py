"""expose_harness: what the tests of tristero-tunnel expose stand on, besides harness:
services to expose, and the command in front of them."""

import contextlib
import http.client
import http.server
import json
import os
import re
import socketserver
import time

import harness
from harness import TUNNEL
from ssh_harness import SshDaemon


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"hello from behind " + self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "somebody"           # a Unix socket has no address

    def log_message(self, *_):
        pass


class Web(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 256        # many come at once

    def handle_error(self, *_):
        pass                        # broken connections belong to these tests


class _LocalWeb(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 256        # many come at once

    def handle_error(self, *_):
        pass


class ExposeCase(harness.Case):
    """With a daemon for the class that takes every backend, and keeps the tunnels of each test."""

    pairs = 32

    @classmethod
    def setUpClass(cls):
        cls.daemon = SshDaemon(pairs=cls.pairs)

    @classmethod
    def tearDownClass(cls):
        cls.daemon.clean_up()

    def start_program(self, arguments, env=None, **how):
        """What it has in temporary files goes with the test, also if it is killed."""
        return super().start_program(arguments, env={"TMPDIR": self.temporary_folder(), **(env or {})},
                                     **how)

    def web(self, port=0):
        """The port of a service that speaks HTTP."""
        return self.run_server(Web(("127.0.0.1", port), _Handler)).server_port

    def local_web(self):
        """The path of the Unix socket of one."""
        path = os.path.join(self.temporary_folder(), "web")
        self.run_server(_LocalWeb(path, _Handler))
        return path

    def line_service(self, greeting=b""):
        """The port of a service that says each line backwards."""
        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                self.wfile.write(greeting)
                for line in self.rfile:
                    self.wfile.write(line[-2::-1] + b"\n")

        class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_):
                pass

        return self.run_server(Server(("127.0.0.1", 0), Handler)).server_address[1]

    def expose(self, *arguments, **how):
        return self.start_program([TUNNEL, "--proxy", self.daemon.url, "expose",
                                   *map(str, arguments)], **how)

    def event(self, program, kind):
        """The next one of that kind, of --json."""
        until = time.monotonic() + harness.WAIT_S
        while time.monotonic() < until:
            event = json.loads(program.line())
            if event["event"] == kind:
                return event
        raise AssertionError(f"no {kind} within {harness.WAIT_S} s")


class FolderCase(ExposeCase):
    """With a folder to be exposed."""

    backend = "webmux"

    def setUp(self):
        self.folder = os.path.join(self.temporary_folder(), "shown")
        os.mkdir(self.folder)

    def write(self, name, content=b"some content\n"):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def expose_folder(self, folder=None, **how):
        program = self.expose("--dir", folder or self.folder, "--backend", self.backend, **how)
        self.url = program.line()
        self.address = address_of_url(self.url)[1]
        return program

    def connection(self):
        """To be closed; it is at the end of the test."""
        connection = http.client.HTTPConnection(*self.address, timeout=harness.WAIT_S)
        self.addCleanup(connection.close)
        return connection

    def ask(self, path, method="GET", headers=None, body=None):
        """(status, headers, body); the path goes out as it is."""
        with contextlib.closing(self.connection()) as connection:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def status(self, path, **how):
        return self.ask(path, **how)[0]


def address_of_url(url):
    """(scheme, (host, port))"""
    match = re.fullmatch(r"(tcp|https?)://(127\.0\.0\.1):(\d+)(/?)", url)
    if not match or (match[1] != "tcp") != (match[4] == "/"):
        raise AssertionError(f"not an address to advertise: {url!r}")
    return match[1], (match[2], int(match[3]))


def fetch(address, path="/"):
    connection = http.client.HTTPConnection(*address, timeout=harness.WAIT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def children_of(pid):
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as children:
            found += map(int, children.read().split())
    return found
