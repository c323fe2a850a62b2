#!/usr/bin/python3 -B
"""What is slow, stuck or without an answer behind ssh costs nobody but itself."""

import contextlib
import os
import re
import select
import socket
import subprocess
import threading
import time

import harness
import ssh_harness
from harness import (Pattern, how_it_ended, in_thread, receive_exactly, receive_until_end,
                     receive_until_reset, reset, wait_until)
from ssh_harness import (Hostile, Paramiko, Ssh, SshCase, ask, discard, echo, greeting,
                         needs_paramiko, needs_ssh, source)

LINGER_S = 5


def fill(client):
    """Sends until nothing was taken for a second."""
    client.settimeout(1)
    with contextlib.suppress(TimeoutError):
        for _ in range(1000):
            client.sendall(bytes(65536))
        raise AssertionError("it all was taken")
    client.settimeout(harness.WAIT_S)


def echo_all(service):
    """To whoever has come, and comes."""
    def serve(connection):
        with connection, contextlib.suppress(OSError):
            echo(connection)
    with contextlib.suppress(OSError):
        while True:
            in_thread(serve, service.accept())


class SlowCase(SshCase):
    """With a daemon for each test, which must be as it was when the test is done."""

    options = ()

    def setUp(self):
        self.daemon = self.start_ssh_daemon("--drain", "1", "--reserve", "0", "--attach-timeout", "10",
                                            *self.options)
        self.addCleanup(self.daemon.stop)       # when all who came have been ended

    @contextlib.contextmanager
    def bystander(self, address, within_s=5):
        """Somebody who is answered, each time soon, while the block runs, and who is
        still on the same connection after it. One more comes now and then."""
        talking = threading.Event()
        client = self.connect(address)
        client.settimeout(within_s)

        def talk():
            number = 0
            while not talking.wait(0.05):
                question = b"%08d" % number
                client.sendall(question)
                self.assertEqual(receive_exactly(client, len(question)), question)
                if number % 10 == 0:
                    self.assertEqual(ask(address, question), question)
                number += 1
            return number

        beside = in_thread(talk)
        try:
            yield
        finally:
            talking.set()
        self.assertGreater(beside.result(), 0)
        self.assertEqual(self.echo_of(client, b"the last word"), b"the last word")

    @staticmethod
    def echo_of(client, question):
        client.sendall(question)
        return receive_exactly(client, len(question))


@needs_ssh
class SlowClients(SlowCase):
    AMOUNT = 8 << 20

    def slow_client(self, address):
        """As over a real line: small segments, and no room for much."""
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.addCleanup(client.close)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
        client.settimeout(harness.WAIT_S)
        client.connect(address)
        return client

    @staticmethod
    def read_with_pauses(client, seed, amount):
        """At 4 MiB a second or less, and now and then not at all."""
        pattern = Pattern(seed)
        next_pause = amount // 8
        while piece := client.recv(32768):
            pattern.check(piece)
            time.sleep(len(piece) / (4 << 20))
            if pattern.position >= next_pause:
                next_pause += amount // 8
                time.sleep(0.25)
        if pattern.position != amount:
            raise AssertionError(f"the stream ended {amount - pattern.position} bytes early")

    def test_a_client_slower_than_its_server_loses_nothing_and_holds_up_nobody(self):
        pushing, echoing = self.carry(self.serve(source(1, self.AMOUNT)).port, self.serve(echo).port).addresses
        client = self.slow_client(pushing)
        with self.bystander(echoing):
            self.read_with_pauses(client, 1, self.AMOUNT)
        client.close()

    def test_several_slow_clients_lose_nothing_and_hold_up_nobody(self):
        amount = 6 << 20
        pushing, echoing = self.carry(self.serve(source(1, amount)).port, self.serve(echo).port).addresses
        with self.bystander(echoing):
            for reading in [in_thread(self.read_with_pauses, self.slow_client(pushing), 1, amount)
                            for _ in range(4)]:
                reading.result()


@needs_ssh
class TooMuchForAll(SlowCase):
    """libssh opens a channel's window anew when half of its 1,280,000 bytes is used, so that each
    of them has half of that waiting at least, and all have more than the 64 MiB that a carrier
    may."""

    CLIENTS = 120
    AMOUNT = 40 << 20

    def slow_clients(self):
        address = self.carry(self.serve(source(1, self.AMOUNT)).port).address
        return [self.connect(address, receive_buffer=16384) for _ in range(self.CLIENTS)]

    def read(self, client, pattern, until):
        """About 50 KB a second, so that more comes also where all is slow."""
        count = 0
        while time.monotonic() < until:
            piece = client.recv(20000)
            pattern.check(piece)
            count += len(piece)
            time.sleep(0.4)
        return count

    def test_who_reads_slowly_is_kept_and_who_takes_nothing_is_reset(self):
        stuck, *clients = self.slow_clients()
        patterns = [Pattern(1) for _ in clients]
        broken = select.poll()
        broken.register(stuck, 0)
        for _ in range(20):     # on a busy machine it takes a while until so much has come
            until = time.monotonic() + 8
            for reading in [in_thread(self.read, client, pattern, until)
                            for client, pattern in zip(clients, patterns)]:
                self.assertGreater(reading.result(), 0)
            if broken.poll(0):
                break
        receive_until_reset(stuck)
        if not harness.is_sanitized():
            self.assertLess(self.daemon.resident_kib(), 160 << 10)


