"""report: the samples of a benchmark, as a table with verdicts, as JSON and as
a picture."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time

from plot import draw

DAEMON = "daemon"

# name, unit, title, decimals
MEASURES = {
    "bulk": ("GiB/s", "bulk, one connection, one way", 2),
    "cpu": ("s/GiB", "processor time of the relay, bulk", 2),
    "p50": ("us", "ping-pong of 64 bytes, p50", 1),
    "p99": ("us", "ping-pong of 64 bytes, p99", 1),
    "cycles": ("1/s", "open, attach, 1 KiB each way, close", 0),
    "cycles failed": ("", "... of which failed", 0),
    "idle attached": ("KiB", "memory of an idle attached tunnel, all in", 1),
    "idle attached process": ("KiB", "... of which in the process", 1),
    "idle relaying": ("KiB", "memory of an idle relaying tunnel, all in", 1),
    "descriptors": ("", "descriptors of an idle relaying tunnel", 2),
    "open first": ("us", "opening one of the first 100 tunnels", 0),
    "open last": ("us", "opening one of the last 100 tunnels", 0),
    "load rate": ("MiB/s", "all tunnels talking at once", 0),
    "load failed": ("", "... tunnels that lost a byte or failed", 0),
    "load descriptors": ("", "... descriptors left behind", 0),
    "load peak": ("MiB", "... memory that this takes in the process", 1),
    "load kept": ("%", "... of it not given back after a crowd", 1),
    "load growth": ("MiB", "... kept after the last crowd, not the first", 1),
}

SSH_CIPHERS = {"chacha20": "chacha20-poly1305@openssh.com", "aes128-gcm": "aes128-gcm@openssh.com"}

# Of relays that carry many streams, as carrying.py measures them. whose: which
# processes the time is of.
CARRYING_MEASURES = {
    "down": ("MiB/s", "one stream, to the client", 0),
    "cpu down": ("s/GiB", "... processor time of {whose}", 2),
    "up": ("MiB/s", "one stream, to the server", 0),
    "cpu up": ("s/GiB", "... processor time of {whose}", 2),
    "many": ("MiB/s", "100 streams at once, in all", 0),
    "cpu many": ("s/GiB", "... processor time of {whose}", 2),
    "http": ("1/s", "HTTP, 100 connections kept", 0),
    "cpu http": ("us", "... processor time of {whose}", 1),
    "http failed": ("", "... requests that failed", 0),
    "http close": ("1/s", "HTTP, a connection each", 0),
    "cpu http close": ("us", "... processor time of {whose}", 1),
    "http close failed": ("", "... requests that failed", 0),
    "p50": ("us", "ping-pong of 64 bytes, p50", 1),
}
SSH_TARGETS = {"down": (">=", 1.2), "up": (">=", 1.2), "many": (">=", 1.2), "http": (">=", 1.0)}

# What must be reached, as a ratio to another relay ...
RATIO_TARGETS = {
    ("bulk", "haproxy"): (">=", 1.0),
    ("bulk", "nginx stream"): (">=", 1.5),
    ("bulk", "OpenSSH -R"): (">=", 4.0),
    ("cpu", "haproxy"): ("<=", 1.0),
    ("p50", "read/write"): ("<=", 1.05),
    ("p50", "haproxy"): ("<=", 1.0),
    ("p99", "read/write"): ("<=", 1.05),
    ("p99", "haproxy"): ("<=", 1.0),
}

# ... or by itself. For a failure the worst sample counts, not the median.
TARGETS = {
    "cycles": (">=", 1500),
    "cycles failed": ("worst", 0),
    "idle attached": ("<=", 40),
    "descriptors": ("<=", 2),
    "load failed": ("worst", 0),
    "load descriptors": ("worst", 0),
    "load kept": ("worst", 10),         # an allocator's and the threads' caches
    "load growth": ("<=", 2),           # may breathe, but not grow
}

# Of webmux alone.
WEBMUX_MEASURES = {
    "stalled": ("%", "what one stream that stands still costs 99 others", 1),
    "link down": ("MiB/s", "one stream over a round trip of 100 ms, to the client", 1),
    "link up": ("MiB/s", "one stream over a round trip of 100 ms, to the server", 1),
    "streams": ("1/s", "100,000 streams, one after another", 0),
    "streams failed": ("", "... of which failed", 0),
    "streams proxy": ("KiB", "... by which the proxy has grown, after the first tenth", 0),
    "streams agent": ("KiB", "... by which the agent has grown, after the first tenth", 0),
    "streams descriptors": ("", "... descriptors left behind, by both", 0),
}
WEBMUX_TARGETS = {
    ("down", "OpenSSH -R"): (">=", 2.0),
    ("up", "OpenSSH -R"): (">=", 2.0),
    ("http", "OpenSSH -R"): (">=", 2.0),
    ("http", "haproxy"): (">=", 0.6),
    ("http close", "OpenSSH -R"): (">=", 1.5),
    ("p50", "OpenSSH -R"): ("<=", 1.0),
    ("link down", "direct"): (">=", 0.9),
    ("link up", "direct"): (">=", 0.9),
}


def add_measures(measures, name, label, whose):
    """name: of such a measure, with {} for what is measured; label: before its title."""
    for measure, (unit, title, decimals) in measures.items():
        prefix = "" if title.startswith("...") else label
        MEASURES[name.format(measure)] = (unit, prefix + title.format(whose=whose), decimals)
        if measure.endswith("failed"):
            TARGETS[name.format(measure)] = ("worst", 0)


for cipher in SSH_CIPHERS:
    add_measures(CARRYING_MEASURES, f"ssh {{}} {cipher}", f"ssh {cipher}: ", "the proxy")
    for measure, target in SSH_TARGETS.items():
        RATIO_TARGETS[f"ssh {measure} {cipher}", "sshd"] = target
MEASURES["ssh memory"] = ("KiB", "memory of an idle ssh tunnel, in the proxy", 1)
MEASURES["ssh memory own"] = ("KiB", "... of it held by no file", 1)
RATIO_TARGETS["ssh memory", "sshd"] = ("<=", 0.25)
add_measures(CARRYING_MEASURES | WEBMUX_MEASURES, "webmux {}", "webmux: ", "proxy and agent")
for (measure, relay), target in WEBMUX_TARGETS.items():
    RATIO_TARGETS[f"webmux {measure}", relay] = target
TARGETS["webmux stalled"] = ("<=", 5)
TARGETS["webmux streams proxy"] = TARGETS["webmux streams agent"] = ("<=", 64)
TARGETS["webmux streams descriptors"] = ("worst", 0)

# Opening the last costs what opening the first does, as far as noise lets one see.
FLAT = ("<=", 1.15)


def holds(value, relation, bound):
    return value >= bound if relation == ">=" else value <= bound


def met(value, target, decimals=2):
    """Compares what the table shows: nobody should see 1.00 fail against 1.00."""
    return "met" if holds(round(value, decimals), *target) else "NOT MET"


class Results:
    def __init__(self):
        self._samples = {}      # measure -> relay -> list
        self._missing = {}      # relay -> why
        self._notes = []

    def add(self, measure, relay, value):
        self._samples.setdefault(measure, {}).setdefault(relay, []).append(value)

    def miss(self, relay, why):
        self._missing[relay] = why

    def note(self, text):
        self._notes.append(text)

    def note_machine(self, packages):
        self.note(f"{time.strftime('%F')}, {os.cpu_count()} processors, "
                  f"Linux {platform.release()}")
        self.note(", ".join(f"{package} {version_of(package)}"
                            for package in dict.fromkeys(packages)))

    def median(self, measure, relay):
        return statistics.median(self._samples[measure][relay])

    def rows(self):
        for measure, (unit, title, decimals) in MEASURES.items():
            samples = self._samples.get(measure, {})
            for relay in sorted(samples, key=lambda name: (name != DAEMON, name)):
                yield self._row(measure, relay, f"{title}{', ' if unit else ''}{unit}", decimals)

    def _row(self, measure, relay, title, decimals):
        samples = self._samples[measure][relay]
        ratio, target, verdict = "", "", ""
        if relay == DAEMON:
            title_shown = title
            if measure in TARGETS:
                target, verdict = self._judge(measure, samples, decimals)
            elif measure == "open last":
                value = self.median(measure, DAEMON) / self.median("open first", DAEMON)
                ratio, target, verdict = f"{value:.2f}", "flat", met(value, FLAT)
        else:
            title_shown = ""
            other = self.median(measure, relay)
            value = self.median(measure, DAEMON) / other if other else None     # of failures
            ratio = f"{value:.2f}" if other else ""
            if (measure, relay) in RATIO_TARGETS:
                relation, bound = RATIO_TARGETS[measure, relay]
                target, verdict = f"{relation} {bound:.2f}", met(value, (relation, bound))
        return (title_shown, relay, f"{statistics.median(samples):.{decimals}f}",
                f"{min(samples):.{decimals}f} - {max(samples):.{decimals}f}", ratio, target,
                verdict)

    @staticmethod
    def _judge(measure, samples, decimals):
        relation, bound = TARGETS[measure]
        if relation == "worst":
            return f"<= {bound}" if bound else "0", met(max(samples), ("<=", bound))
        return f"{relation} {bound}", met(statistics.median(samples), (relation, bound), decimals)

    def table(self):
        heads = ("measure", "relay", "median", "min - max", "daemon/relay", "target", "is")
        rows = [heads, *self.rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
        right = {2, 3, 4, 5}        # the numbers

        def line(row):
            cells = (cell.rjust(width) if i in right else cell.ljust(width)
                     for i, (cell, width) in enumerate(zip(row, widths)))
            return "  ".join(cells).rstrip()

        lines = [line(heads), "  ".join("-" * width for width in widths)]
        lines += [line(row) for row in rows[1:]]
        lines += [f"missing: {relay}: {why}" for relay, why in self._missing.items()]
        lines += [f"note: {note}" for note in self._notes]
        return "\n".join(lines)

    def write(self, sizes):
        table = self.table()
        print(table)
        save("bench.txt", table + "\n")
        save("bench.json", json.dumps({"sizes": sizes, "notes": self._notes,
                                       "missing": self._missing, "samples": self._samples},
                                      indent=1) + "\n")
        panels = [(f"{MEASURES[name][1]}, {MEASURES[name][0]}", self._samples[name])
                  for name in ("bulk", "cpu", "p50", "p99") if name in self._samples]
        if panels:
            save("bench.svg", draw(panels, highlight=DAEMON))


def version_of(package):
    """As Debian's package manager tells it."""
    try:
        told = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], check=False,
                              capture_output=True, text=True)
    except OSError:
        return "of unknown version"
    return told.stdout or "missing"


def say(what):
    print(time.strftime("%T ") + what, file=sys.stderr, flush=True)


def save(name, text):
    with open(name, "w", encoding="utf-8") as file:
        file.write(text)
