#!/usr/bin/python3 -B
"""The rules of relaying, kept for each stream of an ssh tunnel."""

import os
import random
import socket
import time

import harness
from harness import (bounce_bytes, come_and_look, connect, how_it_ended, in_thread, receive_exactly,
                     receive_until_end, receive_until_reset, reset, send_until_error, wait_until)
from ssh_harness import (DBCLIENT, Dbclient, Paramiko, Ssh, SshDaemonCase, Token, ask, check_pattern, deaf,
                         discard, echo, needs_dbclient, needs_paramiko, needs_ssh, send_pattern, source)

BULK = 8 << 20


@needs_ssh
class Bytes(SshDaemonCase):
    def transfer(self, client, server, amount=BULK):
        """Bulk both ways at once, each byte compared, to its end."""
        sending = [in_thread(send_pattern, client, 1, amount), in_thread(send_pattern, server, 2, amount)]
        checking = [in_thread(check_pattern, server, 1, amount), in_thread(check_pattern, client, 2, amount)]
        for each in sending + checking:
            each.result()

    def test_bulk_both_ways_at_once_arrives_exactly(self):
        service = self.serve()
        self.transfer(*self.both(self.carry(service.port).address, service))

    def test_bulk_arrives_exactly_while_keys_change(self):
        service = self.serve()
        carrier = self.carry(service.port, options=("RekeyLimit=1M",))
        self.transfer(*self.both(carrier.address, service))
        self.assertGreater(carrier.errors().count("SSH2_MSG_NEWKEYS received"), 3)

    @needs_dbclient
    def test_bulk_arrives_exactly_through_dbclient(self):
        service = self.serve()
        self.transfer(*self.both(self.carry(service.port, kind=Dbclient).address, service))

    @needs_paramiko
    def test_bulk_arrives_exactly_through_paramiko(self):
        service = self.serve()
        self.transfer(*self.both(self.carry(service.port, kind=Paramiko).address, service), 2 << 20)

    @needs_paramiko
    def test_keys_changed_by_a_client_disturb_no_stream(self):
        service = self.serve()
        carrier = self.carry(service.port, kind=Paramiko)
        client, server = self.both(carrier.address, service)
        moving = in_thread(self.transfer, client, server, 2 << 20)
        for _ in range(3):
            carrier.tell("rekey")
            carrier.expect("rekeyed")
        moving.result()

    def test_many_streams_of_bulk_at_once_do_not_mix(self):
        service = self.serve()
        address = self.carry(service.port).address
        pairs = [self.both(address, service) for _ in range(8)]
        amount = 1 << 20
        sending, checking = [], []
        for number, (client, server) in enumerate(pairs):
            sending += [in_thread(send_pattern, client, 2 * number, amount),
                        in_thread(send_pattern, server, 2 * number + 1, amount)]
            checking += [in_thread(check_pattern, server, 2 * number, amount),
                         in_thread(check_pattern, client, 2 * number + 1, amount)]
        for each in sending + checking:
            each.result()

    def test_pieces_of_every_size_arrive_in_order(self):
        service = self.serve()
        client, server = self.both(self.carry(service.port).address, service)
        sizes = [1, 2, 3, 1000, 1447, 1448, 16383, 16385, 32767, 32768, 32769, 65535, 65537, 262145]
        sent = [random.randbytes(size) for size in sizes + [random.randint(1, 90000) for _ in range(30)]]
        for one, other in ((client, server), (server, client)):
            sending = in_thread(lambda one=one: [one.sendall(piece) for piece in sent])
            self.assertEqual(receive_exactly(other, sum(map(len, sent))), b"".join(sent))
            sending.result()

    def test_single_bytes_go_back_and_forth_without_delay(self):
        service = self.serve()
        client, server = self.both(self.carry(service.port).address, service)
        self.assertLess(bounce_bytes(client, server, 300), 12)  # Nagle would make it 24

    def test_a_server_that_speaks_first_is_heard(self):
        address = self.carry(self.serve(source(7, 1 << 20)).port).address
        check_pattern(self.connect(address), 7, 1 << 20)

    def test_urgent_bytes_hold_nothing_up(self):
        token = Token(self.daemon)
        client = self.connect(token.address)    # no server is there yet: all of it waits in the socket
        client.sendall(b"before")
        client.send(b"!", socket.MSG_OOB)
        client.sendall(b"after")
        service = self.serve()
        self.carry(service.port, login=token.login)
        server = service.accept()
        self.assertEqual(receive_exactly(server, 11), b"beforeafter")

    def test_what_a_client_sent_at_once_before_its_server_was_reached_arrives(self):
        service = self.serve(discard)
        client = self.connect(self.carry(service.port).address)
        send_pattern(client, 1, 1 << 20)
        self.assertEqual(receive_until_end(client), b"%d" % (1 << 20))


