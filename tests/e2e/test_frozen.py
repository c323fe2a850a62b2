#!/usr/bin/python3 -B
"""Peers that stand still (SIGSTOP) in every state of a tunnel: nobody else is held
up, timeouts hold, and who goes on has lost nothing."""

import socket
import time

import harness
from harness import (DaemonCase, Pattern, Peer, in_thread, more_than_fits, receive_exactly, receive_until_reset,
                     wait_until)

ROLES = ("server", "client")
BULK = 3 * more_than_fits() // 2
FROM_PEER, TO_PEER = 1, 2   # seeds


def send(connection, pattern, count):
    while count:
        piece = pattern.take(min(count, 65536))
        connection.sendall(piece)
        count -= len(piece)


def receive(connection, pattern, count):
    while count:
        piece = connection.recv(min(count, 1 << 18))
        if not piece:
            raise AssertionError(f"the stream ended {count} bytes early")
        pattern.check(piece)
        count -= len(piece)


class FrozenCase(DaemonCase):
    def peer(self, address, **how):
        peer = Peer(address, **how)
        self.addCleanup(peer.clean_up)
        return peer

    def begin(self, role, **how):
        """A tunnel that relays: the one in that role is a process, the other ours."""
        tunnel = self.open_tunnel()
        address = {"server": tunnel.server_address, "client": tunnel.client_address}[role]
        peer = self.peer(address, **how)
        come = tunnel.connect if role == "server" else tunnel.attach
        other = come(send_buffer=65536)     # or the system takes in a lot by itself
        tunnel._attached = True
        self.sent, self.due = Pattern(TO_PEER), Pattern(FROM_PEER)
        peer.tell("send", FROM_PEER, 1000)
        receive(other, self.due, 1000)
        send(other, self.sent, 1000)
        peer.tell("receive", TO_PEER, 1000)
        peer.expect("sent", "received")
        return peer, other

    def for_both_roles(self, test):
        """Also with a peer that is killed where it stands: nothing may be left of it."""
        for role in ROLES:
            with self.subTest(role=role):
                test(role, False)
            with self.subTest(role=role, killed=True):
                test(role, True)
                self.end_all()
                self.daemon.expect_rest()

    def end_all(self):
        """Our own ends, so that what is left can only be for the killed one's sake."""
        self.doCleanups()

    def while_frozen(self, peer, killed):
        """Freezes, looks after the others, and goes on. Whether the peer is alive."""
        peer.freeze()
        self.assert_service_goes_on()
        if killed:
            peer.kill()
        else:
            peer.thaw()
        return not killed

    def assert_service_goes_on(self):
        began = time.monotonic()
        tunnel = self.open_tunnel()
        server, client = tunnel.both()
        data = Pattern(3).take(100000)
        sending = in_thread(client.sendall, data)
        self.assertEqual(receive_exactly(server, len(data)), data)
        sending.result()
        self.assertLess(time.monotonic() - began, 20)
        tunnel.end()


