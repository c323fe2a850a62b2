"""harness: what every end-to-end test stands on.

Starts the real daemon on free ports, talks to it with real sockets, and makes
sure that nothing is left behind. Every wait is bounded. The programs under
test come from the environment, and by default from ./build:

    TRISTERO_TUNNELD   the daemon
    TRISTERO_TUNNEL    the command
    SRCDIR             the source folder

Each test prints a line of its own, "PASS file.Class.test" or "FAIL ...", which
./check counts.
"""

import contextlib
import ctypes
import errno
import os
import random
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse
import xmlrpc.client

from pattern import Pattern  # noqa: F401, for the tests

HERE = os.path.dirname(os.path.abspath(__file__))
SRCDIR = os.path.abspath(os.environ.get("SRCDIR") or os.path.join(HERE, "..", ".."))
TUNNELD = os.path.abspath(os.environ.get("TRISTERO_TUNNELD")
                          or os.path.join(SRCDIR, "build", "tristero-tunneld"))
TUNNEL = os.path.abspath(os.environ.get("TRISTERO_TUNNEL")
                         or os.path.join(SRCDIR, "build", "tristero-tunnel"))

WAIT_S = 30         # more than anything here takes; reached only by a failure
TEST_LIMIT_S = 240  # one test, whatever it does

SANITIZER_REPORTS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "LeakSanitizer:",
                     "WARNING: ThreadSanitizer", "ThreadSanitizer:DEADLYSIGNAL",
                     "runtime error:")


# --- waiting ---------------------------------------------------------------

