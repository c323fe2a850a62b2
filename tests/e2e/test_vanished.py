#!/usr/bin/python3 -B
"""Peers that vanish without a word: they are on another network, whose packets
get lost from some moment on.

The tests run in a network namespace of their own, and the peers in a second one,
joined to it by a veth pair. Namespaces go with the processes and descriptors that
hold them: nothing is left to be cleaned up. Making them takes root, or a system that
lets its users be root in a namespace; where neither is so the tests fail, and say so."""

import ctypes
import os
import socket
import time

import harness
from harness import (Case, Pattern, connect, how_it_ended, in_thread, nine_of_ten, receive_exactly,
                     receive_until_reset, run, wait_until)

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
OURS, THEIRS = "10.77.0.1", "10.77.0.2"

KEEPALIVE_S = 1
GIVEN_UP_S = (3.5, 20)      # five times as long; a machine under load takes its time
AMOUNT = 24 << 20

libc = ctypes.CDLL(None, use_errno=True)


def check(result, what):
    if result != 0:
        error = os.strerror(ctypes.get_errno())
        raise SystemExit(f"FAIL test_vanished: can't {what}: {error}; run these tests as root")


def enter_own_network():
    """While there is one thread: all that the program starts shares it."""
    uid = os.getuid()
    check(libc.unshare(CLONE_NEWNET | (CLONE_NEWUSER if uid else 0)), "make a network namespace")
    if uid:
        with open("/proc/self/uid_map", "w", encoding="ascii") as uid_map:
            uid_map.write(f"0 {uid} 1")
    ip("link set lo up")


def ip(words):
    done = run(["ip", *words.split()])
    if done.returncode:
        raise AssertionError(f"ip {words}: {done.stderr}")


class FarNetwork:
    """The network on which the peers are. A thread can go there, and the sockets
    that it makes stay there."""

    def __init__(self):
        in_thread(self._make).result()
        ip(f"link add ours type veth peer name theirs netns /proc/{os.getpid()}/fd/{self._namespace}")
        ip(f"address add {OURS}/24 dev ours")
        ip("link set ours up")
        self.do(ip, f"address add {THEIRS}/24 dev theirs")
        self.join()

    def _make(self):
        check(libc.unshare(CLONE_NEWNET), "make a second network namespace")
        self._namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def _there(self, function, arguments):
        check(libc.setns(self._namespace, CLONE_NEWNET), "enter the second network namespace")
        return function(*arguments)

    def do(self, function, *arguments):
        return in_thread(self._there, function, arguments).result()

    def connect(self, address):
        return self.do(connect, address)

    def lose_packets(self):
        """From now on in both directions; neither end is told."""
        self.do(ip, "link set theirs down")

    def join(self):
        self.do(ip, "link set theirs up")

    def remove(self):
        ip("link delete ours")
        os.close(self._namespace)


class VanishedCase(Case):
    options = ()

    def setUp(self):
        self.far = FarNetwork()
        self.addCleanup(self.far.remove)
        self.daemon = self.start_daemon("--open-to-all", "--host", OURS, "--attach-from", "any",
                                        *self.options, listen_on=f"{OURS}:0")

    def come(self, tunnel, role):
        """Somebody in that role who will vanish."""
        address = tunnel.server_address if role == "server" else tunnel.client_address
        connection = self.far.connect(address)
        self.addCleanup(connection.close)
        wait_until(lambda: address[1] not in self.daemon.ports.listening(), "it was accepted")
        return connection

    def stay(self, tunnel, role):
        return tunnel.attach() if role == "server" else tunnel.connect()

    def begin(self, role):
        """A tunnel that relays, between one who will vanish and one who stays."""
        tunnel = self.open_tunnel()
        gone = self.come(tunnel, role)
        stays = self.stay(tunnel, "client" if role == "server" else "server")
        gone.sendall(b"?")
        self.assertEqual(receive_exactly(stays, 1), b"?")
        stays.sendall(b"!")
        self.assertEqual(receive_exactly(gone, 1), b"!")
        return gone, stays


