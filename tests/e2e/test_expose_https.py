#!/usr/bin/python3 -B
"""tristero-tunnel expose of services that speak HTTP by TLS."""

import os
import socket
import socketserver
import ssl
import subprocess
import time
import urllib.request

import harness
from expose_harness import ExposeCase, address_of_url

PLAIN_HTTP = (b"HEAD", b"GET ")


class Web(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """By TLS. Who speaks plain HTTP gets refusal, and a close."""
    daemon_threads = True

    def __init__(self, address, context, refusal):
        super().__init__(address, None)
        self._context, self._refusal = context, refusal

    def finish_request(self, request, _):
        if request.recv(4, socket.MSG_PEEK) in PLAIN_HTTP:
            request.recv(65536)
            request.sendall(self._refusal)
            return
        with self._context.wrap_socket(request, server_side=True) as connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nby TLS")

    def handle_error(self, *_):
        pass


class LocalWeb(Web):
    address_family = socket.AF_UNIX

    def get_request(self):
        return self.socket.accept()[0], ("", 0)


class Https(ExposeCase):
    def url(self, target):
        return self.expose(target).line()

    def context(self):
        """Of a certificate that nobody has signed."""
        folder = self.temporary_folder()
        key, certificate = (os.path.join(folder, name) for name in ("key", "certificate"))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                        "-nodes", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
                       check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context

    def assert_exposed(self, target):
        url = self.url(target)
        self.assertEqual(address_of_url(url)[0], "https")
        with urllib.request.urlopen(url, context=ssl._create_unverified_context()) as answer:
            self.assertEqual(answer.read(), b"by TLS")

    def test_their_address_says_so_whatever_they_answer_to_plain_http(self):
        context = self.context()
        for refusal in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\0\x02\x02\x46", b""):
            web = self.run_server(Web(("127.0.0.1", 0), context, refusal))
            self.assert_exposed(web.server_address[1])

    def test_at_a_unix_socket_too(self):
        path = os.path.join(self.temporary_folder(), "web")
        self.run_server(LocalWeb(path, self.context(), b""))
        self.assert_exposed("unix:" + path)

    def test_who_finds_plain_http_a_bad_request_and_speaks_nothing_else_speaks_http(self):
        class Picky(Web):
            def finish_request(self, request, _):
                request.recv(65536)
                request.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
        web = self.run_server(Picky(("127.0.0.1", 0), None, b""))
        self.assertEqual(address_of_url(self.url(web.server_address[1]))[0], "http")


    def test_who_takes_its_time_for_the_first_answer_speaks_http_too(self):
        class Slow(Web):
            def finish_request(self, request, _):
                request.recv(65536)
                time.sleep(1.5)
                request.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        web = self.run_server(Slow(("127.0.0.1", 0), None, b""))
        self.assertEqual(address_of_url(self.url(web.server_address[1]))[0], "http")


class ByPython(Https):
    def url(self, target):
        return self.start_package(self.daemon.url, target).line()


if __name__ == "__main__":
    harness.main()