@needs_ssh
class Ends(SshDaemonCase):
    def test_a_side_that_finished_sending_gets_its_answer(self):
        service = self.serve()
        address = self.carry(service.port).address
        for first in (0, 1):
            with self.subTest(first=("client", "server")[first]):
                pair = self.both(address, service)
                send_pattern(pair[first], 1, 300000)
                check_pattern(pair[1 - first], 1, 300000)
                time.sleep(0.2)
                send_pattern(pair[1 - first], 2, 1 << 20)
                check_pattern(pair[first], 2, 1 << 20)

    def test_a_close_of_either_side_is_an_end_after_the_last_byte(self):
        service = self.serve()
        address = self.carry(service.port).address
        for closer in (0, 1):
            for count in (0, 1, 32768, 300000):
                with self.subTest(closer=("client", "server")[closer], count=count):
                    pair = self.both(address, service)
                    sending = in_thread(send_pattern, pair[closer], 1, count)
                    check_pattern(pair[1 - closer], 1, count)
                    sending.result()
                    pair[closer].close()
                    pair[1 - closer].close()

    @needs_paramiko
    def test_ends_travel_through_other_clients_too(self):
        for kind in (Paramiko,) + ((Dbclient,) if DBCLIENT else ()):
            service = self.serve()
            address = self.carry(service.port, kind=kind).address
            for first in (0, 1):
                with self.subTest(kind=kind.__name__, first=("client", "server")[first]):
                    pair = self.both(address, service)
                    send_pattern(pair[first], 1, 100000)
                    check_pattern(pair[1 - first], 1, 100000)
                    send_pattern(pair[1 - first], 2, 100000)
                    check_pattern(pair[first], 2, 100000)

    def test_everything_sent_before_a_close_is_delivered_to_a_slow_reader(self):
        service = self.serve()
        client, server = self.both(self.carry(service.port).address, service)
        sending = in_thread(lambda: (send_pattern(server, 1, 4 << 20), server.close()))
        time.sleep(0.5)
        check_pattern(client, 1, 4 << 20)
        sending.result()

    def test_the_end_of_one_stream_is_none_of_the_others(self):
        service = self.serve()
        address = self.carry(service.port).address
        staying, going, breaking = (self.both(address, service) for _ in range(3))
        going[0].close()
        reset(breaking[0])
        self.assertEqual(receive_until_end(going[1]), b"")
        how_it_ended(breaking[1])
        staying[0].sendall(b"still here")
        self.assertEqual(receive_exactly(staying[1], 10), b"still here")


