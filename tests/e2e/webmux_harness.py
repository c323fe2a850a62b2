"""webmux_harness: servers of webmux tunnels, by the Python package's codec, which knows
nothing of the daemon's.

Carrier serves: streams that threads read from and write to. Raw says and hears single
frames, right ones and wrong ones."""

import os
import queue
import select
import sys
import threading
import time

import harness
from harness import (SRCDIR, WAIT_S, Case, Daemon, Pattern, address_of, connect, in_thread, reset,
                     rpc, wait_until)

sys.path.insert(0, os.path.join(SRCDIR, "clients", "python"))
from tristero_tunnel.sessions import Mux  # noqa: E402
from tristero_tunnel.webmux import (Control, Data, Decoder, Flags, Opcode,  # noqa: E402
                                    encode)

GREETING = Control(Opcode.SET_DEFAULT_CREDIT, 0, 1 << 20)
WINDOW = (32 << 20) // 256          # what the daemon says, of so many streams of a tunnel
SYN, FIN, RST = Flags.SYN, Flags.FIN, Flags.RST


class Stream:
    """One client, as its server sees it; blocking, bounded by WAIT_S."""

    def __init__(self, carrier, session):
        self._carrier, self._session = carrier, session
        session.on_change = carrier.changed

    @property
    def id(self):
        return self._session.id

    @property
    def unsent(self):
        return self._session.unsent

    def recv(self):
        """The next bytes; b"" at their end; ConnectionResetError."""
        with self._carrier.lock:
            self._carrier.wait(lambda: self._session.incoming or self._session.finished
                               or self._session.was_reset, "something comes from the client")
            data = self._session.take()
            if data:
                self._session.return_credit(len(data))
            elif self._session.was_reset:
                raise ConnectionResetError("the client was reset")
            self._carrier.wake()
            return data

    def receive_exactly(self, count):
        data = b""
        while len(data) < count:
            piece = self.recv()
            if not piece:
                raise AssertionError(f"an end after {data!r}")
            data += piece
        if len(data) > count:
            raise AssertionError(f"more than {count} bytes: {data[:100]!r}")
        return data

    def receive_until_end(self):
        pieces = []
        while piece := self.recv():
            pieces.append(piece)
        return b"".join(pieces)

    def wait_for_reset(self):
        with self._carrier.lock:
            self._carrier.wait(lambda: self._session.was_reset, "the client is reset")

    def send(self, data, and_wait=True):
        with self._carrier.lock:
            self._session.send(data)
            self._carrier.wake()
            if and_wait:
                self._carrier.wait(lambda: not self._session.unsent or self._session.was_reset,
                                   "the client takes what was sent")
            if self._session.was_reset:
                raise ConnectionResetError("the client was reset")

    def finish(self):
        with self._carrier.lock:
            self._session.finish()
            self._carrier.wake()

    def reset(self):
        with self._carrier.lock:
            self._session.reset()
            self._carrier.wake()

    def echo(self):
        """Until its end, in a thread of the caller."""
        try:
            while data := self.recv():
                self.send(data)
            self.finish()
        except ConnectionResetError:
            pass


class Carrier:
    """A connection of the server that serves. confirms: clients at once."""

    def __init__(self, address, confirms=True, service=None, **how):
        self.connection = connect(address, **how)
        self.connection.setblocking(False)
        self.lock = threading.RLock()
        self.streams = queue.Queue()
        self.failure = None
        self._service, self._confirms = service, confirms
        self._condition = threading.Condition(self.lock)
        self._woken, self._wake = os.pipe()
        self._is_closing = self._is_closed = False
        self._is_frozen = threading.Event()
        self._mux = Mux(on_open=self._opened)
        self._thread = in_thread(self._run)

    def _opened(self, session):
        stream = Stream(self, session)
        if self._confirms:
            session.confirm()
        if self._service:
            in_thread(self._service, stream)
        else:
            self.streams.put(stream)

    def accept(self):
        return self.streams.get(timeout=WAIT_S)

    @property
    def count(self):
        with self.lock:
            return len(self._mux.sessions)

    def wait(self, condition, what):
        if not self._condition.wait_for(condition, WAIT_S):
            raise AssertionError(f"not within {WAIT_S} s: {what}")

    def changed(self):
        with self.lock:
            self._condition.notify_all()

    def wake(self):
        with self.lock:
            if not self._is_closed:
                os.write(self._wake, b"!")

    def _run(self):
        output = b""
        try:
            while not self._is_closing:
                with self.lock:
                    output = output or self._mux.output()
                readable, writable, _ = select.select(
                    [self.connection, self._woken], [self.connection] if output else [], [])
                if self._woken in readable:
                    os.read(self._woken, 65536)
                if self.connection in readable:
                    data = self.connection.recv(1 << 20)
                    if not data:
                        break
                    with self.lock:
                        self._mux.receive(data)
                if writable:
                    output = output[self.connection.send(output):]
        except (OSError, ValueError) as error:
            self.failure = error
        finally:
            with self.lock:
                self._mux.end()
                self._condition.notify_all()

    def has_ended(self):
        return not self._thread.is_alive()

    def join(self):
        """Until it has ended by itself; then its connection is the caller's."""
        self._thread.join(WAIT_S)
        self.connection.settimeout(WAIT_S)

    def close(self, abort=False):
        self._is_closing = True
        self.wake()
        self._thread.join(WAIT_S)
        if self.connection.fileno() >= 0:
            if abort:
                reset(self.connection)
            else:
                self.connection.close()
        with self.lock:
            if not self._is_closed:
                os.close(self._woken)
                os.close(self._wake)
            self._is_closed = True


