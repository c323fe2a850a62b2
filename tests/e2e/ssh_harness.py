"""ssh_harness: what the tests of the ssh backend stand on, besides harness.

A daemon that takes ssh, the clients that come to it (each carries the streams of
some tunnels and is called a carrier here), and little services for them to lead to:

    with SshDaemon() as daemon, Service(echo) as service, Ssh(daemon, service.port) as address:
        connect(address)

Where a program is not installed, its name here is None. paramiko lives in a
process of its own, ssh_peer.py, since not every python3 has it.
"""

import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import harness
from harness import Case, Daemon, Pattern, Program, connect, receive_exactly, reset, run, wait_until

SSH = shutil.which("ssh")
KEYGEN = shutil.which("ssh-keygen")
KEYSCAN = shutil.which("ssh-keyscan")
DBCLIENT = shutil.which("dbclient")
AUTOSSH = shutil.which("autossh")

SSH_LINE = re.compile(r" info ssh at (\S+), host key (SHA256:[A-Za-z0-9+/]+)")
SSH_URI = re.compile(r"ssh://(t-[a-z0-9]{26})@(\[[0-9a-f:.]+\]|[a-z0-9.-]+):([1-9][0-9]{0,4})")


def _python_with_paramiko():
    for python in ("/usr/bin/python3", sys.executable):
        if os.path.exists(python) and subprocess.run(
                [python, "-c", "import paramiko"], stdin=subprocess.DEVNULL,
                capture_output=True).returncode == 0:
            return python
    return None


PARAMIKO = _python_with_paramiko()

needs_ssh = unittest.skipUnless(SSH and KEYSCAN, "ssh is not installed")
needs_dbclient = unittest.skipUnless(DBCLIENT and SSH, "dbclient and ssh are not installed")
needs_autossh = unittest.skipUnless(AUTOSSH and SSH, "autossh is not installed")
needs_paramiko = unittest.skipUnless(PARAMIKO and SSH and KEYSCAN, "paramiko and ssh are not installed")


# --- the daemon ------------------------------------------------------------

