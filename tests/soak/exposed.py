"""exposed: the command tristero-tunnel expose in front of a service in this process."""

import collections
import contextlib
import json
import os
import re
import signal
import tempfile
import threading
import time

import harness
from expose_harness import address_of_url, children_of
from harness import WAIT_S, wait_until
from life import Wrong
from ssh_harness import Service
from tunnels_of_many import Cuts, Reception

TCP_TUNNELS = 3
PIPES_MOST = 3 + 2 * 2 * TCP_TUNNELS    # two ends for each direction, and its standard streams
STEADY_S = 31                   # expose takes connections of 30 seconds for steady


def memory_kib(program):
    """But for what files hold, of which others have their share, or not any more."""
    with open(f"/proc/{program.pid}/smaps_rollup", encoding="ascii") as rollup:
        return int(re.search(r"\nPss_Anon:\s+(\d+)", rollup.read())[1])


def _link(path):
    try:
        return os.readlink(path)
    except FileNotFoundError:       # closed meanwhile
        return ""


class Exposed(harness.Program):
    """Its events are read by a thread. cuts: of its connections to the proxy, and its service."""

    def __init__(self, daemon, backend, connections=1):
        self.daemon, self.backend = daemon, backend
        self.cuts = Cuts()
        self.reception = Reception(may_be_cut_short=backend == "ssh")
        self._services = [Service(self.reception.arrive)]
        self._folder = tempfile.TemporaryDirectory(prefix="tristero-soak-")
        self._changed, self._losing = threading.Condition(), threading.Lock()
        self._lost_at = -STEADY_S
        self._told = collections.Counter()      # events by their kind
        self._addresses = []                    # by tcp those that no client was given, else the last one
        self._last_told = collections.deque(maxlen=8 * TCP_TUNNELS)     # (which event it was, address)
        options = {"tcp": ("--tunnels", TCP_TUNNELS), "webmux": ("--connections", connections)}
        super().__init__([harness.TUNNEL, "--proxy", daemon.url, "expose", "--json", "--backend", backend,
                          *map(str, options.get(backend, ())), str(self.service.port)],
                         env={"TMPDIR": self._folder.name})
        self._reading = harness.in_thread(self._read)

    def _read(self):
        for line in self.process.stdout:
            event = json.loads(line)
            with self._changed:
                if event["event"] == "address":
                    if self.backend != "tcp":
                        self._addresses.clear()
                    self._addresses.append(address_of_url(event["url"])[1])
                    self._last_told.append((self._told["address"], self._addresses[-1]))
                self._told[event["event"]] += 1
                self._changed.notify_all()

    def _wait_for(self, condition, what):
        """With the lock."""
        if not self._changed.wait_for(condition, WAIT_S):
            raise Wrong(f"not within {WAIT_S} s: {what}, of {dict(self._told)}; {self.errors()}")

    def address(self):
        """For one client; others may come there, too, unless it is by tcp."""
        with self._changed:
            self._wait_for(lambda: self._addresses, "an address is told")
            return self._addresses.pop(0) if self.backend == "tcp" else self._addresses[0]

    def has_address(self):
        with self._changed:
            return self._told["address"] > 0

    def ready(self):
        """All addresses are told."""
        with self._changed:
            self._wait_for(lambda: self._told["address"] >= (TCP_TUNNELS if self.backend == "tcp" else 1),
                           "the addresses are told")
        return self

    # --- what happens to it

    def is_steady(self):
        """Its connections have lasted, so that it will not wait for long after a loss."""
        return time.monotonic() - self._lost_at > STEADY_S

    def lose_proxy(self):
        """Cuts its connections to the proxy, and waits until it has others."""
        with self._losing, self.cuts.cutting(), self._changed:
            before = self._told.copy()
            self._lost_at = time.monotonic()
            if self.backend == "ssh":
                if self._kill_ssh():
                    self._wait_for(lambda: self._came_back(before), "it is attached again")
            elif ports := self._cut():
                if self.backend == "webmux":
                    self._wait_for(lambda: self._came_back(before), "it is attached again")
                else:
                    self._replace_addresses(before["address"], {port + 1 for port in ports})

    def _replace_addresses(self, told_before, dead_ports):
        """Those of tunnels that were cut may still be told."""
        def has_new_ones():
            new = [address for number, address in self._last_told
                   if number >= told_before and address[1] not in dead_ports]
            return len(new) >= TCP_TUNNELS

        self._wait_for(has_new_ones, "new addresses")
        self._addresses = [address for address in self._addresses if address[1] not in dead_ports]

    def _came_back(self, before):
        return any(self._told[kind] > before[kind] for kind in ("attached", "moved"))

    def has_moved(self):
        with self._changed:
            return self._told["moved"] > 0

    def _kill_ssh(self):
        """Whether there was one."""
        children = children_of(self.pid)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        return bool(children)

    def _cut(self):
        """The tunnels' ports at the proxy; none where that may not be."""
        ports = set()

        def leads_to_tunnel(peer):
            if self.daemon.ports.low <= peer[1] <= self.daemon.ports.high:
                ports.add(peer[1])
            return peer[1] in ports

        with contextlib.suppress(PermissionError):
            harness.cut_connections(self.pid, leads_to_tunnel, harness.break_off)
        return ports

    def stand_still(self, seconds):
        """What relays: the command, or its ssh."""
        pids = children_of(self.pid) if self.backend == "ssh" else [self.pid]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in pids:
                os.kill(pid, number)
            time.sleep(seconds if number == signal.SIGSTOP else 0)

    @contextlib.contextmanager
    def service_away(self):
        """Whoever has come before stays with it."""
        with self.cuts.cutting():
            self.service.stop_listening()
            yield
            self._services.append(Service(self.reception.arrive, port=self.service.port))

    @property
    def service(self):
        return self._services[-1]

    # --- what is left of it

    def counts(self):
        """Of pipes some may rest, for the next bulk that passes."""
        files = [_link(f"/proc/{self.pid}/fd/{name}") for name in os.listdir(f"/proc/{self.pid}/fd")]
        pipes = sum(file.startswith("pipe:") for file in files)
        return {"threads": len(os.listdir(f"/proc/{self.pid}/task")),
                "descriptors": len(files) - pipes, "too many pipes": max(0, pipes - PIPES_MOST)}

    def note_counts(self):
        """What it must have again whenever it is at rest."""
        self._counts_at_rest = wait_until(self.steady_counts, "expose is at rest")

    def expect_rest(self):
        deadline = time.monotonic() + WAIT_S
        while self.counts() != self._counts_at_rest:
            if time.monotonic() > deadline:
                raise Wrong(f"expose by {self.backend} has {self.counts()} and had {self._counts_at_rest}; "
                            f"told: {dict(self._told)}")
            time.sleep(0.02)

    def stop(self):
        """By SIGTERM; it must leave nothing."""
        children = children_of(self.pid)
        with self.cuts.cutting():
            may_be_killed = not self.has_address()      # it may not have come to hear signals
            self.signal(signal.SIGTERM)
            status = self.wait()
        if status != 0 and not (may_be_killed and status == -signal.SIGTERM):
            raise Wrong(f"exit status {status} after SIGTERM: {self.errors()}")
        self._reading.result(WAIT_S)
        if self.errors():
            raise Wrong(f"expose has complained: {self.errors()}")
        wait_until(lambda: not any(os.path.exists(f"/proc/{child}") for child in children),
                   "ssh has ended with expose")
        if status == 0 and (left := os.listdir(self._folder.name)):
            raise Wrong(f"left behind in its folder: {left}")

    def clean_up(self):
        for service in self._services:
            service.close()
        super().clean_up()
        self._folder.cleanup()
