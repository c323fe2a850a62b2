#!/usr/bin/python3 -B
"""The whole trip: a server behind a NAT is fetched from through the proxy."""

import hashlib
import http.server
import os
import random
import shutil
import sys
import unittest
import urllib.request

import harness
from harness import SRCDIR, Case, DaemonCase, address_of, connect, in_thread, receive_until_end, run

PERL = os.environ.get("PERL") or shutil.which("perl")
CURL = shutil.which("curl")
BODY = bytes(range(256)) * 300


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_):
        pass


def serve_one(connection):
    """Any HTTP server's code, on the connection that the server made itself."""
    with connection:
        _Handler(connection, connection.getpeername(), None)


def fetch(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=harness.WAIT_S) as answer:
        return answer.read()


class TheOriginalWalkThrough(DaemonCase):
    def walk(self, fetch_url):
        tunnel = self.daemon.rpc().Tunnel
        server_uri = tunnel.openTunnel()
        serving = in_thread(serve_one, connect(address_of(server_uri)))
        client_uri = tunnel.getTunnelAddress(server_uri)
        host, port = address_of(client_uri)
        body = fetch_url(f"http://{host}:{port}/")
        serving.result()
        return body

    def test_an_unmodified_http_client_fetches_through_the_tunnel(self):
        self.assertEqual(self.walk(fetch), BODY)

    @unittest.skipUnless(CURL, "curl is not installed")
    def test_curl_fetches_through_the_tunnel(self):
        file = os.path.join(self.temporary_folder(), "fetched")
        self.walk(lambda url: self.assertEqual(
            run([CURL, "-sS", "--noproxy", "*", "-o", file, url]).returncode, 0))
        with open(file, "rb") as fetched:
            self.assertEqual(fetched.read(), BODY)

    def test_old_clients_find_the_service_at_the_root(self):
        self.assertIn("Tunnel.openTunnel", self.daemon.rpc(path="/").system.listMethods())
        uri = self.daemon.rpc(path="/").Tunnel.openTunnel("tcp")
        harness.discard(address_of(uri))


class TheClientsInTheTree(DaemonCase):
    """Each prints an http URL and serves one GET of a file."""

    def serve_file(self, interpreter, *path):
        script = os.path.join(SRCDIR, "clients", *path)
        content = random.randbytes(1 << 20)
        folder = self.temporary_folder()
        with open(os.path.join(folder, "file"), "wb") as file:
            file.write(content)
        program = self.start_program([interpreter, script, self.daemon.url,
                                      os.path.join(folder, "file")])
        line = program.line()
        self.assertRegex(line, r"http://127\.0\.0\.1:\d+/")
        url = line[line.index("http://"):].split()[0]
        self.assertEqual(hashlib.sha256(fetch(url)).hexdigest(),
                         hashlib.sha256(content).hexdigest())
        self.assertEqual(program.wait(), 0, program.errors())

    def test_the_python_client_serves_a_file(self):
        self.serve_file(sys.executable, "python", "serve_file.py")

    @unittest.skipUnless(PERL and not os.system(f"{PERL} -MRPC::XML -e 1 2>/dev/null"),
                         "perl with RPC::XML is not installed")
    def test_the_perl_client_serves_a_file(self):
        self.serve_file(PERL, "perl", "serve-file")

    @unittest.skipUnless(PERL and not os.system(f"{PERL} -MRPC::XML -e 1 2>/dev/null"),
                         "perl with RPC::XML is not installed")
    def test_perl_with_rpc_xml_gets_plain_strings(self):
        program = ('use RPC::XML::Client; my $c = RPC::XML::Client->new(shift);'
                   'my $s = $c->simple_request("Tunnel.openTunnel"); print "$s\\n";'
                   'print $c->simple_request("Tunnel.getTunnelAddress", $s), "\\n";')
        done = run([PERL, "-e", program, self.daemon.url])
        self.assertEqual(done.returncode, 0, done.stderr)
        server_uri, client_uri = done.stdout.split()
        self.assertEqual(address_of(client_uri)[1], address_of(server_uri)[1] + 1)
        harness.discard(address_of(server_uri))