class SshDaemon(Daemon):
    """With ssh on a free port and a state folder of its own, unless one is given."""

    def __init__(self, *options, ssh_listen="127.0.0.1:0", state_dir=None, **how):
        self._folder = tempfile.TemporaryDirectory(prefix="tristero-e2e-")
        self._hosts_file = None
        self.state_dir = state_dir
        if not state_dir:
            self.state_dir = os.path.join(self._folder.name, "state")
            os.mkdir(self.state_dir, 0o700)
        super().__init__("--ssh-listen", ssh_listen, "--state-dir", self.state_dir, *options, **how)
        try:
            match = wait_until(lambda: SSH_LINE.search(self.errors()), "ssh is announced in the log")
        except BaseException:
            self.clean_up()
            raise
        host, _, port = match[1].rpartition(":")
        self.ssh_host, self.ssh_port, self.fingerprint = host.strip("[]"), int(port), match[2]
        self.ssh_address = (self.ssh_host, self.ssh_port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.clean_up()

    @property
    def host_key(self):
        """ "ssh-ed25519 AAAA...", as the daemon shows it."""
        with open(self.known_hosts, encoding="ascii") as file:
            return file.readline().split(" ", 1)[1].strip()

    @property
    def known_hosts(self):
        """A file for ssh's UserKnownHostsFile, of the key that the log tells."""
        if not self._hosts_file:
            done = run([KEYSCAN, "-T", str(harness.WAIT_S), "-p", str(self.ssh_port), "-t", "ed25519", self.ssh_host])
            match = re.search(r"^\S+ (ssh-ed25519 \S+)$", done.stdout, re.MULTILINE)
            if not match:
                raise AssertionError(f"ssh-keyscan saw no key: {done.stdout}{done.stderr}")
            names = ",".join(f"[{name}]:{self.ssh_port}" for name in
                             ("127.0.0.1", "localhost", "::1", self.ssh_host))
            path = os.path.join(self._folder.name, "known_hosts")
            with open(path, "w", encoding="ascii") as file:
                file.write(f"{names} {match[1]}\n")
            told = run([KEYGEN, "-l", "-f", path]).stdout
            if self.fingerprint not in told:
                raise AssertionError(f"{self.fingerprint} in the log, {told} on the wire")
            self._hosts_file = path
        return self._hosts_file

    def new_log(self, since):
        """What was logged after the log had this many characters."""
        return self.errors()[since:]

    def log_line(self, pattern, since=0, timeout_s=harness.WAIT_S):
        """The match of a line that the log has, or gets soon."""
        return wait_until(lambda: re.search(pattern, self.errors()[since:]),
                          f"{pattern!r} in the log: {self.errors()[-3000:]}", timeout_s)

    def clean_up(self):
        super().clean_up()
        self._folder.cleanup()


class Token:
    """A tunnel that was opened over XML-RPC, for ssh to come to. It ends by its
    attach timeout, or its reserve."""

    def __init__(self, daemon, source=None):
        with harness.rpc(daemon.url, source) as proxy:
            self.uri = proxy.Tunnel.openTunnel("ssh")
            self.client_uri = proxy.Tunnel.getTunnelAddress(self.uri)
        match = SSH_URI.fullmatch(self.uri)
        if not match:
            raise AssertionError(f"not the URI of an ssh tunnel: {self.uri!r}")
        self.login, self.ssh_host, self.ssh_port = match[1], match[2].strip("[]"), int(match[3])
        self.address = (daemon.host, harness.address_of(self.client_uri)[1])


# --- carriers --------------------------------------------------------------

_numbers = itertools.count(1)


def some_login():
    """A name that no other test comes by, so that none takes what another left."""
    return f"user{os.getpid()}x{next(_numbers)}"


class Carrier(Program):
    """An ssh client that carries tunnels. Each target is a local port to which a
    public address of the proxy's choice leads, or what stands after -R. As a context it gives
    the public address, or all of them if there are several."""

    def __init__(self, daemon, *targets, login=None, env=None, **how):
        self.daemon = daemon
        self.login = login or some_login()
        self.targets = [f"0:127.0.0.1:{each}" if isinstance(each, int) else each for each in targets]
        without = [word for name in ("SSH_AUTH_SOCK", "DISPLAY") if name not in (env or {})
                   for word in ("-u", name)]
        super().__init__(["/usr/bin/env", *without, *self.command()], env=env, **how)
        self.name = type(self).__name__

    def command(self):
        raise NotImplementedError

    def ports(self):
        """The public ports that are there so far, by the targets' order."""
        by_goal = re.findall(r"Allocated port (\d+) for remote forward to (\S+)", self.errors())
        return [int(port) for port, _ in sorted(by_goal, key=lambda found: self._rank(found[1]))]

    def _rank(self, goal):
        goals = [target.split(":", 1)[-1] for target in self.targets]
        return goals.index(goal) if goal in goals else len(goals)

    @property
    def addresses(self):
        """All public addresses, as soon as they are there."""
        def all_ports():
            ports = self.ports()
            if len(ports) < len(self.targets) and self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.process.poll()}: {self.errors()}")
            return ports if len(ports) >= len(self.targets) else None
        ports = wait_until(all_ports, f"{self.name} has its addresses")
        return [(self.daemon.host, port) for port in ports]

    @property
    def address(self):
        return self.addresses[0]

    def ready(self):
        """Itself, with its addresses there."""
        return self if self.addresses or not self.targets else None

    def said(self, pattern, timeout_s=harness.WAIT_S):
        """The match of what it says on standard error, if need be soon."""
        try:
            return wait_until(lambda: re.search(pattern, self.errors()), pattern, timeout_s)
        except AssertionError:
            raise AssertionError(f"{self.name} did not say {pattern!r} but: {self.errors()}") from None

    def kill(self):
        """Without a farewell; nothing is left of it when this returns."""
        self.process.kill()
        self.process.wait()

    def leave(self):
        """As a user ends it."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def clean_up(self):
        if not self._errors.closed and self.process.poll() is None:
            self.process.terminate()
            self.thaw()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        super().clean_up()

    def __enter__(self):
        try:
            addresses = self.addresses
        except BaseException:
            self.clean_up()
            raise
        return addresses[0] if len(addresses) == 1 else addresses

    def __exit__(self, *_):
        self.clean_up()


class Ssh(Carrier):
    """OpenSSH's. options: of -o, and win over those here; arguments: more of them."""

    def __init__(self, daemon, *targets, options=(), arguments=("-N",), identity=None, after=(), **how):
        self.options, self.arguments, self.after = options, arguments, after
        self.identity = identity
        super().__init__(daemon, *targets, **how)

    def command(self):
        settings = [*self.options, f"UserKnownHostsFile={self.daemon.known_hosts}",
                    "GlobalKnownHostsFile=/dev/null", "StrictHostKeyChecking=yes", "BatchMode=yes",
                    "ExitOnForwardFailure=yes", "IdentityAgent=none", "IdentitiesOnly=yes",
                    f"IdentityFile={self.identity or 'none'}", "ConnectTimeout=30", "ControlPath=none"]
        return [SSH, "-v", "-F", "/dev/null", *(word for setting in settings for word in ("-o", setting)),
                *self.arguments, *(word for target in self.targets for word in ("-R", target)),
                "-p", str(self.daemon.ssh_port), "-l", self.login, self.daemon.ssh_host, *self.after]

    def ports(self):
        granted = re.findall(r"remote forward success for: listen (?:\S*:)?(\d+), connect", self.errors())
        allocated = super().ports()
        fixed = [int(port) for port in granted if int(port)]
        return allocated + fixed if len(granted) >= len(self.targets) else []

    def authenticated(self):
        self.said(r"Authenticated to ")
        return self

    def refused(self):
        """Its exit status and what it said, if it could not have all that it asked for."""
        status = self.wait()
        if status == 0 or self.ports():
            raise AssertionError(f"ssh was given what it asked for: {self.errors()}")
        return status, self.errors()