def wait_until(condition, what, timeout_s=WAIT_S):
    """Returns the first true value of condition()."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.02)


def nine_of_ten(seconds):
    """What so many of the times do not exceed: a busy machine may hold up any single one."""
    in_order = sorted(seconds)
    return in_order[len(in_order) * 9 // 10 - 1]


def in_thread(function, *arguments):
    """Runs function beside the test; .result() waits and hands on its outcome."""
    return _Beside(function, arguments)


class _Beside(threading.Thread):
    def __init__(self, function, arguments):
        super().__init__(daemon=True)
        self._function, self._arguments = function, arguments
        self._value = self._error = None
        self.start()

    def run(self):
        try:
            self._value = self._function(*self._arguments)
        except BaseException as error:      # handed on by result()
            self._error = error

    def result(self, timeout_s=TEST_LIMIT_S):
        self.join(timeout_s)
        if self.is_alive():
            raise AssertionError(f"{self._function.__name__} did not end in {timeout_s} s")
        if self._error:
            raise self._error
        return self._value


# --- ports -----------------------------------------------------------------

class PortBlock:
    """A range of port pairs that nobody else uses, the suite's other programs
    included: whoever listens on the first port of a slot owns the slot."""

    SLOT_PORTS = 256
    SLOTS = range(12032, 32000, SLOT_PORTS)     # below those that port 0 picks from

    def __init__(self, pairs, host="127.0.0.1"):
        assert 2 * pairs <= self.SLOT_PORTS - 2
        for base in random.sample(self.SLOTS, len(self.SLOTS)):
            self.low, self.high = base + 2, base + 1 + 2 * pairs
            try:
                self._guard = listen("127.0.0.1", base, backlog=0, reuse=False)
            except OSError:
                continue
            if self._all_are_free(host):
                return
            self._guard.close()
        raise AssertionError(f"no {pairs} free port pairs")

    def _all_are_free(self, host):
        try:
            for port in range(self.low, self.high + 1):
                listen(host, port, backlog=0).close()
        except OSError:
            return False
        return True

    def __str__(self):
        return f"{self.low}-{self.high}"

    def listening(self):
        """The ports of the range on which somebody listens now."""
        return sorted(port for port in listening_ports() if self.low <= port <= self.high)

    def release(self):
        self._guard.close()


def listening_ports():
    """By sock_diag(7), with the numbers of linux/netlink.h, linux/sock_diag.h and
    linux/inet_diag.h. For /proc/net/tcp the kernel would go through all connections, and
    through the places of all that there might be."""
    netlink_sock_diag, by_family, done, request_dump, listening = 4, 20, 3, 0x301, 10
    header = struct.Struct("=IHHII")        # length, type, flags, sequence, port
    ports = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        request = struct.pack("=BBBxI48x", family, socket.IPPROTO_TCP, 0, 1 << listening)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink_sock_diag) as kernel:
            kernel.send(header.pack(header.size + len(request), by_family, request_dump, 0, 0) + request)
            kind = None
            while kind != done:
                answer = kernel.recv(1 << 16)
                while answer:
                    length, kind, *_ = header.unpack_from(answer)
                    if kind not in (by_family, done):
                        raise AssertionError(f"the kernel does not say who listens: {answer!r}")
                    if kind == by_family:
                        ports.add(int.from_bytes(answer[20:22], "big"))
                    answer = answer[(length + 3) & ~3:]
    return ports


def listen(host="127.0.0.1", port=0, backlog=16, reuse=True):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    listener.settimeout(WAIT_S)
    return listener


def reserve_port():
    """A socket that has a port: until it is closed nobody is given that by chance, and who is
    told of it may listen there, with SO_REUSEADDR."""
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", 0))
    return taken


# --- sockets ---------------------------------------------------------------

def address_of(uri):
    """("127.0.0.1", 8010) of "tcp://127.0.0.1:8010"."""
    match = re.fullmatch(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9.-]+):([0-9]{1,5})", uri)
    if not match:
        raise AssertionError(f"not the URI of an end of a tunnel: {uri!r}")
    return match[2].strip("[]"), int(match[3])


def connect(address, source=None, source_port=0, receive_buffer=None, send_buffer=None):
    """A blocking connection whose every call is bounded by WAIT_S."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if send_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        if source:
            connection.bind((source, source_port))
        connection.settimeout(WAIT_S)
        connection.connect(address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        connection.close()
        raise
    return connection


def more_than_fits():
    """So many bytes do not fit into the sockets between two ends of a tunnel of which one
    does not read, and has a small buffer itself."""
    most = []
    for name in ("rmem", "wmem"):
        with open(f"/proc/sys/net/ipv4/tcp_{name}", encoding="ascii") as limits:
            most.append(int(limits.read().split()[2]))
    return most[0] + 2 * most[1] + (1 << 20)


def is_refused(address):
    """Whether nobody listens there. A listener that closes later resets."""
    try:
        connect(address).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


def reset(connection):
    """Closes so that the other side sees a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def receive_exactly(connection, count):
    pieces = []
    while count:
        piece = connection.recv(min(count, 1 << 20))
        if not piece:
            raise AssertionError(f"the stream ended {count} bytes early")
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def bounce_bytes(one, other, times):
    """Has a byte go there and another come back so often; how many seconds it took."""
    began = time.monotonic()
    for number in range(times):
        byte = bytes([number % 256])
        for sender, receiver in ((one, other), (other, one)):
            sender.sendall(byte)
            if receive_exactly(receiver, 1) != byte:
                raise AssertionError(f"another byte than number {number} arrived")
    return time.monotonic() - began


def receive_until_end(connection):
    pieces = []
    while piece := connection.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def visit_until_reset(address, says=b""):
    """What a client gets that is reset, which may be as soon as it is connected."""
    try:
        with connect(address) as client:
            client.sendall(says)
            return receive_until_reset(client)
    except (ConnectionResetError, BrokenPipeError):
        return b""


def receive_until_reset(connection):
    """What arrived before the reset; a proper end instead is a failure."""
    pieces = []
    while True:
        try:
            piece = connection.recv(1 << 20)
        except ConnectionResetError:
            return b"".join(pieces)
        if not piece:
            raise AssertionError("a proper end arrived where a reset was due")
        pieces.append(piece)


def how_it_ended(connection):
    """ "end" or "reset", whatever came before."""
    try:
        receive_until_end(connection)
    except ConnectionResetError:
        return "reset"
    return "end"


def come_and_look(address, source):
    """How a connection ends that is turned away: "end" or "reset"."""
    try:
        with connect(address, source=source) as stranger:
            return how_it_ended(stranger)
    except ConnectionResetError:
        return "reset"


def discard(address, source=None):
    """Ends a tunnel of which only the server's address is known."""
    try:
        connection = connect(address, source=source)
    except OSError:
        return      # gone already
    # A reset that comes before the daemon accepted is as if nobody had come.
    wait_until(lambda: address[1] not in listening_ports(), "the daemon accepted")
    reset(connection)


def cut_connections(pid, leads_there, cut=lambda connection: connection.shutdown(socket.SHUT_RDWR)):
    """Cuts the TCP connections of which leads_there(peer's address) is true, from within that
    process, by pidfd_getfd; how many. PermissionError where that may not be."""
    pidfd = os.pidfd_open(pid)
    count = 0
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                    count += _cut_connection(pidfd, int(name), leads_there, cut)
    finally:
        os.close(pidfd)
    return count


def _cut_connection(pidfd, descriptor, leads_there, cut):
    copy = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, descriptor, 0)    # pidfd_getfd
    if copy < 0:
        if ctypes.get_errno() == errno.EBADF:       # closed meanwhile
            return False
        raise PermissionError("no descriptor of another process may be had")
    with socket.socket(fileno=copy) as connection, contextlib.suppress(OSError):
        peer = connection.getpeername()
        if connection.family == socket.AF_INET and leads_there(peer):
            cut(connection)
            return True
    return False


