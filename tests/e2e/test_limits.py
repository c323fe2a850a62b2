#!/usr/bin/python3 -B
"""Limits: what each refuses, how it says so, and what stays possible."""

import http.client
import os
import signal
import statistics
import threading
import time
import xmlrpc.client

import harness
from harness import (Case, address_of, connect, fault_of, nine_of_ten, receive_exactly,
                     receive_until_reset, wait_until)
from test_users import JO, UsersCase, hash_line

CALL = xmlrpc.client.dumps((), "system.listMethods").encode()
LIMIT_REACHED = 4


class LimitsCase(Case):
    def assert_limited(self, call, limit, allowed):
        fault = fault_of(call)
        self.assertEqual(fault.faultCode, LIMIT_REACHED)
        self.assertIn(f"limit reached: {limit} ({allowed}): ", fault.faultString)

    def assert_logged(self, daemon, limit, refused):
        """Once the daemon has stopped, which tells what has not been told yet."""
        self.assertRegex(daemon.errors(),
                         rf" warning the limit {limit} refused \d+, {refused} since the start\n")

    def answer(self, daemon, fields=(), body=CALL, source=None):
        connection = http.client.HTTPConnection(
            "127.0.0.1", daemon.port, timeout=harness.WAIT_S,
            source_address=(source, 0) if source else None)
        try:
            connection.request("POST", "/RPC2", body, {"Content-Type": "text/xml", **dict(fields)})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def seconds_of_a_call(self, daemon, source):
        began = time.monotonic()
        with daemon.rpc(source) as proxy:
            proxy.system.listMethods()
        return time.monotonic() - began


class Tunnels(LimitsCase):
    def open_once_allowed(self, daemon):
        """The tunnel, and how often it was refused before."""
        refused = 0

        def open_if_allowed():
            nonlocal refused
            try:
                return self.open_tunnel(daemon)
            except xmlrpc.client.Fault as fault:
                self.assertIn("limit reached", fault.faultString)
                refused += 1
                return None
        return wait_until(open_if_allowed, "a place is free"), refused

    def test_an_address_has_so_many_tunnels_and_others_have_theirs(self):
        daemon = self.start_daemon("--drain", "1", "--tunnels-per-address", "2")
        tunnels = [self.open_tunnel(daemon) for _ in range(2)]
        for _ in range(3):
            self.assert_limited(daemon.rpc().Tunnel.openTunnel, "tunnels-per-address", 2)
        other = self.open_tunnel(daemon, source="127.0.0.2")
        tunnels.pop().end()
        tunnel, refused = self.open_once_allowed(daemon)
        for tunnel in tunnels + [tunnel, other]:
            tunnel.end()
        daemon.stop()
        self.assert_logged(daemon, "tunnels-per-address", 3 + refused)

    def test_all_have_so_many_tunnels_together(self):
        daemon = self.start_daemon("--drain", "1", "--max-tunnels", "1")
        tunnel = self.open_tunnel(daemon)
        self.assert_limited(daemon.rpc().Tunnel.openTunnel, "max-tunnels", 1)
        tunnel.end()
        daemon.stop()
        self.assert_logged(daemon, "max-tunnels", 1)

    def test_opens_are_limited_by_the_minute_and_multicall_is_no_way_round(self):
        daemon = self.start_daemon("--drain", "1", "--opens-per-minute", "3")
        with daemon.rpc() as proxy:
            answers = proxy.system.multicall(
                [{"methodName": "Tunnel.openTunnel", "params": []}] * 5)
        uris = [answer[0] for answer in answers if isinstance(answer, list)]
        self.assertEqual(len(uris), 3)
        self.assertIn("opens-per-minute (3): ", answers[3]["faultString"])
        self.assertRegex(answers[3]["faultString"], r"try again in \d+ s")
        other = self.open_tunnel(daemon, source="127.0.0.2")
        for uri in uris:
            harness.discard(address_of(uri))
        other.end()
        daemon.stop()
        self.assert_logged(daemon, "opens-per-minute", 2)

    def test_by_itself_nothing_limits_the_programs_of_this_machine(self):
        daemon = self.start_daemon("--drain", "1", pairs=125)
        tunnels = [self.open_tunnel(daemon) for _ in range(125)]
        for tunnel in tunnels:
            tunnel.end()
        daemon.stop()

    def test_those_who_may_come_from_elsewhere_are_limited_by_itself(self):
        daemon = self.start_daemon("--drain", "1", "--open-to-all", listen_on="0.0.0.0:0",
                                   pairs=110)
        tunnels = [self.open_tunnel(daemon) for _ in range(100)]
        self.assert_limited(daemon.rpc().Tunnel.openTunnel, "tunnels-per-address", 100)
        for tunnel in tunnels:
            tunnel.end()
        daemon.stop()

    def test_a_lifetime_ends_tunnels_in_every_state(self):
        daemon = self.start_daemon("--lifetime", "5")
        opened = self.open_tunnel(daemon)
        attached = self.open_tunnel(daemon)
        server = attached.attach()
        relaying = self.open_tunnel(daemon)
        ends = relaying.both()
        for connection in (server, *ends):
            receive_until_reset(connection)
        wait_until(lambda: daemon.errors().count(": its lifetime is over\n") == 3, "all are gone")
        fault_of(daemon.rpc().Tunnel.getTunnelAddress, opened.server_uri)
        daemon.expect_rest()
        daemon.stop()
        self.assertEqual(daemon.errors().count(": its lifetime is over\n"), 3)

    def test_a_rate_holds_a_tunnel_back_and_loses_nothing(self):
        daemon = self.start_daemon("--rate", "100000")
        tunnel = self.open_tunnel(daemon)
        server, client = tunnel.both()
        sent = os.urandom(200000)
        began = time.monotonic()
        sender = harness.in_thread(server.sendall, sent)
        self.assertEqual(receive_exactly(client, len(sent)), sent)
        self.assertGreater(time.monotonic() - began, 0.9)
        sender.result()
        tunnel.end()
        daemon.stop()


