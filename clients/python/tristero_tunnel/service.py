"""service: what is exposed, and how to connect to it."""
import asyncio
import re
import socket
import ssl
import struct
from typing import Optional, Tuple

from .waiting import in_thread, within

CONNECT_TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 3.0
AGAIN_S = 0.02                  # after which a full queue is tried again
QUESTION = b"HEAD / HTTP/1.0\r\n\r\n"
ANSWER_BYTES = len(b"HTTP/1.1 400")
TLS_ALERT = b"\x15"             # how one begins


class Service:
    """A service of this machine, or its neighbours: PORT, HOST:PORT, [IPv6]:PORT or
    unix:/PATH. ValueError for anything else."""

    def __init__(self, text: str) -> None:
        self.name = text
        self._path: Optional[str] = None
        self._address: Tuple[str, int] = ("127.0.0.1", 0)
        if text.startswith("unix:") and len(text) > len("unix:"):
            self._path = text[len("unix:"):]
            return
        match = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):)?([0-9]{1,5})", text)
        if not match or not 1 <= int(match[2]) <= 65535:
            raise ValueError(f'got "{text}", expected PORT, HOST:PORT, [IPv6]:PORT or unix:/PATH')
        self._address = ((match[1] or "127.0.0.1").strip("[]"), int(match[2]))
        self.name = f"{match[1] or '127.0.0.1'}:{match[2]}"

    async def connect(self) -> socket.socket:
        """A non-blocking connection; OSError when there is none within 10 seconds."""
        if self._path is None:
            address = self._address
            connection = await in_thread(
                lambda: socket.create_connection(address, CONNECT_TIMEOUT_S))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            return connection
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        try:
            await within(CONNECT_TIMEOUT_S, _connect_locally(connection, self._path))
        except asyncio.TimeoutError:
            connection.close()
            raise TimeoutError("its queue is full") from None
        except BaseException:
            connection.close()
            raise
        return connection

    async def scheme(self) -> str:
        """"http" or "https", if it answers a request as these do; else "tcp". No error
        if it is down."""
        answer = await self._ask(None)
        if answer is None:
            return "tcp"
        if _may_expect_tls(answer) and _is_http(await self._ask(_any_certificate())):
            return "https"
        return "http" if _is_http(answer) else "tcp"

    async def _ask(self, tls: Optional[ssl.SSLContext]) -> Optional[bytes]:
        """How it begins to answer a request of HTTP; None: not in time, or nobody is there."""
        try:
            connection = await self.connect()
        except OSError:
            return None
        try:
            return await within(PROBE_TIMEOUT_S, _first_bytes(connection, tls))
        except (OSError, asyncio.TimeoutError):
            return None


async def _connect_locally(connection: socket.socket, path: str) -> None:
    """To a Unix socket. Nothing tells when a queue that is full has room again."""
    while True:
        try:
            connection.connect(path)
            return
        except BlockingIOError:
            await asyncio.sleep(AGAIN_S)


async def _first_bytes(connection: socket.socket, tls: Optional[ssl.SSLContext]) -> bytes:
    """Fewer than ANSWER_BYTES, if it ends before. Closes the connection, which is asyncio's
    from the first: closed by anybody else, its descriptor might be another's by the time
    that asyncio forgets it."""
    answer = b""
    reader, writer = await asyncio.open_connection(
        sock=connection, ssl=tls, server_hostname="localhost" if tls else None)
    try:
        writer.write(QUESTION)
        while len(answer) < ANSWER_BYTES:
            piece = await reader.read(ANSWER_BYTES - len(answer))
            if not piece:
                break
            answer += piece
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return answer


def _is_http(answer: Optional[bytes]) -> bool:
    return answer is not None and answer.startswith(b"HTTP/")


def _may_expect_tls(answer: bytes) -> bool:
    """What servers do that expect TLS: those of HTTP say so by a bad request, others send
    an alert, or close."""
    return not answer or answer.startswith(TLS_ALERT) or (_is_http(answer) and b" 400" in answer)


def _any_certificate() -> ssl.SSLContext:
    """Who is there does not matter."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def close_with_reset(connection: socket.socket) -> None:
    """The other side sees a reset, if that is possible."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    connection.close()
