#!/usr/bin/python3 -B
"""The life of webmux tunnels and of their streams: what comes back, what ends when."""

import signal
import socket
import time

import harness
from harness import in_thread, is_refused, receive_until_end, receive_until_reset, wait_until
from webmux_harness import FIN, RST, SYN, Control, Data, Opcode, WebmuxCase, encode


class OwnDaemon(WebmuxCase):
    @classmethod
    def setUpClass(cls):
        pass

    @classmethod
    def tearDownClass(cls):
        pass

    def open_with(self, *options):
        daemon = self.start_daemon(*options)
        tunnel = self.open_webmux(daemon)
        return daemon, tunnel

    def carrier(self, tunnel, **how):
        carrier = tunnel.carrier(**how)
        self.addCleanup(carrier.close)
        return carrier

    def raw(self, tunnel):
        raw = tunnel.raw()
        self.addCleanup(raw.close)
        return raw

    def connect(self, tunnel):
        client = tunnel.connect()
        self.addCleanup(client.close)
        return client

    def expect_end(self, daemon):
        self.assertEqual(daemon.wait(), 0)
        daemon.clean_up()


class Reserve(OwnDaemon):
    def test_a_tunnel_outlives_its_carriers_and_their_streams_do_not(self):
        daemon, tunnel = self.open_with("--drain", "0", "--reserve", "60")
        for abort in (False, True):
            carrier = self.carrier(tunnel)
            client = self.connect(tunnel)
            carrier.accept()
            carrier.close(abort)
            receive_until_reset(client)
            self.assertTrue(tunnel.is_open())
        waiting = self.connect(tunnel)
        waiting.sendall(b"waited")
        with daemon.rpc() as proxy:
            self.assertEqual(proxy.Tunnel.getTunnelAddress(tunnel.server_uri), tunnel.client_uri)
        carrier = self.carrier(tunnel)
        self.assertEqual(carrier.accept().receive_exactly(6), b"waited")
        daemon.signal(signal.SIGTERM)
        self.expect_end(daemon)

    def test_clients_that_come_as_the_connection_is_lost_wait_and_are_served(self):
        daemon, tunnel = self.open_with("--drain", "0", "--reserve", "60")
        unread = b"".join(encode(Control(Opcode.NO_OP)) for _ in range(8000))   # within the window
        for last_words in (b"", unread):
            raw = self.raw(tunnel)
            daemon.freeze()             # then it finds the clients and the loss at once
            raw.say(last_words)
            raw.close()
            waiting = [self.connect(tunnel) for _ in range(3)]
            for client in waiting:
                client.sendall(b"waited")
            daemon.thaw()
            wait_until(lambda: not tunnel.attached() - daemon.errors().count(" lost connection "), "it is lost")
            carrier = self.carrier(tunnel)
            for _ in waiting:
                self.assertEqual(carrier.accept().receive_exactly(6), b"waited")
            carrier.close()
        daemon.signal(signal.SIGTERM)
        self.expect_end(daemon)

    def test_it_closes_when_the_reserve_is_over(self):
        daemon, tunnel = self.open_with("--drain", "1", "--reserve", "6")
        for number in (1, 2):                   # it begins anew with each
            self.carrier(tunnel).close()
            wait_until(lambda: daemon.errors().count("; it waits for another") == number, "it waits")
            time.sleep(4)
            self.assertTrue(tunnel.is_open())
        waiting = self.connect(tunnel)
        receive_until_reset(waiting)
        self.wait_for_log("its server did not come back in time", daemon)
        daemon.stop()

    def test_clients_wait_for_the_attach_timeout_at_most(self):
        daemon, tunnel = self.open_with("--drain", "0", "--reserve", "60", "--attach-timeout", "5")
        self.carrier(tunnel).close()
        self.wait_for_log("; it waits for another", daemon)
        began = time.monotonic()
        receive_until_reset(self.connect(tunnel))
        self.assertGreater(time.monotonic() - began, 4.9)
        self.assertTrue(tunnel.is_open())
        daemon.signal(signal.SIGTERM)
        self.expect_end(daemon)