class Users(UsersCase, LimitsCase):
    def test_a_user_has_so_many_tunnels_from_all_addresses_together(self):
        daemon = self.start_daemon("--drain", "1", "--tunnels-per-user", "2", "--users",
                                   self.users_file(hash_line("jo", "word", "-B"),
                                                   hash_line("ann", "other", "-B")), user=JO)
        opened = [(source, daemon.rpc(source).Tunnel.openTunnel())
                  for source in ("127.0.0.1", "127.0.0.2")]
        self.assert_limited(daemon.rpc("127.0.0.3").Tunnel.openTunnel, "tunnels-per-user", 2)
        with harness.rpc(daemon.url_of("ann:other")) as proxy:
            opened.append(("127.0.0.1", proxy.Tunnel.openTunnel()))
        for source, uri in opened:
            harness.discard(address_of(uri), source)
        daemon.stop()
        self.assert_logged(daemon, "tunnels-per-user", 1)


class Connections(LimitsCase):
    def test_a_thousand_slow_callers_from_one_address_delay_nobody_from_another(self):
        daemon = self.start_daemon("--request-timeout", "300")
        slow, took = [], []
        try:
            for number in range(1000):
                connection = connect(("127.0.0.1", daemon.port), source="127.0.0.2")
                slow.append(connection)
                try:
                    connection.sendall((b"", b"POST /RPC2 HT", b"P", b"POST / HTTP/1.1\r\nHost: x\r\n"
                                        b"Content-Length: 60000\r\n\r\n<")[number % 4])
                except ConnectionError:
                    pass                # it has been turned away
                if number % 50 == 49:
                    took.append(self.seconds_of_a_call(daemon, "127.0.0.3"))
        finally:
            for connection in slow:
                connection.close()
        self.assertLess(nine_of_ten(took), 1)
        daemon.stop()
        self.assert_logged(daemon, "connections-per-address", "8[0-9][0-9]")

    def test_who_has_too_many_is_told_and_has_room_again_later(self):
        daemon = self.start_daemon("--connections-per-address", "2")
        held = [connect(("127.0.0.1", daemon.port)) for _ in range(2)]
        with connect(("127.0.0.1", daemon.port)) as third:
            answer = harness.receive_until_end(third)
        self.assertTrue(answer.startswith(b"HTTP/1.1 429 "), answer)
        self.assertIn(b"\r\n\r\nconnections-per-address: ", answer)
        for connection in held:
            connection.close()
        wait_until(lambda: self.is_answered(daemon), "there is room again")
        daemon.stop()

    def is_answered(self, daemon):
        try:
            return self.answer(daemon)[0] == 200
        except ConnectionError:         # reset amid its words
            return False

    def test_the_command_says_what_there_is_too_much_of(self):
        daemon = self.start_daemon("--connections-per-address", "1")
        with connect(("127.0.0.1", daemon.port)):
            done = harness.run([harness.TUNNEL, "open", "--proxy", daemon.url])
        self.assertEqual(done.returncode, 1)
        self.assertIn("too many connections or wrong passwords", done.stderr)
        daemon.stop()

    def test_as_many_are_held_as_are_allowed_and_not_one_less(self):
        daemon = self.start_daemon("--connections", "8", "--connections-per-address", "0")
        held = [connect(("127.0.0.1", daemon.port)) for _ in range(8)]
        for connection in held:
            connection.settimeout(0.2)
            with self.assertRaises(TimeoutError):
                connection.recv(1)
            connection.close()
        daemon.stop()

    def test_refused_callers_that_go_on_sending_delay_nobody(self):
        daemon = self.start_daemon()
        stop = threading.Event()

        def send_on():
            while not stop.is_set():
                try:
                    with connect(("127.0.0.1", daemon.port), source="127.0.0.2") as connection:
                        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
                        while not stop.is_set():
                            connection.sendall(bytes(1 << 16))
                except OSError:
                    pass

        senders = [harness.in_thread(send_on) for _ in range(60)]
        try:
            took = [self.seconds_of_a_call(daemon, "127.0.0.3") for _ in range(20)]
        finally:
            stop.set()
        for sender in senders:
            sender.result()
        self.assertLess(statistics.median(took), 1, took)
        daemon.stop()

    def test_sigterm_ends_the_service_while_calls_keep_coming(self):
        daemon = self.start_daemon()
        stop = threading.Event()

        def call_on():
            while not stop.is_set():
                try:
                    self.answer(daemon, body=CALL + b" " * 60000)
                except (OSError, http.client.HTTPException):
                    pass

        callers = [harness.in_thread(call_on) for _ in range(8)]
        try:
            time.sleep(0.5)
            daemon.signal(signal.SIGTERM)
            self.assertEqual(daemon.wait(), 0)
        finally:
            stop.set()
        for caller in callers:
            caller.result()
        daemon.clean_up()

    def test_where_all_are_taken_the_longest_waiting_makes_room(self):
        daemon = self.start_daemon("--connections", "8", "--connections-per-address", "0")
        held = [connect(("127.0.0.1", daemon.port)) for _ in range(20)]
        self.assertLess(nine_of_ten(self.seconds_of_a_call(daemon, None) for _ in range(10)), 1)
        for connection in held:
            connection.close()
        daemon.stop()
        self.assert_logged(daemon, "connections", "[0-9]+")

    def test_what_is_refused_is_told_within_a_minute_though_nobody_calls_any_more(self):
        daemon = self.start_daemon("--request-size", "1024")
        self.assertEqual({self.answer(daemon, body=bytes(2000))[0] for _ in range(3)}, {413})
        self.assertIn("request-size refused 1, 1 since", daemon.errors())
        wait_until(lambda: "request-size refused 2, 3 since" in daemon.errors(), "it is told", 90)
        daemon.stop()

    def test_a_request_has_so_long_to_arrive(self):
        daemon = self.start_daemon("--request-timeout", "5")
        with connect(("127.0.0.1", daemon.port)) as connection:
            connection.sendall(b"POST /RPC2 HTTP/1.1\r\n")
            answer = harness.receive_until_end(connection)
        self.assertTrue(answer.startswith(b"HTTP/1.1 408 "), answer)
        self.assertIn(b"request-timeout: ", answer)
        daemon.stop()
        self.assert_logged(daemon, "request-timeout", 1)

    def test_a_request_may_be_so_large(self):
        daemon = self.start_daemon("--request-size", "2000")
        self.assertEqual(self.answer(daemon, body=CALL + b" " * (2000 - len(CALL)))[0], 200)
        for size in (2001, 65536, 65537, 10**12):
            with connect(("127.0.0.1", daemon.port)) as connection:
                connection.sendall(b"POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\n"
                                   b"Content-Length: %d\r\n\r\n" % size)
                answer = harness.receive_until_end(connection)
            self.assertTrue(answer.startswith(b"HTTP/1.1 413 "), answer)
        daemon.stop()
        self.assert_logged(daemon, "request-size", 4)

    def test_a_flood_of_bad_requests_does_not_fill_the_log(self):
        daemon = self.start_daemon()
        for _ in range(100):
            self.assertEqual(self.answer(daemon, {"Content-Type": "text/plain"})[0], 415)
        daemon.stop()
        self.assertEqual(daemon.errors().count("refused a request"), 20)

    def test_strangers_that_knock_without_end_do_not_fill_the_log(self):
        daemon = self.start_daemon("--drain", "0")
        tunnel = self.open_tunnel(daemon)
        for _ in range(50):
            harness.come_and_look(tunnel.server_address, "127.0.0.2")
        tunnel.end()
        wait_until(lambda: "turned away 50 strangers in all" in daemon.errors(), "they are told")
        self.assertEqual(daemon.errors().count("turned away"), 2)
        daemon.stop()


