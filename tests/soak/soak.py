#!/usr/bin/python3 -B
"""soak: random lives of tunnels for some minutes, and nothing left of them in the end.

    SOAK_MINUTES    how long lives are begun; a fifth of a minute by default
    SOAK_SEED       of what the lives are; a random one by default, which is printed
    SOAK_WORKERS    how many lives at once

Some workers play lives of the kinds that the files lives_*.py have, against one daemon: of
tunnels by tcp, webmux and ssh, and of the command expose. There are all sizes and either order
of coming, half closes, resets, slow readers, what is frozen, thawed and killed, ends that never
come, servers that are lost and come back, strangers, bad and slow calls, while the main thread
has the configuration read again. Each byte is compared with what it must be, and each end with
what it must look like. At the end the daemon, and an expose by each backend that has lasted as
long as the lives, must be what they were after a short warm-up. The first failure ends the soak.

The seed decides what each worker plays; how the workers' lives fall together is up
to the machine."""

import collections
import os
import random
import re
import signal
import tempfile
import threading
import time
import traceback

from life import ATTACH_TIMEOUT_S, LARGEST, LINGER_S, RESERVE_S, Life, TooLate, Wrong   # first: finds the next
import lives_expose
import lives_ssh
import lives_tcp
import lives_webmux
from exposed import Exposed, memory_kib
from harness import TUNNELD, Daemon, Tunnel, fault_of, in_thread, is_sanitized, rpc
from ssh_harness import KEYSCAN, SSH, SshDaemon

MINUTES = float(os.environ.get("SOAK_MINUTES") or 1 / 5)
SEED = int(os.environ.get("SOAK_SEED") or random.randrange(1 << 32))
WORKERS = int(os.environ.get("SOAK_WORKERS") or 8)
WARM_UP_SHARE = 0.25            # of the time, and at most a minute
WARM_UP_MOST_S = 60
LARGEST_HERE = LARGEST if MINUTES >= 1 else LARGEST // 8        # with small buffers some take long
LOOK_S = 0.25
TOLD_EACH_S = 60                # what is there, in a soak of minutes
PAIRS = min(127, 12 * WORKERS + 16)     # some for each life, and for those that have just ended
# May stay of the lives after the warm-up: 128 KiB in each heap of the C library's (see
# give_memory_back in server/main.c), of which not all have come into use by then, and some. A
# warm-up of seconds has not seen the worst that lies between blocks in use.
GROWTH_KIB = 1024 + 8 * os.cpu_count() * 128 if MINUTES >= 1 else 16 << 10

# Whatever else stands in the log, of at least a warning's gravity, is a failure.
EXPECTED_LOG = re.compile(r"\S+ (info .*|warning tunnel \d+ turned away "
                          r"(\(hidden\), which did not open it|\d+ strangers in all))")


class Tally:
    """What happened; shared by the workers."""

    def __init__(self):
        self._lock = threading.Lock()
        self.lives = collections.Counter()
        self.too_late = 0
        self.bytes = 0
        self.failures = []

    def add_bytes(self, count):
        with self._lock:
            self.bytes += count

    def add_life(self, name):
        with self._lock:
            self.lives[name] += 1

    def add_too_late(self):
        with self._lock:
            self.too_late += 1

    def add_failure(self, text):
        with self._lock:
            self.failures.append(text)


def name_of(kind):
    backend = kind.play.__module__.removeprefix("lives_")
    return f"{backend}: {kind.play.__name__.replace('_', ' ')}"


def can_ssh():
    """Whether the daemon was built with it, and there is somebody to come."""
    with open(TUNNELD, "rb") as program:
        return SSH and KEYSCAN and b"was built without it" not in program.read()


