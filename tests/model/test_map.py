#!/usr/bin/python3 -B
"""The model and the code go together: the map on top of tunnel.pml names the
functions there are, and its steps call each other as the functions do."""

import os
import re
import sys
import unittest

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(TOP, "tests", "e2e"))
import harness
WHOLE_FILES = ("relay/relay.c", "relay/tunnel.c", "relay/backend_tcp.c", "relay/duplex.c",
               "relay/port_pool.c", "relay/waker.c")
# Where a step and its function call others in another order or number, and why.
OTHERWISE = {
    "tunnel_accept": "a connection that can't be prepared is gone at once in the model",
    "party_accept": "the model's stranger is closed as such, not as a party's socket",
    "waker_poll": "the model's wait includes poll_once",
    "worker": "the model's worker makes the call that arrives",
    "serve": "the model takes both orders of stopping",
    "relay_free": "the model checks there what must be so by then",
}


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


def functions_of(source):
    """The body of each function, by name."""
    pattern = r"^[a-z][^\n;={}]*?\b(\w+)\([^;{}]*\)\n\{\n(.*?)^\}"
    return {name: body for name, body in re.findall(pattern, source, re.M | re.S)}


def map_of(model, title):
    """The part of the map below that title: functions by file."""
    files = {}
    for line in model[model.index(title):model.index("*/", model.index(title))].splitlines()[1:]:
        entry = re.match(r" \*   (\w+/\w+\.c| {8})\s+([^:]*)", line)
        if not entry:
            if files:
                break
            continue
        if entry[1].strip():
            names = files.setdefault(entry[1], [])
        names += entry[2].split()
    return files


def without_faults(model):
    """As the preprocessor leaves it when no FAULT_ is defined."""
    kept, inside = [], []                       # of each #if: does it concern faults, is it on
    for line in model.splitlines():
        word = re.match(r"#(if|else|endif|elif)", line)
        fault = "FAULT_" in line
        if word and word[1] == "if":
            inside.append([fault, line.startswith("#ifndef") or not fault])
        elif word and word[1] == "elif" and inside[-1][0]:
            pass
        elif word and word[1] == "else" and inside[-1][0]:
            inside[-1][1] = not inside[-1][1]
        elif word and word[1] == "endif":
            inside.pop()
        elif all(on for _, on in inside):
            kept.append(line)
    return "\n".join(kept)


def steps_of(model):
    """The body of each inline and proctype; the longest, where BRIEF has another."""
    steps = {}
    for name, body in re.findall(r"^(?:inline|proctype) (\w+)\([^)]*\)\n\{\n(.*?)^\}",
                                 without_faults(model), re.M | re.S):
        steps[name] = max(steps.get(name, ""), body, key=len)
    return steps


def calls_in(body, names):
    """Which of the names it calls, in the order of their first calls."""
    code = re.sub(r"/\*.*?\*/|\"[^\"]*\"", "", body, flags=re.S)
    return list(dict.fromkeys(name for name in re.findall(r"\b(\w+)\b", code) if name in names))


class Map(unittest.TestCase):
    def setUp(self):
        self.model = read("tests/model/tunnel.pml")
        self.modelled = map_of(self.model, "From its steps to the code")
        self.left_out = map_of(self.model, "Left out:")
        self.functions = {path: functions_of(read(path))
                          for path in {*self.modelled, *self.left_out}}
        self.steps = steps_of(self.model)

    def test_every_function_that_the_map_names_is_in_the_code(self):
        for part in (self.modelled, self.left_out):
            for path, names in part.items():
                self.assertEqual(set(names) - set(self.functions[path]), set(), path)

    def test_every_function_of_the_modelled_files_is_in_the_map(self):
        for path in WHOLE_FILES:
            mapped = self.modelled.get(path, []) + self.left_out.get(path, [])
            self.assertEqual(sorted(mapped), sorted(self.functions[path]), path)

    def test_every_function_of_the_map_is_a_step_of_the_model(self):
        macros = re.findall(r"^#define (\w+)", self.model, re.M)
        for path, names in self.modelled.items():
            self.assertEqual(set(names) - set(self.steps) - set(macros), set(), path)

    def test_the_steps_call_each_other_in_the_order_of_the_functions(self):
        mapped = {name for names in self.modelled.values() for name in names}
        names = (mapped & set(self.steps)) | {"pthread_mutex_lock", "pthread_mutex_unlock"}
        compared = 0
        for path, of_file in self.modelled.items():
            for name in of_file:
                if name not in self.steps or name in OTHERWISE:
                    continue
                with self.subTest(function=name):
                    body = self.functions[path][name].replace("backend->serve", "tcp_serve")
                    in_code = calls_in(body, names)
                    self.assertEqual(calls_in(self.steps[name], names), in_code)
                    compared += 1
        self.assertGreater(compared, 25)


if __name__ == "__main__":
    harness.main()
