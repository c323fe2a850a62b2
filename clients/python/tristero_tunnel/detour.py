"""detour: connections by way of the proxies that the environment names, in the way of curl.

A call goes by http_proxy or https_proxy, after the scheme of its URL, else by all_proxy; a
carrier by https_proxy, all_proxy or http_proxy, the first that is set. Each has a spelling
in upper case, too, which comes after that in lower case; but HTTP_PROXY does not count,
since in a CGI program it is what a client said. The hosts of no_proxy, its domains and its
networks are connected to directly, and nothing else is.

A proxy is asked by CONNECT (http://, also where no scheme is said), or by SOCKS5: with
socks5:// the names are looked up here, and with socks5h:// by the proxy.
"""
import base64
import ipaddress
import os
import re
import socket
import time
from urllib.parse import unquote_to_bytes

from .errors import reason

DEFAULT_PORT = 1080             # as curl has it, also for http
HEAD_BYTES_MAX = 16384

_ALL = ("all_proxy", "ALL_PROXY")
_HTTPS = ("https_proxy", "HTTPS_PROXY")
_VARIABLES = {"http": ("http_proxy", *_ALL), "https": (*_HTTPS, *_ALL),
              "webmux": (*_HTTPS, *_ALL, "http_proxy")}

_URL = re.compile(r"(?:(http|socks5h?)://)?(?:([^/]*)@)?(\[[0-9a-f:.]+\]|[^\s:/@\[\]]+)"
                  r"(?::([0-9]{1,5}))?(?:/.*)?", re.IGNORECASE | re.ASCII)

_NO_LOGIN, _LOGIN = 0, 2        # kinds of it in SOCKS5
_REFUSALS = {1: "general failure", 2: "not allowed", 3: "network unreachable",
             4: "host unreachable", 5: "connection refused", 6: "TTL expired",
             7: "command not supported", 8: "kind of address not supported"}


