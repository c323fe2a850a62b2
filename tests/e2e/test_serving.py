#!/usr/bin/python3 -B
"""Serving by the library: a program of its own, and the Python package, against the
real daemon."""

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import xmlrpc.server

import harness
from harness import (Case, Pattern, PortBlock, address_of, connect, how_it_ended, in_thread, listen,
                     receive_exactly, receive_until_end, receive_until_reset, reset, wait_until)

SERVE = os.path.abspath(os.environ.get("TRISTERO_SERVE") or
                        os.path.join(os.path.dirname(harness.TUNNELD), "tests", "e2e", "serve"))
NO_PROXIES = {"NO_PROXY": "", "no_proxy": ""}


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

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return listener.getsockname()[1]

    def accept(self, listener):
        connection, address = listener.accept()
        connection.settimeout(harness.WAIT_S)
        self.addCleanup(connection.close)
        return connection, address

    def cut_carriers(self, server):
        """Shuts the carriers' sockets down from within the server, by pidfd_getfd where
        that may be; else the test is skipped."""
        pidfd = os.pidfd_open(server.pid)
        cut = 0
        for name in os.listdir(f"/proc/{server.pid}/fd"):
            try:
                if not os.readlink(f"/proc/{server.pid}/fd/{name}").startswith("socket:"):
                    continue
            except OSError:
                continue
            copy = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, int(name), 0)
            if copy < 0:
                os.close(pidfd)
                self.skipTest("no descriptor of another process may be had")
            with socket.socket(fileno=copy) as other:
                try:
                    peer = other.getpeername()
                except OSError:
                    continue
                if isinstance(peer, tuple) and peer[1] == server.address[1] - 1:
                    other.shutdown(socket.SHUT_RDWR)
                    cut += 1
        os.close(pidfd)
        return cut


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
        self.assertRegex(server.wait_for("left"), r"client=1 from=1 to=1: reset")

    def test_a_service_that_is_down_refuses(self):
        with listen() as listener:
            port = listener.getsockname()[1]
        _, server = self.start(1, port)
        client = self.client(server)
        self.assertEqual(how_it_ended(client), "reset")
        self.assertRegex(server.wait_for("refused"), r"client=1 .*: Connection refused")
        self.assertEqual(server.statistics()["refused"], 1)

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
        with listen() as listener:
            port = listener.getsockname()[1]
        began = time.monotonic()
        result = harness.run([SERVE, f"http://127.0.0.1:{port}/RPC2", "1", "echo"])
        self.assertLess(time.monotonic() - began, 5)
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