class Frozen(FrozenCase):
    def test_before_the_other_one_is_there(self):
        def test(role, killed):
            tunnel = self.open_tunnel()
            is_server = role == "server"
            peer = self.peer(tunnel.server_address if is_server else tunnel.client_address)
            tunnel._attached = is_server
            peer.tell("send", FROM_PEER, 100000)
            peer.expect("sent")
            alive = self.while_frozen(peer, killed)
            if alive:
                peer.freeze()
            other = tunnel.connect() if is_server else tunnel.attach()
            receive(other, Pattern(FROM_PEER), 100000)      # from one who does not move
            if alive:
                send(other, Pattern(TO_PEER), 100000)
                peer.thaw()
                peer.tell("receive", TO_PEER, 100000)
                peer.expect("received")
        self.for_both_roles(test)

    def test_amid_small_messages(self):
        def test(role, killed):
            peer, other = self.begin(role)
            peer.freeze()
            for size in range(1, 200):
                send(other, self.sent, size)
            if self.while_frozen(peer, killed):
                peer.tell("receive", TO_PEER, sum(range(1, 200)))
                peer.tell("send", FROM_PEER, 1000)
                peer.expect("received", "sent")
                receive(other, self.due, 1000)
        self.for_both_roles(test)

    def test_as_the_reader_of_bulk(self):
        def test(role, killed):
            peer, other = self.begin(role, receive_buffer=65536)
            peer.tell("receive", TO_PEER, BULK)
            sending = in_thread(send, other, self.sent, BULK // 3)
            sending.result()
            peer.freeze()
            sending = in_thread(send, other, self.sent, BULK - BULK // 3)
            time.sleep(0.3)
            self.assertTrue(sending.is_alive(), "everything fits on the way")
            if self.while_frozen(peer, killed):
                sending.result()
                peer.expect("received")
            else:
                self.assertRaises((ConnectionResetError, BrokenPipeError), sending.result)
        self.for_both_roles(test)

    def test_as_the_writer_of_bulk(self):
        def test(role, killed):
            peer, other = self.begin(role)
            peer.tell("send", FROM_PEER, BULK)
            receive(other, self.due, BULK // 3)
            if self.while_frozen(peer, killed):
                receive(other, self.due, BULK - BULK // 3)
                peer.expect("sent")
        self.for_both_roles(test)

    def test_in_both_directions_at_once(self):
        def test(role, killed):
            peer, other = self.begin(role)
            peer.tell("send", FROM_PEER, BULK)
            peer.tell("drip", TO_PEER, BULK // 4)
            sending = in_thread(send, other, self.sent, BULK // 4)
            receive(other, self.due, BULK // 3)
            if self.while_frozen(peer, killed):
                receive(other, self.due, BULK - BULK // 3)
                sending.result()
                peer.expect("sent", "received")
            else:
                try:
                    sending.result()
                except (ConnectionResetError, BrokenPipeError):
                    pass        # it had not sent all when the reader was killed
        self.for_both_roles(test)

    def test_after_it_has_finished_sending(self):
        def test(role, killed):
            peer, other = self.begin(role)
            peer.tell("finish")
            peer.expect("finished")
            self.assertEqual(other.recv(1), b"")
            peer.freeze()
            send(other, self.sent, 50000)
            if self.while_frozen(peer, killed):
                other.close()
                peer.tell("receive", TO_PEER, 50000)
                peer.tell("end")
                peer.expect("received", "end")
        self.for_both_roles(test)


class FrozenForLong(FrozenCase):
    """Longer than the linger time."""

    options = ("--linger", "4")

    def test_bytes_that_wait_for_it_are_no_silence(self):
        def test(role, killed):
            peer, other = self.begin(role, receive_buffer=65536)
            peer.freeze()
            send(other, self.sent, 1 << 20)
            other.shutdown(socket.SHUT_WR)
            if killed:
                # what it will never take may not hold the tunnel
                peer.kill()
                return
            time.sleep(8)
            self.assert_service_goes_on()
            peer.thaw()
            peer.tell("receive", TO_PEER, 1 << 20)
            peer.tell("end")
            peer.expect("received", "end")
            peer.tell("send", FROM_PEER, 1000)
            peer.tell("finish")
            receive(other, self.due, 1000)
            self.assertEqual(other.recv(1), b"")
        self.for_both_roles(test)

    def test_a_half_closed_tunnel_does_not_wait_longer_than_the_linger_time(self):
        for role in ROLES:
            with self.subTest(role=role):
                peer, other = self.begin(role)
                peer.freeze()
                began = time.monotonic()
                other.shutdown(socket.SHUT_WR)
                self.assertEqual(receive_until_reset(other), b"")
                self.assertGreater(time.monotonic() - began, 3.8)
                self.assertLess(time.monotonic() - began, 20)
                self.doCleanups()
                self.daemon.expect_rest()       # although the peer still stands there


class FrozenBeforeItsServerComes(FrozenCase):
    options = ("--attach-timeout", "8")

    def test_a_client_does_not_lengthen_the_attach_timeout(self):
        tunnel = self.open_tunnel()
        peer = self.peer(tunnel.client_address)
        peer.freeze()
        wait_until(lambda: not self.daemon.ports.listening(), "the pair came back")
        peer.thaw()
        peer.tell("end")
        peer.expect("reset")


class GivenUp(FrozenCase):
    options = ("--keepalive", "1")

    def test_a_reader_that_takes_nothing_is_cut_in_the_end(self):
        for role in ROLES:
            with self.subTest(role=role):
                peer, other = self.begin(role)
                peer.freeze()
                began = time.monotonic()
                harness.send_until_error(other)
                self.assertGreater(time.monotonic() - began, 4)
                self.assertLess(time.monotonic() - began, 20)
                self.daemon.expect_rest()
                peer.thaw()
                peer.tell("receive", TO_PEER, BULK)     # never whole
                self.assertNotEqual(peer.wait(), 0)
                self.assertRegex(peer.errors(), "ConnectionResetError|wrong bytes")

    def test_a_silent_one_is_not_cut_since_its_system_answers(self):
        peer, other = self.begin("server")
        peer.freeze()
        time.sleep(8)
        send(other, self.sent, 1000)
        peer.thaw()
        peer.tell("receive", TO_PEER, 1000)
        peer.expect("received")


class Callers(FrozenCase):
    REQUEST = (b"POST /RPC2 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/xml\r\n"
               b"Content-Length: %d\r\n\r\n")
    BODY = harness.xmlrpc.client.dumps((), "system.listMethods").encode()

    def test_a_caller_frozen_at_any_point_of_its_call_holds_up_nobody(self):
        request = self.REQUEST % len(self.BODY) + self.BODY
        for killed in (False, True):
            with self.subTest(killed=killed):
                callers = []
                for part in (b"", request[:1], request[:30], request[:-len(self.BODY)],
                             request[:-1], request, b"nonsense\r\n\r\n"):
                    for _ in range(2):
                        caller = self.peer((self.daemon.host, self.daemon.port))
                        if part:
                            caller.tell("say", part.hex())
                            caller.expect("said")
                        caller.freeze()
                        callers.append(caller)
                began = time.monotonic()
                for _ in range(20):
                    with harness.rpc(self.daemon.url) as proxy:
                        proxy.system.listMethods()
                self.assertLess(time.monotonic() - began, 8)    # callers get ten seconds
                self.assert_service_goes_on()
                if killed:
                    for caller in callers:
                        caller.kill()
                    self.end_all()
                self.daemon.expect_rest()       # the others, when their time is over


if __name__ == "__main__":
    harness.main()
