#!/usr/bin/python3 -B
"""The server stays hidden: whatever a client, an outsider or a caller can get
out of the proxy is searched for the server's address and port."""

import base64
import errno
import os
import random
import re
import signal
import socket
import time
import xmlrpc.client

import harness
from harness import (Case, connect, how_it_ended, is_refused, receive_exactly, reset, run,
                     wait_until)

SERVER = "127.0.0.77"       # where the server opens its tunnel and attaches from
STRANGER = "127.0.0.99"
CLIENT = "127.0.0.88"
AT_ONCE_S = 20

# Ports that nothing spells by chance: in hexadecimal they begin with letters, in
# binary with a byte that is not ASCII, and no port of the proxy is as high.
PORTS = range(0xdaa0, 0xdb00)


def needles(host, port):
    """How an address may be spelt, each by its name."""
    packed = socket.inet_aton(host)
    octets = host.split(".")
    forms = {
        "address as text": host.encode(),
        "address reversed": ".".join(reversed(octets)).encode(),
        "address with dashes": "-".join(octets).encode(),
        "address with underscores": "_".join(octets).encode(),
        "address in network order": packed,
        "address in host order": packed[::-1],
        "address in hexadecimal": packed.hex().encode(),
        "address in hexadecimal, host order": packed[::-1].hex().encode(),
        "address in hexadecimal with colons": packed.hex(":").encode(),
        "address as an IPv6 one": f"{packed[:2].hex()}:{int(packed[2:].hex(), 16):x}".encode(),
        "address as a number": str(int.from_bytes(packed, "big")).encode(),
        "address as a number, host order": str(int.from_bytes(packed, "little")).encode(),
        "address in base64": base64.b64encode(host.encode()).rstrip(b"=")[:-1],
        "port as text": str(port).encode(),
        "port in network order": port.to_bytes(2, "big"),
        "port in host order": port.to_bytes(2, "little"),
        "port in hexadecimal": f"{port:x}".encode(),
    }
    return forms


def traces(what, host, port):
    lower = what.lower()
    return [name for name, form in needles(host, port).items()
            if form in what or form.lower() in lower]


def from_known_port(connect_from):
    """A connection, and the port that it comes from."""
    for port in random.sample(PORTS, len(PORTS)):
        try:
            return connect_from(port), port
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise AssertionError("no free port")


class HiddenCase(Case):
    options, pairs, user = (), 16, None

    def setUp(self):
        self.daemon = self.start_daemon("--drain", "1", *self.options, pairs=self.pairs, user=self.user)
        self.obtained = []          # (what it was, bytes)
        self.tunnel = self.open_tunnel(source=SERVER)

    def attach(self):
        server, self.server_port = from_known_port(
            lambda port: self.tunnel.attach(source_port=port))
        wait_until(lambda: self.tunnel.server_address[1] not in self.daemon.ports.listening(),
                   "the server is attached")
        return server

    def keep(self, what, data):
        self.obtained.append((what, data))
        return data

    def assert_no_trace(self):
        self.assertTrue(self.obtained)
        for what, data in self.obtained:
            self.assertEqual(traces(data, SERVER, self.server_port), [], f"{what}: {data!r}")

    def say(self, request, source=STRANGER):
        """All that comes back for these bytes, until the connection ends."""
        answer = b""
        with connect(("127.0.0.1", self.daemon.port), source=source) as connection:
            try:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(65536):
                    answer += piece
            except ConnectionError:
                pass            # what came before it counts
        return self.keep(request[:300].decode("latin-1"), answer)

    def post(self, body, fields="", source=STRANGER):
        return self.say((f"POST /RPC2 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/xml\r\n"
                         f"Content-Length: {len(body)}\r\n{fields}\r\n").encode() + body, source)

    def call(self, method, *arguments, **how):
        return self.post(xmlrpc.client.dumps(arguments, method, allow_none=True).encode(), **how)


