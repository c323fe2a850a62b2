"""faults: a daemon whose calls fail when a test says so, and the trip that it
has to survive. The failing is done by tests/faults/shim.c; FAULT_SHIM names
the shared object, by default build/tests/faults/.libs/shim.so."""

import ctypes
import errno
import http.client
import mmap
import os
import random
import select
import signal
import socket
import struct
import tempfile
import xmlrpc.client

import harness
from harness import (SRCDIR, Daemon, address_of, connect, in_thread, receive_until_end,
                     reset, rpc, wait_until)

SHIM = os.path.abspath(os.environ.get("FAULT_SHIM")
                       or os.path.join(SRCDIR, "build", "tests", "faults", ".libs", "shim.so"))

# "user", whose password is "secret"; the cheapest of bcrypt.
USERS = "user:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"

BULK = random.Random(1).randbytes(1 << 20)      # the reads of it go through a pipe

# How a call or a connection ends that fails cleanly.
CLEAN_FAILURES = (ConnectionError, http.client.HTTPException, xmlrpc.client.Fault,
                  xmlrpc.client.ProtocolError)


class Shim:
    """The page that a test shares with the program under test; see struct faults."""

    FIELDS = ("function", "error", "first", "last", "seen", "failed", "blocks", "bytes",
              "most_bytes", "clock_s")
    FOR_EVER = (1 << 63) - 1

    def __init__(self):
        self._library = ctypes.CDLL(SHIM)
        self._file = tempfile.NamedTemporaryFile()
        self._file.truncate(mmap.PAGESIZE)
        self._page = mmap.mmap(self._file.fileno(), mmap.PAGESIZE)
        self.environment = {"LD_PRELOAD": SHIM, "FAULTS": self._file.name}

    def __getitem__(self, field):
        return self._at(self.FIELDS.index(field))

    def __setitem__(self, field, value):
        struct.pack_into("q", self._page, 8 * self.FIELDS.index(field), value)

    def _at(self, index):
        return struct.unpack_from("q", self._page, 8 * index)[0]

    def function(self, name):
        function = self._library.fault_function(name.encode())
        assert function > 0, name
        return function

    def calls(self, name):
        """How often it was called so far."""
        return self._at(len(self.FIELDS) + self.function(name))

    def fail(self, name, error, first, last=None):
        """From now on the calls from the first to the last fail; without a last, that one."""
        self.heal()
        self["error"], self["first"], self["last"] = error, first, last or first
        self["seen"] = self["failed"] = 0
        self["function"] = self.function(name)

    def heal(self):
        self["function"] = self["most_bytes"] = 0

    def allow_memory(self, more_bytes):
        """No more than is in use now, and these."""
        self["failed"] = 0
        self["most_bytes"] = self["bytes"] + more_bytes

    def clean_up(self):
        self._page.close()
        self._file.close()


class FaultyDaemon(Daemon):
    """A daemon with a shim, and with users, whom it reads again at SIGHUP."""

    OPTIONS = ("--attach-timeout", "3", "--linger", "3", "--drain", "1", "--log-level", "debug",
               "--tunnels-per-user", "0")

    def __init__(self, shim, users_file, *options, **how):
        self.shim = shim
        super().__init__("--users", users_file, *self.OPTIONS, *options,
                         user="user:secret", env=shim.environment, **how)

    def reload(self, _timeout_s):
        before = self.shim.calls("sigwaitinfo")
        self.signal(signal.SIGHUP)
        wait_until(lambda: self.shim.calls("sigwaitinfo") > before, "SIGHUP was heeded")


def users_file(folder):
    path = os.path.join(folder, "users")
    with open(path, "w", encoding="ascii", opener=lambda *how: os.open(*how, 0o600)) as file:
        file.write(USERS)
    return path


# --- a whole trip ----------------------------------------------------------

_guesser = 0


def _a_new_address():
    """Of those that have not guessed yet."""
    global _guesser
    _guesser += 1
    return f"127.1.{_guesser // 250}.{_guesser % 250 + 1}"


