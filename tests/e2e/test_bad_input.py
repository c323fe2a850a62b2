#!/usr/bin/python3 -B
"""Whatever arrives: each gets its fault or HTTP error, and the service goes on."""

import contextlib
import http.client
import io
import random
import re
import socket
import time
import xmlrpc.client

import harness
from harness import DaemonCase, address_of, connect, cpu_seconds, in_thread, nine_of_ten, wait_until

CALL = xmlrpc.client.dumps((), "system.listMethods").encode()
SOON_S = 10 if harness.is_sanitized() else 1    # the promise is of the program as it is installed
WHENEVER_S = 20     # in which a machine under load lets it keep the promise
LAUGHS = ("<!DOCTYPE methodCall [<!ENTITY a 'ha ha ha ha ha ha'>"
          + "".join(f"<!ENTITY {name} '{f'&{before};' * 12}'>"
                    for before, name in zip("abcdefgh", "bcdefghi"))
          + "]><methodCall><methodName>&i;</methodName></methodCall>")
DECLARED = '<?xml version="1.0"?>' + LAUGHS


class _Answer(io.BytesIO):
    def makefile(self, *_):
        return self


class BadInput(DaemonCase):
    def tearDown(self):
        """It goes on, and at once."""
        with self.soon(), harness.rpc(self.daemon.url) as proxy:
            uri = proxy.Tunnel.openTunnel()
        harness.discard(address_of(uri))

    @contextlib.contextmanager
    def soon(self):
        """By the processor's time, which the load of the machine is not part of."""
        began, busy_s = time.monotonic(), cpu_seconds(self.daemon)
        yield
        self.assertLess(cpu_seconds(self.daemon) - busy_s, SOON_S)
        self.assertLess(time.monotonic() - began, WHENEVER_S)

    def send(self, *pieces, finish=False):
        """The status and body of the answer; (0, b"") if it just closed."""
        with connect(("127.0.0.1", self.daemon.port)) as connection:
            answer = b""
            try:
                for piece in pieces:
                    connection.sendall(piece)
                if finish:
                    connection.shutdown(socket.SHUT_WR)
                while True:
                    piece = connection.recv(65536)
                    answer += piece
                    if not piece or self.is_whole(answer):
                        break
            except ConnectionError:
                pass
        if not answer:
            return 0, b""
        response = http.client.HTTPResponse(_Answer(answer))
        response.begin()
        return response.status, response.read()

    @staticmethod
    def is_whole(answer):
        header, gap, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\ncontent-length: *(\d+)", header)
        return bool(gap and length and len(body) >= int(length[1]))

    def post(self, body, path="/RPC2", kind="text/xml", length=None, fields=""):
        length = len(body) if length is None else length
        return self.send((f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                          f"Content-Type: {kind}\r\nContent-Length: {length}\r\n"
                          f"{fields}\r\n").encode("latin-1"), body)

    def assert_refused(self, body):
        """A fault or an HTTP error, quickly and cheaply."""
        before_kib = self.daemon.resident_kib()
        with self.soon():
            status, answer = self.post(body)
        self.assertLess(self.daemon.resident_kib() - before_kib, 16 << 10)
        if status == 200:
            self.assertRaises(xmlrpc.client.Fault, xmlrpc.client.loads, answer.decode())
        else:
            self.assertIn(status, range(400, 500), answer)

    def test_a_plain_call_is_answered(self):
        status, answer = self.post(CALL)
        self.assertEqual(status, 200)
        self.assertIn(b"Tunnel.openTunnel", answer)

    # --- XML

    def test_nested_entities_are_refused_quickly(self):
        self.assertLess(len(DECLARED), 1000)
        self.assert_refused(DECLARED.encode())

    def test_a_document_type_is_refused_wherever_it_hides(self):
        for text in (LAUGHS, "\n\n  " + LAUGHS, "<!-- x -->" + LAUGHS, "<?pi x?>" + LAUGHS,
                     "<!-- <methodCall> -->" + LAUGHS, "\ufeff" + LAUGHS,
                     "<!DOCTYPE methodCall SYSTEM 'file:///etc/passwd'>" + CALL.decode(),
                     "<!DOCTYPE methodCall [<!ENTITY x SYSTEM 'file:///etc/hostname'>]>"
                     "<methodCall><methodName>&x;</methodName></methodCall>"):
            with self.subTest(text=text[:30]):
                self.assert_refused(text.encode())

    def test_a_document_type_in_another_encoding_is_refused(self):
        for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be",
                         "utf-7", "cp037"):
            for declaration in ("", f'<?xml version="1.0" encoding="{encoding[:6]}"?>'):
                with self.subTest(encoding=encoding, declaration=declaration):
                    self.assert_refused((declaration + LAUGHS).encode(encoding))
        for bom, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
            self.assert_refused(bom + DECLARED.encode(encoding))

    def test_a_number_that_crashes_the_parser_is_refused(self):
        for value in ("<i8>x</i8>", "<i8>99999999999999999999</i8>", "<ex:i8 >x</ex:i8>"):
            with self.subTest(value=value):
                self.assert_refused(b"<?xml version='1.0'?><methodCall><methodName>"
                                    b"Tunnel.openTunnel</methodName><params><param><value>"
                                    + value.encode() + b"</value></param></params></methodCall>")

    def test_xml_that_is_no_call_is_a_fault(self):
        for text in ("", " ", "<", "<a/>", "<methodCall/>", "<methodCall>", "plain text",
                     "<methodCall><methodName/></methodCall>", "<methodCall></methodcall>",
                     "<methodResponse><params/></methodResponse>", "&amp;", "<?xml?>",
                     "<methodCall><methodName>x</methodName><params><param/></params></methodCall>",
                     "<methodCall><methodName>Tunnel.openTunnel</methodName><params><param><value>"
                     "<int>not a number</int></value></param></params></methodCall>",
                     "<methodCall><methodName>Tunnel.openTunnel</methodName><params><param><value>"
                     "<surprise>tcp</surprise></value></param></params></methodCall>",
                     CALL.decode() + CALL.decode(), CALL.decode() + "x"):
            with self.subTest(text=text[:60]):
                self.assert_refused(text.encode())

    def test_bytes_that_are_no_text_are_a_fault(self):
        for body in (b"\0", b"\xff" * 1000, b"\xc3\x28" + CALL, random.randbytes(4000),
                     CALL.replace(b"listMethods", b"list\0Methods"),
                     CALL.replace(b"listMethods", b"list\xffMethods")):
            self.assert_refused(body)

    def test_deep_nesting_is_a_fault(self):
        for opening in ("<value><array><data>", "<x>",
                        "<value><struct><member><name>a</name>"):
            count = 60000 // len(opening)
            self.assert_refused(("<methodCall><methodName>x</methodName><params><param>"
                                 + opening * count).encode())
        opening, closing = "<value><array><data>", "</data></array></value>"
        count = 1300
        self.assert_refused(("<methodCall><methodName>Tunnel.openTunnel</methodName><params>"
                             "<param>" + opening * count + closing * count
                             + "</param></params></methodCall>").encode())

    def test_a_member_of_many_calls_that_is_none_gets_a_fault(self):
        proxy = self.daemon.rpc()
        for member in (1, "x", [], {}, {"methodName": 1, "params": []},
                       {"methodName": "system.listMethods"},
                       {"methodName": "system.listMethods", "params": 1}):
            try:
                self.assertIn("faultCode", proxy.system.multicall([member])[0])
            except xmlrpc.client.Fault:
                pass
        self.daemon.drop_connections()

    # --- HTTP

    def test_other_methods_are_not_allowed(self):
        for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"):
            status, _ = self.send(f"{method} /RPC2 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            self.assertIn(status, (400, 405, 501), method)
        self.assertEqual(self.send(b"GET /RPC2 HTTP/1.1\r\nHost: x\r\n\r\n")[0], 405)

    def test_other_paths_are_not_found(self):
        for path in ("/RPC3", "/rpc2", "/RPC2/", "/index.html", "/../etc/passwd",
                     "/" + "a" * 2000, "/RPC2x"):
            self.assertIn(self.post(CALL, path=path)[0], (400, 404), path)
        self.assertEqual(self.post(CALL, path="/other")[0], 404)

    def test_a_call_without_a_length_is_told_so(self):
        head = b"POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\n"
        self.assertEqual(self.send(head + b"\r\n" + CALL)[0], 411)
        chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(CALL), CALL)
        self.assertEqual(self.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked)[0], 411)

    def test_a_wrong_length_is_refused(self):
        for length in ("-1", "-99999999999", "+5", "abc", "", "1e3", "0x10", "12 12", "5,5",
                       "99999999999999999999999999", "18446744073709551615", "4294967296"):
            self.assertIn(self.post(CALL, length=length)[0], (400, 411, 413), length)
        self.assertEqual(self.post(b"", length=65537)[0], 413)
        self.assertEqual(self.post(b"", length=2147483647)[0], 413)

    def test_two_lengths_are_refused(self):
        self.assertEqual(self.post(CALL, fields="Content-Length: 5\r\n")[0], 400)
        self.assertIn(self.post(CALL, fields="Transfer-Encoding: chunked\r\n")[0], (400, 411))

    def test_a_call_as_long_as_allowed_is_answered(self):
        padding = b" " * (65536 - len(CALL))
        self.assertEqual(self.post(CALL + padding)[0], 200)
        self.assertEqual(self.post(CALL + padding + b" ")[0], 413)

    def test_a_huge_header_is_refused(self):
        for field in ("X: " + "a" * 5000 + "\r\n", "X: y\r\n" * 2000,
                      "X: " + "a" * 1000000 + "\r\n", "a" * 8000 + ": x\r\n"):
            self.assertIn(self.post(CALL, fields=field)[0], (0, 400, 431))
        self.assertEqual(self.post(CALL, fields="X: " + "a" * 5000 + "\r\n")[0], 431)

    def test_another_content_type_is_refused(self):
        for kind in ("text/plain", "application/json", "multipart/form-data",
                     "application/x-www-form-urlencoded", "text/xmlx", ""):
            self.assertEqual(self.post(CALL, kind=kind)[0], 415, kind)
        for kind in ("text/xml", "application/xml", "TEXT/XML", "text/xml; charset=utf-8",
                     "text/xml;charset=UTF-8"):
            self.assertEqual(self.post(CALL, kind=kind)[0], 200, kind)

    def test_what_is_no_request_is_refused(self):
        for text in (b"\r\n\r\n", b"garbage\r\n\r\n", b"POST\r\n\r\n", b"POST /RPC2\r\n\r\n",
                     b"POST /RPC2 HTTP/9.9\r\nHost: x\r\n\r\n", b"\0" * 100 + b"\r\n\r\n",
                     b"POST /RPC2 FTP/1.1\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
                     b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n",
                     random.randbytes(3000) + b"\r\n\r\n", random.randbytes(100000),
                     b"POST /RPC2 HTTP/1.1\r\nno colon\r\n\r\n",
                     b"POST /RPC2 HTTP/1.1\r\n: empty\r\n\r\n",
                     b"POST /RPC2 HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
                     b"POST /RPC2 HTTP/1.1\nHost: x\n\n"):
            with self.subTest(text=text[:40]):
                status, _ = self.send(text, finish=True)
                self.assertIn(status, (0, *range(400, 506)))

    def test_a_bad_host_is_refused_and_reaches_no_uri(self):
        open_tunnel = xmlrpc.client.dumps((), "Tunnel.openTunnel").encode()
        for host in ("a b", "evil\"/><x>", "user@host", "x" * 300, "[::1", "host:port", "h/p",
                     "-", "..", "a\tb", "\xff"):
            with self.subTest(host=host[:30]):
                status, answer = self.send(
                    (f"POST /RPC2 HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/xml\r\n"
                     f"Content-Length: {len(open_tunnel)}\r\n\r\n").encode("latin-1"), open_tunnel)
                self.assertEqual(status, 400, answer)

    def test_a_caller_without_a_host_gets_an_address_that_works(self):
        open_tunnel = xmlrpc.client.dumps((), "Tunnel.openTunnel").encode()
        status, answer = self.send(
            (f"POST /RPC2 HTTP/1.0\r\nContent-Type: text/xml\r\n"
             f"Content-Length: {len(open_tunnel)}\r\n\r\n").encode(), open_tunnel)
        self.assertEqual(status, 200)
        uri = xmlrpc.client.loads(answer.decode())[0][0]
        harness.discard(address_of(uri))

    def test_a_request_byte_by_byte_is_answered(self):
        request = (f"POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\n"
                   f"Content-Length: {len(CALL)}\r\n\r\n").encode() + CALL
        self.assertEqual(self.send(*(bytes([byte]) for byte in request))[0], 200)

    def test_a_request_cut_short_is_no_call(self):
        open_tunnel = xmlrpc.client.dumps((), "Tunnel.openTunnel").encode()
        request = (f"POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\n"
                   f"Content-Length: {len(open_tunnel)}\r\n\r\n").encode() + open_tunnel
        wait_until(lambda: not self.daemon.ports.listening(), "the tunnels of other tests are gone")
        for length in random.sample(range(len(request)), 40):
            status, _ = self.send(request[:length], finish=True)
            self.assertIn(status, (0, 400, 408))
        self.assertEqual(self.daemon.ports.listening(), [])

    def test_calls_sent_together_are_each_answered(self):
        request = (f"POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\n"
                   f"Content-Length: {len(CALL)}\r\n\r\n").encode() + CALL
        with connect(("127.0.0.1", self.daemon.port)) as connection:
            connection.settimeout(10)
            connection.sendall(request * 3)
            text = b""
            try:
                while text.count(b"</methodResponse>") < 3 and (piece := connection.recv(65536)):
                    text += piece
            except ConnectionError:
                pass
        # whoever does not take several at once says so by closing
        self.assertGreaterEqual(text.count(b"</methodResponse>"), 1)

    def test_a_browser_page_cannot_open_tunnels(self):
        self.assertEqual(self.post(CALL, kind="text/plain", fields="Origin: http://evil\r\n")[0],
                         415)


