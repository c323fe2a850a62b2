#!/usr/bin/python3 -B
"""A client that goes in the midst of its bytes costs its server that channel alone, also
a server that takes a word about a closed channel for the end of all."""

import harness
from harness import in_thread, receive_exactly, reset
from ssh_harness import (Dbclient, Hostile, SshDaemonCase, Ssh, ask, check_pattern, echo, needs_dbclient,
                         needs_paramiko, needs_ssh, source)


class GoneCase(SshDaemonCase):
    kind = Ssh

    def setUp(self):
        """A service that sends, one that answers, and somebody who stays with the latter."""
        self.sending, self.answering = self.serve(self.send), self.serve(echo)
        self.carrier = self.carry(self.sending.port, self.answering.port, kind=self.kind)
        self.to_sending, self.to_answering = self.carrier.addresses
        self.other = self.connect(self.to_answering)

    @staticmethod
    def send(connection):
        connection.sendall(b"220 welcome\r\n")
        echo(connection)

    def assert_others_go_on(self):
        self.other.sendall(b"still here")
        self.assertEqual(receive_exactly(self.other, 10), b"still here")
        self.assertEqual(ask(self.to_answering), b"?")
        self.assertIsNone(self.carrier.process.poll(), self.carrier.errors())


@needs_dbclient
class AmidAGreeting(GoneCase):
    kind = Dbclient

    def test_clients_that_reset_once_they_are_greeted(self):
        for _ in range(10):
            client = self.connect(self.to_sending)
            receive_exactly(client, 3)
            reset(client)
            self.assert_others_go_on()

    def test_clients_that_reset_before_they_are_greeted(self):
        for _ in range(30):
            reset(self.connect(self.to_sending))
        self.assert_others_go_on()

    def test_clients_that_reset_amid_an_echo(self):
        for _ in range(10):
            client = self.connect(self.to_answering)
            client.sendall(bytes(50000))
            reset(client)
            self.assert_others_go_on()


@needs_dbclient
class AmidADownload(GoneCase):
    kind = Dbclient
    send = staticmethod(source(1, 64 << 20))

    def test_downloads_that_are_broken_off(self):
        for count in (1, 1000, 60000, 70000, 600000, 700000, 1200000, 1300000, 4 << 20):
            with self.subTest(count=count):
                client = self.connect(self.to_sending)
                check_pattern(client, 1, count, end=False)
                reset(client)
                self.assert_others_go_on()

    def test_downloads_that_are_broken_off_unread(self):
        for _ in range(10):
            client = self.connect(self.to_sending, receive_buffer=16384)
            receive_exactly(client, 1)
            self.assert_others_go_on()
            reset(client)
            self.assert_others_go_on()

    def test_many_downloads_that_are_broken_off_at_once(self):
        clients = [self.connect(self.to_sending) for _ in range(20)]
        for each in [in_thread(receive_exactly, client, 100000) for client in clients]:
            each.result()
        for client in clients:
            reset(client)
        self.assert_others_go_on()

    def test_downloads_of_which_a_client_wants_to_hear_no_more(self):
        for _ in range(5):
            client = self.connect(self.to_sending)
            receive_exactly(client, 100000)
            client.close()              # which is a reset when more comes
            self.assert_others_go_on()


@needs_ssh
class AmidADownloadByOpenSsh(AmidADownload):
    kind = Ssh


@needs_paramiko
class WhatFollowsAClose(SshDaemonCase):
    """Seen packet by packet."""

    options = ("--log-level", "debug")

    def let_go(self, early, late, *how):
        """A client that goes when its server has sent so many bytes, which then sends so many
        more, or all that its window allows; returns how much that was."""
        hostile = self.begin(Hostile, "late_bytes", early, late, *how)
        client = self.connect((self.daemon.host, int(hostile.expect(r"allocated (\d+)")[1])))
        hostile.expect("sent")
        if early:
            receive_exactly(client, early)
        before = len(self.daemon.errors())
        reset(client)
        if "amid-keys" in how:
            self.daemon.log_line("client 1 has gone", before)
            hostile.tell("go on")
        late = int(hostile.expect(r"(\d+) late bytes")[1])
        self.assertEqual(hostile.line(), "followed by nothing")
        hostile.expect("still there")
        hostile.expect("done")
        hostile.finish()
        return late

    def test_nothing_does_when_a_few_bytes_come_late(self):
        for early in (0, 1, 50000, 70000):
            with self.subTest(early=early):
                self.let_go(early, 1000)

    def test_nothing_does_when_all_comes_late_that_the_window_allows(self):
        for early in (0, 1, 64000, 600000, 640001, 1279999, 1280000, 3000000):
            with self.subTest(early=early):
                self.assertGreaterEqual(self.let_go(early, "all"), 1280000)

    def test_nothing_does_while_keys_are_exchanged_anew(self):
        for early in (0, 50000):
            with self.subTest(early=early):
                self.let_go(early, "all", "amid-keys")

    def test_nothing_does_when_the_server_has_ended(self):
        for early in (0, 50000):
            with self.subTest(early=early):
                self.assertEqual(self.let_go(early, 0, "end"), 0)

    def test_nothing_does_when_the_client_went_before_its_channel_was_opened(self):
        hostile = self.begin(Hostile, "late_bytes_in_a_late_channel")
        client = self.connect((self.daemon.host, int(hostile.expect(r"allocated (\d+)")[1])))
        hostile.expect("asked")
        reset(client)
        hostile.tell("open")
        self.assertGreaterEqual(int(hostile.expect(r"(\d+) late bytes")[1]), 1280000)
        self.assertEqual(hostile.line(), "followed by nothing")
        hostile.expect("still there")
        hostile.expect("done")
        hostile.finish()

    def test_who_sends_more_late_bytes_than_its_window_allows_is_thrown_out(self):
        before = len(self.daemon.errors())
        hostile = self.begin(Hostile, "closes_unanswered_and_more_sent", 4)
        client = self.connect((self.daemon.host, int(hostile.expect(r"allocated (\d+)")[1])))
        reset(client)
        self.daemon.log_line("is gone from ssh: the server sent more than its window allows", before)
        hostile.kill()


if __name__ == "__main__":
    harness.main()
