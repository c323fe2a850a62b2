#!/usr/bin/python3 -B
"""What the machine runs out of while the service runs: descriptors, ports,
room for the log. For what a process can't be made to run out of from outside,
threads above all, see test_faults.py."""

import os
import re
import resource
import socket
import time

import harness
from harness import (Case, PortBlock, cpu_seconds, fault_of, in_thread, leave_descriptors, receive_exactly,
                     set_limit, wait_until)

BULK = os.urandom(4 << 20)


def read_text(path):
    with open(path, encoding="ascii") as file:
        return file.read()


class Descriptors(Case):
    def setUp(self):
        self.daemon = self.start_daemon("--drain", "1", pairs=8)
        self.tunnel = self.open_tunnel(self.daemon)
        self.server, self.client = self.tunnel.both()

    def leave(self, descriptors):
        """Allows so many more than are open now."""
        self.daemon.drop_connections()
        wait_until(self.daemon.steady_counts, "nobody opens or closes any")
        return leave_descriptors(self.daemon, descriptors)

    def relay(self):
        for sender, receiver in ((self.server, self.client), (self.client, self.server)):
            sending = in_thread(sender.sendall, BULK)
            self.assertEqual(receive_exactly(receiver, len(BULK)), BULK)
            sending.result()

    def test_without_any_left_tunnels_relay_and_calls_wait(self):
        before = self.leave(0)
        began, busy = time.monotonic(), cpu_seconds(self.daemon)
        calls = [in_thread(self.open_tunnel, self.daemon) for _ in range(3)]
        self.relay()
        busy = cpu_seconds(self.daemon)
        time.sleep(1)
        self.assertLess(cpu_seconds(self.daemon) - busy, 0.3)
        set_limit(self.daemon, resource.RLIMIT_NOFILE, before)
        for call in calls:
            call.result().both()
        self.assertLess(time.monotonic() - began, 20)
        self.relay()

    def test_who_attaches_without_any_left_is_accepted_later(self):
        waiting = self.open_tunnel(self.daemon)
        before = self.leave(0)
        server, client = waiting.attach(), waiting.connect()
        server.sendall(b"early")
        time.sleep(0.5)
        self.relay()
        set_limit(self.daemon, resource.RLIMIT_NOFILE, before)
        self.assertEqual(receive_exactly(client, 5), b"early")

    def test_a_call_that_finds_too_few_gets_a_fault(self):
        for few in (1, 2):
            with self.subTest(left=few):
                before = self.leave(few)
                fault = fault_of(self.daemon.rpc().Tunnel.openTunnel)
                self.assertEqual(fault.faultCode, 8)
                self.assertIn("Too many open files", fault.faultString)
                set_limit(self.daemon, resource.RLIMIT_NOFILE, before)
        self.open_tunnel(self.daemon).both()


class Ports(Case):
    def test_a_range_that_another_program_holds_is_a_fault_until_it_is_free(self):
        for held in (0, 1):
            with self.subTest(held=("server", "client")[held]):
                ports = PortBlock(3)
                holders = [harness.listen("127.0.0.1", ports.low + 2 * pair + held)
                           for pair in range(3)]
                for holder in holders:
                    self.addCleanup(holder.close)
                daemon = self.start_daemon(ports=ports)
                for _ in range(2):
                    self.assertIn("no free port pair",
                                  fault_of(daemon.rpc().Tunnel.openTunnel).faultString)
                for holder in holders:
                    holder.close()
                tunnels = [self.open_tunnel(daemon) for _ in range(3)]
                for tunnel in tunnels:
                    tunnel.both()
                    tunnel.end()
                daemon.stop()


