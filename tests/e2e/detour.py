"""detour: a proxy that the environment may name (http_proxy, ALL_PROXY), which notes what it
was asked for."""

import re
import socket
import socketserver
import threading

from harness import connect, receive_exactly


class Detour(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Asked by SOCKS5, by CONNECT or with whole URLs. asked: "HOW HOST:PORT", in order, HOW
    being SOCKS or the method. It knows every name for this machine's, or leads to one
    address whatever it is asked for."""

    daemon_threads = True
    allow_reuse_address = True
    leads_to = None

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.asked = []

    def url(self, scheme):
        return f"{scheme}://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_):
        pass                        # broken connections belong to the tests


class _Handler(socketserver.BaseRequestHandler):
    def handle(self):
        first = self._receive(1)
        if first == b"\x05":
            name, answer, ahead = self._socks(), b"\x05\x00\x00\x01" + bytes(6), b""
        else:
            name, answer, ahead = self._http(first)
        goal = self.server.leads_to or ("127.0.0.1", int(name.rsplit(":", 1)[1]))
        with connect(goal) as beyond:
            self.request.sendall(answer)
            beyond.sendall(ahead)
            for connection in (self.request, beyond):
                connection.settimeout(None)
            back = threading.Thread(target=_copy, args=(beyond, self.request), daemon=True)
            back.start()
            _copy(self.request, beyond)
            back.join()

    def _receive(self, count):
        return receive_exactly(self.request, count)

    def _note(self, how, name):
        self.server.asked.append(f"{how} {name}")
        return name

    def _socks(self):
        self._receive(self._receive(1)[0])      # kinds of login; none is needed
        self.request.sendall(b"\x05\x00")
        kind = self._receive(4)[3]
        name = (self._receive(self._receive(1)[0]).decode() if kind == 3 else
                socket.inet_ntoa(self._receive(4)))
        return self._note("SOCKS", f"{name}:{int.from_bytes(self._receive(2), 'big')}")

    def _http(self, head):
        while not head.endswith(b"\r\n\r\n"):
            head += self._receive(1)
        method, target = head.decode().split(" ")[:2]
        name = self._note(method, re.sub("^http://", "", target).split("/")[0])
        if method == "CONNECT":
            return name, b"HTTP/1.1 200 yes\r\n\r\n", b""
        return name, b"", re.sub(rb"http://[^/]+", b"", head, count=1)


def _copy(source, to):
    try:
        while data := source.recv(65536):
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)
    except OSError:
        pass