@needs_ssh
class Resets(SshDaemonCase):
    def test_a_client_s_reset_ends_the_stream(self):
        service = self.serve()
        client, server = self.both(self.carry(service.port).address, service)
        reset(client)
        how_it_ended(server)        # ssh tells its own side as it likes

    def test_a_client_s_reset_ends_a_server_that_writes(self):
        service = self.serve()
        client, server = self.both(self.carry(service.port).address, service)
        writing = in_thread(send_until_error, server)
        receive_exactly(client, 1 << 20)
        reset(client)
        self.assertIsInstance(writing.result(), ConnectionError)

    def test_a_client_s_reset_ends_a_server_that_wrote_more_than_was_read(self):
        service = self.serve()
        client, server = self.both(self.carry(service.port).address, service)
        writing = in_thread(send_until_error, server)
        time.sleep(0.5)             # everything between the two is full
        reset(client)
        self.assertIsInstance(writing.result(), ConnectionError)

    def test_a_killed_ssh_resets_every_client(self):
        service = self.serve()
        carrier = self.carry(service.port)
        address = carrier.address
        clients = [self.both(address, service)[0] for _ in range(5)]
        clients[0].shutdown(socket.SHUT_WR)
        carrier.kill()
        for client in clients:
            self.assertEqual(receive_until_reset(client), b"")

    def test_a_killed_ssh_resets_a_client_amid_its_transfer(self):
        service = self.serve(source(1, 1 << 30))
        carrier = self.carry(service.port)
        client = self.connect(carrier.address)
        receive_exactly(client, 1 << 20)
        carrier.kill()
        receive_until_reset(client)

    def test_a_killed_ssh_resets_a_client_that_writes(self):
        service = self.serve(discard)
        carrier = self.carry(service.port)
        client = self.connect(carrier.address)
        writing = in_thread(send_until_error, client)
        time.sleep(0.3)
        carrier.kill()
        self.assertIsInstance(writing.result(), ConnectionError)

    def test_an_ssh_that_says_farewell_never_makes_a_cut_stream_look_complete(self):
        service = self.serve(source(1, 1 << 30))
        carrier = self.carry(service.port)
        client = self.connect(carrier.address)
        receive_exactly(client, 1 << 20)
        carrier.leave()
        receive_until_reset(client)

    def test_a_service_that_refuses_is_a_reset_for_the_client(self):
        carrier = self.carry(self.closed_port())
        for _ in range(50):
            self.assertEqual(come_and_look(carrier.address, None), "reset")

    def test_a_service_that_is_back_is_reached_by_the_next_client(self):
        port = self.closed_port()
        carrier = self.carry(port)
        self.assertEqual(come_and_look(carrier.address, None), "reset")
        listener = harness.listen(port=port)
        self.addCleanup(listener.close)
        client = self.connect(carrier.address)
        client.sendall(b"x")
        server, _ = listener.accept()
        self.addCleanup(server.close)
        self.assertEqual(receive_exactly(server, 1), b"x")


@needs_ssh
class Stuck(SshDaemonCase):
    MOST_KIB = 8 << 10

    def assert_quick(self, address):
        """An echo is not held up."""
        began = time.monotonic()
        for _ in range(5):
            self.assertEqual(ask(address, b"x" * 50000), b"x" * 50000)
        self.assertLess(time.monotonic() - began, 20)

    def test_a_client_that_reads_nothing_stalls_nobody_and_takes_no_memory(self):
        carrier = self.carry(self.serve(source(1, 1 << 30)).port, self.serve(echo).port)
        pushing, echoing = carrier.addresses
        before_kib = self.daemon.resident_kib()
        for _ in range(4):
            stuck = self.connect(pushing, receive_buffer=65536)
            receive_exactly(stuck, 1000)
        time.sleep(1)
        self.assert_quick(echoing)
        fresh = self.connect(pushing)
        check_pattern(fresh, 1, 4 << 20, end=False)
        self.assert_no_more_memory(before_kib, self.MOST_KIB)
        reset(fresh)

    def test_many_slow_clients_are_all_served_in_the_end(self):
        amount = 2 << 20
        address = self.carry(self.serve(source(1, amount)).port).address
        slow = [self.connect(address, receive_buffer=16384) for _ in range(80)]
        for client in slow:
            receive_exactly(client, 1000)
        time.sleep(2)               # all that is between the two is full
        reading = [in_thread(receive_until_end, client) for client in slow]
        for each in reading:
            self.assertEqual(len(each.result()), amount - 1000)

    def test_a_client_that_was_stuck_goes_on_and_has_lost_nothing(self):
        carrier = self.carry(self.serve(source(1, 24 << 20)).port)
        client = self.connect(carrier.address, receive_buffer=65536)
        check_pattern(client, 1, 1000, end=False)
        time.sleep(1)
        pattern = harness.Pattern(1)
        pattern.take(1000)
        while piece := client.recv(1 << 18):
            pattern.check(piece)
        self.assertEqual(pattern.position, 24 << 20)

    def test_a_server_that_reads_nothing_stalls_nobody_and_takes_no_memory(self):
        carrier = self.carry(self.serve(deaf, receive_buffer=65536).port, self.serve(echo).port)
        deaf_one, echoing = carrier.addresses
        before_kib = self.daemon.resident_kib()
        writing = []
        for _ in range(4):
            client = self.connect(deaf_one, send_buffer=65536)
            writing.append((client, in_thread(send_until_error, client)))
        time.sleep(1)
        self.assert_quick(echoing)
        self.assert_no_more_memory(before_kib, self.MOST_KIB)
        carrier.kill()
        for _, each in writing:
            self.assertIsInstance(each.result(), ConnectionError)

    def test_a_stuck_carrier_stalls_no_other(self):
        stuck = self.carry(self.serve(discard).port)
        client = self.connect(stuck.address, send_buffer=65536)
        stuck.freeze()
        writing = in_thread(send_until_error, client)
        time.sleep(0.5)
        self.assertTrue(writing.is_alive())
        self.assert_quick(self.carry(self.serve(echo).port).address)
        stuck.kill()
        self.assertIsInstance(writing.result(), ConnectionError)


