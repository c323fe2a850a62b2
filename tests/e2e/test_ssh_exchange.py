#!/usr/bin/python3 -B
"""Keys that the proxy wants anew: who answers loses nothing, who does not is no burden.

libssh wants them after gigabytes; tests/faults/early_exchange.c, preloaded, has it do so
after one MiB. Not under sanitizers, as test_faults.py is not."""

import os
import time
import unittest

import harness
import ssh_harness
from faults import SHIM
from harness import connect, in_thread
from ssh_harness import (PARAMIKO, SSH, Hostile, Paramiko, Ssh, SshDaemonCase, ask, check_pattern, discard, echo,
                         send_pattern, source)

EARLY_EXCHANGE = os.path.join(os.path.dirname(SHIM), "early_exchange.so")
MOST_KIB = 24 << 10


class ExchangeCase(SshDaemonCase):
    how = {"env": {"LD_PRELOAD": EARLY_EXCHANGE}}


@unittest.skipUnless(SSH and ssh_harness.KEYSCAN, "ssh is not installed")
class Answered(ExchangeCase):
    AMOUNT = 24 << 20

    def bulk_both_ways(self, kind):
        echoing, pushing, taking = self.serve(echo), self.serve(source(1, self.AMOUNT)), self.serve(discard)
        to_echo, from_source, to_taker = self.carry(echoing.port, pushing.port, taking.port, kind=kind).addresses
        both, down, up = (self.connect(address) for address in (to_echo, from_source, to_taker))
        reading = [in_thread(check_pattern, both, 2, self.AMOUNT), in_thread(check_pattern, down, 1, self.AMOUNT)]
        sending = [in_thread(send_pattern, both, 2, self.AMOUNT), in_thread(send_pattern, up, 3, self.AMOUNT)]
        for _ in range(40):
            self.assertEqual(ask(to_echo, b"beside it"), b"beside it")
            time.sleep(0.05)
        for each in reading + sending:
            each.result(harness.WAIT_S)
        self.assertEqual(harness.receive_until_end(up), b"%d" % self.AMOUNT)

    def test_bulk_both_ways_loses_nothing(self):
        self.bulk_both_ways(Ssh)

    @unittest.skipUnless(PARAMIKO, "paramiko is not installed")
    def test_bulk_both_ways_loses_nothing_with_paramiko(self):
        self.bulk_both_ways(Paramiko)


@unittest.skipUnless(PARAMIKO and SSH and ssh_harness.KEYSCAN, "paramiko and ssh are not installed")
class Unanswered(ExchangeCase):
    options = ("--keepalive", "2")

    def setUp(self):
        self.before_kib = self.daemon.resident_kib()

    def test_answers_that_are_kept_back_take_no_memory(self):
        hostile = self.begin(Hostile, "keys_unanswered_and_requests", 400000)
        hostile.expect(r"allocated (\d+)")
        hostile.expect("asked")
        hostile.expect("done", 60)
        self.assert_no_more_memory(self.before_kib, MOST_KIB)
        self.assert_serves()
        hostile.finish()
        self.daemon.expect_rest()

    def test_it_ends_in_time_whatever_else_is_said(self):
        hostile = self.begin(Hostile, "keys_unanswered_and_unknown_numbers")
        client = connect((self.daemon.host, int(hostile.expect(r"allocated (\d+)")[1])))
        hostile.expect("asked")
        began = time.monotonic()
        try:
            while time.monotonic() < began + 75:
                client.sendall(b"x" * 20)
                time.sleep(0.1)
            self.fail("it goes on for ever")
        except ConnectionError:
            pass
        self.assert_no_more_memory(self.before_kib, MOST_KIB)
        client.close()
        hostile.expect("done")
        hostile.finish()
        self.daemon.expect_rest()


if __name__ == "__main__":
    harness.main()