class TrustedProxy(LimitsCase):
    """127.0.0.9 plays the reverse proxy."""

    def start(self, *options):
        return self.start_daemon("--drain", "1", "--open-to-all", "--trusted-proxy", "127.0.0.9",
                                 "--host", "127.0.0.1", *options)

    def open_through(self, daemon, forwarded, proxy="127.0.0.9"):
        body = xmlrpc.client.dumps((), "Tunnel.openTunnel").encode()
        status, text = self.answer(daemon, {"X-Forwarded-For": forwarded}, body, proxy)
        self.assertEqual(status, 200, text)
        return address_of(xmlrpc.client.loads(text)[0][0])

    def attaches(self, address, source):
        """Whether a server that comes from there is let in."""
        try:
            connection = connect(address, source=source)
            wait_until(lambda: address[1] not in harness.listening_ports() or self.has_come(connection),
                       "it is let in or turned away")
        except ConnectionError:
            return False
        harness.reset(connection)
        return True

    def has_come(self, connection):
        """False as long as nothing has; a server gets nothing before its client comes."""
        connection.setblocking(False)
        try:
            connection.recv(1)
        except BlockingIOError:
            return False
        raise AssertionError("a server got bytes, or an end, before its client came")

    def test_who_the_proxy_heard_is_the_opener(self):
        daemon = self.start()
        for forwarded in ("127.0.0.5", "10.1.1.1, 127.0.0.5", "127.0.0.5:4711", "junk ,127.0.0.5",
                          "::ffff:127.0.0.5", "[::ffff:127.0.0.5]:4711"):
            address = self.open_through(daemon, forwarded)
            self.assertFalse(self.attaches(address, "127.0.0.9"), forwarded)
            self.assertTrue(self.attaches(address, "127.0.0.5"), forwarded)
        daemon.stop()

    def test_a_service_for_those_behind_a_proxy_is_not_open_by_itself(self):
        done = harness.run([harness.TUNNELD, "--listen", "127.0.0.1:0", "--trusted-proxy",
                            "127.0.0.1"])
        self.assertEqual(done.returncode, 2)
        self.assertIn("the trusted proxy", done.stderr)
        self.assertIn("--open-to-all", done.stderr)

    def test_the_word_of_others_counts_for_nothing(self):
        daemon = self.start()
        address = self.open_through(daemon, "127.0.0.5", proxy="127.0.0.8")
        self.assertFalse(self.attaches(address, "127.0.0.5"))
        self.assertTrue(self.attaches(address, "127.0.0.8"))
        daemon.stop()

    def test_limits_count_whom_the_proxy_heard(self):
        daemon = self.start("--tunnels-per-address", "1")
        addresses = [(self.open_through(daemon, source), source)
                     for source in ("127.0.0.5", "127.0.0.6")]
        body = xmlrpc.client.dumps((), "Tunnel.openTunnel").encode()
        text = self.answer(daemon, {"X-Forwarded-For": "127.0.0.5"}, body, "127.0.0.9")[1]
        self.assertIn("tunnels-per-address (1)", text)
        for address, source in addresses:
            harness.discard(address, source)
        daemon.stop()

    def test_the_proxy_may_have_any_number_of_connections(self):
        daemon = self.start("--connections-per-address", "2")
        held = [connect(("127.0.0.1", daemon.port), source="127.0.0.9") for _ in range(10)]
        self.assertEqual(self.answer(daemon, source="127.0.0.9")[0], 200)
        for connection in held:
            connection.close()
        daemon.stop()

    def test_what_is_no_address_is_refused(self):
        daemon = self.start()
        for forwarded in ("unknown", "127.0.0.5,", "127.0.0.5, x", "a" * 100, "127.0.0.999"):
            status, text = self.answer(daemon, {"X-Forwarded-For": forwarded}, source="127.0.0.9")
            self.assertEqual(status, 400, forwarded)
            self.assertIn("X-Forwarded-For", text)
        daemon.stop()