class Vanished(VanishedCase):
    options = ("--keepalive", str(KEEPALIVE_S), "--linger", "100", "--attach-timeout", "100")

    def for_both_roles(self, life):
        """life(role) yields at the moment of vanishing, and then sees what it must see."""
        lives = [life(role) for role in ("server", "client")]
        for each in lives:
            next(each)
        began = time.monotonic()
        self.far.lose_packets()
        for each in lives:
            self.assertRaises(StopIteration, next, each)
        self.assertGreater(time.monotonic() - began, GIVEN_UP_S[0])
        self.assertLess(time.monotonic() - began, GIVEN_UP_S[1])
        self.daemon.expect_rest()

    def test_before_the_other_one_is_there(self):
        def life(role):
            tunnel = self.open_tunnel()
            self.come(tunnel, role)
            yield
            wait_until(lambda: not {tunnel.server_address[1], tunnel.client_address[1]} &
                       set(self.daemon.ports.listening()), "the tunnel is gone")
        self.for_both_roles(life)

    def test_while_nobody_says_anything(self):
        def life(role):
            _gone, stays = self.begin(role)
            yield
            self.assertEqual(receive_until_reset(stays), b"")
        self.for_both_roles(life)

    def test_with_bytes_under_way_to_it(self):
        def life(role):
            gone, stays = self.begin(role)
            sending = in_thread(harness.send_until_error, stays)
            receive_exactly(gone, 1 << 20)
            yield
            self.assertIsInstance(sending.result(), ConnectionError)
        self.for_both_roles(life)

    def test_in_the_middle_of_what_it_sends(self):
        def life(role):
            gone, stays = self.begin(role)
            sending = in_thread(self.send_as_far_as_it_goes, gone)
            pattern = Pattern(1)
            pattern.check(receive_exactly(stays, 1 << 20))
            yield
            pattern.check(receive_until_reset(stays))
            gone.shutdown(socket.SHUT_RDWR)
            sending.result()
        self.for_both_roles(life)

    def send_as_far_as_it_goes(self, connection):
        pattern = Pattern(1)
        try:
            while True:
                connection.sendall(pattern.take(65536))
        except OSError:
            pass        # the way ends somewhere

    def test_after_it_has_finished_sending(self):
        def life(role):
            gone, stays = self.begin(role)
            gone.shutdown(socket.SHUT_WR)
            self.assertEqual(stays.recv(1), b"")
            yield
            wait_until(lambda: self.breaks(stays), "the tunnel is gone")
        self.for_both_roles(life)

    @staticmethod
    def breaks(connection):
        """Asks the system, since its stream ended before."""
        return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    def test_after_the_other_has_finished_sending(self):
        def life(role):
            gone, stays = self.begin(role)
            stays.shutdown(socket.SHUT_WR)
            self.assertEqual(gone.recv(1), b"")
            yield
            self.assertEqual(receive_until_reset(stays), b"")
        self.for_both_roles(life)

    def test_others_do_not_notice(self):
        gone = [self.begin(role) for role in ("server", "client") * 3]
        server, client = self.open_tunnel().both()
        self.far.lose_packets()
        began = time.monotonic()
        took = []
        while time.monotonic() - began < 2:
            round_began = time.monotonic()
            client.sendall(b"?")
            self.assertEqual(receive_exactly(server, 1), b"?")
            with harness.rpc(self.daemon.url) as proxy:
                proxy.system.listMethods()
            took.append(time.monotonic() - round_began)
        self.assertLess(nine_of_ten(took), 1)
        for _, stays in gone:
            self.assertEqual(how_it_ended(stays), "reset")


class Interrupted(VanishedCase):
    def test_who_comes_back_in_time_has_lost_nothing(self):
        for role in ("server", "client"):
            for sends in ("who vanishes", "who stays"):
                with self.subTest(role=role, sends=sends):
                    gone, stays = self.begin(role)
                    writer, reader = (gone, stays) if sends == "who vanishes" else (stays, gone)
                    sending = in_thread(writer.sendall, Pattern(1).take(AMOUNT))
                    pattern = Pattern(1)
                    pattern.check(receive_exactly(reader, AMOUNT // 4))
                    self.far.lose_packets()
                    time.sleep(1)
                    self.far.join()
                    pattern.check(receive_exactly(reader, AMOUNT - AMOUNT // 4))
                    sending.result()
                    writer.close()
                    self.assertEqual(reader.recv(1), b"")

    def test_callers_that_vanish_in_their_calls_hold_up_nobody(self):
        body = harness.xmlrpc.client.dumps((), "Tunnel.openTunnel").encode()
        request = (b"POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\n"
                   b"Content-Length: %d\r\n\r\n" % len(body)) + body
        for part in (b"", request[:20], request[:-len(body)], request[:-1]):
            caller = self.far.connect((OURS, self.daemon.port))
            self.addCleanup(caller.close)
            caller.sendall(part)
        time.sleep(0.2)
        self.far.lose_packets()
        began = time.monotonic()
        with harness.rpc(self.daemon.url) as proxy:
            proxy.system.listMethods()
        self.assertLess(time.monotonic() - began, 8)    # those who vanished get ten seconds
        self.daemon.expect_rest()


if __name__ == "__main__":
    enter_own_network()
    harness.main()
