"""tunnel: a tunnel of a proxy, kept attached, and its clients as they come."""
import asyncio
import logging
import random
import socket
import time
from types import TracebackType
from typing import AsyncIterator, Callable, List, Optional, Type

from . import detour
from .carrier import Carrier, Stream
from .errors import TunnelError, reason
from .proxy import UNKNOWN_TUNNEL, Proxy, host_and_port
from .sessions import Budget
from .waiting import in_thread, within

BACKOFF_FIRST_S = 1.0
BACKOFF_LAST_S = 30.0
STEADY_S = 10.0         # a carrier that held for so long was a good one
TURNED_AWAY_MIN = 4     # the fewest times for which the tunnel is given up,
PATIENCE_S = 60.0       # and the time since the first of them: it may only have no place

log = logging.getLogger("tristero_tunnel")


class Tunnel:
    """A tunnel that is open, attached, and attaches again after a loss.

        async with await Tunnel.open("http://proxy:8000/RPC2") as tunnel:
            print(tunnel.address)               # tcp://proxy:8011
            async for stream in tunnel:         # a client has come
                asyncio.create_task(serve(stream))

    What happens is logged, as "tristero_tunnel"."""

    def __init__(self, proxy: Proxy, timeout_s: float, on_address: Callable[[str], None]) -> None:
        """For open."""
        self._proxy = proxy
        self._timeout_s = timeout_s
        self._on_address = on_address
        self._server_uri = self._address = ""
        self._generation = 0
        self._carrying = 0              # carriers that are attached
        self._turned_away = 0           # how often in a row, with none attached;
        self._turned_away_since = 0.0   # and from when on
        self._renewing = asyncio.Lock()
        self._streams: "asyncio.Queue[Stream]" = asyncio.Queue()
        self._budget = Budget()
        self._keepers: List["asyncio.Task[None]"] = []

    @classmethod
    async def open(cls, proxy_url: str, carriers: int = 1, timeout_s: float = 30,
                   on_address: Callable[[str], None] = lambda address: None) -> "Tunnel":
        """Opens a tunnel and attaches to it; TunnelError if that can't be, ValueError
        for a bad URL. Each carrier is a connection that takes 127 clients at once.
        on_address is told a new address, which there is when the proxy has lost the
        tunnel, or turns us away from it, but not the first one."""
        tunnel = cls(Proxy(proxy_url, timeout_s), timeout_s, on_address)
        await tunnel._open_another()
        try:
            first = await tunnel._dial()
        except OSError as error:
            raise TunnelError(f"can't attach to {tunnel._server_uri}: {reason(error)}") from None
        for number in range(carriers):
            keeper = tunnel._keep(number + 1, None if number else first)
            tunnel._keepers.append(asyncio.ensure_future(keeper))
            tunnel._keepers[-1].add_done_callback(_tell_failure)
        return tunnel

    @property
    def address(self) -> str:
        """Where clients connect now, such as tcp://proxy:8011."""
        return self._address

    async def accept(self) -> Stream:
        """The next client, whenever it comes."""
        return await self._streams.get()

    async def __aiter__(self) -> AsyncIterator[Stream]:
        while True:
            yield await self.accept()

    async def close(self) -> None:
        """Detaches. Clients that are there see a reset."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def __aenter__(self) -> "Tunnel":
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]],
                        error: Optional[BaseException],
                        trace: Optional[TracebackType]) -> None:
        await self.close()

    # --- attaching

    async def _open_another(self) -> None:
        self._server_uri = await self._proxy.open_tunnel()
        self._address = await self._proxy.tunnel_address(self._server_uri)
        self._generation += 1
        self._turned_away = 0

    async def _dial(self) -> socket.socket:
        host, port = host_and_port(self._server_uri)
        dialled = in_thread(lambda: detour.connect("webmux", host, port, self._timeout_s))
        try:
            connection = await within(self._timeout_s + 3, dialled)
        except asyncio.TimeoutError:            # a name that is looked up without end
            raise socket.timeout from None
        connection.setblocking(False)
        prepare(connection)
        return connection

    async def _keep(self, number: int, connection: Optional[socket.socket]) -> None:
        """Keeps one carrier attached."""
        loop = asyncio.get_running_loop()
        backoff_s = BACKOFF_FIRST_S
        while True:
            began, generation = loop.time(), self._generation
            was_good = await self._attach(number, connection)
            connection = None
            if not was_good and await self._renew(generation):
                began = loop.time()
                was_good = await self._attach(number, None)     # the proxy waits for us
            if was_good and loop.time() - began > STEADY_S:
                backoff_s = BACKOFF_FIRST_S
            wait_s = backoff_s * random.uniform(0.5, 1)
            log.info("carrier %d: next try in %.1f s", number, wait_s)
            await asyncio.sleep(wait_s)
            backoff_s = min(2 * backoff_s, BACKOFF_LAST_S)

    async def _attach(self, number: int, connection: Optional[socket.socket]) -> bool:
        """One carrier from its beginning to its end; whether the proxy spoke on it."""
        try:
            return await self._carry(number, connection or await self._dial())
        except OSError as error:
            log.warning("can't attach to %s: %s", self._server_uri, reason(error))
            if isinstance(error, ConnectionResetError):     # at once
                self._note_turned_away()
            return False

    async def _carry(self, number: int, connection: socket.socket) -> bool:
        carrier = Carrier(connection, self._streams.put_nowait, budget=self._budget)
        log.info("carrier %d is attached to %s", number, self._server_uri)
        self._carrying += 1
        try:
            why = await carrier.run()
        finally:
            self._carrying -= 1
        log.warning("carrier %d ended: %s", number, why)
        if carrier.was_heard:
            self._turned_away = 0
        else:                           # a proxy that takes it has a word at once
            self._note_turned_away()
        return carrier.was_heard

    def _note_turned_away(self) -> None:
        if self._carrying:
            return
        if not self._turned_away:
            self._turned_away_since = time.monotonic()
        self._turned_away += 1

    def _gives_up(self) -> bool:
        return (self._turned_away >= TURNED_AWAY_MIN and
                time.monotonic() - self._turned_away_since > PATIENCE_S)

    async def _renew(self, generation: int) -> bool:
        """Opens another tunnel if the proxy turns this one's carriers away, or does not know
        it any more. Whether there is another one by now."""
        async with self._renewing:
            if generation == self._generation and (     # else another carrier has seen to it
                    self._gives_up() or await self._is_gone()):
                await self._replace()
            return generation != self._generation

    async def _is_gone(self) -> bool:
        try:
            await self._proxy.tunnel_address(self._server_uri)
        except TunnelError as error:
            log.warning("%s", error)
            return error.fault_code == UNKNOWN_TUNNEL
        return False

    async def _replace(self) -> None:
        before = self._address
        try:
            await self._open_another()
        except TunnelError as error:
            log.warning("%s", error)
            return
        log.warning("the address changed from %s to %s", before, self._address)
        self._on_address(self._address)


def _tell_failure(keeper: "asyncio.Task[None]") -> None:
    """A fault of this program, not of the network."""
    if not keeper.cancelled() and keeper.exception():
        log.error("a carrier has failed", exc_info=keeper.exception())


def prepare(connection: socket.socket) -> None:
    """No delay, and a vanished proxy is noticed within a minute."""
    tcp = socket.IPPROTO_TCP
    connection.setsockopt(tcp, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3),
                        ("TCP_USER_TIMEOUT", 50000)):
        if hasattr(socket, name):       # not everywhere
            connection.setsockopt(tcp, getattr(socket, name), value)
