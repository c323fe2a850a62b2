"""processes: starting programs and looking at what they use.

Whatever is started here dies with bench.py, and is ended by its own pid."""

import ctypes
import os
import re
import select
import signal
import socket
import subprocess
import time

STAGE_LIMIT_S = 300     # no step of a program takes so long, unless it hangs
START_LIMIT_S = 10

SETTLED_KIB = 512       # the machine's memory is at rest: it changes by less
SETTLE_STEP_S = 0.5     # in this time,
SETTLE_LIMIT_S = 5      # or it never is, for other programs run


class Failure(Exception):
    """A measurement that can't be had; the text says why."""


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)      # PR_SET_PDEATHSIG


class Program:
    """A program that runs beside bench.py. Its standard error goes to a file."""

    def __init__(self, arguments, folder):
        self.name = os.path.basename(arguments[0])
        self._log_path = os.path.join(folder, self.name + ".log")
        with open(self._log_path, "ab") as log:
            self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=log,
                                            preexec_fn=_die_with_parent)
        self.pid = self.process.pid
        self._text = b""

    def log(self):
        with open(self._log_path, encoding="utf-8", errors="replace") as log:
            return log.read()[-2000:].strip()

    def line(self, limit_s=STAGE_LIMIT_S):
        """The next line of its output."""
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._text:
            left_s = max(0, deadline - time.monotonic())
            if not select.select([self.process.stdout], [], [], left_s)[0]:
                raise Failure(f"{self.name}: no answer in {limit_s} s")
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                raise Failure(f"{self.name} ended early: {self.log()}")
            self._text += piece
        line, self._text = self._text.split(b"\n", 1)
        return line.decode()

    def stage(self, name):
        """Waits until it is at that stage; the numbers that it tells there."""
        word, *pairs = self.line().split()
        if word != name:
            raise Failure(f"{self.name} is at {word!r} instead of {name!r}")
        return {key: float(value) for key, value in (pair.split("=") for pair in pairs)}

    def go_on(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def finish(self):
        """Lets it go on to its end, which must be a good one."""
        self.go_on()
        if self.process.wait(STAGE_LIMIT_S) != 0:
            raise Failure(f"{self.name} failed: {self.log()}")

    def whole_output(self):
        """Of a program that ends by itself, which must be a good end."""
        try:
            text = self.process.communicate(timeout=STAGE_LIMIT_S)[0]
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name}: no end in {STAGE_LIMIT_S} s") from None
        if self.process.returncode != 0:
            raise Failure(f"{self.name} failed: {self.log()}")
        return text.decode()

    def end(self):
        """Harmless to repeat."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(START_LIMIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.end()


# --- ports

class PortBlock:
    """Ports that are free now, none of them twice, below the ones that the
    kernel gives to outgoing connections."""

    def __init__(self, low, high):
        self._ports = iter(range(low, high))

    def take(self):
        for port in self._ports:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                    return port
                except OSError:
                    continue
        raise Failure("no free port")


def listens(port):
    """Whether somebody listens there, without connecting."""
    wanted = f":{port:04X}"
    with open("/proc/net/tcp", encoding="ascii") as table:
        return any(fields[3] == "0A" and fields[1].endswith(wanted)
                   for fields in (line.split() for line in table))


def wait_until(condition, what, limit_s=START_LIMIT_S):
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(f"not within {limit_s} s: {what}")
        time.sleep(0.02)


# --- what processes and the machine use

def family(pid):
    """The process and all that descend from it."""
    pids = [pid]
    for parent in pids:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children", encoding="ascii") as children:
                    pids += [int(child) for child in children.read().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pids


def cpu_s(pids):
    """Processor time that the processes have used, all their threads included,
    those that have ended too. In nanoseconds, where /proc/PID/stat has ticks."""
    def clock_of(pid):
        return (~pid << 3) | 2      # as clock_getcpuclockid(3) makes it

    return sum(time.clock_gettime(clock_of(pid)) for pid in pids)


def busy_percent(seconds=1):
    """How busy the machine's processors are while bench.py does nothing."""
    def times():
        with open("/proc/stat", encoding="ascii") as stat:
            values = [int(value) for value in stat.readline().split()[1:9]]
        return sum(values), values[3] + values[4]       # all, and idle or waiting for disks

    total_before, idle_before = times()
    time.sleep(seconds)
    total, idle = times()
    return 100 * (1 - (idle - idle_before) / (total - total_before))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def _kib(path):
    with open(path, encoding="ascii") as file:
        return {key: int(value) for key, value in re.findall(r"(\w+):\s+(\d+) kB", file.read())}


def process_kib(pid, what="Pss"):
    """Memory that the process alone would give back (proportional set size); of it,
    what no file holds, as Pss_Anon."""
    return _kib(f"/proc/{pid}/smaps_rollup")[what]


def machine_kib():
    """All memory of the machine that is in use, but for the page cache. Nothing
    escapes it, which can't be said of a sum of what the kernel lists by kind:
    the 32 KiB that each thread keeps to send from are nowhere in /proc/meminfo.

    Free pages that wait in a processor's own list are free, though not MemFree."""
    memory = _kib("/proc/meminfo")
    with open("/proc/zoneinfo", encoding="ascii") as zones:
        listed = sum(int(count) for count in re.findall(r"^\s+count: +(\d+)$", zones.read(),
                                                        re.MULTILINE))
    return (memory["MemTotal"] - memory["MemFree"] - memory["Buffers"] - memory["Cached"]
            - listed * os.sysconf("SC_PAGE_SIZE") // 1024)


def settled_machine_kib():
    """The same, once the kernel has put away what was closed just before: it
    frees some things late."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    before = machine_kib()
    while True:
        time.sleep(SETTLE_STEP_S)
        now = machine_kib()
        if abs(now - before) < SETTLED_KIB or time.monotonic() > deadline:
            return now
        before = now