class TheSearchItself(Case):
    def test_every_spelling_is_found(self):
        port = PORTS[7]
        spellings = needles(SERVER, port)
        for name, form in spellings.items():
            self.assertIn(name, traces(b"<string>" + form.upper() + b"\r\n", SERVER, port))
        self.assertEqual(traces(b"tcp://127.0.0.1:14000 " + bytes(range(32, 127)), SERVER, port), [])


class Calls(HiddenCase):
    def wrong_arguments(self):
        server_uri, client_uri = self.tunnel.server_uri, self.tunnel.client_uri
        port = self.tunnel.server_address[1]
        for uri in (server_uri, client_uri):
            yield from ((uri,), (uri + "/",), (uri.upper(),), (uri + "/x",), (uri + "?x",),
                        (uri + "#x",), (" " + uri,), (uri + "\n",), (uri[:-1],),
                        (re.sub(r":(\d+)$", r":0\1", uri),),      # a digit at the end might spell one
                        (uri, uri), (uri, 1), (uri.encode(),), ([uri],), ({"uri": uri},))
        for host in ("localhost", "127.0.0.2", "127.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]",
                     "x@127.0.0.1", "*", "", "%s%n", "a" * 300):
            yield (f"tcp://{host}:{port}",)
        for scheme in ("http", "ssh", "webmux", "", "tcp6", "file"):
            yield (f"{scheme}://127.0.0.1:{port}",)
        yield from ((), ("",), ("tcp",), ("ssh",), ("*",), (port,), (True,), (1.5,), (None,),
                    (xmlrpc.client.DateTime("20260131T12:00:00"),), ("x" * 5000,), ("\u2603",), (-1,),
                    ("self",), ("Tunnel.getTunnelAddress",), ("Tunnel.openTunnel",),
                    ([{"methodName": "Tunnel.getTunnelAddress", "params": [server_uri]},
                      {"methodName": "Tunnel.getTunnelAddress", "params": [server_uri, "x"]},
                      {"methodName": "Tunnel.attachedFrom", "params": []},
                      {"methodName": "system.multicall", "params": [[]]},
                      {"params": []}, 7, {}],))

    def call_everything(self, source):
        with harness.rpc(self.daemon.url) as proxy:
            methods = proxy.system.listMethods()
        for method in methods + ["Tunnel.closeTunnel", "Tunnel.", "", "system.shutdown", "Tunnel.list"]:
            for arguments in self.wrong_arguments():
                if method == "Tunnel.openTunnel" and arguments in ((), ("tcp",)):
                    continue        # that opens one
                answer = self.call(method, *arguments, source=source)
                self.assertTrue(answer.startswith(b"HTTP/1.1 "), (method, arguments, answer))
        self.assertGreater(len(self.obtained), 300)

    def test_no_method_tells_with_whatever_arguments(self):
        server = self.attach()
        client = self.tunnel.connect(source=CLIENT)
        client.sendall(b"x")
        receive_exactly(server, 1)
        for source in (STRANGER, CLIENT, SERVER):       # nor does anything depend on who asks
            self.call_everything(source)
        self.assert_no_trace()

    def test_no_method_tells_before_its_client_came_nor_after_the_end(self):
        server = self.attach()
        self.call_everything(STRANGER)
        reset(server)
        wait_until(lambda: not self.daemon.ports.listening(), "the tunnel is gone")
        self.call_everything(STRANGER)
        self.assert_no_trace()

    def test_a_right_guess_is_answered_as_a_wrong_one(self):
        """Faults repeat what the caller sent, whatever it was, and tell no more."""
        self.attach()
        right, wrong = SERVER, "127.0.0.78"
        port = self.tunnel.server_address[1]
        for method in ("Tunnel.openTunnel", "Tunnel.getTunnelAddress", "system.methodHelp"):
            for form in ("tcp://{}:%d" % port, "tcp://{}:%d" % self.server_port, "{}",
                         "http://{}/", "{}:%d" % self.server_port):
                faults = [self.call(method, form.format(host)).split(b"\r\n\r\n", 1)[1]
                          for host in (right, wrong)]
                self.assertIn(b"faultString", faults[0])
                self.assertEqual(faults[0], faults[1].replace(wrong.encode(), right.encode()))

    def test_a_new_tunnel_tells_nothing_of_others(self):
        self.attach()
        for arguments in ((), ("tcp",)):
            answer = self.call("Tunnel.openTunnel", *arguments)
            uri = re.search(rb"tcp://[^<]+", answer)[0].decode()
            self.call("Tunnel.getTunnelAddress", uri)
            harness.discard(harness.address_of(uri), STRANGER)
        self.assert_no_trace()

    def test_a_caller_without_a_host_is_given_the_proxy_s_address_and_not_its_own(self):
        self.attach()
        body = xmlrpc.client.dumps((), "Tunnel.openTunnel").encode()
        answer = self.say(b"POST /RPC2 HTTP/1.0\r\nContent-Type: text/xml\r\n"
                          b"Content-Length: %d\r\n\r\n" % len(body) + body, SERVER)
        uri = re.search(rb"tcp://[^<]+", answer)[0].decode()
        harness.discard(harness.address_of(uri), SERVER)
        self.assert_no_trace()


