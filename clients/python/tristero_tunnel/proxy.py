"""proxy: the XML-RPC calls to a Tristero proxy."""
import asyncio
import re
import socket
import ssl
import urllib.parse
import xmlrpc.client
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Tuple, Union
from xml.parsers.expat import ExpatError

from . import detour
from .errors import TunnelError, reason
from .waiting import in_thread, within

ANSWER_BYTES_MAX = 1 << 20
UNKNOWN_TUNNEL = 2      # a fault's code, as in doc/protocol.md

_LABEL = "[a-z0-9_][a-z0-9_-]{0,62}"
_URI = re.compile(rf"[a-z][a-z0-9]*://({_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]{{2,45}}\])"
                  r":([1-9][0-9]{0,4})/?", re.IGNORECASE | re.ASCII)


class _Bounded(xmlrpc.client.Transport):
    """Takes no longer answer than a call can have, and none that grows when unpacked."""

    accept_gzip_encoding = False

    def parse_response(self, response: Any) -> Any:
        body = response.read(ANSWER_BYTES_MAX + 1)
        if len(body) > ANSWER_BYTES_MAX:
            raise ValueError(f"it answered with more than {ANSWER_BYTES_MAX} bytes")
        parser, unmarshaller = self.getparser()
        try:
            parser.feed(body)
            parser.close()
            return unmarshaller.close()
        except (AttributeError, LookupError, TypeError) as error:     # it trusts what it reads
            raise xmlrpc.client.ResponseError(str(error)) from None


class _Transport(_Bounded):
    timeout_s = 30.0

    def make_connection(self, host: Any) -> HTTPConnection:
        connection = super().make_connection(host)
        connection.sock = detour.connect("http", connection.host, connection.port, self.timeout_s)
        return connection


class _SafeTransport(_Bounded, xmlrpc.client.SafeTransport):
    timeout_s = 30.0

    def __init__(self) -> None:
        self._tls = ssl.create_default_context()
        super().__init__(context=self._tls)

    def make_connection(self, host: Any) -> HTTPSConnection:
        connection = super().make_connection(host)
        plain = detour.connect("https", connection.host, connection.port, self.timeout_s)
        connection.sock = self._tls.wrap_socket(plain, server_hostname=connection.host)
        return connection


class Proxy:
    """The proxy whose XML-RPC is at url, such as http://proxy.example.org:8000/RPC2;
    a user and password in it are never told in an error. ValueError for a URL that
    can't be one. Each call is a connection of its own, by way of the proxy that the
    environment names, if it does."""

    def __init__(self, url: str, timeout_s: float = 30) -> None:
        shown = url.rpartition("@")[2]
        try:
            parts = urllib.parse.urlsplit(url)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            good = False
        if not good:
            raise ValueError(f'the proxy\'s URL is "{shown}", expected one such as '
                             "http://proxy:8000/RPC2")
        self._url = url
        self._is_safe = parts.scheme == "https"
        self._has_login = parts.username is not None
        self._shown = parts.scheme + "://" + parts.netloc.rpartition("@")[2] + parts.path
        self._timeout_s = timeout_s

    async def open_tunnel(self) -> str:
        """Opens a webmux tunnel: the URI where its server attaches."""
        return await self._call("Tunnel.openTunnel", "webmux")

    async def tunnel_address(self, server_uri: str) -> str:
        """The URI where the tunnel's clients connect."""
        return await self._call("Tunnel.getTunnelAddress", server_uri)

    async def _call(self, method: str, argument: str) -> str:
        try:
            answer = await within(
                self._timeout_s + 3, in_thread(lambda: self._call_and_wait(method, argument)))
        except asyncio.TimeoutError:            # it does, a byte now and then
            raise TunnelError(f"{self._shown} did not answer in time") from None
        if not isinstance(answer, str):
            raise TunnelError(f"{self._shown} answered with something that is no string")
        try:
            host_and_port(answer)
        except ValueError:
            raise TunnelError(f'{self._shown} answered "{answer[:100]}": '
                              "expected scheme://host:port") from None
        return answer

    def _call_and_wait(self, method: str, argument: str) -> object:
        transport: Union[_Transport, _SafeTransport]
        transport = _SafeTransport() if self._is_safe else _Transport()
        transport.timeout_s = self._timeout_s
        try:
            with xmlrpc.client.ServerProxy(self._url, transport) as server:
                answer: object = getattr(server, method)(argument)
                return answer
        except xmlrpc.client.Fault as fault:
            raise TunnelError(f"{self._shown} says: {fault.faultString}",
                              fault.faultCode) from None
        except xmlrpc.client.ProtocolError as error:
            raise TunnelError(f"can't call {self._shown}: {self._http_reason(error)}") from None
        except socket.timeout:
            raise TunnelError(f"{self._shown} did not answer in time") from None
        except OSError as error:
            raise TunnelError(f"can't call {self._shown}: {reason(error)}") from None
        except (xmlrpc.client.Error, ExpatError, HTTPException, ValueError) as error:
            raise TunnelError(f"{self._shown} does not speak XML-RPC: {error}") from None

    def _http_reason(self, error: xmlrpc.client.ProtocolError) -> str:
        if error.errcode == 401:
            return ("it asks for a user and password" +
                    (", and these are none that it knows" if self._has_login else ""))
        if error.errcode == 429:
            return "too many connections or wrong passwords come from this address; try again later"
        return f"HTTP status {error.errcode} {error.errmsg}"


def host_and_port(uri: str) -> Tuple[str, int]:
    """("proxy", 8010) of "webmux://proxy:8010"; ValueError for anything else. What passes
    can be shown on a terminal, and looked up."""
    match = _URI.fullmatch(uri)
    port = int(match[2]) if match else 0
    if not match or len(match[1]) > 253 or port > 65535:
        raise ValueError(f"{uri!r} is not scheme://host:port")
    return match[1].strip("[]"), port
