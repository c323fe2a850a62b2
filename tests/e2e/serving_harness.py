"""serving_harness: what the tests of serving by the library and by the Python package stand
on, besides harness: a program of its own (serve.c), proxies that do what they are told, and
ways to break connections."""

import os
import re
import signal
import socket
import subprocess
import threading
import xmlrpc.server

import harness
from harness import Case, address_of, connect, in_thread, listen, receive_exactly, receive_until_end, reset

SERVE = os.path.abspath(os.environ.get("TRISTERO_SERVE") or
                        os.path.join(os.path.dirname(harness.TUNNELD), "tests", "e2e", "serve"))
NO_PROXIES = {"NO_PROXY": "", "no_proxy": ""}

# That can't be used, or are not there; "sec" is of a password.
BAD_PROXIES = ("https://joe:secret@127.0.0.1:1", "gopher://joe:secret@127.0.0.1:1",
               "http://joe:secret@127.0.0.1:1", "http://joe:secret@[::1", "joe:secret@ x",
               "http://joe:sec@secret@127.0.0.1:1", "socks5h://joe:secret@127.0.0.1:1")


def is_connecting_to(port):
    """Whether anybody of this machine tries to, without an answer so far."""
    with open("/proc/net/tcp", encoding="ascii") as connections:
        return any(f":{port:04X} 02 " in line for line in connections)


class Server(harness.Program):
    """The program, once it serves: events are its lines."""

    def __init__(self, url, connections=1, service="echo", env=None):
        super().__init__([SERVE, url, str(connections), str(service)], env=env,
                         stdin=subprocess.PIPE)
        self.seen = []
        match = re.fullmatch(r"serving (tcp://\S+)", self.line())
        self.address = address_of(match[1])

    def wait_for(self, event):
        """The next line that begins so; those before it are passed over."""
        while not (line := self.line()).startswith(event + " "):
            self.seen.append(line)
        self.seen.append(line)
        return line

    def statistics(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return {name: int(value) for name, value in
                re.findall(r"(\w+)=(\d+)", self.wait_for("statistics"))}

    def connect(self, **how):
        return connect(self.address, **how)

    def clean_up(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        super().clean_up()


class ServingCase(Case):
    def start_server(self, url, *arguments, **how):
        server = Server(url, *arguments, **how)
        self.addCleanup(server.clean_up)
        return server

    def client(self, server, **how):
        client = server.connect(**how)
        self.addCleanup(client.close)
        return client

    def assert_echoes(self, server):
        with server.connect() as client:
            client.sendall(b"echo")
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_until_end(client), b"echo")

    def start(self, *arguments, options=(), **how):
        daemon = self.start_daemon("--drain", "0", "--reserve", "30", *options)
        return daemon, self.start_server(daemon.url, *arguments, **how)

    def stop(self, server):
        server.signal(signal.SIGTERM)
        self.assertEqual(server.wait(), 0)
        return server.rest_of_output()

    def echo_service(self):
        """A port of this machine that echoes."""
        listener = listen(backlog=300)
        self.addCleanup(listener.close)

        def serve(connection):
            with connection:
                try:
                    while piece := connection.recv(65536):
                        connection.sendall(piece)
                except OSError:
                    pass

        self.accept_all(listener, lambda connection: in_thread(serve, connection))
        return listener.getsockname()[1]

    def hanging_service(self):
        """A port of this machine where whoever connects waits: its queue is full."""
        listener = listen(backlog=0)
        self.addCleanup(listener.close)
        address = listener.getsockname()
        while True:
            filling = socket.socket()
            filling.settimeout(0.3)
            try:
                filling.connect(address)
            except TimeoutError:
                filling.close()
                return address[1]
            self.addCleanup(filling.close)

    def accept_all(self, listener, take):
        """Beside the test, until the listener is closed."""
        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                take(connection)

        in_thread(accept)

    def accept(self, listener):
        connection, address = listener.accept()
        connection.settimeout(harness.WAIT_S)
        self.addCleanup(connection.close)
        return connection, address

    def fake_proxy(self, *ports, gone=(), on_open=None, on_address=None):
        """Its tunnels have those server ports, one after another, and are all known but for
        those at ports that are gone. What on_address returns, if it does, is answered."""
        proxy = xmlrpc.server.SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False)
        opened = []

        def open_tunnel(*backend):
            opened.append(ports[min(len(opened), len(ports) - 1)])
            if on_open:
                on_open(len(opened))
            return f"webmux://127.0.0.1:{opened[-1]}"

        def get_address(uri):
            port = address_of(uri)[1]
            answer = on_address and on_address()
            if port in gone:
                raise xmlrpc.server.Fault(2, "unknown tunnel")
            return answer or f"tcp://127.0.0.1:{port + 1}"

        proxy.register_function(open_tunnel, "Tunnel.openTunnel")
        proxy.register_function(get_address, "Tunnel.getTunnelAddress")
        self.run_server(proxy)
        return f"http://127.0.0.1:{proxy.server_address[1]}/RPC2", opened

    def turn_away(self, listener, started):
        """All that come, without a word, once it has started."""
        def take(connection):
            started.wait(harness.WAIT_S)
            reset(connection)

        self.addCleanup(listener.close)
        self.accept_all(listener, take)

    def proxy_that_turns_away(self):
        """One at whose first tunnel nobody is let in once the event is set: its URL, the
        tunnels that it opened, the event, and where its second tunnel's server attaches."""
        once, then = listen(port=self.closed_port()), listen()
        self.addCleanup(then.close)
        url, opened = self.fake_proxy(*(each.getsockname()[1] for each in (once, then)))
        started = threading.Event()
        self.turn_away(once, started)
        return url, opened, started, then

    def cut_carriers(self, server):
        """Those that lead to the proxy itself."""
        return self.cut_connections(server, server.address[1] - 1)

    def cut_connections(self, program, port):
        """Those that lead to that port. Without the right to do so, the test is skipped."""
        try:
            return harness.cut_connections(program.pid, lambda peer: peer[1] == port)
        except PermissionError:
            self.skipTest("no descriptor of another process may be had")


class DetourCase(ServingCase):
    """Through proxies that the environment names. The daemon is known by a name that nobody
    but the proxy resolves."""

    NAME = "proxy.invalid"

    def start_serving(self, url, environment):
        """An echo service's server: a program that prints where its clients connect."""
        raise NotImplementedError

    def serve(self, **environment):
        """The ports of the daemon, and of the clients, one of whom was served."""
        daemon = self.start_daemon("--drain", "0", "--host", self.NAME, "--reserve", "30")
        program = self.start_serving(f"http://{self.NAME}:{daemon.port}/RPC2",
                                     {**NO_PROXIES, **environment})
        port = int(re.fullmatch(r"(?:serving )?tcp://proxy\.invalid:(\d+)", program.line())[1])
        with connect(("127.0.0.1", port)) as client:
            client.sendall(b"?")
            self.assertEqual(receive_exactly(client, 1), b"?")
        return daemon.port, port