def _receive_from(sender, sending, receiver, count, timeout_s):
    """Like receive_exactly, but a sender that has been reset is not waited for:
    the other end of a tunnel may well go on waiting for another."""
    pieces = []
    while count:
        if not select.select([receiver, sender], [], [], timeout_s)[0]:
            raise TimeoutError("no byte came")
        if not select.select([receiver], [], [], 0)[0]:
            if not sender.recv(1, socket.MSG_PEEK):
                sending.result()        # the reset, if it was told there
                raise AssertionError("a proper end, amid a transfer")
        piece = receiver.recv(min(count, 1 << 20))
        assert piece, f"the stream ended {count} bytes early"
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def _pass_bytes(sender, receiver, data, timeout_s):
    sending = in_thread(sender.sendall, data)
    try:
        received = _receive_from(sender, sending, receiver, len(data), timeout_s)
    except BaseException:
        reset(sender)       # or else the thread may wait for ever
        raise
    sending.result()
    assert received == data, "other bytes arrived than were sent"


def _end(connection):
    try:
        connection.shutdown(socket.SHUT_WR)
    except OSError as error:
        if error.errno == errno.ENOTCONN:       # it has been reset meanwhile
            raise ConnectionResetError(*error.args) from error
        raise


def relay_trip(daemon, timeout_s):
    """Open, address, attach, connect, bytes both ways, the end of both streams."""
    with rpc(daemon.url, timeout_s=timeout_s) as proxy:
        server_uri = proxy.Tunnel.openTunnel()
    with rpc(daemon.url, timeout_s=timeout_s) as proxy:
        client_uri = proxy.Tunnel.getTunnelAddress(server_uri)
    sockets = []
    try:
        for uri in (server_uri, client_uri):
            sockets.append(connect(address_of(uri)))
            sockets[-1].settimeout(timeout_s)
        server, client = sockets
        _pass_bytes(client, server, b"?", timeout_s)
        _pass_bytes(server, client, b"!", timeout_s)
        _pass_bytes(client, server, BULK, timeout_s)
        _pass_bytes(server, client, BULK, timeout_s)
        _pass_bytes(client, server, b"?", timeout_s)
        _end(client)
        assert receive_until_end(server) == b"", "bytes after the last"
        _end(server)
        assert receive_until_end(client) == b"", "bytes after the last"
    except BaseException:
        for connection in sockets:
            if connection.fileno() >= 0:
                reset(connection)
        raise
    for connection in sockets:
        connection.close()


def _status_of(daemon, method, source, timeout_s, **headers):
    connection = http.client.HTTPConnection(daemon.host, daemon.port, timeout=timeout_s,
                                            source_address=(source, 0))
    try:
        connection.request(method, "/RPC2", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def refused_request(daemon, timeout_s):
    status = _status_of(daemon, "GET", "127.0.0.1", timeout_s)
    assert status == 405, f"GET was answered with {status}"


def wrong_password(daemon, timeout_s):
    with rpc(daemon.url_of("user:guess"), _a_new_address(), timeout_s) as proxy:
        try:
            proxy.Tunnel.openTunnel()
        except xmlrpc.client.ProtocolError as error:
            if error.errcode == 401:
                return
            raise
        raise AssertionError("a wrong password opened a tunnel")


def fault(daemon, timeout_s):
    with rpc(daemon.url, timeout_s=timeout_s) as proxy:
        try:
            answer = proxy.Tunnel.getTunnelAddress("tcp://127.0.0.1:1")
        except xmlrpc.client.Fault as error:
            if error.faultCode == 2:
                return
            raise
        raise AssertionError(f"a tunnel that there is not is at {answer}")


STEPS = (FaultyDaemon.reload, relay_trip, fault, refused_request, wrong_password)


def whole_trip(daemon, timeout_s=harness.WAIT_S):
    """Everything goes well, or this raises."""
    for step in STEPS:
        step(daemon, timeout_s)


def troubled_trip(daemon, timeout_s, may_wait=False):
    """Each step goes well or fails cleanly. How many failed."""
    failures = 0
    for step in STEPS:
        try:
            step(daemon, timeout_s)
        except CLEAN_FAILURES:
            failures += 1
        except TimeoutError:
            if not may_wait:
                raise
            failures += 1
    return failures


def every_pair_is_usable(daemon):
    """Opens as many tunnels as there are pairs, which end by their attach timeout."""
    with rpc(daemon.url) as proxy:
        opened = {proxy.Tunnel.openTunnel() for _ in range(daemon.pairs)}
    assert len(opened) == daemon.pairs, "a pair was given out twice while others rested"
    daemon.expect_rest()