def connect(scheme: str, host: str, port: int, timeout_s: float) -> socket.socket:
    """A connection for a call by http or https, or for a carrier by webmux; timeout_s is
    also what each later use of it may take. OSError names the proxy of the environment,
    if it was by one, without its password."""
    url = named_for(scheme, host)
    if url:
        connection = _connect_by(url, host, port, timeout_s)
    else:
        connection = socket.create_connection((host, port), timeout_s)
    connection.settimeout(timeout_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def named_for(scheme: str, host: str) -> str:
    """The URL of the proxy that the environment names, or nothing."""
    names = re.split(r"[,\s]+", _first_set("no_proxy", "NO_PROXY"))
    if names == ["*"] or any(_covers(name, host) for name in names):
        return ""
    return _first_set(*_VARIABLES[scheme])


def _first_set(*variables: str) -> str:
    return next(filter(None, map(os.environ.get, variables)), "")


def _covers(name: str, host: str) -> bool:
    """Whether it is the host, a domain that it is in, or a network."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = name.strip(".").lower()
        return name != "" and f".{host.rstrip('.').lower()}".endswith(f".{name}")
    try:
        return address in ipaddress.ip_network(name.strip("[]"), strict=False)
    except ValueError:
        return False


def _connect_by(url: str, host: str, port: int, timeout_s: float) -> socket.socket:
    try:
        way = _Detour(url, timeout_s)
        try:
            way.ask_for(host, port)
        except BaseException:
            way.connection.close()
            raise
    except (OSError, ValueError) as error:      # ValueError: a name that can't be one
        raise OSError(f"by way of {_without_login(url)}: {reason(error)}") from None
    return way.connection


def _without_login(url: str) -> str:
    scheme = re.match("[^:/@]*://", url)
    rest = url[scheme.end():] if scheme else url
    return (scheme[0] if scheme else "") + rest.rpartition("@")[2]


class _Detour:
    """A proxy of the environment, and the connection to it, which is the caller's in the
    end."""

    def __init__(self, url: str, timeout_s: float) -> None:
        match = _URL.fullmatch(url)
        port = int(match[4] or DEFAULT_PORT) if match else 0
        if not match or not 1 <= port <= 65535:
            raise OSError("expected a proxy such as http://host:port, socks5://host:port or "
                          "socks5h://host:port")
        self._scheme = (match[1] or "http").lower()
        user, _, password = (match[2] or "").partition(":")
        self._login = (unquote_to_bytes(user), unquote_to_bytes(password))
        self._deadline = time.monotonic() + timeout_s
        self.connection = socket.create_connection((match[3].strip("[]"), port), timeout_s)

    def ask_for(self, host: str, port: int) -> None:
        """Leads the connection there, or raises OSError."""
        if self._scheme == "http":
            self._ask_by_connect(host, port)
        else:
            self._ask_by_socks(host, port)

    def _limit_time(self) -> None:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise socket.timeout
        self.connection.settimeout(left_s)

    def _send(self, data: bytes) -> None:
        self._limit_time()
        self.connection.sendall(data)

    def _receive(self, count: int) -> bytes:
        """As many bytes, and none of those after them."""
        data = b""
        while len(data) < count:
            self._limit_time()
            piece = self.connection.recv(count - len(data))
            if not piece:
                raise OSError("it closed the connection")
            data += piece
        return data

    # --- CONNECT

    def _ask_by_connect(self, host: str, port: int) -> None:
        where = b"%s:%d" % (f"[{host}]".encode() if ":" in host else host.encode("idna"), port)
        fields = b"Host: %s\r\n" % where
        if any(self._login):
            login = base64.b64encode(b"%s:%s" % self._login)
            fields += b"Proxy-Authorization: Basic %s\r\n" % login
        self._send(b"CONNECT %s HTTP/1.1\r\n%s\r\n" % (where, fields))
        status = self._receive_status()
        if status == 407:
            raise OSError("it asks for a user and password" +
                          (", and these are none that it knows" if any(self._login) else ""))
        if not 200 <= status < 300:
            raise OSError(f"it answered with HTTP status {status}")

    def _receive_status(self) -> int:
        """What comes after the head of the answer stays unread."""
        head = b""
        while not head.endswith(b"\r\n\r\n") and len(head) < HEAD_BYTES_MAX:
            head += self._receive(1)
        match = re.match(rb"HTTP/1\.[01] ([0-9]{3})\b", head)
        if not match or len(head) >= HEAD_BYTES_MAX:
            raise OSError("it does not speak HTTP")
        return int(match[1])

    # --- SOCKS5, RFC 1928 and 1929

    def _ask_by_socks(self, host: str, port: int) -> None:
        self._log_in()
        self._send(b"\x05\x01\x00" + self._socks_address(host) + port.to_bytes(2, "big"))
        code, _, kind = self._receive_socks(4)
        if code:
            raise OSError(f"it says: {_REFUSALS.get(code, f'error {code}')}")
        length = {1: 4, 4: 16}.get(kind) or self._receive(1)[0]
        self._receive(length + 2)

    def _receive_socks(self, count: int) -> bytes:
        """What follows the version."""
        answer = self._receive(count)
        if answer[0] != 5:
            raise OSError("it does not speak SOCKS5")
        return answer[1:]

    def _log_in(self) -> None:
        kinds = bytes([_NO_LOGIN, _LOGIN] if any(self._login) else [_NO_LOGIN])
        self._send(bytes([5, len(kinds)]) + kinds)
        kind, = self._receive_socks(2)
        if kind not in kinds:
            raise OSError("it takes no such login")
        if kind == _NO_LOGIN:
            return
        if max(map(len, self._login)) > 255:
            raise OSError("its user or password is longer than 255 bytes")
        self._send(b"\x01" + b"".join(bytes([len(word)]) + word for word in self._login))
        if self._receive(2)[1]:
            raise OSError("it does not know the user and password")

    def _socks_address(self, host: str) -> bytes:
        """The kind of address, and the address."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            if self._scheme == "socks5h":
                name = host.encode("idna")
                return b"\x03" + bytes([len(name)]) + name
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            address = ipaddress.ip_address(found[0][4][0])
        return (b"\x01" if address.version == 4 else b"\x04") + address.packed
