#!/usr/bin/python3 -B
"""tristero-tunnel expose --config: several services from one file."""

import json
import os
import signal
import unittest

import harness
from expose_harness import ExposeCase, address_of_url, fetch
from harness import TUNNEL, run, wait_until
from ssh_harness import SSH, SshDaemon


@unittest.skipUnless(SSH, "there is no ssh")
class Configured(ExposeCase):
    def file(self, text):
        path = os.path.join(self.temporary_folder(), "services.conf")
        with open(path, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
        return path

    def test_each_section_is_a_service(self):
        folder = self.temporary_folder()
        with open(os.path.join(folder, "file"), "wb") as file:
            file.write(b"a file")
        with SshDaemon() as other:
            program = self.expose("--config", self.file(
                f"# two\n[web]\nservice = {self.web()}\nbackend = ssh\n\n"
                f"[files]\n  dir = {folder}\n  backend = ssh\n  proxy = {other.url}\n"))
            urls = dict(program.line().split(" ") for _ in range(2))
            self.assertEqual(sorted(urls), ["files", "web"])
            self.assertEqual(fetch(address_of_url(urls["web"])[1]), b"hello from behind /")
            self.assertEqual(fetch(address_of_url(urls["files"])[1], "/file"), b"a file")
            program.signal(signal.SIGTERM)
            self.assertEqual(program.wait(), 0, program.errors())

    def test_lines_and_json_name_the_service(self):
        port = self.closed_port()
        path = self.file(f"[a]\nservice={port}\nbackend=tcp\n[b]\nservice={self.web()}\nbackend=tcp\n")
        program = self.expose("--config", path)
        urls = dict(program.line().split(" ") for _ in range(2))
        harness.visit_until_reset(address_of_url(urls["a"])[1], b"?")
        wait_until(lambda: "a: client 1 was not served" in program.errors(), "it is told by name")
        program = self.expose("--config", path, "--json")
        self.assertEqual({json.loads(program.line())["name"] for _ in range(2)}, {"a", "b"})

    def test_what_is_wrong_is_told_with_its_place(self):
        for text, line, *words in (
                ("[a]\nservice = 80\nprot = 1\n", 3, '"prot"', "service, dir, backend"),
                ("service = 80\n", 1, '"service"', "[section]"),
                ("[a]\nservice = x\n", 2, '"service"', '"x"', "HOST:PORT"),
                ("[a]\nservice = 80\nbackend = tpc\n", 3, '"backend"', '"tpc"', "tcp"),
                ("[a]\nservice = 80\nbackend = tcp\ntunnels = 0\n", 4, '"tunnels"', "1 to 256"),
                ("[a]\nservice = 80\nserver-first = true\n", 3, '"server-first"', "yes or no"),
                ("[a]\nservice = 80\ndir = /\n", 3, '"dir"', "one of service and dir"),
                ("[a]\nservice = 80\n\n[b]\nbackend = tcp\n", 4, "[b]", "service or dir"),
                ("[a]\nservice = 80\n[a]\n", 3, "second section [a]"),
                ("[a]\nservice = 80\nbackend = ssh\ntunnels = 3\n", 1, '"tunnels"', "tcp"),
                ("[a]\nservice = 80\nproxy = nonsense://\n", 1, "[a]", "proxy's URL"),
                ("[a]\nservice\n", 2, "key = value"),
                ("[a\nservice = 80\n", 1, "[NAME]"),
                ("[]\n", 1, "[NAME]"),
                ("\n", 1, "[section]"),
                ("", 1, "[section]"),
                ("[a]\nservice = " + 500 * "8" + "\n", 2, "longer line"),
                (b"[a]\nservice = 8\x000\n", 2, "NUL byte")):
            with self.subTest(text=text[:40]):
                path = self.file(text)
                done = run([TUNNEL, "--proxy", self.daemon.url, "expose", "--config", path])
                self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
                for word in (f"{path}:{line}: ", *words):
                    self.assertIn(word, done.stderr)

    def test_a_file_that_can_t_be_read_is_told(self):
        for path in ("/no/such/file", self.temporary_folder()):
            done = run([TUNNEL, "--proxy", self.daemon.url, "expose", "--config", path])
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn(path, done.stderr)

    def test_one_service_that_can_t_be_exposed_ends_all(self):
        path = self.file(f"[a]\nservice = {self.web()}\nbackend = ssh\n[b]\nservice = {self.web()}\n"
                         "backend = ssh\nproxy = http://127.0.0.1:1/RPC2\n")
        done = run([TUNNEL, "--proxy", self.daemon.url, "expose", "--config", path])
        self.assertEqual(done.returncode, 1)
        self.assertIn("b: ", done.stderr)

    def test_the_command_line_says_nothing_of_a_single_service(self):
        path = self.file("[a]\nservice = 80\n")
        for option in (("--backend", "tcp"), ("--once",), ("--tunnels", "2"), ("80",)):
            done = run([TUNNEL, "--proxy", self.daemon.url, "expose", "--config", path, *option])
            self.assertEqual((done.returncode, done.stdout), (2, ""))


if __name__ == "__main__":
    harness.main()