class Reload(LimitsCase):
    def assert_a_shorter_time_holds_for_all(self, daemon, write):
        with connect(("127.0.0.1", daemon.port)) as waiting:
            waiting.sendall(b"POST ")
            time.sleep(0.1)
            write("request-timeout = 1\nopens-per-minute = 1\n")
            daemon.signal(signal.SIGHUP)
            wait_until(lambda: daemon.errors().count("was read again") == 2, "it was read again")
            waiting.settimeout(5)
            self.assertIn(b" 408 ", waiting.recv(100))

    def config_file(self):
        """Its path, and what writes it: whole at every moment."""
        path = os.path.join(self.temporary_folder(), "daemon.conf")

        def write(text):
            with open(path + ".new", "w", encoding="utf-8") as file:
                file.write(text)
            os.rename(path + ".new", path)

        return path, write

    def test_fewer_connections_hold_with_the_next_one_that_comes(self):
        path, write = self.config_file()
        write("connections = 64\nconnections-per-address = 0\n")
        daemon = self.start_daemon("--config", path)
        held = [connect(("127.0.0.1", daemon.port)) for _ in range(40)]
        wait_until(lambda: daemon.counts()["descriptors"] >=
                   daemon.start_counts["descriptors"] + 40, "all are held")
        write("connections = 8\nconnections-per-address = 0\n")
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "was read again" in daemon.errors(), "it was read again")
        held.append(connect(("127.0.0.1", daemon.port)))
        wait_until(lambda: daemon.counts()["descriptors"] <=
                   daemon.start_counts["descriptors"] + 8, "the oldest have made room")
        for connection in held:
            connection.close()
        daemon.stop()

    def test_a_limit_of_opens_refuses_nobody_while_it_is_lifted(self):
        path, write = self.config_file()
        write("opens-per-minute = 60000\n")
        daemon = self.start_daemon("--config", path)
        stop = threading.Event()

        def call_on():
            faults = set()
            while not stop.is_set():
                with daemon.rpc() as proxy:
                    answers = proxy.system.multicall(
                        [{"methodName": "Tunnel.openTunnel", "params": ["none"]}] * 100)
                time.sleep(0.03)        # well below 60000 a minute and at once
                faults |= {answer["faultString"].partition(":")[0] for answer in answers}
            return faults

        calling = [harness.in_thread(call_on) for _ in range(3)]
        for number in range(100):
            write(f"opens-per-minute = {60000 * (number % 2)}\n")
            daemon.signal(signal.SIGHUP)
            time.sleep(0.03)
        stop.set()
        faults = set.union(*(calls.result() for calls in calling))
        self.assertEqual(len(faults), 1, faults)        # of the backend that there is not
        daemon.stop()

    def test_limits_change_with_the_file(self):
        path, write = self.config_file()
        write("tunnels-per-address = 1\nrequest-size = 65536\n")
        daemon = self.start_daemon("--drain", "1", "--config", path)
        first = self.open_tunnel(daemon)
        self.assert_limited(daemon.rpc().Tunnel.openTunnel, "tunnels-per-address", 1)
        write("tunnels-per-address = 2\nrequest-size = 1024\nopens-per-minute = 1\n")
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "was read again" in daemon.errors(), "it was read again")
        second = self.open_tunnel(daemon)
        self.assert_limited(daemon.rpc().Tunnel.openTunnel, "opens-per-minute", 1)
        self.assertEqual(self.answer(daemon, body=CALL + b" " * 2000)[0], 413)
        self.assert_a_shorter_time_holds_for_all(daemon, write)
        write("opens-per-minute = many\n")
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "stays as it was" in daemon.errors(), "it was refused")
        self.assert_limited(daemon.rpc().Tunnel.openTunnel, "opens-per-minute", 1)
        first.end()
        second.end()
        daemon.stop()


if __name__ == "__main__":
    harness.main()
