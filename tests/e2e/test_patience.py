#!/usr/bin/python3 -B
"""Who is turned away from its tunnel goes on for a minute, and opens another then."""

import time
import unittest

import harness
import test_expose_ssh_again
from serving_harness import ServingCase
from ssh_harness import SSH


class ByWebmux(ServingCase):
    def test_one_who_is_turned_away_for_a_minute_opens_another_tunnel(self):
        url, opened, started, then = self.proxy_that_turns_away()
        then.settimeout(120)                # tries get rare by then
        server = self.start_server(url)
        began = time.monotonic()
        started.set()
        self.accept(then)
        self.assertGreater(time.monotonic() - began, 60)
        server.wait_for("moved")
        self.assertEqual(len(opened), 2)
        self.assertGreater(len(server.seen), 4)


@unittest.skipUnless(SSH, "there is no ssh")
class BySsh(test_expose_ssh_again.AgainCase):
    def test_a_tunnel_that_ssh_is_not_let_in_to_is_given_up_and_its_token_told_to_nobody(self):
        """As after this machine has got another address."""
        self.replace_proxy(source="127.0.0.2")
        began = time.monotonic()
        for _ in range(4):
            self.assertEqual(self.wait_for("retrying")["text"][:17], "Permission denied")
        self.wait_for("moved")
        self.assertGreater(time.monotonic() - began, 60)
        self.assert_serves()
        self.assertEqual(self.front.opened, 2)


if __name__ == "__main__":
    harness.main()