def break_off(connection):
    """A reset for both ends, whoever else has it: by connecting it to nowhere (AF_UNSPEC)."""
    if ctypes.CDLL(None, use_errno=True).connect(connection.fileno(), bytes(16), 16):
        raise OSError(ctypes.get_errno(), "can't break it off")


def send_until_error(connection, limit_bytes=1 << 30):
    """Sends until the connection breaks; returns the error."""
    block = bytes(65536)
    for _ in range(limit_bytes // len(block)):
        try:
            connection.sendall(block)
        except (ConnectionResetError, BrokenPipeError) as error:
            return error
    raise AssertionError(f"{limit_bytes} bytes went into a broken connection")


# --- XML-RPC ---------------------------------------------------------------

class _Transport(xmlrpc.client.Transport):
    def __init__(self, source=None, timeout_s=WAIT_S):
        super().__init__()
        self._source, self._timeout_s = source, timeout_s

    def make_connection(self, host):
        connection = super().make_connection(host)
        connection.timeout = self._timeout_s
        connection.source_address = (self._source, 0) if self._source else None
        return connection


def rpc(url, source=None, timeout_s=WAIT_S):
    return xmlrpc.client.ServerProxy(url, transport=_Transport(source, timeout_s))


def fault_of(call, *arguments):
    """The fault that the call must end with."""
    try:
        value = call(*arguments)
    except xmlrpc.client.Fault as fault:
        return fault
    raise AssertionError(f"a fault was due, got {value!r}")


# --- processes -------------------------------------------------------------

def _die_with_parent():
    """In the child: whatever happens to the test, its programs end with it."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)      # PR_SET_PDEATHSIG
    # make, a shell or nohup may have them ignored
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def start(arguments, **options):
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen(arguments, preexec_fn=_die_with_parent, **options)


def run(arguments, timeout_s=WAIT_S, env=None, **options):
    """Runs a program to its end: .returncode, .stdout, .stderr as text."""
    process = start(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                    env={**os.environ, **(env or {})}, **options)
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"{arguments} did not end in {timeout_s} s: {out}{err}") from None
    refuse_sanitizer_reports(err, arguments[0])
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def refuse_sanitizer_reports(text, program):
    for report in SANITIZER_REPORTS:
        if report in text:
            raise AssertionError(f"{program} has a sanitizer report:\n{text[-20000:]}")


def is_sanitized():
    with open(TUNNELD, "rb") as program:
        return re.search(rb"__[at]san_init", program.read())


def set_limit(program, what, soft):
    """Its limit from now on; returns the one before."""
    before, hard = resource.prlimit(program.pid, what)
    resource.prlimit(program.pid, what, (soft, hard))
    return before


def leave_descriptors(program, count):
    """Allows so many more than it has open now; returns the limit before."""
    taken = {int(name) for name in os.listdir(f"/proc/{program.pid}/fd")}
    number = 0
    while count or number in taken:
        count -= number not in taken
        number += 1
    return set_limit(program, resource.RLIMIT_NOFILE, number)


def open_files(program):
    """Where its descriptors lead."""
    folder, paths = f"/proc/{program.pid}/fd", []
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):    # closed meanwhile
            paths.append(os.readlink(f"{folder}/{name}"))
    return paths


def cpu_seconds(program):
    with open(f"/proc/{program.pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Program:
    """A program under test that runs beside the test: its lines of standard
    output can be waited for, its standard error is kept."""

    def __init__(self, arguments, env=None, **options):
        self.name = os.path.basename(arguments[0])
        self._errors = tempfile.TemporaryFile()
        self._text = b""
        self.process = start(arguments, stdout=subprocess.PIPE, stderr=self._errors,
                             env={**os.environ, **(env or {})}, **options)
        self.pid = self.process.pid

    def line(self, timeout_s=WAIT_S, end=b"\n"):
        """The next line that it prints, without its end."""
        deadline = time.monotonic() + timeout_s
        while end not in self._text:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([self.process.stdout], [], [], left_s)[0]:
                raise AssertionError(f"{self.name} printed no line in {timeout_s} s; "
                                     f"it said: {self.errors()}")
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                raise AssertionError(f"{self.name} closed its output; it said: {self.errors()}")
            self._text += piece
        line, self._text = self._text.split(end, 1)
        return line.decode()

    def errors(self):
        """All that it wrote to standard error so far; also after its end."""
        if self._errors.closed:
            return self._last_errors
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), size, 0).decode(errors="replace")

    def signal(self, number):
        self.process.send_signal(number)

    def freeze(self):
        self.signal(signal.SIGSTOP)
        wait_until(self._is_stopped, f"{self.name} stands still")

    def thaw(self):
        self.signal(signal.SIGCONT)

    def _is_stopped(self):
        return self._threads_are("T")

    def _threads_are(self, state):
        """Whether all are in that of proc(5)."""
        tasks = f"/proc/{self.pid}/task"
        try:
            for task in os.listdir(tasks):
                with open(f"{tasks}/{task}/stat", encoding="ascii") as stat:
                    if stat.read().rsplit(")", 1)[1].split()[0] != state:
                        return False
        except (FileNotFoundError, ProcessLookupError):     # one was ending
            return False
        return True

    def steady_counts(self):
        """What a subclass counts, once it stays so while all threads wait; else None."""
        is_at_rest = self._threads_are("S")
        before = self.counts()
        time.sleep(0.1)
        is_at_rest = is_at_rest and self._threads_are("S")
        return before if is_at_rest and before == self.counts() else None

    def wait(self, timeout_s=WAIT_S):
        """Its exit status; a failure if it does not end by itself."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end in {timeout_s} s; "
                                 f"it said: {self.errors()[-4000:]}") from None

    def rest_of_output(self):
        """After its end: what it printed that no line() took."""
        rest = self._text + self.process.stdout.read()
        self._text = b""
        return rest.decode()

    def clean_up(self):
        """The last word, whatever happened before. Harmless to repeat."""
        if self._errors.closed:
            return
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._last_errors = self.errors()
        self._errors.close()
        refuse_sanitizer_reports(self._last_errors, self.name)