class NoMoreTunnels(HiddenCase):
    options = ("--max-tunnels", "1", "--drain", "60")

    def test_a_proxy_that_is_full_or_ends_does_not_tell(self):
        server = self.attach()
        self.assertIn(b"limit reached", self.call("Tunnel.openTunnel"))
        self.daemon.signal(signal.SIGTERM)
        wait_until(lambda: b"shutting down" in self.call("Tunnel.openTunnel"), "it drains")
        self.call("Tunnel.getTunnelAddress", self.tunnel.server_uri)
        self.assert_no_trace()
        reset(server)
        self.daemon.wait()


class NoMorePorts(HiddenCase):
    pairs = 1

    def test_no_free_pair_does_not_tell_who_has_it(self):
        self.attach()
        self.assertIn(b"no free port pair", self.call("Tunnel.openTunnel"))
        self.assert_no_trace()


class Http(HiddenCase):
    def test_no_error_page_or_header_tells(self):
        server = self.attach()
        client = self.tunnel.connect(source=CLIENT)
        client.sendall(b"x")
        receive_exactly(server, 1)
        port = self.tunnel.server_address[1]
        for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "POST", "X"):
            for path in ("/", "/RPC2", "/status", "/..", "/%2e%2e", f"/{port}", "*",
                         self.tunnel.server_uri, f"127.0.0.1:{port}", "/" + "a" * 5000):
                self.say(f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                         f"X-Forwarded-For: 127.0.0.1\r\nVia: x\r\nMax-Forwards: 0\r\n\r\n".encode())
        for body in (b"", b"<", b"x" * 100, b"<methodCall/>", b"\xff\xfe", b"<!DOCTYPE x>",
                     b"<methodCall><methodName>Tunnel.getTunnelAddress</methodName><params>"):
            self.post(body)
        for request in (b"\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"SSH-2.0-x\r\n", b"GET /\r\n\r\n",
                        b"POST /RPC2 HTTP/9.9\r\nHost: x\r\n\r\n", b"POST /RPC2 HTTP/1.1\r\n\r\n",
                        b"POST /RPC2 HTTP/1.1\r\nHost: a b\r\n\r\n", b"\0" * 300, os.urandom(300),
                        b"POST /RPC2 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n"
                        b"Content-Length: 1\r\n\r\nx",
                        b"POST /RPC2 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/xml\r\n"
                        b"Content-Length: 100000\r\n\r\n",
                        b"POST /RPC2 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/xml\r\n"
                        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"):
            self.say(request)
        answered = {answer.split(b" ")[1] for _, answer in self.obtained if answer}
        self.assertLessEqual({b"200", b"400", b"404", b"405", b"411", b"413", b"415", b"431", b"505"},
                             answered)
        self.assert_no_trace()


class WithUsers(HiddenCase):
    user = "jo:word"

    def setUp(self):
        path = os.path.join(self.temporary_folder(), "users.htpasswd")
        done = run(["htpasswd", "-nbB", "-C", "4", "jo", "word"])
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(path, "w", encoding="utf-8") as file:
            file.write(done.stdout.strip() + "\n")
        os.chmod(path, 0o600)
        self.options = ("--users", path)
        super().setUp()

    def test_those_who_are_asked_for_a_password_learn_nothing(self):
        self.attach()
        for credentials in (None, "jo:wrong", "nobody:x", "jo", ":", "jo:" + "x" * 300):
            fields = "" if credentials is None else (
                f"Authorization: Basic {base64.b64encode(credentials.encode()).decode()}\r\n")
            self.call("Tunnel.getTunnelAddress", self.tunnel.server_uri, fields=fields)
        for _ in range(6):          # until it is too many
            fields = f"Authorization: Basic {base64.b64encode(f'jo:{random.random()}'.encode()).decode()}\r\n"
            self.call("Tunnel.getTunnelAddress", self.tunnel.server_uri, fields=fields)
        self.call("Tunnel.getTunnelAddress", self.tunnel.server_uri, fields="Authorization: Bearer x\r\n")
        self.call("Tunnel.getTunnelAddress", self.tunnel.server_uri, fields="Authorization: x\r\n" * 2)
        self.assertEqual({b"400", b"401", b"429"}, {answer.split(b" ")[1] for _, answer in self.obtained})
        self.assert_no_trace()


class Connections(HiddenCase):
    """What a client sees of its stream, and strangers of the ports."""

    def client_sees(self, client, server, end):
        """Everything: what comes, how it ends, who is there, what the system knows."""
        self.assertEqual(client.getpeername(), self.tunnel.client_address)
        server.sendall(b"hello")
        self.assertEqual(self.keep("stream", receive_exactly(client, 5)), b"hello")
        server.send(b"!", socket.MSG_OOB)
        server.sendall(b"bye")
        if end == "reset":
            self.keep("stream", receive_exactly(client, 3))
        (reset if end == "reset" else socket.socket.close)(server)
        rest = b""
        try:
            while piece := client.recv(65536):
                rest += piece
        except ConnectionResetError as error:
            self.assertEqual(end, "reset")
            self.keep("error", str(error).encode())
        else:
            self.assertEqual(end, "close")
        self.keep("stream", rest)
        self.assertNotIn(b"hello", rest)

    def test_a_client_gets_its_server_s_bytes_and_nothing_else(self):
        for end in ("close", "reset"):
            for first in ("server", "client"):
                with self.subTest(end=end, first=first):
                    client = self.tunnel.connect(source=CLIENT) if first == "client" else None
                    if client:
                        client.settimeout(0.3)
                        self.assertRaises(TimeoutError, client.recv, 1)     # no banner
                    server = self.attach()
                    client = client or self.tunnel.connect(source=CLIENT)
                    client.settimeout(harness.WAIT_S)
                    self.client_sees(client, server, end)
                    client.close()
                    self.assert_no_trace()
                    self.daemon.expect_rest()
                    self.tunnel = self.open_tunnel(source=SERVER)

    def test_a_server_learns_as_little_of_its_client(self):
        server = self.attach()
        client, port = from_known_port(
            lambda port: self.tunnel.connect(source=CLIENT, source_port=port))
        with client:
            client.sendall(b"hello")
            self.assertEqual(receive_exactly(server, 5), b"hello")
            for source in (SERVER, STRANGER):
                self.call("Tunnel.getTunnelAddress", self.tunnel.server_uri, source=source)
            self.assertEqual(server.getpeername(), self.tunnel.server_address)
        self.assertEqual(how_it_ended(server), "end")
        for what, data in self.obtained:
            self.assertEqual(traces(data, CLIENT, port), [], what)

    def come_as_a_stranger(self, address, words=b""):
        """What a stranger gets there; it must be over at once."""
        began = time.monotonic()
        got = b""
        try:
            with connect(address, source=STRANGER) as stranger:
                stranger.sendall(words)
                while piece := stranger.recv(65536):
                    got += piece
                end = "end"
        except (ConnectionError, BrokenPipeError) as error:
            end = "reset"
            self.keep("error", str(error).encode())
        self.assertLess(time.monotonic() - began, AT_ONCE_S)
        self.keep("server port", got)
        return end, got

    def test_strangers_at_the_server_port_are_closed_at_once_and_attach_nothing(self):
        client = self.tunnel.connect(source=CLIENT)
        for words in (b"", b"GET / HTTP/1.0\r\n\r\n", b"SSH-2.0-x\r\n", os.urandom(1000)) * 3:
            self.assertEqual(self.come_as_a_stranger(self.tunnel.server_address, words),
                             ("reset", b""))
        self.assertIn(self.tunnel.server_address[1], self.daemon.ports.listening())
        server = self.attach()
        client.sendall(b"for the server alone")
        self.assertEqual(receive_exactly(server, 20), b"for the server alone")
        server.sendall(b"for its client alone")
        self.assertEqual(receive_exactly(client, 20), b"for its client alone")
        self.assert_no_trace()

    def test_a_scan_of_all_ports_attaches_nothing_and_finds_only_clients_ports(self):
        others = [self.open_tunnel(source=f"127.0.0.{number}") for number in range(60, 65)]
        scanned = {tunnel.server_address[1]: tunnel for tunnel in [self.tunnel, *others]}
        for port in range(self.daemon.ports.low, self.daemon.ports.high + 1):
            if port - 1 in scanned:
                continue            # there a stranger is what is meant to come
            self.assertEqual(self.come_as_a_stranger(("127.0.0.1", port)), ("reset", b""))
        self.assertEqual(len(self.daemon.ports.listening()), 12)
        server = self.attach()
        client = self.tunnel.connect()
        client.sendall(b"x")
        self.assertEqual(receive_exactly(server, 1), b"x")
        for tunnel in others:
            tunnel.both()
        self.assert_no_trace()

    def test_a_client_does_not_reach_the_server_port_of_its_tunnel(self):
        client = self.tunnel.connect(source=STRANGER)
        client.sendall(b"the client's")
        self.assertEqual(self.come_as_a_stranger(self.tunnel.server_address, b"intruding"),
                         ("reset", b""))
        server = self.attach()
        self.assertEqual(receive_exactly(server, 12), b"the client's")
        self.assertTrue(is_refused(self.tunnel.server_address))
        self.assertEqual(self.come_as_a_stranger(self.tunnel.server_address), ("reset", b""))
        self.assertEqual(self.come_as_a_stranger(self.tunnel.client_address), ("reset", b""))
        server.close()
        self.assertEqual(how_it_ended(client), "end")
        self.assert_no_trace()

    def test_the_log_does_not_tell_unless_it_is_told_to(self):
        client = self.tunnel.connect(source=CLIENT)
        self.come_as_a_stranger(self.tunnel.server_address)
        server = self.attach()
        self.call("Tunnel.getTunnelAddress", "tcp://nobody", source=SERVER)
        self.say(b"nonsense\r\n\r\n", source=SERVER)
        server.close()
        self.assertEqual(how_it_ended(client), "end")
        client.close()
        wait_until(lambda: "tunnel 1 closed" in self.daemon.errors(), "the end is logged")
        self.keep("the log", self.daemon.errors().encode())
        self.assert_no_trace()


class TheOperator(HiddenCase):
    options = ("--log-addresses", "yes")

    def test_the_search_finds_what_the_log_tells_if_it_is_told_to(self):
        self.attach()
        wait_until(lambda: traces(self.daemon.errors().encode(), SERVER, self.server_port) ==
                   ["address as text", "port as text"], "the operator sees the server's address")


if __name__ == "__main__":
    harness.main()