class Shutdown(OwnDaemon):
    def test_streams_finish_and_nobody_else_comes(self):
        daemon, tunnel = self.open_with("--drain", "60")
        idle = self.open_webmux(daemon)
        self.carrier(idle)
        carrier = self.carrier(tunnel)
        client = self.connect(tunnel)
        stream = carrier.accept()
        daemon.signal(signal.SIGTERM)
        wait_until(lambda: not idle.is_open(), "tunnels without streams close at once")
        client.sendall(b"?" * 100000)
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(len(stream.receive_until_end()), 100000)
        wait_until(lambda: is_refused(tunnel.client_address), "nobody else comes")
        self.assertTrue(carrier.streams.empty())
        stream.send(b"last words")
        stream.finish()
        self.assertEqual(receive_until_end(client), b"last words")
        self.expect_end(daemon)

    def test_the_last_bytes_of_the_last_stream_arrive(self):
        for count in range(2700000, 2900000, 10000):    # more than a socket takes, some time
            daemon, tunnel = self.open_with("--drain", "60")
            raw = tunnel.raw(receive_buffer=4096)
            client = self.connect(tunnel)
            raw.hear_of(3)
            raw.say(Data(3, SYN | FIN), Control(Opcode.ADD_CREDIT, 3, 1 << 26))
            self.assertEqual(receive_until_end(client), b"")
            daemon.signal(signal.SIGTERM)
            client.sendall(bytes(count))
            client.close()
            time.sleep(0.05)
            got = 0
            while (frame := raw.frame()) is not None:
                got += len(frame.payload) if isinstance(frame, Data) else 0
            raw.close()
            self.assertEqual(got, count)
            self.expect_end(daemon)

    def test_what_has_not_finished_is_reset_when_the_drain_time_is_over(self):
        daemon, tunnel = self.open_with("--drain", "1")
        carrier = self.carrier(tunnel)
        client = self.connect(tunnel)
        carrier.accept()
        daemon.signal(signal.SIGTERM)
        receive_until_reset(client)
        self.expect_end(daemon)

    def test_those_who_wait_for_a_server_hold_nothing_up(self):
        daemon, tunnel = self.open_with("--drain", "60")
        client = self.connect(tunnel)
        wait_until(lambda: daemon.counts()["descriptors"] > daemon.start_counts["descriptors"] + 3,
                   "it waits")
        daemon.signal(signal.SIGTERM)
        receive_until_reset(client)
        self.expect_end(daemon)

    def test_SIGHUP_changes_nothing_for_those_who_are_there(self):
        daemon, tunnel = self.open_with("--drain", "0")
        carrier = self.carrier(tunnel)
        client = self.connect(tunnel)
        stream = carrier.accept()
        daemon.signal(signal.SIGHUP)
        time.sleep(0.2)
        client.sendall(b"?")
        self.assertEqual(stream.receive_exactly(1), b"?")
        self.connect(tunnel)
        carrier.accept()
        daemon.signal(signal.SIGTERM)
        self.expect_end(daemon)


class Limits(OwnDaemon):
    def test_a_lifetime_ends_all(self):
        daemon, tunnel = self.open_with("--drain", "1", "--lifetime", "5")
        carrier = self.carrier(tunnel)
        client = self.connect(tunnel)
        carrier.accept()
        receive_until_reset(client)
        self.wait_for_log("its lifetime is over", daemon)
        daemon.stop()

    def test_idle_streams_end_and_others_go_on(self):
        daemon, tunnel = self.open_with("--drain", "0", "--reserve", "0", "--idle-timeout", "5")
        carrier = self.carrier(tunnel)
        idle, busy = self.connect(tunnel), self.connect(tunnel)
        streams = [carrier.accept(), carrier.accept()]
        ended = in_thread(receive_until_reset, idle)
        while ended.is_alive():
            busy.sendall(b"?")
            wait_until(lambda: any(stream._session.incoming for stream in streams), "it came")
            for stream in streams:
                if stream._session.incoming:
                    stream.recv()
            time.sleep(0.2)
        ended.result()
        wait_until(lambda: carrier.count == 1, "the other is left")
        carrier.close()
        busy.close()
        daemon.stop()


class Linger(WebmuxCase):
    options = ("--linger", "4")

    def test_a_server_that_does_not_answer_loses_the_client(self):
        tunnel = self.open_webmux()
        raw = tunnel.raw()
        client = tunnel.connect()
        receive_until_reset(client)
        raw.hear(Data(3, SYN), Data(3, RST))

    def test_a_stream_that_is_half_over_and_silent_is_reset(self):
        for ends_first in ("client", "server"):
            tunnel = self.open_webmux()
            raw = tunnel.raw()
            client = tunnel.connect()
            raw.hear(Data(3, SYN))
            raw.say(Data(3, SYN))
            if ends_first == "client":
                client.shutdown(socket.SHUT_WR)
                raw.hear(Data(3, FIN))
                receive_until_reset(client)
            else:
                raw.say(Data(3, FIN))
                self.assertEqual(receive_until_end(client), b"")
            raw.hear(Data(3, RST))

    def test_bytes_that_wait_for_a_slow_client_are_no_silence(self):
        tunnel = self.open_webmux()
        carrier = tunnel.carrier()
        client = tunnel.connect(receive_buffer=4096)
        stream = carrier.accept()
        pattern, check = harness.Pattern("linger"), harness.Pattern("linger")
        while not stream.unsent:
            stream.send(pattern.take(65536), and_wait=False)
            time.sleep(0.02)
        stream.finish()
        time.sleep(8)
        while piece := client.recv(1 << 20):
            check.check(piece)
        self.assertEqual(check.position, pattern.position)
        client.close()
        wait_until(lambda: carrier.count == 0, "it is over")

    def test_a_session_that_is_answered_lasts_without_a_word(self):
        tunnel = self.open_webmux()
        carrier = tunnel.carrier()
        client = tunnel.connect()
        stream = carrier.accept()
        time.sleep(6)
        client.sendall(b"?")
        self.assertEqual(stream.receive_exactly(1), b"?")


if __name__ == "__main__":
    harness.main()
