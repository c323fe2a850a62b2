"""service: what is exposed, and how to connect to it."""
import asyncio
import re
import socket
import struct
from typing import Optional, Tuple

from .proxy import in_thread

CONNECT_TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 2.0


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
        else:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(CONNECT_TIMEOUT_S)
            try:
                path = self._path
                await in_thread(lambda: connection.connect(path))
            except BaseException:
                connection.close()
                raise
        connection.setblocking(False)
        return connection

    async def speaks_http(self) -> bool:
        """Whether it answers a request of HTTP as HTTP does. No error if it is down."""
        try:
            connection = await self.connect()
        except OSError:
            return False
        try:
            return await asyncio.wait_for(_answers_http(connection), PROBE_TIMEOUT_S)
        except (OSError, asyncio.TimeoutError):
            return False
        finally:
            connection.close()


async def _answers_http(connection: socket.socket) -> bool:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, b"HEAD / HTTP/1.0\r\n\r\n")
    answer = b""
    while len(answer) < len(b"HTTP/"):
        piece = await loop.sock_recv(connection, 1024)
        if not piece:
            return False
        answer += piece
    return answer.startswith(b"HTTP/")


def close_with_reset(connection: socket.socket) -> None:
    """The other side sees a reset, if that is possible."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    connection.close()
