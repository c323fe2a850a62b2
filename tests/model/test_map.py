#!/usr/bin/python3 -B
"""The models and the code go together: the map on top of each names the functions
there are, and its steps call each other as the functions do."""

import os
import re
import sys
import unittest

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(TOP, "tests", "e2e"))
import harness


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


def functions_of(source):
    """The body of each function, by name."""
    pattern = r"^[a-z][^\n;={}]*?\b(\w+)\([^;{}]*\)\n\{\n(.*?)^\}"
    return {name: body for name, body in re.findall(pattern, source, re.M | re.S)}


def map_of(model, title):
    """The part of the map below that title: by file, the step of each function."""
    files = {}
    for line in model[model.index(title):model.index("*/", model.index(title))].splitlines()[1:]:
        entry = re.match(r" \*   (\w+/\w+\.c| {8})\s+([^:]*)", line)
        if not entry:
            if files:
                break
            continue
        if entry[1].strip():
            steps = files.setdefault(entry[1], {})
        for name in entry[2].split():
            function, _, step = name.partition("=")
            steps[function] = step or function
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


def calls_in(body, steps):
    """The steps of what it calls, by name, in the order of their first calls."""
    code = re.sub(r"/\*.*?\*/|\"[^\"]*\"", "", body, flags=re.S)
    return list(dict.fromkeys(steps[name] for name in re.findall(r"\b(\w+)\b", code)
                              if name in steps))


class Map:
    def setUp(self):
        self.model = read(self.PATH)
        self.modelled = map_of(self.model, "From its steps to the code")
        self.left_out = map_of(self.model, "Left out:")
        self.functions = {path: functions_of(read(path))
                          for path in {*self.modelled, *self.left_out}}
        self.steps = steps_of(self.model)

    def steps_by_call(self, path):
        """What a file's calls are in the model. A name of its own is no other file's."""
        steps = {name: name for name in ("pthread_mutex_lock", "pthread_mutex_unlock")}
        for other, of_file in self.modelled.items():
            steps.update({function: step for function, step in of_file.items()
                          if step in self.steps and (other == path or function == step)})
        return steps

    def test_every_function_that_the_map_names_is_in_the_code(self):
        for part in (self.modelled, self.left_out):
            for path, names in part.items():
                self.assertEqual(set(names) - set(self.functions[path]), set(), path)

    def test_every_function_of_the_modelled_files_is_in_the_map(self):
        for path in self.WHOLE_FILES:
            mapped = [*self.modelled.get(path, []), *self.left_out.get(path, [])]
            self.assertEqual(sorted(mapped), sorted(self.functions[path]), path)

    def test_every_function_of_the_map_is_a_step_of_the_model(self):
        macros = re.findall(r"^#define (\w+)", self.model, re.M)
        for path, names in self.modelled.items():
            self.assertEqual(set(names.values()) - set(self.steps) - set(macros), set(), path)

    def test_the_steps_call_each_other_in_the_order_of_the_functions(self):
        compared = 0
        for path, of_file in self.modelled.items():
            by_call = self.steps_by_call(path)
            of_steps = {step: step for step in by_call.values()}
            for function, step in of_file.items():
                if step not in self.steps or step in self.OTHERWISE:
                    continue
                with self.subTest(function=function):
                    body = self.functions[path][function].replace("backend->serve", "tcp_serve")
                    self.assertEqual(calls_in(self.steps[step], of_steps),
                                     calls_in(body, by_call))
                    compared += 1
        self.assertGreater(compared, 25)


class Tunnel(Map, unittest.TestCase):
    PATH = "tests/model/tunnel.pml"
    WHOLE_FILES = ("relay/relay.c", "relay/reservation.c", "relay/tunnel.c", "relay/backend_tcp.c",
                   "relay/duplex.c", "relay/port_pool.c", "relay/waker.c")
    # Where a step and its function call others in another order or number, and why.
    OTHERWISE = {
        "tunnel_accept": "a connection that can't be prepared is gone at once in the model",
        "party_accept": "the model's stranger is closed as such, not as a party's socket",
        "waker_poll": "the model's wait includes poll_once",
        "worker": "the model's worker makes the call that arrives",
        "serve": "the model takes both orders of stopping",
        "relay_free": "the model checks there what must be so by then",
    }


class Carried(Map, unittest.TestCase):
    PATH = "tests/model/carried.pml"
    WHOLE_FILES = ("relay/carried.c",)
    OTHERWISE = {
        "move": "the model's servers ask there for what libssh hands to on_message",
    }


if __name__ == "__main__":
    harness.main()
