"""expose: relays each client of a tunnel to a service."""
import asyncio
import logging
import select
import socket
from typing import Set

from .carrier import Stream
from .errors import reason
from .service import Service, close_with_reset
from .tunnel import Tunnel

COPY_BYTES = 65536
WATCH_S = 1.0
STREAMS_PER_CARRIER = 256       # the ids of a carrier twice: half of them may linger

log = logging.getLogger("tristero_tunnel")


async def expose(tunnel: Tunnel, service: Service, carriers: int = 1) -> None:
    """Serves until it is cancelled. Clients that are there then are reset."""
    relays: "Set[asyncio.Task[None]]" = set()
    number = 0
    try:
        async for stream in tunnel:
            number += 1
            if len(relays) >= carriers * STREAMS_PER_CARRIER:
                log.warning("client %d is turned away: too many are there", number)
                stream.reset()
                continue
            relay = asyncio.ensure_future(relay_to_service(stream, service, number))
            relays.add(relay)
            relay.add_done_callback(relays.discard)
    finally:
        for relay in relays:
            relay.cancel()
        await asyncio.gather(*relays, return_exceptions=True)


async def relay_to_service(stream: Stream, service: Service, number: int) -> None:
    """One client, from its coming to its end. number: its name in the log."""
    try:
        connection = await service.connect()
    except OSError as error:
        log.warning("client %d is reset: can't reach the service at %s: %s", number,
                    service.name, reason(error))
        stream.reset()
        return
    except asyncio.CancelledError:
        stream.reset()
        raise
    log.info("client %d is there", number)
    relay = Relay(stream, connection)
    try:
        await relay.run()
        connection.close()
        log.info("client %d has finished: %s", number, relay.counts())
    except OSError as error:
        log.info("client %d was cut: %s; %s", number, reason(error), relay.counts())
    except asyncio.CancelledError:
        log.info("client %d was cut: stopped; %s", number, relay.counts())
        raise
    finally:
        stream.reset()                  # nothing, after a proper end
        close_with_reset(connection)


class Relay:
    """Copies both ways between a stream and a connection, which stays the caller's."""

    def __init__(self, stream: Stream, connection: socket.socket) -> None:
        self._stream = stream
        self._connection = connection
        self._from_client = self._to_client = 0

    def counts(self) -> str:
        return f"{self._from_client} bytes from the client, {self._to_client} to it"

    async def run(self) -> None:
        """Until both directions have ended; OSError when one of them broke."""
        parts = [asyncio.ensure_future(part) for part in
                 (self._copy_from_client(), self._copy_to_client(), self._stream.until_over())]
        tasks = {*parts, asyncio.ensure_future(self._watch())}
        waiting = tasks
        try:
            while not all(part.done() for part in parts):
                done, waiting = await asyncio.wait(waiting,
                                                   return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        """Nobody reads from the connection while its bytes wait for a slow client, so
        a reset has to be looked for. Leaves the error where it is. Never returns."""
        poll = select.poll()
        poll.register(self._connection, 0)
        while not any(event & select.POLLERR for _, event in poll.poll(0)):
            await asyncio.sleep(WATCH_S)
        raise ConnectionResetError("the service has broken off")

    async def _copy_from_client(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data = await self._stream.read()
            if not data:
                break
            await loop.sock_sendall(self._connection, data)
            self._from_client += len(data)
            await asyncio.sleep(0)      # the others' turn
        self._connection.shutdown(socket.SHUT_WR)

    async def _copy_to_client(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data = await loop.sock_recv(self._connection, COPY_BYTES)
            if not data:
                break
            await self._stream.write(data)
            self._to_client += len(data)
            await asyncio.sleep(0)
        self._stream.finish()