@needs_ssh
class Crowd(SshDaemonCase):
    options = ("--ssh-handshakes-per-address", "0")

    def test_a_hundred_streams_at_once(self):
        address = self.carry(self.serve(echo).port).address
        clients = [self.connect(address) for _ in range(100)]

        def talk(number, client):
            sending = in_thread(send_pattern, client, number, 50000)
            check_pattern(client, number, 50000)
            sending.result()

        for talking in [in_thread(talk, *each) for each in enumerate(clients)]:
            talking.result()

    def test_hundreds_one_after_the_other_leave_nothing(self):
        carrier = self.carry(self.serve(echo).port)
        address = carrier.address
        self.assertEqual(ask(address), b"?")
        wait_until(lambda: self.daemon.ports.listening() == [address[1]], "nothing is left of other tests")
        before = wait_until(self.daemon.steady_counts, "the daemon is at rest")
        for number in range(300):
            client = connect(address)
            client.sendall(b"x" * number)
            if number % 3 == 0:
                reset(client)
            elif number % 3 == 1:
                client.close()
            else:
                client.shutdown(socket.SHUT_WR)
                receive_until_end(client)
                client.close()
        wait_until(lambda: self.daemon.has_no_more_than(before), "all streams have gone")

    def test_many_carriers_at_once(self):
        service = self.serve(echo)
        carriers = [self.begin(Ssh, service.port) for _ in range(16)]
        addresses = {carrier.address for carrier in carriers}
        self.assertEqual(len(addresses), 16)
        for address in addresses:
            self.assertEqual(ask(address), b"?")

    def test_an_idle_carrier_costs_no_processor_time(self):
        service = self.serve()
        address = self.carry(service.port).address
        _client, server = self.both(address, service)
        half, other = self.both(address, service)
        half.shutdown(socket.SHUT_WR)
        self.assertEqual(receive_until_end(other), b"")
        stuck, writer = self.both(address, service, receive_buffer=65536)
        writing = in_thread(send_until_error, writer)
        time.sleep(1)
        before = self.processor_seconds()
        time.sleep(2)
        self.assertLess(self.processor_seconds() - before, 0.4)
        reset(stuck)
        writing.result()

    def processor_seconds(self):
        with open(f"/proc/{self.daemon.pid}/stat", encoding="ascii") as stat:
            field = stat.read().rsplit(")", 1)[1].split()
        return (int(field[11]) + int(field[12])) / os.sysconf("SC_CLK_TCK")


@needs_ssh
class StreamsLimit(SshDaemonCase):
    options = ("--streams-per-tunnel", "3")

    def test_who_comes_beyond_it_waits_and_is_served_in_turn(self):
        service = self.serve()
        carrier = self.carry(service.port)
        pairs = [self.both(carrier.address, service) for _ in range(3)]
        waiting = [self.connect(carrier.address) for _ in range(2)]
        for number, client in enumerate(waiting):
            client.sendall(b"%d" % number)
        self.assertTrue(service.nobody_comes(1))
        for number in (0, 1):
            for connection in pairs[number]:
                connection.close()
            server = service.accept()
            self.assertEqual(receive_exactly(server, 1), b"%d" % number)
            server.sendall(b"served")
            self.assertEqual(receive_exactly(waiting[number], 6), b"served")
        self.assertTrue(service.nobody_comes(0.5))

    def test_it_holds_for_each_tunnel_of_a_carrier_alone(self):
        full, other = self.serve(), self.serve()
        first, second = self.carry(full.port, other.port).addresses
        for _ in range(3):
            self.both(first, full)
        self.connect(first)
        self.both(second, other)


if __name__ == "__main__":
    harness.main()
