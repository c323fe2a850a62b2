#!/usr/bin/python3 -B
"""tristero-tunnel expose, when whoever reads what it tells has stopped: clients are served all
the same, a signal ends it, and what was left out is told once somebody reads again."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import harness
from expose_harness import ExposeCase, address_of_url
from harness import TUNNEL, connect, in_thread, receive_exactly, start, wait_until
from ssh_harness import SSH

PAGE_BYTES = 4096
END_S = 20      # what is served gets three seconds to end, what is told one


class _Reader:
    """What comes out of a descriptor, as far as the test reads it."""

    def __init__(self, fd):
        self.fd = fd
        self.text = ""

    def read_until(self, pattern, timeout_s=harness.WAIT_S):
        """The match in all that was read so far."""
        deadline = time.monotonic() + timeout_s
        while not (match := re.search(pattern, self.text, re.MULTILINE)):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([self.fd], [], [], left_s)[0]:
                raise AssertionError(f"no {pattern!r} came in {timeout_s} s, but {self.text[-4000:]!r}")
            piece = self.read_piece()
            if not piece:
                raise AssertionError(f"it ended without {pattern!r}: {self.text[-4000:]!r}")
        return match

    def read_all(self):
        """Whatever comes until it is closed."""
        while self.read_piece():
            pass
        return self.text

    def hang_up(self):
        os.close(self.fd)
        self.fd = -1

    def close(self):
        """Once the command has ended."""
        if self.fd >= 0:
            harness.refuse_sanitizer_reports(self.read_all(), "the command")
            self.hang_up()

    def read_piece(self):
        try:
            piece = os.read(self.fd, 65536).decode(errors="replace")
        except OSError:             # a terminal that nobody has any more
            return ""
        self.text += piece
        return piece


class UnreadCase(ExposeCase):
    def pipe(self):
        """A small one: its end to be read, and its end to be written to."""
        reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PAGE_BYTES)
        reader = _Reader(reading)
        self.addCleanup(reader.close)
        return reader, writing

    def start_exposing(self, *arguments, stdout, stderr, **how):
        """The command, whose output is given away."""
        process = start([TUNNEL, "--proxy", self.daemon.url, "expose", *map(str, arguments)],
                        stdout=stdout, stderr=stderr, **how)

        def end():
            process.kill()
            process.wait()
        self.addCleanup(end)
        for fd in {stdout, stderr} - {subprocess.DEVNULL}:
            os.close(fd)
        return process

    def visit(self, address, line=b"a\n"):
        with connect(address) as client:
            client.sendall(line)
            self.assertEqual(receive_exactly(client, len(line)), line[-2::-1] + b"\n")

    def visit_often(self, address, times):
        for number in range(times):
            self.visit(address, b"%d\n" % number)

    def assert_ends(self, process, number=signal.SIGTERM):
        process.send_signal(number)
        try:
            self.assertEqual(process.wait(END_S), 0)
        except subprocess.TimeoutExpired:
            self.fail(f"it does not heed signal {number}")


class Lines(UnreadCase):
    VISITS = 600        # more than lie in the pipe and the queue together

    def start_unread(self, *options):
        """The command, what reads the lines of its events, and the address."""
        out, out_end = self.pipe()
        err, err_end = self.pipe()
        process = self.start_exposing(self.line_service(), *options, stdout=out_end, stderr=err_end)
        if "--json" in options:
            url, events = json.loads(out.read_until(r"^.*\n")[0])["url"], out
        else:
            url, events = out.read_until(r"^\S+(?=\n)")[0], err
        return process, events, address_of_url(url)[1]

    def test_clients_are_served_while_nobody_reads_and_a_signal_ends_it(self):
        for options in ((), ("--json",)):
            process, _, address = self.start_unread(*options)
            self.visit_often(address, self.VISITS)
            self.assert_ends(process)

    def test_how_many_lines_were_left_out_is_told_to_who_reads_again(self):
        process, events, address = self.start_unread()
        self.visit_often(address, self.VISITS)
        left_out = int(events.read_until(r"^tristero-tunnel: (\d+) lines were left out here, "
                                         r"since nobody read them$")[1])
        self.assertGreater(left_out, 0)
        self.visit(address)
        events.read_until(rf"^tristero-tunnel: client {self.VISITS + 1} left: ")
        self.assert_ends(process)
        lines = events.read_all().splitlines()
        told = [line for line in lines if "left out" not in line]
        for line in told:
            # its end may have found one of the last that had not been seen to leave
            self.assertRegex(line, r"^tristero-tunnel: client \d+ (came|left: (finished|stopped); .* to it)$")
        self.assertEqual(len(told) + left_out, 2 * (self.VISITS + 1))

    def test_how_many_objects_were_left_out_is_told_to_who_reads_again(self):
        process, events, address = self.start_unread("--json")
        self.visit_often(address, self.VISITS)
        left_out = json.loads(events.read_until(r'^{"event":"left-out",.*}$')[0])
        self.assertRegex(left_out["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.visit(address)
        events.read_until(rf'^{{"event":"client-left",.*"client":{self.VISITS + 1},.*}}$')
        self.assert_ends(process)
        told = [json.loads(line) for line in events.read_all().splitlines()]
        self.assertEqual([object["event"] for object in told].count("address"), 1)
        clients = sum("client" in object for object in told)
        self.assertLess(clients, 2 * (self.VISITS + 1))
        self.assertGreaterEqual(clients + left_out["lines"], 2 * (self.VISITS + 1))

    def test_lines_are_whole_for_a_slow_reader(self):
        process, events, address = self.start_unread("--json")
        for _ in range(20):
            self.visit_often(address, 10)
            events.read_piece()
        self.assert_ends(process)
        for line in events.read_all().splitlines():
            json.loads(line)

    def test_an_address_that_nobody_reads_does_not_keep_it_from_ending(self):
        for backend in ("webmux", "tcp") + (("ssh",) if SSH else ()):
            for options in ((), ("--json",)):
                out, out_end = self.pipe()
                os.set_blocking(out_end, False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        os.write(out_end, b"x")
                os.set_blocking(out_end, True)
                _, err_end = self.pipe()
                process = self.start_exposing(self.line_service(), "--backend", backend, *options,
                                              stdout=out_end, stderr=err_end)
                wait_until(lambda process=process: is_writing(process), "it wants to write the address")
                self.assert_ends(process)
                self.assertIn(PAGE_BYTES * "x", out.read_all())

    def test_no_tunnel_of_tcp_is_opened_for_an_address_that_nobody_reads(self):
        others = self.daemon.ports.listening()      # of tunnels that are kept for a while
        process, events, _ = self.start_unread("--json", "--backend", "tcp")

        def listening():
            """Clients' ports, which are the odd ones."""
            return [port for port in self.daemon.ports.listening() if port % 2 and port not in others]

        def address(timeout_s=harness.WAIT_S):
            """Of the tunnel that waits for a client."""
            return ("127.0.0.1", wait_until(listening, "a tunnel is open", timeout_s)[-1])

        visited = []
        with self.assertRaisesRegex(AssertionError, "a tunnel is open"):
            while True:
                visited.append(address(timeout_s=3))
                self.visit(visited[-1])
        while not listening():
            events.read_piece()
        self.visit(address())
        reading = in_thread(events.read_all)
        self.assert_ends(process)
        told = [json.loads(line) for line in reading.result().splitlines()]
        urls = [object["url"] for object in told if object["event"] == "address"]
        self.assertEqual([address_of_url(url)[1] for url in urls[:len(visited)]], visited)