class Uris(DaemonCase):
    def test_the_pair_is_two_neighbouring_ports(self):
        tunnel = self.open_tunnel()
        self.assertRegex(tunnel.server_uri, r"^tcp://127\.0\.0\.1:\d+$")
        self.assertRegex(tunnel.client_uri, r"^tcp://127\.0\.0\.1:\d+$")
        self.assertEqual(tunnel.client_address[1], tunnel.server_address[1] + 1)
        self.assertGreaterEqual(tunnel.server_address[1], self.daemon.ports.low)
        self.assertLessEqual(tunnel.client_address[1], self.daemon.ports.high)

    def test_the_host_is_the_one_by_which_the_proxy_was_called(self):
        proxy = harness.rpc(f"http://localhost:{self.daemon.port}/RPC2")
        with proxy:
            uri = proxy.Tunnel.openTunnel()
            self.assertRegex(uri, r"^tcp://localhost:\d+$")
            self.assertRegex(proxy.Tunnel.getTunnelAddress(uri), r"^tcp://localhost:\d+$")
        harness.discard(("127.0.0.1", address_of(uri)[1]))

    def test_the_address_can_be_asked_again(self):
        tunnel = self.open_tunnel()
        tunnel.both()
        self.assertEqual(self.daemon.rpc().Tunnel.getTunnelAddress(tunnel.server_uri),
                         tunnel.client_uri)

    def test_a_library_may_have_added_a_slash_or_capitals(self):
        tunnel = self.open_tunnel()
        for spelling in (tunnel.server_uri + "/", tunnel.server_uri.replace("tcp", "TCP")):
            self.assertEqual(self.daemon.rpc().Tunnel.getTunnelAddress(spelling),
                             tunnel.client_uri)


class AGivenHost(DaemonCase):
    options = ("--host", "proxy.example.org")

    def test_it_stands_in_both_uris(self):
        tunnel = self.open_tunnel()
        self.assertRegex(tunnel.server_uri, r"^tcp://proxy\.example\.org:\d+$")
        self.assertRegex(tunnel.client_uri, r"^tcp://proxy\.example\.org:\d+$")


class OverIp6(Case):
    def setUp(self):
        self.need_ipv6()
        self.daemon = self.start_daemon(listen_on="[::1]:0")

    def test_the_trip_works_on_loopback(self):
        self.assertRegex(self.daemon.ready_line, r"^serving http://\[::1\]:\d+/RPC2$")
        tunnel = self.open_tunnel()
        self.assertRegex(tunnel.server_uri, r"^tcp://\[::1\]:\d+$")
        self.assertRegex(tunnel.client_uri, r"^tcp://\[::1\]:\d+$")
        serving = in_thread(serve_one, tunnel.attach())
        port = tunnel.client_address[1]
        self.assertEqual(fetch(f"http://[::1]:{port}/"), BODY)
        serving.result()
        self.daemon.stop()


class OtherRelayAddress(Case):
    def test_port_pairs_listen_where_they_are_told_to(self):
        daemon = self.start_daemon("--relay-listen", "127.0.0.2", "--attach-from", "any",
                                   "--host", "127.0.0.2")
        with daemon.rpc() as proxy:
            uri = proxy.Tunnel.openTunnel()
        host, port = address_of(uri)
        self.assertEqual(host, "127.0.0.2")
        self.assertTrue(harness.is_refused(("127.0.0.1", port)))
        server = connect((host, port))
        client = connect((host, port + 1))
        client.sendall(b"hello")
        client.shutdown(harness.socket.SHUT_WR)
        self.assertEqual(receive_until_end(server), b"hello")
        server.close()
        self.assertEqual(receive_until_end(client), b"")
        client.close()
        daemon.stop()


if __name__ == "__main__":
    harness.main()