class Dbclient(Carrier):
    """dropbear's."""

    def __init__(self, daemon, *targets, **how):
        self._home = tempfile.TemporaryDirectory(prefix="tristero-e2e-")
        os.mkdir(os.path.join(self._home.name, ".ssh"), 0o700)
        with open(os.path.join(self._home.name, ".ssh", "known_hosts"), "w", encoding="ascii") as file:
            file.write(f"{daemon.ssh_host} {daemon.host_key}\n")
        super().__init__(daemon, *targets, env={"HOME": self._home.name}, **how)

    def command(self):
        return [DBCLIENT, "-N", *(word for target in self.targets for word in ("-R", target)),
                "-p", str(self.daemon.ssh_port), "-l", self.login, self.daemon.ssh_host]

    def clean_up(self):
        super().clean_up()
        self._home.cleanup()


class Autossh(Ssh):
    """OpenSSH's under autossh, which starts it again when it ends."""

    def __init__(self, daemon, *targets, **how):
        super().__init__(daemon, *targets, **{"env": {"AUTOSSH_GATETIME": "0", "AUTOSSH_PATH": SSH,
                                                      "AUTOSSH_LOGLEVEL": "7"}, **how})

    def command(self):
        return [AUTOSSH, "-M", "0", *super().command()[1:]]

    def children(self):
        try:
            with open(f"/proc/{self.pid}/task/{self.pid}/children", encoding="ascii") as file:
                return [int(pid) for pid in file.read().split()]
        except OSError:
            return []

    def drop(self):
        """Its ssh dies as by an accident, without a farewell. autossh takes SIGKILL
        as meant, and ends; this one not."""
        (child,) = wait_until(self.children, "autossh has its ssh")
        os.kill(child, signal.SIGUSR1)
        wait_until(lambda: child not in self.children(), "the ssh is gone")

    def clean_up(self):
        children = [] if self._errors.closed else self.children()
        super().clean_up()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