class Log(Case):
    """A log that takes no more: lines are lost and counted, nothing else."""

    LOST = re.compile(r"warning (\d+) lines before this one could not be written")

    def start_daemon_with_log(self, log, wrapper=()):
        """The harness's own daemon has a log that takes everything."""
        ports = PortBlock(8)
        self.addCleanup(ports.release)
        daemon = harness.start([*wrapper, harness.TUNNELD, "--listen", "127.0.0.1:0", "--ports", str(ports),
                                "--drain", "0", "--log-level", "debug"],
                               stdout=harness.subprocess.PIPE, stderr=log)
        self.addCleanup(daemon.stdout.close)
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.kill)
        daemon.host = "127.0.0.1"
        daemon.url = daemon.stdout.readline().decode().split()[1]
        return daemon

    def serve(self, daemon, trips):
        for _ in range(trips):
            tunnel = harness.Tunnel(daemon)
            server, client = tunnel.both()
            server.close()
            self.assert_proper_end(client)
            client.close()

    def stop(self, daemon):
        daemon.terminate()
        self.assertEqual(daemon.wait(harness.WAIT_S), 0)

    def test_a_disk_without_room_stops_nothing(self):
        with open("/dev/full", "wb") as full:
            daemon = self.start_daemon_with_log(full)
        self.serve(daemon, 20)
        self.stop(daemon)

    def test_a_closed_log_stops_nothing(self):
        daemon = self.start_daemon_with_log(None, ("sh", "-c", 'exec "$@" 2>&-', "sh"))
        self.serve(daemon, 20)
        self.stop(daemon)

    def test_lines_that_found_no_room_are_counted_once_there_is_some(self):
        path = os.path.join(self.temporary_folder(), "log")
        with open(path, "ab") as log:
            daemon = self.start_daemon_with_log(log)
        self.serve(daemon, 1)
        wait_until(lambda: " closed: " in read_text(path), "all is logged")
        room = os.path.getsize(path) + 30       # the next line is cut
        set_limit(daemon, resource.RLIMIT_FSIZE, room)
        self.serve(daemon, 5)
        self.assertEqual(os.path.getsize(path), room)
        set_limit(daemon, resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
        self.serve(daemon, 1)
        self.stop(daemon)
        with open(path, encoding="ascii") as log:
            lines = log.read().splitlines()
        told = [self.LOST.search(line) for line in lines]
        self.assertEqual(sum(map(bool, told)), 1, lines)
        self.assertGreaterEqual(int(next(filter(None, told))[1]), 5 * 4)
        at = told.index(next(filter(None, told)))
        self.assertRegex(lines[at], r"^\d{4}-\d\d-\d\dT[0-9:]+Z warning ")
        self.assertEqual(len(lines[at - 1]), 30)

    def fill(self, writing):
        """So that nobody else gets anything in."""
        os.set_blocking(writing, False)
        for size in (4096, 1):
            try:
                while True:
                    os.write(writing, b"x" * size)
            except BlockingIOError:
                pass
        os.set_blocking(writing, True)

    def drain(self, reading):
        os.set_blocking(reading, False)
        pieces = []
        try:
            while piece := os.read(reading, 65536):
                pieces.append(piece)
        except BlockingIOError:
            pass
        return b"".join(pieces).decode()

    def nobody_reads(self, reading, writing):
        daemon = self.start_daemon_with_log(writing)
        self.fill(writing)
        began = time.monotonic()
        self.serve(daemon, 20)
        self.assertLess(time.monotonic() - began, 10)
        read = self.drain(reading)      # late lines may come in meanwhile
        self.serve(daemon, 1)
        self.assertRegex(read + self.drain(reading), self.LOST)
        self.fill(writing)
        self.stop(daemon)

    def test_a_pipe_that_nobody_reads_holds_up_nothing(self):
        ends = os.pipe()
        for end in ends:
            self.addCleanup(os.close, end)
        self.nobody_reads(*ends)

    def test_a_socket_that_nobody_reads_holds_up_nothing(self):
        ends = socket.socketpair()
        for end in ends:
            self.addCleanup(end.close)
        self.nobody_reads(*(end.fileno() for end in ends))


if __name__ == "__main__":
    harness.main()
