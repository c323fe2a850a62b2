#!/usr/bin/python3 -B
"""The completions of bash, zsh and fish offer what the command takes, no more and no less."""

import os
import re
import shlex
import shutil
import unittest

import harness
from harness import SRCDIR, TUNNEL, run

FOLDER = os.path.join(SRCDIR, "clients", "completions")
SUBCOMMANDS = ("open", "address", "expose", "hostkey")
PATH = {"PATH": os.path.dirname(TUNNEL) + ":" + os.environ["PATH"]}


def options_of(subcommand):
    """All that --help says goes with it."""
    wanted = set()
    for line in run([TUNNEL, "--help"]).stdout.splitlines():
        match = re.match(r"  (--[a-z-]+) ", line)
        of = re.findall(r"\[([a-z]+)\]", line)
        if match and (not of or subcommand in of):
            wanted.add(match[1])
    return wanted


class _Shell:
    """shell is None where it is not installed; offers() is what it offers at the end of
    the words."""

    def test_options_are_those_of_the_subcommand(self):
        for subcommand in SUBCOMMANDS:
            offered = {each for each in self.offers(subcommand, "--") if each.startswith("--")}
            self.assertEqual(offered, options_of(subcommand))
        self.assertIn("--dir", options_of("expose"))

    def test_the_subcommands_are_all_offered(self):
        self.assertEqual(set(self.offers("")) & set(SUBCOMMANDS), set(SUBCOMMANDS))

    def test_a_backend_is_one_that_expose_takes(self):
        offered = self.offers("expose", "--backend", "")
        done = run([TUNNEL, "--proxy", "http://127.0.0.1:1/", "expose", "80", "--backend", "x"])
        names = re.search(r"expected (\w+), (\w+) or (\w+)", done.stderr)
        for name in names.groups():
            self.assertIn(name, offered)


@unittest.skipUnless(shutil.which("bash"), "there is no bash")
class Bash(_Shell, harness.Case):
    def offers(self, *words):
        script = f"""
            source {shlex.quote(FOLDER)}/tristero-tunnel.bash
            compopt() {{ :; }}
            COMP_WORDS=({shlex.join([TUNNEL, *words])})
            COMP_CWORD={len(words)}
            _tristero_tunnel {shlex.join([TUNNEL, words[-1], words[-2] if len(words) > 1 else TUNNEL])}
            printf '%s\\n' "${{COMPREPLY[@]}}" """
        done = run(["bash", "--norc", "-c", script])
        self.assertEqual(done.stderr, "")
        return done.stdout.split("\n")

    def test_files_and_folders_are_offered_where_they_go(self):
        folder = self.temporary_folder()
        os.mkdir(os.path.join(folder, "a folder"))
        with open(os.path.join(folder, "a file"), "w", encoding="ascii"):
            pass
        for option, wanted in (("--dir", {"a folder"}), ("--config", {"a folder", "a file"})):
            offered = self.offers("expose", option, folder + "/")
            self.assertEqual({os.path.basename(each) for each in offered if each}, wanted)


@unittest.skipUnless(shutil.which("zsh"), "there is no zsh")
class Zsh(_Shell, harness.Case):
    def offers(self, *words):
        """What it gives to _arguments, which does the rest."""
        script = f"""
            setopt extendedglob
            _call_program() {{ shift; "$@" }}
            _arguments() {{ print -rl -- "$@" }}
            fpath=({shlex.quote(FOLDER)})
            autoload -U _tristero-tunnel
            words=({shlex.join([TUNNEL, *words])})
            CURRENT={len(words) + 1}
            _tristero-tunnel"""
        done = run(["zsh", "-f", "-c", script])
        self.assertEqual(done.stderr, "")
        return re.findall(r"^--[a-z-]+|\b[a-z]+\b", done.stdout, re.MULTILINE)


@unittest.skipUnless(shutil.which("fish"), "there is no fish")
class Fish(_Shell, harness.Case):
    def offers(self, *words):
        line = "tristero-tunnel " + " ".join(words)
        done = run(["fish", "--no-config", "-c", f"source {shlex.quote(FOLDER)}/tristero-tunnel.fish; "
                    f"complete -C {shlex.quote(line)}"], env={**PATH, "HOME": self.temporary_folder()})
        self.assertEqual(done.stderr, "")
        return [each.split("\t")[0] for each in done.stdout.splitlines()]


if __name__ == "__main__":
    harness.main()
