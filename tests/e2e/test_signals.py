#!/usr/bin/python3 -B
"""Signals at any moment: while the daemon starts, and with tunnels in every state of
their lives."""

import random
import resource
import signal
import socket
import time

import harness
from harness import (Case, Pattern, PortBlock, TUNNELD, in_thread, receive_until_end, receive_until_reset,
                     wait_until)

AMOUNT = 16 << 20
STORM_S = 2

# Those that an administrator or a terminal may send, and nobody is to notice.
HARMLESS = (signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT,
            signal.SIGRTMIN + 1)    # the one by which tunnels are woken
STOPPING = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
DEADLY = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGALRM, signal.SIGKILL)


class SignalCase(Case):
    def every_state(self, daemon):
        """A tunnel in each state, all of them alive."""
        self.tunnels = [harness.Tunnel(daemon) for _ in range(5)]
        self.addCleanup(self.end_all)
        self.opened, holding, self.attached, relaying, half_closed = self.tunnels
        self.held = holding.connect()
        self.waiting = self.attached.attach()
        self.waiting.sendall(b"banner")
        self.server, self.client = relaying.both()
        self.half, self.other = half_closed.both()
        self.half.shutdown(socket.SHUT_WR)
        self.assertEqual(self.other.recv(1), b"")
        self.caller = harness.connect((daemon.host, daemon.port))
        self.caller.sendall(b"POST /RPC2 HTTP/1.1\r\n")

    def end_all(self):
        for tunnel in self.tunnels:
            tunnel.end()
        self.caller.close()

    def transfer(self):
        """Bulk both ways, to its end."""
        def send(connection, seed):
            connection.sendall(Pattern(seed).take(AMOUNT))
            connection.shutdown(socket.SHUT_WR)

        sending = [in_thread(send, self.server, 1), in_thread(send, self.client, 2)]
        receiving = [in_thread(receive_until_end, self.client),
                     in_thread(receive_until_end, self.server)]
        return sending, receiving

    def assert_all_live(self):
        """What was begun in each state comes to its end."""
        self.other.sendall(b"answer")
        self.other.close()
        self.assertEqual(receive_until_end(self.half), b"answer")
        client = self.attached.connect()
        self.assertEqual(harness.receive_exactly(client, 6), b"banner")
        client.sendall(b"?")
        self.assertEqual(self.waiting.recv(1), b"?")
        self.opened.both()


class Alive(SignalCase):
    def storm(self, daemon, signals, pause_s):
        until = time.monotonic() + STORM_S
        while time.monotonic() < until:
            daemon.signal(random.choice(signals))
            time.sleep(random.random() * pause_s)
            daemon.signal(signal.SIGCONT)
        return True

    def live_through(self, *arguments):
        daemon = self.start_daemon("--drain", "1", "--log-level", "warning", "--request-timeout", "300",
                                   "--linger", "300", "--attach-timeout", "300")
        self.every_state(daemon)
        sending, receiving = self.transfer()
        storm = in_thread(self.storm, daemon, *arguments)
        for each in sending:
            each.result()
        self.assertEqual([each.result() for each in receiving],
                         [Pattern(1).take(AMOUNT), Pattern(2).take(AMOUNT)])
        self.assertTrue(storm.result())
        self.assert_all_live()
        self.assertEqual(daemon.errors(), "")
        self.end_all()
        daemon.stop()

    def test_signals_that_mean_nothing_or_a_reload_disturb_no_tunnel(self):
        self.live_through(HARMLESS, 0.005)

    def test_a_daemon_that_is_stopped_and_continued_loses_nothing(self):
        self.live_through(STOPPING, 0.2)


class TheEnd(SignalCase):
    def test_whatever_ends_it_what_was_unfinished_is_reset(self):
        for number, status in ((signal.SIGTERM, 0), (signal.SIGINT, 0), *((each, -each) for each in DEADLY)):
            with self.subTest(signal=number.name):
                daemon = self.start_daemon("--drain", "0")
                self.every_state(daemon)
                daemon.signal(number)
                self.assertEqual(daemon.wait(), status, daemon.errors())
                for connection in (self.held, self.server, self.client, self.half):
                    self.assertEqual(receive_until_reset(connection), b"")
                for connection in (self.waiting, self.other):
                    self.assertIsInstance(harness.send_until_error(connection), ConnectionError)
                wait_until(lambda: not daemon.ports.listening(), "all ports are closed")

    def test_stopped_when_it_is_told_to_end_it_ends_once_it_goes_on(self):
        daemon = self.start_daemon("--drain", "0")
        self.every_state(daemon)
        daemon.signal(signal.SIGSTOP)
        daemon.signal(signal.SIGHUP)
        daemon.signal(signal.SIGTERM)
        time.sleep(0.3)
        self.assertIsNone(daemon.process.poll())
        daemon.signal(signal.SIGCONT)
        self.assertEqual(daemon.wait(), 0, daemon.errors())
        self.assertEqual(receive_until_reset(self.client), b"")

    def test_many_at_once_end_it_once(self):
        for _ in range(5):
            daemon = self.start_daemon("--drain", "60")
            self.every_state(daemon)
            for number in random.choices((signal.SIGHUP, signal.SIGTERM, signal.SIGINT), k=20):
                daemon.process.send_signal(number)
            daemon.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "draining" in daemon.errors() or daemon.process.poll() is not None,
                       "it drains")
            daemon.process.send_signal(signal.SIGTERM)
            self.assertEqual(daemon.wait(), 0, daemon.errors())
            receive_until_reset(self.client)

    def test_a_signal_at_any_moment_of_the_start_ends_it(self):
        """Before it heeds signals it is killed as any program is; never does it hang."""
        ports = PortBlock(4)
        self.addCleanup(ports.release)
        for number in (signal.SIGTERM, signal.SIGINT):
            for milliseconds in range(0, 60, 3):
                daemon = harness.start([TUNNELD, "--listen", "127.0.0.1:0", "--ports", str(ports)],
                                       stdout=harness.subprocess.DEVNULL,
                                       stderr=harness.subprocess.PIPE, text=True)
                time.sleep(milliseconds / 1000)
                daemon.send_signal(number)
                try:
                    _, errors = daemon.communicate(timeout=harness.WAIT_S)
                finally:
                    daemon.kill()
                harness.refuse_sanitizer_reports(errors, TUNNELD)
                self.assertIn(daemon.returncode, (0, -number), errors)
        self.assertEqual(ports.listening(), [])


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))    # SIGQUIT would leave a file
    harness.main()
