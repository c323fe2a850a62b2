#!/usr/bin/python3 -B
"""Runs the daemon as the unit confines it: in the place of TRISTERO_TUNNELD,
with the real one in CONFINED_TUNNELD and the unit in TRISTERO_UNIT. A system
call that the unit would refuse kills the daemon, which no test overlooks.

Of the unit it takes SystemCallFilter, as systemd-analyze resolves its sets, and
RestrictAddressFamilies. RestrictNamespaces makes systemd refuse clone3, whose
flags no filter can see; so does this.
"""

import errno
import os
import socket
import subprocess
import sys

import seccomp


def unit_values(path, key):
    """The words of every line "key=...", in their order."""
    with open(path, encoding="utf-8") as unit:
        for line in unit:
            name, _, value = line.strip().partition("=")
            if name == key:
                yield value.split()


def system_call_sets():
    """{"@set": [its calls and sets]}"""
    # To standard error it says which calls of this kernel it does not know.
    listing = subprocess.run(["systemd-analyze", "syscall-filter"], check=True, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             env={**os.environ, "SYSTEMD_COLORS": "0"})
    sets = {}
    for line in listing.stdout.splitlines():
        if line.startswith("@"):
            members = sets.setdefault(line.strip(), [])
        elif line.startswith("#"):
            members = []            # what the kernel has beyond the sets
        elif line.strip() and not line.strip().startswith("#"):
            members.append(line.strip())
    return sets


def calls_of(word, sets):
    if not word.startswith("@"):
        return {word}
    return set().union(*(calls_of(member, sets) for member in sets[word]))


def allowed_calls(unit):
    sets = system_call_sets()
    allowed = set()
    for words in unit_values(unit, "SystemCallFilter"):
        refused = words[0].startswith("~")
        words[0] = words[0].removeprefix("~")
        named = set().union(*(calls_of(word, sets) for word in words))
        # @default is in every list of what is allowed
        allowed = allowed - named if refused else allowed | named | calls_of("@default", sets)
    return allowed


def confine(unit):
    allowed = allowed_calls(unit)
    families = [getattr(socket, name) for words in unit_values(unit, "RestrictAddressFamilies")
                for name in words]
    if not allowed or not families:
        raise SystemExit(f"{unit} confines too little")
    calls = seccomp.SyscallFilter(seccomp.KILL_PROCESS)
    calls.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    for family in families:
        calls.add_rule(seccomp.ALLOW, "socket", seccomp.Arg(0, seccomp.EQ, family))
    for name in sorted(allowed - {"clone3", "socket"}):
        if seccomp.resolve_syscall(seccomp.Arch.NATIVE, name) >= 0:     # this machine has it
            calls.add_rule(seccomp.ALLOW, name)
    calls.load()


if __name__ == "__main__":
    confine(os.environ["TRISTERO_UNIT"])
    os.execv(os.environ["CONFINED_TUNNELD"], [os.environ["CONFINED_TUNNELD"], *sys.argv[1:]])