@needs_ssh
class TooMuchByRate(SlowCase):
    options = ("--rate", "20000")

    def test_nobody_whom_the_rate_holds_back_is_reset(self):
        address = self.carry(self.serve(source(1, 8 << 20)).port).address
        clients = [self.connect(address) for _ in range(45)]
        time.sleep(4)
        for client in clients:
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):      # a reset would be another
                while client.recv(65536):
                    pass


class SlowLine:
    """Leads to an address and lets what comes back from it through at a rate."""

    def __init__(self, goal, bytes_a_second):
        self._goal, self._rate = goal, bytes_a_second
        self._listener = harness.listen()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.port = self._listener.getsockname()[1]
        self._ends = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            near, _ = self._listener.accept()
            far = socket.socket()
            self._ends += [near, far]
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            far.connect(self._goal)
            threading.Thread(target=self._pump, args=(near, far, 0), daemon=True).start()
            self._pump(far, near, self._rate)

    def _pump(self, whence, to, rate):
        with contextlib.suppress(OSError):
            due = 0
            while piece := whence.recv(16384):
                to.sendall(piece)
                if rate:
                    due = max(due, time.monotonic()) + len(piece) / rate
                    time.sleep(max(0, due - time.monotonic()))
        for end in (whence, to):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class UplinkCase(SlowCase):
    def greeted(self, address, count):
        """Clients of a service that greets."""
        clients = [self.connect(address) for _ in range(count)]
        for client in clients:
            self.assertEqual(receive_exactly(client, 1), b"!")
        return clients

    def upload(self, client, amount):
        client.sendall(bytes(amount))
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(receive_until_end(client), b"%d" % amount)

    def carry_slowly(self, *targets, bytes_a_second=4 << 20):
        """The addresses, behind a line that lets so much through to the servers."""
        line = SlowLine(self.daemon.ssh_address, bytes_a_second)
        self.addCleanup(line.close)
        host = f"[{self.daemon.ssh_host}]:{self.daemon.ssh_port}"
        return self.carry(*targets, options=(f"Port={line.port}", f"HostKeyAlias={host}")).addresses


@needs_ssh
class SaturatedUplink(UplinkCase):
    """More goes to the servers than the connection takes."""

    AMOUNT = 6 << 20

    def amid_a_frozen_ssh(self, what):
        """Does this to an idle client's connection, and to that of one that was sending,
        while ssh stands still and its connection is full. Returns the idle one's server."""
        taking, idling, echoing = self.serve(greeting(discard)), self.serve(), self.serve(echo)
        carrier = self.carry(taking.port, idling.port, echoing.port)
        to_taking, to_idling, to_echoing = carrier.addresses
        idle, server = self.both(to_idling, idling)
        pushers = self.greeted(to_taking, 6)
        bystander = self.connect(to_echoing)
        self.assertEqual(self.echo_of(bystander, b"before"), b"before")
        carrier.freeze()
        uploads = [in_thread(self.upload, client, self.AMOUNT) for client in pushers[1:]]
        fill(pushers[0])
        for each in uploads:
            self.assertTrue(each.is_alive(), "the connection took it all")
        what(idle, pushers[0])
        time.sleep(0.5)
        carrier.thaw()
        self.assertEqual(self.echo_of(bystander, b"after"), b"after")
        self.assertEqual(ask(to_echoing), b"?")
        for each in uploads:
            each.result(harness.WAIT_S)
        return server

    def test_on_a_saturated_uplink_a_client_s_end_ends_its_stream_alone(self):
        server = self.amid_a_frozen_ssh(lambda idle, _: idle.shutdown(socket.SHUT_WR))
        self.assertEqual(receive_until_end(server), b"")

    def test_on_a_saturated_uplink_a_client_s_reset_ends_its_stream_alone(self):
        how_it_ended(self.amid_a_frozen_ssh(lambda idle, _: reset(idle)))

    def test_on_a_saturated_uplink_a_sending_client_s_reset_ends_its_stream_alone(self):
        server = self.amid_a_frozen_ssh(lambda _, sending: reset(sending))
        server.settimeout(1)
        with self.assertRaises(TimeoutError):
            server.recv(1)

    def begin_uploads(self, address):
        return [in_thread(self.upload, self.connect(address), 2 << 20) for _ in range(6)]

    def test_behind_a_slow_line_clients_ends_end_their_streams_alone(self):
        to_taking, to_echoing = self.carry_slowly(self.serve(discard).port, self.serve(echo).port)
        clients = [self.connect(to_echoing) for _ in range(20)]
        for client in clients:
            self.assertEqual(self.echo_of(client, b"before"), b"before")
        uploads = self.begin_uploads(to_taking)
        for client in clients:
            time.sleep(0.1)
            client.shutdown(socket.SHUT_WR)
        for client in clients:
            self.assertEqual(receive_until_end(client), b"")
        for each in uploads:
            each.result(harness.WAIT_S)

    def test_behind_a_slow_line_small_requests_and_bulk_all_come_to_their_end(self):
        to_taking, to_answering = self.carry_slowly(self.serve(discard).port,
                                                    self.serve(ssh_harness.web(b"x" * 2000)).port)

        def get():
            for number in range(8):
                with harness.connect(to_answering) as client:
                    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    self.assertTrue(receive_exactly(client, 2000).startswith(b"HTTP/1.1 200"))
                    if number % 3 == 0:
                        reset(client)
                    elif number % 3 == 1:
                        client.shutdown(socket.SHUT_WR)
                        receive_until_end(client)
                time.sleep(0.1)

        uploads = self.begin_uploads(to_taking)
        for each in [in_thread(get) for _ in range(3)] + uploads:
            each.result(harness.WAIT_S)


