"""lives_tcp: of tunnels by tcp, and of calls."""

import contextlib
import socket
import time

import harness
import talks
from harness import Tunnel, connect, reset, wait_until
from life import ATTACH_TIMEOUT_S, LINGER_S, End, Kind, Wrong, some_size


class Ends:
    """Those of one tunnel."""

    def __init__(self, life):
        self.life = life
        self.tunnel = Tunnel(life.daemon)
        life.at_end(self.tunnel.end)
        self._seeds = life.new_seeds()

    def server(self):
        return End(self.tunnel.attach(**self.life.buffers()), self.life.chance, *self._seeds)

    def client(self):
        return End(self.tunnel.connect(**self.life.buffers()), self.life.chance, *reversed(self._seeds))

    def both(self):
        """In either order."""
        if self.life.chance.random() < 0.5:
            server = self.server()
            return server, self.client()
        client = self.client()
        return self.server(), client

    def peer_and_other(self):
        """A process in the place of one of them."""
        if self.life.chance.random() < 0.5:
            peer = self.life.peer(self.tunnel.server_address)
            self.tunnel._attached = True
            return peer, self.client()
        return self.life.peer(self.tunnel.client_address), self.server()


def talking(talk):
    """The kind of life that has two ends do just this."""
    def live(life):
        talk(life, *Ends(life).both())
    live.__name__ = talk.__name__
    return live


def early_bytes(life):
    """Whoever comes first says all before the other one is there."""
    ends = Ends(life)
    comes = [ends.server, ends.client]
    life.chance.shuffle(comes)
    size = some_size(life.chance, 1 << 20)
    first = comes[0]()
    saying = life.beside(lambda: (first.send(size), first.finish()))
    life.pause(0.3)
    second = comes[1]()
    second.receive_exactly(size)
    second.expect_end()
    saying.result()
    second.send(1000)
    second.close()
    first.receive_exactly(1000)
    first.expect_end()
    life.count_bytes(size + 1000)


def frozen(life):
    """A process at one end."""
    talks.freeze_and_thaw(life, *Ends(life).peer_and_other())


def killed(life):
    """A process at one end."""
    talks.kill(life, *Ends(life).peer_and_other())


def no_server(life):
    """A client waits, and is told by a reset."""
    client = Ends(life).client()
    client.send(some_size(life.chance, 65536))
    client.expect_reset()


def no_client(life):
    """The server goes when nobody comes, by an end or a reset."""
    server = Ends(life).server()
    server.send(some_size(life.chance, 65536))
    life.pause(0.2)
    if life.chance.random() < 0.5:
        reset(server.connection)
    else:
        server.finish()
        server.expect_reset()       # after the linger time


def nobody(life):
    """Neither ever comes."""
    address = Ends(life).tunnel.server_address
    wait_until(lambda: harness.is_refused(address), "an unused tunnel closes")


def strangers(life):
    """They knock at the server port, get nothing, and change nothing."""
    ends = Ends(life)
    for _ in range(life.chance.randrange(1, 6)):
        source = f"127.0.0.{life.chance.randrange(2, 250)}"
        with contextlib.suppress(ConnectionError), connect(ends.tunnel.server_address, source) as stranger:
            stranger.sendall(life.chance.randbytes(life.chance.randrange(1, 1000)))
            if stranger.recv(1):
                raise Wrong("a stranger was told something")
            raise Wrong("a stranger was not reset")
    server, client = ends.server(), ends.client()
    client.send(1000)
    server.receive_exactly(1000)
    server.close()
    client.expect_end()


def bad_calls(life):
    """Garbage, halves of requests, wrong methods and parameters; then a good one."""
    chance = life.chance
    good = (b"POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: 9\r\n\r\n"
            b"<nothing>")
    for _ in range(chance.randrange(1, 8)):
        request = bytearray(good if chance.random() < 0.7 else chance.randbytes(300))
        for _ in range(chance.randrange(3)):
            request[chance.randrange(len(request))] = chance.randrange(256)
        with connect((life.daemon.host, life.daemon.port)) as caller, \
                contextlib.suppress(ConnectionError):
            for start in range(0, len(request), 50):
                caller.sendall(request[start:start + 50])
                time.sleep(chance.random() * 0.01)
            if chance.random() < 0.5:
                caller.shutdown(socket.SHUT_WR)
                answer = harness.receive_until_end(caller)
                if answer and not answer.startswith(b"HTTP/1."):
                    raise Wrong(f"{bytes(request)!r} was answered by {answer!r}")
    with harness.rpc(life.daemon.url) as proxy:
        for call in (lambda: proxy.Tunnel.getTunnelAddress("tcp://127.0.0.1:9"),
                     lambda: proxy.Tunnel.openTunnel("smoke signals"),
                     lambda: proxy.Tunnel.openTunnel(1), lambda: proxy.no.such.method()):
            harness.fault_of(call)


KINDS = [Kind(talking(talks.whole), 6), Kind(talking(talks.question_and_answer), 6),
         Kind(early_bytes, 4), Kind(talking(talks.small_talk), 4),
         Kind(talking(talks.slow_reader), 2, talks.LATE_S), Kind(talking(talks.broken_off), 6),
         Kind(frozen, 2, LINGER_S / 4), Kind(killed, 2), Kind(no_server, 1, ATTACH_TIMEOUT_S),
         Kind(no_client, 2, LINGER_S), Kind(nobody, 1, ATTACH_TIMEOUT_S),
         Kind(talking(talks.left_hanging), 1, LINGER_S), Kind(strangers, 3), Kind(bad_calls, 3)]