class Peer(Program):
    """One end of a tunnel, or a caller, as a process that can be frozen and
    killed: see peer.py for what it can be told."""

    def __init__(self, address, receive_buffer=0):
        super().__init__([sys.executable, "-B", os.path.join(HERE, "peer.py"), address[0],
                          str(address[1]), str(receive_buffer)], stdin=subprocess.PIPE)
        self.expect("connected")

    def tell(self, *words):
        self.process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        self.process.stdin.flush()

    def expect(self, *answers, timeout_s=WAIT_S):
        """It must say these next, in whatever order."""
        said = [self.line(timeout_s) for _ in answers]
        if sorted(said) != sorted(answers):
            raise AssertionError(f"the peer said {said} instead of {answers}: {self.errors()}")

    def kill(self):
        """Nothing is left of it when this returns."""
        self.process.kill()
        self.process.wait()

    def clean_up(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass        # it has gone already, with words unread
        super().clean_up()


class Daemon(Program):
    """The daemon, on free ports, ready. user: "name:password", who calls. most_descriptors: the
    limit that it finds."""

    def __init__(self, *options, pairs=16, listen_on="127.0.0.1:0", ports=None, user=None,
                 most_descriptors=None, **how):
        self.pairs = pairs
        self._connections = []
        self.ports = ports or PortBlock(pairs, "::1" if "::1" in (listen_on or "") else "127.0.0.1")
        self._others = set(self.ports.listening())
        arguments = [TUNNELD]
        if most_descriptors:
            arguments = ["prlimit", f"--nofile={most_descriptors}", TUNNELD]
        if listen_on:
            arguments += ["--listen", listen_on]
        super().__init__([*arguments, "--ports", str(self.ports), *options], **how)
        try:
            self.ready_line = self.line()
            match = re.fullmatch(r"serving (http://\S+:(\d+)/RPC2)", self.ready_line)
            if not match:
                raise AssertionError(f"not the ready line: {self.ready_line!r}")
            self.url, self.port = match[1], int(match[2])
            self.host = urllib.parse.urlsplit(self.url).hostname
            if user:
                self.url = self.url_of(user)
            with rpc(self.url) as proxy:
                proxy.system.listMethods()
            self.start_counts = wait_until(self.steady_counts, "the daemon is at rest")
        except BaseException:
            self.clean_up()
            raise

    def url_of(self, user):
        """Where "name:password", percent-encoded as need be, calls."""
        return f"http://{user}@{self.host}:{self.port}/RPC2"

    def rpc(self, source=None, timeout_s=WAIT_S, path="/RPC2"):
        proxy = rpc(self.url.removesuffix("/RPC2") + path, source, timeout_s)
        self._connections.append(proxy)
        return proxy

    def counts(self):
        return {"threads": len(os.listdir(f"/proc/{self.pid}/task")),
                "descriptors": len(os.listdir(f"/proc/{self.pid}/fd")),
                "listening ports": len(set(self.ports.listening()) - self._others)}

    def has_no_more_than(self, before):
        """It may be less: what was on its way out when the others were counted."""
        now = self.counts()
        return all(now[name] <= before[name] for name in before)

    def resident_kib(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])

    def drop_connections(self):
        for proxy in self._connections:
            proxy("close")()
        self._connections.clear()

    def expect_rest(self, timeout_s=WAIT_S):
        """Everything that the tests took has been given back."""
        self.drop_connections()
        deadline = time.monotonic() + timeout_s
        while self.counts() != self.start_counts:
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"left behind: {self.counts()}, at the start {self.start_counts}, "
                    f"ports {self.ports.listening()}; the log:\n{self.errors()[-4000:]}")
            time.sleep(0.02)

    def stop(self):
        """SIGTERM, and everything that must hold of the end."""
        try:
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended by itself with {self.process.poll()}: "
                                     f"{self.errors()[-20000:]}")
            self.expect_rest()
            self.signal(signal.SIGTERM)
            status = self.wait()
            if status != 0:
                raise AssertionError(f"exit status {status} after SIGTERM: "
                                     f"{self.errors()[-20000:]}")
            if rest := self.rest_of_output():
                raise AssertionError(f"more than the ready line on standard output: {rest!r}")
            if left := set(self.ports.listening()) - self._others:
                raise AssertionError(f"ports left behind: {left}")
        finally:
            self.clean_up()

    def clean_up(self):
        self.drop_connections()
        self.ports.release()
        super().clean_up()