class ComingBack(ServingCase):
    def test_after_a_lost_connection_it_is_at_the_same_address(self):
        daemon, server = self.start(2)
        client = self.client(server)
        client.sendall(b"x")
        receive_exactly(client, 1)
        self.assertEqual(self.cut_carriers(server), 2)
        self.assertEqual(how_it_ended(client), "reset")
        for _ in range(2):
            self.assertIn(f"tcp://{server.address[0]}:{server.address[1]} ",
                          server.wait_for("attached"))
        self.assert_echoes(server)
        self.assertEqual(server.statistics()["lost"], 2)

    def test_of_a_proxy_that_starts_anew_it_gets_a_new_address(self):
        ports = PortBlock(16)
        self.addCleanup(ports.release)
        daemon = self.start_daemon("--drain", "0", ports=ports)
        port = daemon.port
        server = self.start_server(daemon.url)
        self.assert_echoes(server)
        daemon.process.kill()
        daemon.wait()
        server.wait_for("lost")
        waits = [int(re.search(r"wait=(\d+)", server.wait_for("retrying"))[1]) for _ in range(3)]
        # From the second on, if it was still let in by the proxy that was ending.
        for number, wait_ms in enumerate(waits, waits[0] > 1000):
            self.assertTrue(500 << number <= wait_ms <= 1000 << number, waits)
        other = self.start_daemon("--drain", "0", listen_on=f"127.0.0.1:{port}")
        moved = server.wait_for("moved")
        server.address = address_of(moved.split()[1])
        self.assertIn(server.address[1], other.ports.listening())
        self.assert_echoes(server)
        self.stop(server)

    def fake_proxy(self, *ports, gone=(), on_open=None):
        """Its tunnels have those server ports, one after another, and are all known but for
        those at ports that are gone."""
        proxy = xmlrpc.server.SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False)
        opened = []

        def open_tunnel(*backend):
            opened.append(ports[min(len(opened), len(ports) - 1)])
            if on_open:
                on_open(len(opened))
            return f"webmux://127.0.0.1:{opened[-1]}"

        def get_address(uri):
            port = address_of(uri)[1]
            if port in gone:
                raise xmlrpc.server.Fault(2, "unknown tunnel")
            return f"tcp://127.0.0.1:{port + 1}"

        proxy.register_function(open_tunnel, "Tunnel.openTunnel")
        proxy.register_function(get_address, "Tunnel.getTunnelAddress")
        in_thread(proxy.serve_forever)
        self.addCleanup(proxy.server_close)
        self.addCleanup(proxy.shutdown)
        return f"http://127.0.0.1:{proxy.server_address[1]}/RPC2", opened

    def turn_away(self, listener, started):
        """All that come, without a word, once it has started."""
        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                started.wait(harness.WAIT_S)
                reset(connection)

        self.addCleanup(listener.close)
        in_thread(accept)

    def test_one_who_is_turned_away_again_and_again_opens_another_tunnel(self):
        once, then = listen(), listen()
        self.addCleanup(then.close)
        url, opened = self.fake_proxy(*(each.getsockname()[1] for each in (once, then)))
        started = threading.Event()
        self.turn_away(once, started)
        server = self.start_server(url)
        started.set()
        self.accept(then)
        server.wait_for("moved")
        self.assertEqual(len(opened), 2)
        self.assertGreater(len(server.seen), 4)

    def test_services_of_one_program_get_tunnels_of_their_own_when_a_proxy_starts_anew(self):
        listeners = [listen() for _ in range(3)]
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
        carriers = [self.accept(listener)[0] for listener in listeners[:2]]
        for listener in listeners[:2]:
            listener.close()
        gone.add(second)
        for carrier in carriers:
            carrier.sendall(bytes.fromhex("000000d000001000"))
            time.sleep(0.1)
            reset(carrier)
        wait_until(lambda: len(opened) >= 3, "one of them opens another tunnel")
        self.accept(listeners[0])
        self.accept(listeners[2])           # and so does the other
        self.assertEqual(opened, [first, second, first, third])
        for listener in listeners:
            listener.close()

    def test_it_stops_while_it_tries(self):
        daemon = self.start_daemon("--drain", "0")
        server = self.start_server(daemon.url)
        daemon.process.kill()
        daemon.wait()
        server.wait_for("retrying")
        began = time.monotonic()
        self.stop(server)
        self.assertLess(time.monotonic() - began, 5)


class HttpProxy:
    """CONNECT, and GET-like calls with whole URLs; notes what it was asked for."""

    def __init__(self):
        self.asked = []
        self.listener = listen()
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        method, target = head.split(b" ")[:2]
        name = re.sub(rb"^http://", b"", target).split(b"/")[0].decode()
        self.asked.append(f"{method.decode()} {name}")
        other = connect(("127.0.0.1", int(name.rsplit(":", 1)[1])))
        if method == b"CONNECT":
            connection.sendall(b"HTTP/1.1 200 yes\r\n\r\n")
        else:
            other.sendall(re.sub(rb"http://[^/]+", b"", head, count=1))
        relay_both(connection, other)