def is_writing(process):
    """Whether one of its threads waits in write(2), on standard output."""
    tasks = f"/proc/{process.pid}/task"
    for task in os.listdir(tasks):
        with contextlib.suppress(OSError), open(f"{tasks}/{task}/syscall", encoding="ascii") as file:
            if file.read().startswith("1 0x1 "):
                return True
    return False


class TerminalCase(UnreadCase):
    STOP, GO_ON = b"\x13", b"\x11"      # Ctrl-S, Ctrl-Q

    before_it = ()                      # the words before the command

    def setUp(self):
        self.master, terminal = pty.openpty()
        self.view = _Reader(self.master)
        self.addCleanup(self.view.close)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(terminal)
        environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        self.process = start(["setsid", "--ctty", *self.before_it, TUNNEL, "--proxy", self.daemon.url, "expose",
                              str(self.line_service())], stdin=terminal, stdout=terminal, stderr=terminal,
                             env={**environment, "TERM": "xterm", "LC_ALL": "C.UTF-8"})
        os.close(terminal)
        self.addCleanup(self.process.wait)
        self.addCleanup(self.process.kill)
        self.address = address_of_url(self.view.read_until(r"(tcp://\S+?)\r?$")[1])[1]
        self.view.read_until("in all")

    def type(self, keys):
        os.write(self.master, keys)

    def freeze(self):
        """The terminal, and so what waits for it: a frame that is due."""
        self.type(self.STOP)
        wait_until(lambda: is_writing(self.process), "a frame waits for the terminal")


class Terminal(TerminalCase):
    def test_clients_are_served_while_the_terminal_stands_still_and_a_signal_ends_it(self):
        self.freeze()
        for _ in range(20):
            self.visit(self.address)
        self.assert_ends(self.process)
        self.assertIn("\x1b[?1049l", self.view.read_all(), "it shows what it showed before")
        self.assertEqual(self.before, termios.tcgetattr(self.master))

    def test_the_view_goes_on_with_what_is_true_by_then(self):
        self.freeze()
        for _ in range(20):
            self.visit(self.address)
        before = len(self.view.text)
        self.type(self.GO_ON)
        self.view.read_until("client 20 left")
        self.assertLess(len(self.view.text) - before, 20000)
        self.type(b"q")
        self.assertEqual(self.process.wait(END_S), 0)
        self.view.read_all()

    def test_a_terminal_that_nobody_reads_does_not_hold_up_clients_or_the_end(self):
        while not is_writing(self.process):
            self.process.send_signal(signal.SIGWINCH)       # it draws all of it
        for _ in range(20):
            self.visit(self.address)
        self.assert_ends(self.process)


class TerminalThatGoes(TerminalCase):
    before_it = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")

    def test_without_its_terminal_it_goes_on_where_sighup_is_ignored(self):
        def processor_s():
            with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
                return sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")

        self.view.hang_up()
        before_s = processor_s()
        time.sleep(2)                   # some frames are due
        self.assertLess(processor_s() - before_s, 1)
        self.visit(self.address)
        self.assert_ends(self.process)


if __name__ == "__main__":
    harness.main()