class Peer(Carrier):
    """A client of paramiko: ssh_peer.py, or ssh_hostile.py, which are told what to do
    by their arguments and lines of standard input, and say what happens."""

    script = "ssh_peer.py"

    def __init__(self, daemon, *words, login=None, source="127.0.0.1", identity=None):
        self.words, self.source, self.identity = words, source, identity
        super().__init__(daemon, login=login, stdin=subprocess.PIPE)

    def command(self):
        return [PARAMIKO, "-B", os.path.join(harness.HERE, self.script), self.daemon.ssh_host,
                str(self.daemon.ssh_port), self.login, self.daemon.fingerprint, self.source,
                self.identity or "-", *map(str, self.words)]

    def expect(self, pattern, timeout_s=harness.WAIT_S):
        """The match of the next line that it says."""
        line = self.line(timeout_s)
        match = re.fullmatch(pattern, line)
        if not match:
            raise AssertionError(f"{self.script} said {line!r} and not {pattern!r}: {self.errors()}")
        return match

    def tell(self, *words):
        self.process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        self.process.stdin.flush()

    def finish(self):
        """No more is to come; it must end well."""
        self.process.stdin.close()
        status = self.wait()
        if status != 0:
            raise AssertionError(f"{self.script} ended with {status}: {self.errors()}")


class Hostile(Peer):
    script = "ssh_hostile.py"


class Paramiko(Peer):
    """Carries as the others do."""

    def __init__(self, daemon, *ports, **how):
        self._ports = []
        super().__init__(daemon, "carry", *ports, **how)
        self.targets = [f"0:127.0.0.1:{port}" for port in ports]

    def ports(self):
        while len(self._ports) < len(self.targets):
            self._ports.append(int(self.expect(r"allocated (\d+)")[1]))
        return self._ports


# --- services --------------------------------------------------------------

class Service:
    """Listens on a port of this machine, as what a tunnel leads to does. A function
    handles each connection in a thread of its own; without one, accept() hands out
    what comes."""

    def __init__(self, handle=None, host="127.0.0.1", port=0, backlog=256, receive_buffer=None):
        self._listener = harness.listen(host, port, backlog)
        if receive_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.port = self._listener.getsockname()[1]
        self._handle = handle
        self._lock = threading.Lock()
        self._connections = []
        self.served = 0
        if handle:
            self._listener.settimeout(None)
            self._thread = threading.Thread(target=self._serve, daemon=True)
            self._thread.start()

    def accept(self, timeout_s=harness.WAIT_S):
        self._listener.settimeout(timeout_s)
        connection, _ = self._listener.accept()
        return self._keep(connection)

    def nobody_comes(self, for_s):
        """Whether nobody does, for that long."""
        try:
            self.accept(for_s)
        except TimeoutError:
            return True
        return False

    def _keep(self, connection):
        connection.settimeout(harness.WAIT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._connections.append(connection)
            self.served += 1
        return connection

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_one, args=(self._keep(connection),), daemon=True).start()

    def _serve_one(self, connection):
        with contextlib.suppress(OSError):      # the other end decides how it ends
            self._handle(connection)
        with self._lock:
            if connection in self._connections:
                self._connections.remove(connection)
        connection.close()

    def stop_listening(self):
        """Nobody else gets in, and whoever is here stays."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self):
        """Nobody listens any more, and what still lives is reset."""
        self.stop_listening()
        with self._lock:
            left, self._connections = self._connections, []
        for connection in left:
            with contextlib.suppress(OSError):
                reset(connection)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def echo(connection):
    """Says back what it hears, and ends when the caller has ended."""
    while piece := connection.recv(1 << 16):
        connection.sendall(piece)


def discard(connection):
    """Hears all, and tells in the end how much it was."""
    count = 0
    while piece := connection.recv(1 << 18):
        count += len(piece)
    connection.sendall(b"%d" % count)


def greeting(handle):
    """Says b"!" first: who hears that has a stream that is open all the way."""
    def serve(connection):
        connection.sendall(b"!")
        handle(connection)
    return serve


def deaf(connection):
    """Takes nothing and says nothing, for long."""
    time.sleep(harness.TEST_LIMIT_S)


def source(seed, count):
    """Sends so many bytes of that seed's pattern, and ends."""
    def send(connection):
        pattern, left = Pattern(seed), count
        while left:
            piece = pattern.take(min(left, 65536))
            connection.sendall(piece)
            left -= len(piece)
    return send


