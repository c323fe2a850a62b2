"""lives_webmux: of tunnels by webmux, whose servers lose carriers and attach again."""

import contextlib
import socket
import time

import harness
import talks
from harness import address_of, connect, is_refused, reset, wait_until
from life import ATTACH_TIMEOUT_S, IN_TIME_S, LINGER_S, End, Kind, TooLate, all_results, some_size
from tunnels_of_many import SLOW_TALKS, Cuts, Reception, visit_by_peer, visits
from webmux_harness import Carrier, Raw


class Session:
    """A stream of a carrier, with the face of a socket."""

    def __init__(self, stream):
        self._stream = stream
        self._came = b""
        self.close = self.finish = stream.finish
        self.reset = stream.reset
        self.sendall = stream.send

    def recv(self, room):
        self._came = self._came or self._stream.recv()
        piece, self._came = self._came[:room], self._came[room:]
        return piece

    def shutdown(self, _how):
        self.finish()


class SessionEnd(End):
    def reset(self):
        self.connection.reset()


class Webmux:
    """A tunnel, and its server in this process."""

    def __init__(self, life):
        with harness.rpc(life.daemon.url) as proxy:
            uri = proxy.Tunnel.openTunnel("webmux")
            client_uri = proxy.Tunnel.getTunnelAddress(uri)
        self.life = life
        self.server_address, self.address = address_of(uri), address_of(client_uri)
        self.reception = Reception(SessionEnd)
        self.cuts = Cuts()
        self.carriers = []
        life.at_end(self.lose_all)

    def attach(self, count=1):
        for _ in range(count):
            cuts = Cuts()
            carrier = Carrier(self.server_address, service=lambda stream, cuts=cuts:
                              self.reception.arrive(Session(stream), cuts))
            self.carriers.append((carrier, cuts))
        return self

    def lose(self):
        """Any one of its carriers, by a reset or an end, which the daemon has got when this
        returns. A mere close may come later: while another thread forks, there are two who
        have the socket."""
        carrier, cuts = self.carriers.pop(self.life.chance.randrange(len(self.carriers)))
        with self.cuts.cutting(), cuts.cutting(), contextlib.suppress(OSError):
            if self.life.chance.random() < 0.5:
                harness.break_off(carrier.connection)
            else:
                carrier.connection.shutdown(socket.SHUT_WR)
                carrier.join()
                harness.receive_until_end(carrier.connection)
        carrier.close()

    def lose_all(self):
        while self.carriers:
            self.lose()

    def visits(self, **how):
        return visits(self.life, self.reception, self.address, self.cuts, **how)


def talking(life):
    """Several clients at once, over some carriers."""
    all_results(Webmux(life).attach(life.chance.randrange(1, 4)).visits())


def talking_slowly(life):
    """Clients that the others must not wait for."""
    webmux = Webmux(life).attach(life.chance.randrange(1, 3))
    all_results(webmux.visits(kinds=SLOW_TALKS, most=2) + webmux.visits())


def carriers_lost(life):
    """Some or all, and then there are others; the clients of those that are left notice nothing,
    and whoever comes meanwhile waits."""
    webmux = Webmux(life)
    talking = []
    for _ in range(life.chance.randrange(1, 4)):
        webmux.attach(life.chance.randrange(1, 3))
        talking += webmux.visits()
        life.pause(0.3)
        since = time.monotonic()
        webmux.lose_all() if life.chance.random() < 0.7 else webmux.lose()
        talking += webmux.visits(most=2)
        life.pause(0.5)
        if time.monotonic() - since > IN_TIME_S:
            raise TooLate("the server came back")
    webmux.attach()
    all_results(talking + webmux.visits())


def clients_first(life):
    """They wait, or give up, before the first carrier is there."""
    since = time.monotonic()
    webmux = Webmux(life)
    talking = webmux.visits()
    for _ in range(life.chance.randrange(4)):
        impatient = connect(webmux.address)
        impatient.sendall(life.chance.randbytes(life.chance.randrange(1, 1000)))
        life.pause(0.05)
        reset(impatient) if life.chance.random() < 0.5 else impatient.close()
    life.pause(0.5)
    if time.monotonic() - since > IN_TIME_S:
        raise TooLate("the server came")
    webmux.attach()
    all_results(talking + webmux.visits())


def peers(life):
    """Clients that are frozen, or killed, beside others."""
    webmux = Webmux(life).attach()
    others = webmux.visits(most=2)
    visit_by_peer(life, webmux.reception, webmux.address)
    all_results(others)


def no_carrier(life):
    """Clients wait in vain, and so does the tunnel."""
    webmux = Webmux(life)
    client = connect(webmux.address)
    client.sendall(b"x" * some_size(life.chance, 65536))
    harness.receive_until_reset(client)
    wait_until(lambda: is_refused(webmux.server_address), "the tunnel closes")


def unanswered(life):
    """A server that neither takes nor refuses a client loses it."""
    webmux = Webmux(life)
    silent = Raw(webmux.server_address)
    with connect(webmux.address) as client:
        client.sendall(b"?")
        harness.receive_until_reset(client)
    silent.close()


def garbage(life):
    """Carriers that talk nonsense, and then one that does not."""
    webmux = Webmux(life)
    for _ in range(life.chance.randrange(1, 6)):
        with contextlib.suppress(ConnectionError):
            raw = Raw(webmux.server_address, greets=life.chance.random() < 0.5)
            raw.say(life.chance.randbytes(some_size(life.chance, 4096)))
            raw.connection.shutdown(socket.SHUT_WR)
            raw.wait_for_end()
        raw.close()
    all_results(webmux.attach().visits())


KINDS = [Kind(talking, 8), Kind(talking_slowly, 2, talks.LATE_S), Kind(carriers_lost, 6, 1),
         Kind(clients_first, 3), Kind(peers, 2, 1), Kind(no_carrier, 1, ATTACH_TIMEOUT_S),
         Kind(unanswered, 1, LINGER_S), Kind(garbage, 2)]
