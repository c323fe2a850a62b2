#!/usr/bin/python3 -B
"""SIGHUP: users, limits and log level are read again, and live tunnels don't notice."""

import os
import random
import resource
import signal
import socket
import time
import xmlrpc.client

import harness
from harness import (Case, PortBlock, address_of, fault_of, in_thread, receive_exactly, receive_until_end,
                     receive_until_reset, run, wait_until)


def hash_line(user, password):
    done = run(["htpasswd", "-nbB", user, password])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip() + "\n"


class Reload(Case):
    def setUp(self):
        self.folder = self.temporary_folder()
        self.config = os.path.join(self.folder, "tunneld.conf")
        self.users = os.path.join(self.folder, "users.htpasswd")

    def write(self, path, text):
        """As editors do: the file is whole at every moment."""
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path + ".new", 0o600)
        os.rename(path + ".new", path)

    def start(self, text, *options, **how):
        self.write(self.config, text)
        return self.start_daemon("--drain", "1", "--config", self.config, *options, **how)

    def reload(self, daemon, expected):
        """Sends the signal, and waits for one more line with the expected text."""
        before = daemon.errors().count(expected)
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: daemon.errors().count(expected) > before or daemon.process.poll()
                   is not None, f"{expected} in the log: {daemon.errors()}")
        self.assertIsNone(daemon.process.poll(), daemon.errors())

    def reload_well(self, daemon):
        self.reload(daemon, "info the configuration was read again")

    def reload_badly(self, daemon, *pieces):
        self.reload(daemon, "error the configuration stays as it was: ")
        for piece in pieces:
            self.assertIn(piece, daemon.errors().splitlines()[-1])

    def status(self, daemon, user):
        """Of a call by "name:password"."""
        try:
            with harness.rpc(daemon.url_of(user)) as proxy:
                proxy.system.listMethods()
        except xmlrpc.client.ProtocolError as error:
            return error.errcode
        return 200

    def test_a_pipe_in_the_place_of_a_file_changes_nothing_and_holds_up_nothing(self):
        self.write(self.users, hash_line("jo", "word"))
        daemon = self.start(f"users = {self.users}\n", user="jo:word")
        for path in (self.users, self.config):
            os.rename(path, path + ".before")
            os.mkfifo(path)
            self.reload_badly(daemon, path, "expected a regular file")
            os.rename(path + ".before", path)
        self.assertEqual(self.status(daemon, "jo:word"), 200)
        daemon.stop()

    def test_users_come_go_and_change_their_passwords(self):
        self.write(self.users, hash_line("jo", "word") + hash_line("al", "first"))
        daemon = self.start(f"users = {self.users}\n", user="jo:word")
        self.assertEqual([self.status(daemon, user) for user in ("al:first", "bo:new")], [200, 401])
        self.write(self.users, hash_line("al", "second") + hash_line("bo", "new"))
        self.assertEqual(self.status(daemon, "jo:word"), 200)       # until it is told
        self.reload_well(daemon)
        self.assertEqual([self.status(daemon, user) for user in
                          ("jo:word", "al:first", "al:second", "bo:new")], [401, 401, 200, 200])
        daemon.stop()

    def test_users_can_begin_and_end_to_be_asked(self):
        daemon = self.start("")
        self.write(self.users, hash_line("jo", "word"))
        self.write(self.config, f"users = {self.users}\n")
        self.reload_well(daemon)
        self.assertEqual([self.status(daemon, user) for user in ("jo:word", "jo:no")], [200, 401])
        self.write(self.config, "")
        self.reload_well(daemon)
        self.assertEqual(self.status(daemon, "jo:no"), 200)
        daemon.stop()

    def test_a_public_proxy_is_not_opened_to_all_by_a_line_that_went(self):
        self.write(self.users, hash_line("jo", "word"))
        daemon = self.start(f"users = {self.users}\n", listen_on="0.0.0.0:0", user="jo:word")
        self.write(self.config, "")
        self.reload_badly(daemon, "0.0.0.0:0", "--users FILE", "--open-to-all")
        self.assertEqual([self.status(daemon, user) for user in ("jo:word", "jo:no")], [200, 401])
        daemon.stop()

    def test_a_bad_file_changes_nothing_and_is_told_with_its_line(self):
        self.write(self.users, hash_line("jo", "word"))
        daemon = self.start(f"users = {self.users}\nmax-tunnels = 2\n", user="jo:word")
        bad = f"max-tunnels = 1\nlog-level = debug\nusers = {self.users}\n"
        for text, *pieces in ((bad + "linger = soon\n", self.config + ":4", "soon"),
                              (bad + "nonsense\n", self.config + ":4", "key = value"),
                              (bad + "lingre = 3\n", self.config + ":4", "lingre"),
                              (bad + "users = /nowhere/users\n", "/nowhere/users", "No such file"),
                              (bad + "open-to-all = yes\n", "users", "open-to-all"),
                              (bad + "host = other.example\n", "host", "restart"),
                              (bad + "relay-listen = 127.0.0.2\n", "relay-listen", "restart")):
            with self.subTest(text=text):
                self.write(self.config, text)
                self.reload_badly(daemon, *pieces)
        self.write(self.config, bad)
        self.write(self.users, "# of today\njo:$apr1$abcdefgh$012345\n")
        self.reload_badly(daemon, self.users + ":2", "$apr1$", "htpasswd -B")
        os.unlink(self.users)
        self.reload_badly(daemon, self.users, "No such file")
        os.unlink(self.config)
        self.reload_badly(daemon, self.config, "No such file")
        tunnels = [self.open_tunnel(daemon) for _ in range(2)]      # not 1
        self.assertIn("limit reached", fault_of(daemon.rpc().Tunnel.openTunnel).faultString)
        self.assertNotIn(" debug ", daemon.errors())
        for tunnel in tunnels:
            tunnel.end()
        daemon.stop()

    def test_limits_change_for_what_comes_afterwards(self):
        daemon = self.start("max-tunnels = 1\nattach-from = opener\n")
        first = self.open_tunnel(daemon)
        self.assertIn("max-tunnels (1)", fault_of(daemon.rpc().Tunnel.openTunnel).faultString)
        self.write(self.config, "max-tunnels = 3\nattach-from = any\nattach-timeout = 5\n")
        self.reload_well(daemon)
        second = self.open_tunnel(daemon)
        second.attach(source="127.0.0.2")
        third = self.open_tunnel(daemon)
        self.assertIn("max-tunnels (3)", fault_of(daemon.rpc().Tunnel.openTunnel).faultString)
        self.assertEqual(harness.come_and_look(first.server_address, "127.0.0.2"), "reset")
        wait_until(lambda: third.server_address[1] not in harness.listening_ports(),
                   "its new attach timeout is over")
        first.both()                    # it has the old one
        first.end()
        second.end()
        daemon.stop()

    def test_the_log_level_and_addresses_change(self):
        daemon = self.start("log-level = info\nlog-addresses = no\n")
        self.open_tunnel(daemon).end()
        self.write(self.config, "log-addresses = yes\n")
        self.reload_well(daemon)
        self.assertNotIn("opened by 127", daemon.errors())
        self.open_tunnel(daemon).end()
        wait_until(lambda: "opened by 127.0.0.1:" in daemon.errors(), "it is logged")
        self.write(self.config, "log-level = error\n")
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: not self.logs_an_opening(daemon), "openings are logged no more")
        daemon.stop()

    def logs_an_opening(self, daemon):
        lines = daemon.errors().count("opened by")
        self.open_tunnel(daemon).end()
        return daemon.errors().count("opened by") > lines

    def test_the_command_line_wins_again(self):
        daemon = self.start("max-tunnels = 5\n", "--max-tunnels", "1")
        self.write(self.config, "max-tunnels = 7\n")
        self.reload_well(daemon)
        tunnel = self.open_tunnel(daemon)
        self.assertIn("max-tunnels (1)", fault_of(daemon.rpc().Tunnel.openTunnel).faultString)
        tunnel.end()
        daemon.stop()

    def test_the_drain_time_is_the_new_one(self):
        self.write(self.config, "drain = 60\n")
        daemon = self.start_daemon("--config", self.config)
        server, client = self.open_tunnel(daemon).both()
        self.write(self.config, "drain = 0\n")
        self.reload_well(daemon)
        daemon.signal(signal.SIGTERM)
        self.assertEqual(daemon.wait(), 0)
        for connection in (server, client):
            self.assertEqual(receive_until_reset(connection), b"")

    def test_more_tunnels_than_descriptors_allow_are_refused(self):
        self.write(self.config, "max-tunnels = 10\n")
        daemon = self.start_daemon("--config", self.config, pairs=100)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (764, 764))
        self.write(self.config, "max-tunnels = 31\n")
        self.reload_badly(daemon, "31 tunnels need 766 open descriptors", "--max-tunnels 30")
        self.write(self.config, "max-tunnels = 30\n")
        self.reload_well(daemon)
        daemon.stop()

    def test_without_a_file_there_is_nothing_to_change(self):
        daemon = self.start_daemon("--drain", "1")
        self.reload_well(daemon)
        daemon.stop()

    def test_it_works_under_nohup_too(self):
        self.write(self.config, "")
        ports = PortBlock(2)
        self.addCleanup(ports.release)
        daemon = self.start_program(["nohup", harness.TUNNELD, "--listen", "127.0.0.1:0",
                                     "--ports", str(ports), "--config", self.config])
        self.assertRegex(daemon.line(), "^serving ")
        self.reload_well(daemon)
        daemon.signal(signal.SIGTERM)
        self.assertEqual(daemon.wait(), 0)

    def test_while_it_drains_it_is_no_second_signal(self):
        daemon = self.start("", "--drain", "20")
        server, client = self.open_tunnel(daemon).both()
        daemon.signal(signal.SIGTERM)
        wait_until(lambda: "draining" in daemon.errors(), "it drains")
        for _ in range(5):
            daemon.signal(signal.SIGHUP)
            time.sleep(0.1)
        client.sendall(b"x")
        self.assertEqual(receive_exactly(server, 1), b"x")
        server.close()
        client.close()
        self.assertEqual(daemon.wait(), 0)

    def storm(self, daemon, seconds, texts, is_enough):
        until = time.monotonic() + seconds
        while time.monotonic() < until or not is_enough():
            self.write(self.config, random.choice(texts))
            daemon.signal(signal.SIGHUP)
            time.sleep(0.001)

    def test_a_storm_of_them_touches_no_live_tunnel(self):
        self.write(self.users, hash_line("jo", "word"))
        good = f"users = {self.users}\n"
        texts = (good, good + "max-tunnels = 9\nidle-timeout = 1\nlinger = 1\n",
                 good + "attach-timeout = 1\nattach-from = any\n", good + "nonsense\n",
                 good + "host = other.example\n", "users = /nowhere\n")
        daemon = self.start(good, user="jo:word")
        quiet = [self.open_tunnel(daemon) for _ in range(3)]
        ends = [tunnel.both() for tunnel in quiet]
        busy = self.open_tunnel(daemon)
        server, client = busy.both()
        body = os.urandom(1 << 20) * int(os.environ.get("E2E_BULK_MIB", 64))
        sending = in_thread(lambda: (server.sendall(body), server.shutdown(socket.SHUT_WR)))
        receiving = in_thread(receive_until_end, client)
        opened = 0
        storming = in_thread(self.storm, daemon, 3, texts, lambda: opened > 2)
        while storming.is_alive():
            with harness.rpc(daemon.url) as proxy:
                harness.discard(address_of(proxy.Tunnel.openTunnel()))
                opened += 1
        storming.result()
        sending.result()
        self.assertTrue(receiving.result() == body)
        for left, right in ends:
            left.sendall(b"still here")
            self.assertEqual(receive_exactly(right, 10), b"still here")
        client.close()
        for tunnel in (*quiet, busy):
            tunnel.end()
        self.write(self.config, good)
        self.reload_well(daemon)
        daemon.stop()

    def test_memory_does_not_grow_with_reloads(self):
        self.write(self.users, hash_line("jo", "word"))
        # AddressSanitizer would keep freed memory for a while
        sanitizer = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1"}
        daemon = self.start(f"users = {self.users}\n", user="jo:word", env=sanitizer)
        for _ in range(20):
            self.reload_well(daemon)
        before_kib = daemon.resident_kib()
        for _ in range(300):
            daemon.signal(signal.SIGHUP)
            time.sleep(0.003)
        self.reload_well(daemon)
        self.assertLess(daemon.resident_kib(), before_kib + 2048)
        daemon.stop()


if __name__ == "__main__":
    harness.main()