class SlowOnes(DaemonCase):
    def assert_calls_are_answered(self):
        def call():
            began = time.monotonic()
            with harness.rpc(self.daemon.url) as proxy:
                proxy.system.listMethods()
            return time.monotonic() - began
        self.assertLess(nine_of_ten(call() for _ in range(10)), SOON_S)

    def test_idle_connections_do_not_delay_a_call(self):
        idle = [connect(("127.0.0.1", self.daemon.port)) for _ in range(100)]
        try:
            self.assert_calls_are_answered()
        finally:
            for connection in idle:
                connection.close()

    def test_half_requests_do_not_delay_a_call(self):
        halves = [connect(("127.0.0.1", self.daemon.port)) for _ in range(100)]
        try:
            for number, half in enumerate(halves):
                half.sendall(b"POST /RPC2 HTTP/1.1\r\n" if number % 2 else
                             b"POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\n"
                             b"Content-Length: 1000\r\n\r\n<methodCall>")
            self.assert_calls_are_answered()
        finally:
            for half in halves:
                half.close()

    def test_callers_that_do_not_read_their_answers_do_not_delay_a_call(self):
        body = xmlrpc.client.dumps(([{"methodName": "system.methodHelp",
                                      "params": ["Tunnel.openTunnel"]}] * 100,),
                                   "system.multicall").encode()
        self.assertLess(len(body), 65536)
        deaf = [connect(("127.0.0.1", self.daemon.port), receive_buffer=4096) for _ in range(100)]
        try:
            for one in deaf:
                one.sendall(f"POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\n"
                            f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            self.assert_calls_are_answered()
        finally:
            for one in deaf:
                one.close()

    def test_a_request_that_does_not_arrive_in_time_is_ended(self):
        def wait_for_end(text, drip):
            with connect(("127.0.0.1", self.daemon.port)) as connection:
                began = time.monotonic()
                connection.settimeout(0.5)
                answer = b""
                try:
                    connection.sendall(text)
                    while time.monotonic() - began < harness.WAIT_S:
                        try:
                            piece = connection.recv(65536)
                            if not piece:
                                break
                            answer += piece
                        except TimeoutError:
                            if drip:
                                connection.sendall(drip)
                except ConnectionError:
                    pass
                return time.monotonic() - began, answer

        head = b"POST /RPC2 HTTP/1.1\r\nHost: x\r\n"
        body = b"Content-Type: text/xml\r\nContent-Length: 5000\r\n\r\n"
        waiting = [in_thread(wait_for_end, text, drip) for text, drip in (
            (b"", b""), (head, b""), (head + body, b""), (head + body + CALL, b""),
            (head, b"X: y\r\n"), (head + body, b" "))]
        for one in waiting:
            seconds, answer = one.result()
            self.assertLess(seconds, harness.WAIT_S)
            if answer:
                self.assertRegex(answer, rb"^HTTP/1\.[01] 408 ")


if __name__ == "__main__":
    harness.main()