def web(body):
    """Answers every GET of a connection with these bytes."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    def serve(connection):
        text = b""
        while piece := connection.recv(65536):
            text += piece
            while b"\r\n\r\n" in text:
                text = text.split(b"\r\n\r\n", 1)[1]
                connection.sendall(answer)
    return serve


def inetd(*command, **how):
    """A program that serves the connection that it finds as its standard input."""
    def serve(connection):
        connection.settimeout(None)
        process = harness.start(command, stdin=connection, stdout=connection,
                                stderr=subprocess.DEVNULL, **how)
        process.wait()
    return serve


# --- streams ---------------------------------------------------------------

def send_pattern(connection, seed, count, end=True):
    source(seed, count)(connection)
    if end:
        connection.shutdown(socket.SHUT_WR)


def check_pattern(connection, seed, count, end=True):
    """The next count bytes must be that seed's, and the end must follow."""
    pattern, left = Pattern(seed), count
    while left:
        piece = connection.recv(min(left, 1 << 18))
        if not piece:
            raise AssertionError(f"the stream ended {left} bytes early")
        pattern.check(piece)
        left -= len(piece)
    if end and (piece := connection.recv(1)):
        raise AssertionError(f"{piece!r} after all that was sent")


def ask(address, question=b"?", count=None):
    """What an echo says to it, over a connection of its own."""
    with connect(address) as client:
        client.sendall(question)
        answer = receive_exactly(client, count or len(question))
        client.shutdown(socket.SHUT_WR)
        harness.receive_until_end(client)
    return answer


def make_key(folder, name="key", kind="ed25519"):
    """A key pair; the private one's path, the public line."""
    path = os.path.join(folder, name)
    done = run([KEYGEN, "-q", "-t", kind, "-N", "", "-C", f"{name}@example.org", "-f", path])
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    with open(path + ".pub", encoding="ascii") as file:
        return path, file.read()


# --- test cases ------------------------------------------------------------

class SshCase(Case):
    """Tests with ssh daemons of their own."""

    def start_ssh_daemon(self, *options, **how):
        daemon = SshDaemon(*options, **how)
        self.addCleanup(daemon.clean_up)
        return daemon

    def serve(self, handle=None, **how):
        service = Service(handle, **how)
        self.addCleanup(service.close)
        return service

    def begin(self, kind, *arguments, daemon=None, **how):
        """A client of that kind that was started, and will be ended."""
        client = kind(daemon or self.daemon, *arguments, **how)
        self.addCleanup(client.clean_up)
        return client

    def carry(self, *targets, kind=Ssh, daemon=None, **how):
        """A carrier that has its addresses."""
        return self.begin(kind, *targets, daemon=daemon, **how).ready()

    def connect(self, address, **how):
        connection = connect(address, **how)
        self.addCleanup(connection.close)
        return connection

    def both(self, address, service, **how):
        """A client's connection and the server's end of it."""
        client = self.connect(address, **how)
        client.sendall(b"?")
        server = service.accept()
        assert receive_exactly(server, 1) == b"?"
        server.sendall(b"!")
        assert receive_exactly(client, 1) == b"!"
        return client, server

    def assert_no_more_memory(self, before_kib, most_kib):
        """Than so much more. Sanitizers keep what was freed, and tell nothing then."""
        if not harness.is_sanitized():
            self.assertLess(self.daemon.resident_kib() - before_kib, most_kib)

    def assert_serves(self, daemon=None):
        """Somebody new gets in, and through, without delay."""
        began = time.monotonic()
        with Service(echo) as service, Ssh(daemon or self.daemon, service.port) as address:
            self.assertEqual(ask(address, b"still here"), b"still here")
        self.assertLess(time.monotonic() - began, 30)


class SshDaemonCase(SshCase):
    """Tests that share a daemon, which must be as it was at the start when
    they are done, and end well."""

    options = ()
    pairs = 64
    how = {}

    @classmethod
    def setUpClass(cls):
        cls.daemon = SshDaemon("--drain", "1", "--reserve", "0", "--attach-timeout", "10", *cls.options,
                               pairs=cls.pairs, **cls.how)

    @classmethod
    def tearDownClass(cls):
        cls.daemon.stop()