class Tunnel:
    """A tunnel opened for a test. Whatever the test left of it is ended."""

    def __init__(self, daemon, source=None, backend=None):
        self._sockets = []
        self._source = source
        with rpc(daemon.url, source) as proxy:
            self.server_uri = proxy.Tunnel.openTunnel(*([backend] if backend else []))
            self.client_uri = proxy.Tunnel.getTunnelAddress(self.server_uri)
        # the host may be a name that only the tests' URIs know
        self.server_address = (daemon.host, address_of(self.server_uri)[1])
        self.client_address = (daemon.host, address_of(self.client_uri)[1])
        self._attached = False

    def attach(self, **how):
        how.setdefault("source", self._source)
        connection = connect(self.server_address, **how)
        self._attached = True
        self._sockets.append(connection)
        return connection

    def connect(self, **how):
        connection = connect(self.client_address, **how)
        self._sockets.append(connection)
        return connection

    def both(self):
        """The server's and the client's connection, relaying."""
        server = self.attach()
        client = self.connect()
        client.sendall(b"?")
        assert receive_exactly(server, 1) == b"?"
        server.sendall(b"!")
        assert receive_exactly(client, 1) == b"!"
        return server, client

    def end(self):
        if self._sockets and self._attached:
            # see discard
            wait_until(lambda: self.server_address[1] not in listening_ports(), "it is attached")
        for connection in self._sockets:
            if connection.fileno() >= 0:
                reset(connection)
        if not self._attached:
            discard(self.server_address, self._source)
            self._attached = True