class Raw:
    """A connection of the server, frame by frame."""

    def __init__(self, address, greets=True, **how):
        self.connection = connect(address, **how)
        self._decoder = Decoder()
        if greets:
            self.say(GREETING)

    def say(self, *frames):
        self.connection.sendall(b"".join(frame if isinstance(frame, bytes) else encode(frame)
                                         for frame in frames))

    def say_until_end(self, *frames):
        """As many of them as the other side takes before it ends the connection."""
        try:
            self.say(*frames)
        except (ConnectionResetError, BrokenPipeError):
            pass
        self.wait_for_end()

    def frame(self, timeout_s=WAIT_S):
        """The next one; None: the connection has ended."""
        while (frame := self._decoder.next()) is None:
            self.connection.settimeout(timeout_s)
            try:
                data = self.connection.recv(1 << 20)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._decoder.feed(data)
        return frame

    def hear(self, *due):
        """Those must come next, but for credit."""
        for frame in due:
            got = self.frame()
            while isinstance(got, Control):
                got = self.frame()
            if got != frame:
                raise AssertionError(f"got {got} instead of {frame}")

    def hear_of(self, session, flags=None):
        """The next frame of the session, or the next with those flags."""
        while True:
            frame = self.frame()
            if frame is None:
                raise AssertionError("the connection ended")
            if isinstance(frame, Data) and frame.session == session and (
                    flags is None or frame.flags == flags):
                return frame

    def hear_nothing(self, seconds):
        """No frame of a session comes for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                frame = self.frame(left)
            except TimeoutError:
                return
            if not isinstance(frame, Control):
                raise AssertionError(f"got {frame}")

    def wait_for_end(self):
        while self.frame() is not None:
            pass

    def close(self):
        self.connection.close()

    def cut(self):
        if self.connection.fileno() >= 0:
            reset(self.connection)


class WebmuxTunnel:
    """A tunnel opened for a test, and all that comes to it."""

    def __init__(self, daemon):
        self._daemon = daemon
        self._carriers, self._clients = [], []
        with rpc(daemon.url) as proxy:
            self.server_uri = proxy.Tunnel.openTunnel("webmux")
            self.client_uri = proxy.Tunnel.getTunnelAddress(self.server_uri)
        self.server_address = (daemon.host, address_of(self.server_uri)[1])
        self.client_address = (daemon.host, address_of(self.client_uri)[1])

    def _keep(self, carrier):
        self._carriers.append(carrier)
        return carrier

    def carrier(self, **how):
        """One that the daemon has taken already."""
        before = self.attached()
        carrier = self._keep(Carrier(self.server_address, **how))
        wait_until(lambda: self.attached() > before, "the daemon has the carrier")
        return carrier

    def raw(self, **how):
        raw = self._keep(Raw(self.server_address, **how))
        raw_first = raw.frame()
        if raw_first != Control(Opcode.SET_DEFAULT_CREDIT, 0, WINDOW):
            raise AssertionError(f"the daemon begins with {raw_first}")
        return raw

    def attached(self):
        return self._daemon.errors().count(" of its server, ")

    def connect(self, **how):
        client = connect(self.client_address, **how)
        self._clients.append(client)
        return client

    def both(self, raw):
        """The first session of a raw carrier, confirmed, and its client."""
        client = self.connect()
        raw.hear(Data(3, SYN))
        raw.say(Data(3, SYN))
        return client

    def is_open(self):
        return not {self.server_address[1], self.client_address[1]}.isdisjoint(self._daemon.ports.listening())

    def end(self):
        """With a reserve of 0 it is over when its last carrier has gone."""
        for client in self._clients:
            if client.fileno() >= 0:
                reset(client)
        for carrier in self._carriers:
            carrier.close()
        if self.is_open():
            try:
                connect(self.server_address).close()
            except OSError:
                pass
        wait_until(lambda: not self.is_open(), "the tunnel is over")


class WebmuxCase(Case):
    """Tests that share a daemon without a reserve: tunnels end with their carriers."""

    options = ()
    pairs = 16
    how = {}

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--drain", "1", "--reserve", "0", *cls.options, pairs=cls.pairs, **cls.how)

    @classmethod
    def tearDownClass(cls):
        cls.daemon.stop()

    def open_webmux(self, daemon=None):
        tunnel = WebmuxTunnel(daemon or self.daemon)
        if not daemon:
            self.addCleanup(tunnel.end)
        return tunnel

    def wait_for_log(self, text, daemon=None):
        daemon = daemon or self.daemon
        wait_until(lambda: text in daemon.errors(), f"the log says {text!r}")


def exchange(stream, client, count, seed):
    """count bytes of a pattern both ways at once, to the end of both streams."""
    def send(give, finish, name):
        pattern, left = Pattern(f"{seed} {name}"), count
        while left:
            piece = pattern.take(min(left, 1 << 18))
            give(piece)
            left -= len(piece)
        finish()

    def check(take, name):
        pattern = Pattern(f"{seed} {name}")
        while piece := take():
            pattern.check(piece)
        if pattern.position != count:
            raise AssertionError(f"{pattern.position} of {count} bytes arrived")

    beside = [in_thread(send, stream.send, stream.finish, "down"),
              in_thread(send, client.sendall, lambda: client.shutdown(1), "up"),
              in_thread(check, stream.recv, "up")]
    check(lambda: client.recv(1 << 20), "down")
    for thread in beside:
        thread.result()


__all__ = ["Carrier", "Control", "Daemon", "Data", "FIN", "Flags", "GREETING", "Opcode", "RST", "Raw",
           "SYN", "WINDOW", "Stream", "WebmuxCase", "WebmuxTunnel", "encode", "exchange", "harness"]
