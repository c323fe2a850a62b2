"""carrier: a connection to the proxy, and the streams that it carries."""
import asyncio
import socket
from typing import Callable, List, Optional

from .sessions import Budget, Mux, Session
from .webmux import ProtocolError

RECEIVE_BYTES = 262144


class Stream:
    """One client of a tunnel: bytes both ways, with back pressure.

    ConnectionResetError tells that the client, or the tunnel, broke off."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiters: List["asyncio.Future[None]"] = []
        self._lent = 0
        session.on_change = self._wake

    @property
    def id(self) -> int:
        """The number of the client on its carrier; used again after its end."""
        return self._session.id

    async def read(self) -> bytes:
        """The next bytes from the client, 64 KiB or so; b"" at their end. The proxy
        may send more in their place when read is called again."""
        self._session.return_credit(self._lent)
        self._lent = 0
        while True:
            data = self._session.take()
            if data:
                self._lent = len(data)
                return data
            self._check()
            if self._session.finished:
                return b""
            await self._change()

    async def write(self, data: bytes) -> None:
        """Sends to the client. Returns when the last byte is on its way, which is not
        before the client has taken enough of what came before."""
        self._session.send(data)
        while self._session.unsent:
            await self._change()
        self._check()

    async def until_over(self) -> None:
        """Returns when both directions have ended; what came may be unread still."""
        while not self._session.over:
            await self._change()
        self._check()

    def finish(self) -> None:
        """Sends nothing more: the client sees the end of the stream, and may go on
        sending itself."""
        self._session.finish()

    def reset(self) -> None:
        """Breaks off; the client sees a reset. Harmless after the end."""
        self._session.reset()

    def _check(self) -> None:
        if self._session.was_reset:
            raise ConnectionResetError("the client has broken off")

    async def _change(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiters.append(future)
        try:
            await future
        finally:
            if future in self._waiters:
                self._waiters.remove(future)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for future in waiters:
            if not future.done():
                future.set_result(None)


class Carrier:
    """Speaks WebMUX over a connected, non-blocking socket, which it owns.

    on_stream gets each client. The side that accepted the connection says
    opens_sessions, and has open_stream."""

    def __init__(self, connection: socket.socket, on_stream: Callable[[Stream], None],
                 opens_sessions: bool = False, budget: Optional[Budget] = None) -> None:
        self.was_heard = False      # the peer has sent something
        self._connection = connection
        self._on_stream = on_stream
        self._output = asyncio.Event()
        self._output.set()          # the announcement
        self._mux = Mux(opens_sessions, budget, self._accept)
        self._mux.on_output = self._output.set

    def _accept(self, session: Session) -> None:
        session.confirm()
        self._on_stream(Stream(session))

    def open_stream(self, protocol: int = 0) -> Stream:
        return Stream(self._mux.open(protocol))

    async def run(self) -> str:
        """Carries until the connection ends; returns why. All streams are reset then,
        and the socket is closed."""
        tasks = [asyncio.ensure_future(self._receive()), asyncio.ensure_future(self._send())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return _why(done.pop())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._mux.end()
            self._connection.close()

    async def _receive(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data = await loop.sock_recv(self._connection, RECEIVE_BYTES)
            if not data:
                return
            self.was_heard = True
            self._mux.receive(data)
            await asyncio.sleep(0)      # the streams' turn

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._output.wait()
            self._output.clear()
            while True:
                data = self._mux.output()
                if not data:
                    break
                await loop.sock_sendall(self._connection, data)
                await asyncio.sleep(0)


def _why(task: "asyncio.Task[None]") -> str:
    error = task.exception()
    if error is None:
        return "the proxy closed the connection"
    if isinstance(error, ProtocolError):
        return f"protocol error: {error}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    raise error
