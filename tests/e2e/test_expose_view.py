#!/usr/bin/python3 -B
"""tristero-tunnel expose on a terminal: the view of what happens. The terminal is tmux."""

import os
import re
import shlex
import shutil
import signal
import unittest

import harness
from expose_harness import ExposeCase, address_of_url, children_of, fetch
from harness import TUNNEL, connect, receive_exactly, run, visit_until_reset, wait_until
from ssh_harness import SshDaemon

TMUX = shutil.which("tmux")


@unittest.skipUnless(TMUX, "there is no tmux")
class ViewCase(ExposeCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = SshDaemon(pairs=32)    # tunnels are kept for a while

    def tmux(self, *words):
        done = run([TMUX, "-S", self.socket, "-f", "/dev/null", *map(str, words)])
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def terminal(self, *arguments, columns=80, rows=24, before=""):
        """A shell in which the command runs."""
        self.socket = os.path.join(self.temporary_folder(), "tmux")
        self.tmux("new-session", "-d", "-x", columns, "-y", rows, "env", "-u", "NO_COLOR", "LC_ALL=C.UTF-8",
                  "PS1=ready> ", "bash", "--norc")
        self.addCleanup(self.end, self.socket)
        self.wait_for("ready>")
        command = shlex.join([TUNNEL, "--proxy", self.daemon.url, "expose", *map(str, arguments)])
        self.type(f"clear; {before} {command}", "Enter")

    @staticmethod
    def end(server):
        """With what still runs there. A hangup would wake it (SIGCONT) amid what the leak
        checker does at its end, for which it must stand still."""
        tmux = [TMUX, "-S", server]
        shell = run([*tmux, "list-panes", "-F", "#{pane_pid}"]).stdout.strip()
        for pid in children_of(shell):
            os.kill(pid, signal.SIGKILL)
        run([*tmux, "kill-server"])

    def type(self, *keys):
        self.tmux("send-keys", *keys)

    def screen(self):
        return self.tmux("capture-pane", "-p")

    def wait_for(self, *pieces):
        """The screen that has them all."""
        def has_all():
            screen = self.screen()
            return screen if all(piece in screen for piece in pieces) else None
        try:
            return wait_until(has_all, "it is on the screen", 15)
        except AssertionError:
            raise AssertionError(f"{pieces} are not on the screen:\n{self.screen()}") from None

    def address(self):
        return address_of_url(re.search(r"(http|tcp)://[0-9.]+:[0-9]+/?", self.wait_for("in all"))[0])[1]

    def wait_ended(self):
        """The shell has the terminal as it was; what it shows then."""
        screen = self.wait_for("ready>")
        self.type("clear; stty -a | grep -ow -e -echo -e echo", "Enter")
        self.assertIn("\necho\n", "\n" + self.wait_for("echo\nready>"))
        return screen


class Viewing(ViewCase):
    def test_numbers_and_events_are_shown(self):
        self.terminal(self.line_service())
        address = self.address()
        with connect(address) as client:
            client.sendall(b"abc\n")
            receive_exactly(client, 4)
            self.wait_for("1 now           1 in all", "in                   4 B", "client 1 came")
        screen = self.wait_for("0 now           1 in all", "client 1 left: finished; 4 bytes from it, 4 to it")
        self.assertIn(f"tcp://127.0.0.1:{address[1]}\n", screen)
        self.assertIn("by webmux", screen)
        self.assertLessEqual(max(map(len, screen.splitlines())), 80)

    def test_several_services_are_shown_whole_in_80_columns(self):
        path = os.path.join(self.temporary_folder(), "services")
        port = self.line_service()
        with open(path, "w", encoding="ascii") as file:
            file.write("".join(f"[{name}]\nservice = {port}\n" for name in ("one", "two")))
        self.terminal("--config", path)
        _, address = address_of_url(re.search(r"one +(tcp://\S+)", self.wait_for("one", "two", "in all"))[1])
        client = connect(address)
        for _ in range(20):
            client.sendall(b"x" * 62499 + b"\n")
            receive_exactly(client, 62500)
        rows = self.wait_for("in 1.2 MB (", "out 1.2 MB (").splitlines()
        at = next(i for i, row in enumerate(rows) if " one " in row)
        self.assertRegex(rows[at + 2], r"^ +1 now, 1 in all, 0 refused; round trip \S+ ms; 0 lost$")
        self.assertRegex(rows[at + 3], r"^ +in 1\.2 MB \(.*/s\), out 1\.2 MB \(.*/s\)$")

    def test_a_service_that_is_down_is_shown(self):
        port = self.closed_port()
        self.terminal(port)
        visit_until_reset(self.address())
        self.wait_for("refused            1", f"can't reach the service at 127.0.0.1:{port}")

    def test_the_address_stays_on_the_screen_however_it_ends(self):
        for key in ("C-c", "q"):
            self.terminal(self.web())
            _, port = self.address()
            self.type(key)
            self.assertIn(f"http://127.0.0.1:{port}/\n", self.wait_ended())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            folder = self.temporary_folder()
            self.terminal(self.web(), before=f"sh -c 'echo $$ >{folder}/pid; exec \"$@\"' sh")
            _, port = self.address()
            with open(f"{folder}/pid", encoding="ascii") as file:
                os.kill(int(file.read()), number)
            self.assertIn(f"http://127.0.0.1:{port}/\n", self.wait_ended())

    def test_it_fits_terminals_of_every_size(self):
        self.terminal(self.web(), "--qr")
        self.address()
        self.wait_for("\u2588\u2588 \u2584\u2584\u2584\u2584\u2584 \u2588")
        for columns, rows in ((40, 14), (20, 5), (2, 2), (132, 50), (80, 24), (50, 40)):
            self.tmux("resize-window", "-x", columns, "-y", rows)
            if columns >= 40:
                self.wait_for("expose   up", "http://127.0.0.1:",
                              "No room for the QR code" if rows == 14 else "\u2588\u2588\u2588")
        self.wait_for("in all")

    def test_it_can_be_stopped_and_continued(self):
        self.terminal(self.web())
        address = self.address()
        self.type("C-z")
        self.wait_for("Stopped", "ready>", "http://")
        self.type("fg", "Enter")
        self.wait_for("expose   up", "in all")
        self.assertEqual(fetch(address), b"hello from behind /")
        self.type("C-c")
        self.wait_ended()

    def test_lines_take_its_place_where_it_is_not_wanted(self):
        for before in ("NO_COLOR=1", "TERM=dumb", "TERM=nonsense"):
            self.terminal(self.web(), before=before)
            # not the proxy's, in the command as it was typed
            url = wait_until(lambda: re.search(r"^http://\S+/$", self.screen(), re.MULTILINE), "it says its address")
            fetch(address_of_url(url[0])[1])
            screen = self.wait_for("tristero-tunnel: client 1 left")
            self.assertNotIn("expose   up", screen)
            self.type("C-c")
            self.wait_ended()

    def test_a_qr_code_has_colours_unless_no_color_has_a_value(self):
        for before, bright_white in (("", True), ("NO_COLOR=", True), ("NO_COLOR=1", False)):
            self.terminal(self.web(), "--qr", before=before)
            self.wait_for("\u2588\u2588 \u2584\u2584\u2584\u2584\u2584 \u2588")
            self.type("C-c")
            self.wait_for("\u2588\u2588 \u2584\u2584\u2584\u2584\u2584 \u2588", "ready>")
            screen = self.tmux("capture-pane", "-p", "-e")
            self.assertEqual(re.search(r"\x1b\[[0-9;]*97", screen) is not None, bright_white, f"{before}: {screen!r}")


class SmallScreens(ViewCase):
    def whole_addresses(self, *pieces):
        """Those that the screen has, in rows or across them."""
        return re.findall(r"(?:http|tcp)://127\.0\.0\.1:\d{5}/?", "".join(self.wait_for(*pieces).splitlines()))

    def test_the_address_is_whole_however_few_columns_there_are(self):
        self.terminal(self.line_service())
        for columns, rows in ((20, 10), (40, 10), (20, 4), (21, 3), (8, 6), (80, 24)):
            self.tmux("resize-window", "-x", columns, "-y", rows)
            try:
                wait_until(lambda: len(self.whole_addresses(" tristero-tunnel"[:columns - 2])), "it is whole")
            except AssertionError:
                self.fail(f"the address is not whole in {columns} columns:\n{self.screen()}")
            if (columns, rows) == (20, 10):
                self.wait_for(" 0 now, 0 in all\n 0 refused\n in 0 B, 0 B/s\n out 0 B, 0 B/s\n")

    def test_the_addresses_of_several_services_come_before_their_numbers(self):
        path = os.path.join(self.temporary_folder(), "services")
        port = self.line_service()
        with open(path, "w", encoding="ascii") as file:
            file.write("".join(f"[service{number}]\nservice = {port}\n" for number in range(4)))
        for columns, rows in ((80, 10), (20, 14)):
            self.terminal("--config", path, columns=columns, rows=rows)
            wait_until(lambda: len(self.whole_addresses(" tristero-tunnel e", "service3")) == 4, "all are whole")
            self.type("q")
            self.wait_for("ready>")


if __name__ == "__main__":
    harness.main()