# --- test cases ------------------------------------------------------------

class Case(unittest.TestCase):
    """A test that ends, and cleans up what it took."""

    maxDiff = None

    def run(self, result=None):
        def too_long(_signal, _frame):
            raise AssertionError(f"the test took more than {TEST_LIMIT_S} s")

        before = signal.signal(signal.SIGALRM, too_long)
        signal.alarm(TEST_LIMIT_S)
        try:
            return super().run(result)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    def start_daemon(self, *options, **how):
        """One for this test alone; the test ends it with stop() or looks on."""
        daemon = Daemon(*options, **how)
        self.addCleanup(daemon.clean_up)
        return daemon

    def start_program(self, arguments, **how):
        program = Program(arguments, **how)
        self.addCleanup(program.clean_up)
        return program

    def start_package(self, url, service, *options, env=None, **how):
        """python -m tristero_tunnel expose"""
        return self.start_program(
            [sys.executable, "-B", "-m", "tristero_tunnel", "expose", str(service), "--proxy", url,
             *options],
            env={"PYTHONPATH": os.path.join(SRCDIR, "clients", "python"), **(env or {})}, **how)

    def run_server(self, server):
        """One of socketserver, beside the test."""
        in_thread(server.serve_forever)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server

    def need_ipv6(self):
        try:
            listen("::1").close()
        except OSError:
            self.skipTest("no IPv6 here")

    def closed_port(self):
        """One where nobody listens but who is told of it: nobody else is given it by chance
        for as long as the test lasts."""
        taken = reserve_port()
        self.addCleanup(taken.close)
        return taken.getsockname()[1]

    def temporary_folder(self):
        folder = tempfile.TemporaryDirectory(prefix="tristero-e2e-")
        self.addCleanup(folder.cleanup)
        return folder.name

    def open_tunnel(self, daemon=None, **how):
        tunnel = Tunnel(daemon or self.daemon, **how)
        self.addCleanup(tunnel.end)
        return tunnel

    def assert_proper_end(self, connection, rest=b""):
        self.assertEqual(receive_until_end(connection), rest)


class DaemonCase(Case):
    """Tests that share a daemon, which must be as it was at the start when
    they are done, and end well."""

    options = ()
    pairs = 16

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--drain", "1", *cls.options, pairs=cls.pairs)

    @classmethod
    def tearDownClass(cls):
        cls.daemon.stop()


class _Result(unittest.TextTestResult):
    """One line for each test, for ./check to count."""

    def startTest(self, test):
        super().startTest(test)
        self._outcome = "PASS"

    def stopTest(self, test):
        self._say(self._outcome, test)
        super().stopTest(test)

    def addError(self, test, error):
        super().addError(test, error)
        self._failed(test)

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self._failed(test)

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error:
            self._failed(test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._outcome = "SKIP"

    def _failed(self, test):
        self._outcome = "FAIL"
        if not isinstance(test, unittest.TestCase):     # the set-up or end of a class
            self._say("FAIL", test)

    def _say(self, outcome, test):
        file = os.path.splitext(os.path.basename(sys.argv[0]))[0]
        print(outcome, test.id().replace("__main__", file), flush=True)


def main():
    os.environ["NO_PROXY"] = "*"        # nothing here leaves the machine
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "TRISTERO_PROXY"):
        os.environ.pop(variable, None)
    unittest.main(module="__main__", verbosity=0,
                  testRunner=unittest.TextTestRunner(resultclass=_Result, verbosity=0))