@needs_ssh
class SessionOnAFullLine(UplinkCase):
    UPLOADS = 6
    options = ("--streams-per-tunnel", "512")

    def amid_a_full_line(self, come):
        """A session whose lines are waited for after this was done while nothing went
        through to it."""
        session = self.carry(self.serve(greeting(discard)).port, self.serve(echo).port,
                             arguments=("-T",), stdin=subprocess.PIPE)
        while "Clients connect there" not in session.line():
            pass                        # who comes before is shown to nobody
        pushers = self.greeted(session.addresses[0], self.UPLOADS + 1)
        for _ in pushers:
            self.next_shown(session)
        session.freeze()
        uploads = [in_thread(self.upload, client, 6 << 20) for client in pushers[1:]]
        fill(pushers[0])
        come(*session.addresses)
        time.sleep(0.5)
        session.thaw()
        self.addCleanup(lambda: [each.result(harness.WAIT_S) for each in uploads])
        return session

    def next_shown(self, session):
        """What the next line tells of a client that has connected, or of lines."""
        while True:
            if match := re.search(r"client \d+ connected|\(\d+ lines were left out\)", session.line()):
                return match[0]

    def test_a_session_shows_each_client_that_came_while_uploads_filled_the_line(self):
        talking = []
        session = self.amid_a_full_line(
            lambda _, to_echoing: talking.extend(in_thread(ask, to_echoing) for _ in range(20)))
        for _ in talking:
            self.assertIn("connected", self.next_shown(session))
        for each in talking:
            each.result(harness.WAIT_S)

    def test_a_session_tells_how_many_lines_were_left_out_when_there_were_too_many(self):
        count = 800                     # more lines than the 16 KiB that wait for a session

        def come(*addresses):
            for number in range(count):
                reset(self.connect(addresses[number % 2]))

        session = self.amid_a_full_line(come)
        shown = 0                       # and nobody comes any more
        while "left out" not in (what := self.next_shown(session)):
            shown += 1
        self.assertGreater(shown, 100)
        self.assertLess(int(re.search(r"\d+", what)[0]), 2 * count)    # two lines of each


@needs_ssh
class LingerOnASlowLine(UplinkCase):
    options = ("--linger", str(LINGER_S))

    def test_a_client_that_has_ended_is_kept_while_its_bytes_are_on_their_way(self):
        address = self.carry_slowly(self.serve(discard).port, bytes_a_second=200_000)[0]
        client = self.connect(address)
        self.upload(client, 1_600_000)

    def test_a_client_that_has_ended_is_reset_when_they_have_arrived_and_nothing_comes(self):
        service = self.serve()
        to_silent, to_taking = self.carry_slowly(service.port, self.serve(discard).port,
                                                 bytes_a_second=200_000)
        client, server = self.both(to_silent, service)
        client.shutdown(socket.SHUT_WR)
        uploading = in_thread(self.upload, self.connect(to_taking), 1_600_000)
        self.assertEqual(receive_until_end(server), b"")
        client.settimeout(4 * LINGER_S)
        self.assertEqual(how_it_ended(client), "reset")
        uploading.result()