class Soak:
    """The daemon, the lives that it has, and the account of what is left of them."""

    def __init__(self):
        self.tally = Tally()
        self.peak = collections.Counter()
        self.lasting = []               # of expose, one for each backend
        self.kinds = lives_tcp.KINDS + lives_webmux.KINDS + lives_expose.KINDS
        self.backends = ["webmux", "tcp"]       # of expose
        kind, options = Daemon, ()
        if can_ssh():
            self.kinds = self.kinds + lives_ssh.KINDS
            self.backends.append("ssh")
            kind, options = SshDaemon, ("--ssh-handshakes-per-address", "0")
        self._settings = tempfile.NamedTemporaryFile("w", prefix="tristero-soak-")
        self.daemon = kind(*options, "--config", self._settings.name, "--drain", "2",
                           "--linger", str(LINGER_S), "--attach-timeout", str(ATTACH_TIMEOUT_S),
                           "--reserve", str(RESERVE_S), pairs=PAIRS)
        if kind is SshDaemon:
            assert self.daemon.known_hosts      # before many ask for it at once
        # not earlier, since where ssh listens is told among the rest
        self._settings.write("log-level = warning\n")
        self._settings.flush()
        self.daemon.signal(signal.SIGHUP)
        self._began = time.monotonic()

    # --- the lives

    def play(self, number, until):
        """What one worker does."""
        chance = random.Random(f"{SEED} {number}")
        while not self.tally.failures:
            kinds = [kind for kind in self.kinds if time.monotonic() + kind.at_least_s < until]
            if time.monotonic() >= until or not kinds:
                return
            kind = chance.choices(kinds, [kind.weight for kind in kinds])[0]
            seed = chance.randrange(1 << 32)
            try:
                with Life(self, random.Random(seed), LARGEST_HERE) as life:
                    kind.play(life)
                self.tally.add_life(name_of(kind))
            except TooLate:
                self.tally.add_too_late()
            except BaseException:       # told by the main thread, which ends the soak
                self.tally.add_failure(f"worker {number}, {name_of(kind)}: {traceback.format_exc()}")

    def run_workers(self, seconds, first):
        """Watches them, and has the configuration read again now and then. Returns the memory of
        the daemon and of each expose that has lasted, once they are at rest."""
        self.start_lasting()
        until = time.monotonic() + seconds
        chance = random.Random(f"{SEED} {first} main")
        workers = [in_thread(self.play, first + number, until) for number in range(WORKERS)]
        while any(worker.is_alive() for worker in workers):
            time.sleep(LOOK_S)
            self.look()
            if chance.random() < 0.1:
                self.daemon.signal(signal.SIGHUP)
        for worker in workers:
            worker.result()
        if self.tally.failures:
            raise Wrong("\n".join(self.tally.failures) + f"\nthe log:\n{self.daemon.errors()[-4000:]}")
        memory = self.end_lasting()
        self.daemon.expect_rest()
        return {"the daemon": memory_kib(self.daemon), **memory}

    def start_lasting(self):
        self.lasting = [Exposed(self.daemon, backend, connections=2) for backend in self.backends]
        for each in self.lasting:
            each.ready().note_counts()

    def end_lasting(self):
        """Their memory at rest, at which they must come."""
        memory = {}
        for each in self.lasting:
            each.expect_rest()
            memory[f"expose by {each.backend}"] = memory_kib(each)
            each.stop()
            each.clean_up()
        return memory

    # --- what is left of them

    def look(self):
        counts = self.daemon.counts()
        counts["memory"] = memory_kib(self.daemon)
        for what, count in counts.items():
            self.peak[what] = max(self.peak[what], count)
        since_s = time.monotonic() - self._began
        if MINUTES >= 2 and since_s // TOLD_EACH_S > self.peak["minutes"]:
            self.peak["minutes"] = int(since_s // TOLD_EACH_S)
            print(f"after {since_s:.0f} s: {sum(self.tally.lives.values())} lives; {counts}; "
                  f"{ {each.backend: memory_kib(each) for each in self.lasting} }", flush=True)

    def expect_all_pairs(self):
        """Each port pair is to be had again."""
        tunnels = [Tunnel(self.daemon) for _ in range(PAIRS)]
        with rpc(self.daemon.url) as proxy:
            fault = fault_of(proxy.Tunnel.openTunnel)
        if "no free port pair" not in fault.faultString:
            raise Wrong(fault.faultString)
        for tunnel in tunnels:
            tunnel.end()
        self.daemon.expect_rest()

    def expect_quiet_log(self):
        for line in self.daemon.errors().splitlines():
            if not EXPECTED_LOG.fullmatch(line):
                raise Wrong(f"unexpected in the log: {line}")

    def expect_no_growth(self, before, after):
        for program, kib in after.items():
            if kib > before[program] + GROWTH_KIB:
                raise Wrong(f"memory of {program} grew from {before[program]} to {kib} KiB")

    def run(self):
        """Sanitizers keep memory for reasons of their own, so there is no growth to be seen."""
        seconds = MINUTES * 60
        warm_up_s = 0 if is_sanitized() else min(WARM_UP_SHARE * seconds, WARM_UP_MOST_S)
        before = self.run_workers(warm_up_s, 0) if warm_up_s else None
        after = self.run_workers(seconds - warm_up_s, WORKERS)
        self.summarize(before, after)
        if before:
            self.expect_no_growth(before, after)
        self.expect_all_pairs()
        self.expect_quiet_log()
        self.daemon.stop()

    def summarize(self, before, after):
        print(f"{sum(self.tally.lives.values())} lives, {self.tally.too_late} more that the machine was too "
              f"slow for, {self.tally.bytes >> 20} MiB of them whole or as far as they came:")
        for name, count in sorted(self.tally.lives.items()):
            print(f"  {count:7} {name}")
        peak, start = self.peak, self.daemon.start_counts
        for what in ("threads", "descriptors", "listening ports"):
            print(f"{what}: {start[what]} at rest, at most {peak[what]}")
        print(f"memory (Pss_Anon) of the daemon: at most {peak['memory']} KiB")
        for program, kib in after.items():
            earlier = f"{before[program]} after the warm-up, " if before else ""
            print(f"memory of {program} at rest, in KiB: {earlier}{kib} at the end", flush=True)

    def clean_up(self):
        for each in self.lasting:
            each.clean_up()
        self.daemon.clean_up()
        self._settings.close()


def main():
    print(f"soak of {MINUTES:.3g} minutes, {WORKERS} lives at once, SOAK_SEED={SEED}", flush=True)
    soak = Soak()
    try:
        soak.run()
    except BaseException:
        print(f"FAIL soak, SOAK_SEED={SEED}", flush=True)
        raise
    finally:
        soak.clean_up()
    print("PASS soak")


if __name__ == "__main__":
    main()