class SocksProxy(HttpProxy):
    """SOCKS5 without a login, for names and addresses."""

    def _serve(self, connection):
        methods = receive_exactly(connection, 2)[1]
        receive_exactly(connection, methods)
        connection.sendall(b"\5\0")
        kind = receive_exactly(connection, 4)[3]
        if kind == 3:
            name = receive_exactly(connection, receive_exactly(connection, 1)[0]).decode()
        else:
            name = socket.inet_ntoa(receive_exactly(connection, 4))
        port = int.from_bytes(receive_exactly(connection, 2), "big")
        self.asked.append(f"{name}:{port}")
        other = connect(("127.0.0.1", port))
        connection.sendall(b"\5\0\0\1" + bytes(6))
        relay_both(connection, other)


def relay_both(one, other):
    def copy(source, target):
        try:
            while piece := source.recv(65536):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    for source, target in ((one, other), (other, one)):
        source.settimeout(None)
        threading.Thread(target=copy, args=(source, target), daemon=True).start()


class ByWayOf(ServingCase):
    """Through proxies that the environment names. The daemon is known by a name that
    nobody but the proxy resolves."""

    NAME = "proxy.invalid"

    def serve(self, environment, proxy):
        self.addCleanup(proxy.listener.close)
        daemon = self.start_daemon("--drain", "0", "--host", self.NAME, "--reserve", "30")
        url = f"http://{self.NAME}:{daemon.port}/RPC2"
        program = harness.Program([SERVE, url, "1", "echo"], env={**NO_PROXIES, **environment},
                                  stdin=subprocess.PIPE)
        self.addCleanup(program.clean_up)
        address = re.fullmatch(r"serving tcp://proxy\.invalid:(\d+)", program.line())
        port = int(address[1])
        with connect(("127.0.0.1", port)) as client:
            client.sendall(b"?")
            self.assertEqual(receive_exactly(client, 1), b"?")
        return daemon.port, port

    def test_an_http_proxy_carries_calls_and_the_connection(self):
        proxy = HttpProxy()
        rpc_port, port = self.serve({"http_proxy": f"http://{proxy.address}"}, proxy)
        self.assertEqual(proxy.asked, [f"POST {self.NAME}:{rpc_port}"] * 2 +
                         [f"CONNECT {self.NAME}:{port - 1}"])

    def test_that_of_https_goes_first_for_the_connection(self):
        calls, carriers = HttpProxy(), HttpProxy()
        self.addCleanup(calls.listener.close)
        _, port = self.serve({"http_proxy": f"http://{calls.address}",
                              "https_proxy": f"http://{carriers.address}"}, carriers)
        self.assertEqual(len(calls.asked), 2)
        self.assertEqual(carriers.asked, [f"CONNECT {self.NAME}:{port - 1}"])

    def test_passwords_of_proxies_are_not_told(self):
        daemon = self.start_daemon("--drain", "0")
        for proxy in ("https://joe:secret@127.0.0.1:1", "gopher://joe:secret@127.0.0.1:1",
                      "http://joe:secret@127.0.0.1:1", "http://joe:secret@[::1", "joe:secret@ x",
                      "http://joe:sec@secret@127.0.0.1:1", "socks5h://joe:secret@127.0.0.1:1"):
            for name in ("http_proxy", "https_proxy"):
                result = harness.run([SERVE, daemon.url, "1", "echo"],
                                     env={**NO_PROXIES, name: proxy})
                with self.subTest(proxy=proxy, name=name):
                    self.assertRegex(result.stdout, "^error ")
                    self.assertNotIn("sec", result.stdout.replace("secon", ""))

    def test_a_socks_proxy_resolves_the_names(self):
        proxy = SocksProxy()
        rpc_port, port = self.serve({"ALL_PROXY": f"socks5h://{proxy.address}"}, proxy)
        self.assertEqual(proxy.asked, [f"{self.NAME}:{rpc_port}"] * 2 + [f"{self.NAME}:{port - 1}"])


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