@needs_ssh
class NoAnswer(SlowCase):
    """A channel about which the ssh on the other side says nothing, for its service does not."""

    options = ("--linger", str(LINGER_S))

    def test_a_service_whose_queue_is_full_costs_its_own_clients_alone(self):
        full, second = self.serve(backlog=1), self.serve(echo)
        to_full, echoing = self.carry(full.port, second.port).addresses
        first = self.connect(to_full)
        time.sleep(0.25)
        waiting = [self.connect(to_full) for _ in range(5)]
        with self.bystander(echoing):
            time.sleep(2 * LINGER_S)
        in_thread(echo_all, full)
        self.assertEqual(self.echo_of(first, b"waited"), b"waited")
        self.assertEqual(ask(to_full), b"?")
        for client in waiting:
            client.close()

    def test_a_service_that_takes_nothing_costs_its_own_client_alone_when_that_resets(self):
        stuck, second = self.serve(receive_buffer=65536), self.serve(echo)
        to_stuck, echoing = self.carry(stuck.port, second.port).addresses
        client, _server = self.both(to_stuck, stuck, send_buffer=65536)
        other, others_server = self.both(to_stuck, stuck)
        fill(client)
        with self.bystander(echoing):
            reset(client)
            time.sleep(2 * LINGER_S)
        other.sendall(b"as before")
        self.assertEqual(receive_exactly(others_server, 9), b"as before")
        self.both(to_stuck, stuck)


@needs_paramiko
class Lifetime(SlowCase):
    LIFETIME_S = 3
    MOST_KIB = 24 << 10
    options = ("--lifetime", str(LIFETIME_S))

    def test_an_ssh_that_sends_on_after_its_tunnel_s_lifetime_takes_no_memory(self):
        before_kib = self.daemon.resident_kib()
        hostile = self.begin(Hostile, "closes_unanswered_and_more_sent", 96)
        port = int(hostile.expect(r"allocated (\d+)")[1])
        client = self.connect((self.daemon.host, port))
        hostile.expect("closed")
        self.assertEqual(how_it_ended(client), "reset")
        wait_until(lambda: port not in self.daemon.ports.listening(), "the pair is back")
        hostile.expect(r"allocated (\d+)")
        self.assertRegex(hostile.line(), "sent|thrown out")
        hostile.expect("done")
        self.assert_no_more_memory(before_kib, self.MOST_KIB)
        self.assert_serves()
        hostile.finish()


@needs_paramiko
class LifetimeAtARate(SlowCase):
    LIFETIME_S = 3
    options = ("--lifetime", str(LIFETIME_S), "--rate", "100000")

    def processor_s(self):
        with open(f"/proc/{self.daemon.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def test_a_rate_used_up_when_its_tunnel_ends_wakes_nobody(self):
        hostile = self.begin(Hostile, "bulk_and_closes_unanswered")
        client = self.connect((self.daemon.host, int(hostile.expect(r"allocated (\d+)")[1])))
        hostile.expect("done")
        self.assertEqual(how_it_ended(client), "reset")
        before_s = self.processor_s()
        time.sleep(2)
        self.assertLess(self.processor_s() - before_s, 0.5)
        hostile.finish()


@needs_paramiko
class Cancelled(SlowCase):
    options = ("--reserve", "3")

    def test_a_forward_that_was_cancelled_amid_a_client_does_not_come_back_deaf(self):
        service = self.serve(echo)
        carrier = self.carry(service.port, kind=Paramiko, login="joe")
        address = carrier.address
        client = self.connect(address)
        self.assertEqual(self.echo_of(client, b"before"), b"before")
        carrier.tell("cancel", address[1])
        carrier.expect("cancelled")
        wait_until(lambda: address[1] not in self.daemon.ports.listening(), "nobody listens there")
        self.assertEqual(self.echo_of(client, b"amid"), b"amid")
        carrier.kill()
        how_it_ended(client)
        for _ in range(2):
            again = self.carry(service.port, kind=Ssh, login="joe")
            self.assertEqual(ask(again.address), b"?")

    def test_a_forward_that_was_cancelled_ends_at_once_with_its_last_client(self):
        for leave in (socket.socket.close, reset):
            with self.subTest(leave=leave.__name__):
                before = len(self.daemon.errors())
                carrier = self.carry(self.serve(echo).port, kind=Paramiko)
                client = self.connect(carrier.address)
                self.assertEqual(self.echo_of(client, b"before"), b"before")
                carrier.tell("cancel", carrier.address[1])
                carrier.expect("cancelled")
                self.assertEqual(self.echo_of(client, b"amid"), b"amid")
                leave(client)
                self.daemon.log_line("closed: its server has taken it back", before, 10)


if __name__ == "__main__":
    harness.main()
