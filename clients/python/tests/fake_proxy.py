"""fake_proxy: a proxy with one tunnel at a time, as far as the agent can see.

It answers XML-RPC, takes carriers, and relays each client of the public port to
the carrier that has the fewest."""
import asyncio
import socket
import threading
import xmlrpc.client
import xmlrpc.server

from harness import WAIT_S, listen, reserve_port
from tristero_tunnel.carrier import Carrier
from tristero_tunnel.expose import Relay
from tristero_tunnel.service import close_with_reset


class FakeProxy:
    def __init__(self):
        self.calls = []                     # and carriers that are turned away
        self.takes = iter(())               # whether the next carriers, and tunnels, are let in;
        self.opens = iter(())               # those after the last are
        self._carriers = {}                 # each with how many clients it has
        self._listeners = None              # for carriers and for clients
        self._ports = []                    # sockets that keep theirs, once those are closed
        self._tasks = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._rpc = xmlrpc.server.SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False)
        self._rpc.register_function(self._open_tunnel, "Tunnel.openTunnel")
        self._rpc.register_function(self._tunnel_address, "Tunnel.getTunnelAddress")
        threading.Thread(target=self._rpc.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._rpc.server_address[1]}/RPC2"

    # --- for the tests

    @property
    def carriers(self):
        return len(self._carriers)

    @property
    def client_address(self):
        return self._listeners[1].getsockname()

    def drop_carriers(self):
        """Closes the connections; the tunnel stays."""
        for carrier in list(self._carriers):
            self._loop.call_soon_threadsafe(carrier._connection.shutdown, socket.SHUT_RDWR)

    def forget_tunnel(self):
        """As a proxy that was started again."""
        self._run(self._close_tunnel())
        self.drop_carriers()

    def close(self):
        self._rpc.shutdown()
        self._rpc.server_close()
        self._run(self._close_tunnel())
        self._run(self._end_tasks())
        for port in self._ports:
            port.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(WAIT_S)

    # --- XML-RPC

    def _uri(self):
        return "webmux://127.0.0.1:%d" % self._listeners[0].getsockname()[1]

    def _open_tunnel(self, backend):
        self.calls.append(f"open {backend}")
        if not next(self.opens, True):
            raise xmlrpc.client.Fault(3, "too many tunnels")
        self._run(self._open())
        return self._uri()

    def _tunnel_address(self, uri):
        self.calls.append("address")
        if not self._listeners or uri != self._uri():
            raise xmlrpc.client.Fault(2, "unknown tunnel: none is open at that URI")
        return "tcp://127.0.0.1:%d" % self.client_address[1]

    # --- the tunnel, on the loop

    def _spawn(self, coroutine):
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _listen(self, backlog):
        port = reserve_port()
        self._ports.append(port)
        return listen(port=port.getsockname()[1], backlog=backlog)

    async def _open(self):
        await self._close_tunnel()
        self._listeners = (self._listen(128), self._listen(512))
        self._accepting = [self._spawn(self._accept(listener, serve)) for listener, serve in
                           zip(self._listeners, (self._serve_carrier, self._serve_client))]

    async def _close_tunnel(self):
        if self._listeners:
            listeners, self._listeners = self._listeners, None
            for task in self._accepting:
                task.cancel()
            await asyncio.gather(*self._accepting, return_exceptions=True)
            for listener in listeners:
                listener.close()

    async def _end_tasks(self):
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listener, serve):
        listener.setblocking(False)
        while True:
            connection, _ = await self._loop.sock_accept(listener)
            connection.setblocking(False)
            self._spawn(serve(connection))

    async def _serve_carrier(self, connection):
        if not next(self.takes, True):
            self.calls.append("turn away")
            close_with_reset(connection)
            return
        carrier = Carrier(connection, None, opens_sessions=True)
        self._carriers[carrier] = 0
        try:
            await carrier.run()
        finally:
            del self._carriers[carrier]

    async def _serve_client(self, client):
        try:
            while not self._carriers:
                await asyncio.sleep(0.01)
            carrier = min(self._carriers, key=self._carriers.get)
            self._carriers[carrier] += 1
            stream = carrier.open_stream()
            try:
                await Relay(stream, client).run()
                client.close()
            except OSError:
                pass
            finally:
                stream.reset()
                if carrier in self._carriers:
                    self._carriers[carrier] -= 1
        finally:
            close_with_reset(client)
