#!/usr/bin/python3 -B
"""The ssh backend: whoever has an ssh client has a tunnel for many clients."""

import os
import random
import re
import shutil
import socket
import subprocess
import time
import unittest

import harness
import ssh_harness
from harness import (address_of, bounce_bytes, come_and_look, connect, fault_of, how_it_ended, in_thread,
                     is_refused, receive_exactly, receive_until_end, receive_until_reset, reset, run,
                     send_until_error, wait_until)
from ssh_harness import (AUTOSSH, DBCLIENT, PARAMIKO, SSH, Autossh, Dbclient, Paramiko, Peer, Ssh, SshCase,
                         SshDaemonCase, Token, ask, check_pattern, deaf, discard, echo, inetd, send_pattern,
                         source, web)

CURL, GIT, RSYNC, WRK = map(shutil.which, ("curl", "git", "rsync", "wrk"))
BODY = bytes(range(256)) * 300
BULK = 8 << 20

needs_ssh = unittest.skipUnless(SSH and ssh_harness.KEYSCAN, "ssh is not installed")
needs_dbclient = unittest.skipUnless(DBCLIENT and SSH, "dbclient and ssh are not installed")
needs_autossh = unittest.skipUnless(AUTOSSH and SSH, "autossh is not installed")
needs_paramiko = unittest.skipUnless(PARAMIKO, "paramiko is not installed")


class Uris(SshDaemonCase):
    options = ("--attach-timeout", "2")

    def test_the_uri_has_a_token_and_says_where_ssh_is(self):
        token = Token(self.daemon)
        self.assertRegex(token.uri, r"^ssh://t-[a-z0-9]{26}@127\.0\.0\.1:\d+$")
        self.assertEqual((token.ssh_host, token.ssh_port), self.daemon.ssh_address)
        self.assertRegex(token.client_uri, r"^tcp://127\.0\.0\.1:\d+$")

    def test_clients_get_the_second_port_of_a_pair(self):
        port = Token(self.daemon).address[1]
        self.assertIn(port, range(self.daemon.ports.low, self.daemon.ports.high + 1))
        self.assertEqual((port - self.daemon.ports.low) % 2, 1)
        self.assertIn(port, self.daemon.ports.listening())

    def test_no_two_tunnels_have_the_same_token_or_address(self):
        tokens = [Token(self.daemon) for _ in range(5)]
        self.assertEqual(len({token.login for token in tokens}), 5)
        self.assertEqual(len({token.client_uri for token in tokens}), 5)

    def test_the_address_can_be_asked_again(self):
        token = Token(self.daemon)
        for uri in (token.uri, token.uri + "/"):
            self.assertEqual(self.daemon.rpc().Tunnel.getTunnelAddress(uri), token.client_uri)

    def test_another_token_is_an_unknown_tunnel(self):
        token = Token(self.daemon)
        other = "t-" + "".join(random.choices("abcdefghijkmnpqrstuvwxyz", k=26))
        for uri in (token.uri.replace(token.login, other), token.uri.replace(token.login + "@", ""),
                    token.uri.replace("ssh://", "tcp://"), token.uri.replace(token.login, token.login[:-1])):
            with self.subTest(uri=uri):
                fault = fault_of(self.daemon.rpc().Tunnel.getTunnelAddress, uri)
                self.assertIn(fault.faultCode, (1, 2))

    def test_the_host_is_the_one_by_which_the_proxy_was_called(self):
        with harness.rpc(f"http://localhost:{self.daemon.port}/RPC2") as proxy:
            uri = proxy.Tunnel.openTunnel("ssh")
            self.assertRegex(uri, rf"^ssh://t-\w+@localhost:{self.daemon.ssh_port}$")
            self.assertRegex(proxy.Tunnel.getTunnelAddress(uri), r"^tcp://localhost:\d+$")

    def test_other_backends_are_told_what_there_is(self):
        fault = fault_of(self.daemon.rpc().Tunnel.openTunnel, "smtp")
        self.assertEqual(fault.faultCode, 3)
        for backend in ("tcp", "ssh"):
            self.assertIn(backend, fault.faultString)

    def test_tcp_tunnels_are_there_as_before(self):
        self.open_tunnel().both()


class WithoutSsh(SshCase):
    def test_ssh_is_no_backend_unless_it_is_switched_on(self):
        daemon = self.start_daemon("--drain", "1")
        fault = fault_of(daemon.rpc().Tunnel.openTunnel, "ssh")
        self.assertEqual(fault.faultCode, 3)
        self.assertNotIn("host key", daemon.errors())
        daemon.stop()


class Trips(SshDaemonCase):
    """One service, one client, by every ssh client there is."""

    def trip(self, kind, **how):
        service = self.serve(echo)
        carrier = self.carry(service.port, kind=kind, **how)
        for _ in range(3):
            self.assertEqual(ask(carrier.address, b"hello" * 1000), b"hello" * 1000)
        return carrier

    def trip_by_token(self, kind):
        token = Token(self.daemon)
        self.assertEqual(self.trip(kind, login=token.login).address, token.address)

    @needs_ssh
    def test_openssh_gets_an_address_and_carries(self):
        self.trip(Ssh)

    @needs_ssh
    def test_openssh_carries_by_a_token(self):
        self.trip_by_token(Ssh)

    @needs_dbclient
    def test_dbclient_gets_an_address_and_carries(self):
        self.trip(Dbclient)

    @needs_dbclient
    def test_dbclient_carries_by_a_token(self):
        self.trip_by_token(Dbclient)

    @needs_autossh
    def test_autossh_gets_an_address_and_carries(self):
        self.trip(Autossh)

    @needs_autossh
    def test_autossh_carries_by_a_token(self):
        self.trip_by_token(Autossh)

    @needs_paramiko
    def test_paramiko_gets_an_address_and_carries(self):
        self.trip(Paramiko)

    @needs_paramiko
    def test_paramiko_carries_by_a_token(self):
        self.trip_by_token(Paramiko)

    @needs_ssh
    def test_the_command_that_is_documented_works_as_it_stands(self):
        service = self.serve(echo)
        token = Token(self.daemon)
        self.start_program([SSH, "-N", "-R", f"0:127.0.0.1:{service.port}", "-p", str(token.ssh_port),
                            "-o", f"UserKnownHostsFile={self.daemon.known_hosts}",
                            f"{token.login}@{token.ssh_host}"])
        self.assertEqual(ask(token.address), b"?")      # who comes first is held

    @needs_ssh
    def test_any_login_name_will_do(self):
        service = self.serve(echo)
        for login in ("root", "x", "Jane.Doe-7_", "t-short", "\u00fcml\u00e4ut", "a b", "%s%n%x", "x" * 200):
            with self.subTest(login=login):
                carrier = self.carry(service.port, login=login)
                self.assertEqual(ask(carrier.address), b"?")

    @needs_ssh
    def test_clients_may_come_from_anywhere(self):
        service = self.serve(echo)
        address = self.carry(service.port).address
        client = self.connect(address, source="127.0.0.9")
        client.sendall(b"x")
        self.assertEqual(receive_exactly(client, 1), b"x")


@needs_ssh
class Programs(SshDaemonCase):
    """What people do over tunnels, with the programs that they do it with."""

    def quietly(self, *command, **how):
        done = run(command, **how)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    @unittest.skipUnless(CURL, "curl is not installed")
    def test_curl_fetches_again_and_again(self):
        host, port = self.carry(self.serve(web(BODY)).port).address
        file = os.path.join(self.temporary_folder(), "fetched")
        for _ in range(5):
            self.quietly(CURL, "-sS", "--noproxy", "*", "-o", file, f"http://{host}:{port}/")
            with open(file, "rb") as fetched:
                self.assertEqual(fetched.read(), BODY)

    @unittest.skipUnless(GIT, "git is not installed")
    def test_git_clones(self):
        folder = self.temporary_folder()
        alone = {"HOME": folder, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
        work, copy = os.path.join(folder, "work"), os.path.join(folder, "copy")
        self.quietly(GIT, "init", "-q", work, env=alone)
        content = random.randbytes(3 << 20)
        with open(os.path.join(work, "file"), "wb") as file:
            file.write(content)
        self.quietly(GIT, "-C", work, "add", "file", env=alone)
        self.quietly(GIT, "-C", work, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q",
                     "-m", "x", env=alone)
        daemon = inetd(GIT, "daemon", "--inetd", "--export-all", f"--base-path={folder}",
                       env={**os.environ, **alone})
        host, port = self.carry(self.serve(daemon).port).address
        self.quietly(GIT, "clone", "-q", f"git://{host}:{port}/work", copy, env=alone)
        with open(os.path.join(copy, "file"), "rb") as file:
            self.assertEqual(file.read(), content)

    @unittest.skipUnless(RSYNC, "rsync is not installed")
    def test_rsync_copies_there_and_back(self):
        folder = self.temporary_folder()
        paths = [os.path.join(folder, name) for name in ("from", "served", "back")]
        for path in paths:
            os.mkdir(path)
        for number in range(40):
            with open(os.path.join(paths[0], f"file{number}"), "wb") as file:
                file.write(random.randbytes(random.randrange(1 << 17)))
        settings = os.path.join(folder, "rsyncd.conf")
        with open(settings, "w", encoding="utf-8") as file:
            file.write(f"use chroot = no\nuid = {os.getuid()}\ngid = {os.getgid()}\n"
                       f"reverse lookup = no\nlog file = {folder}/log\n"
                       f"[data]\npath = {paths[1]}\nread only = no\n")
        service = self.serve(inetd(RSYNC, "--daemon", "--config", settings))
        host, port = self.carry(service.port).address
        there = f"rsync://{host}:{port}/data/"
        self.quietly(RSYNC, "-a", paths[0] + "/", there)
        self.quietly(RSYNC, "-a", there, paths[2])
        self.quietly("diff", "-r", paths[0], paths[2])

    @unittest.skipUnless(WRK, "wrk is not installed")
    def test_wrk_sees_no_error(self):
        host, port = self.carry(self.serve(web(b"hello")).port).address
        told = self.quietly(WRK, "-t", "2", "-c", "20", "-d", "2s", f"http://{host}:{port}/")
        self.assertNotIn("Socket errors", told)
        self.assertNotIn("Non-2xx", told)
        self.assertGreater(int(re.search(r"(\d+) requests in", told)[1]), 50)


@needs_ssh
class Addresses(SshDaemonCase):
    def test_several_forwards_of_one_connection_are_several_addresses(self):
        services = [self.serve(web(b"service %d" % number)) for number in range(4)]
        carrier = self.carry(*(service.port for service in services))
        self.assertEqual(len(set(carrier.addresses)), 4)
        for number, address in enumerate(carrier.addresses):
            answer = self.fetch(address)
            self.assertTrue(answer.endswith(b"service %d" % number), (number, answer))

    def fetch(self, address):
        with connect(address) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            return receive_until_end(client)

    def test_several_connections_of_one_user_are_several_addresses(self):
        services = [self.serve(web(b"service %d" % number)) for number in range(3)]
        carriers = [self.carry(service.port, login="same") for service in services]
        self.assertEqual(len({carrier.address for carrier in carriers}), 3)
        for number, carrier in enumerate(carriers):
            self.assertTrue(self.fetch(carrier.address).endswith(b"service %d" % number))

    def test_every_usual_bind_address_is_granted(self):
        service = self.serve(echo)
        for bind in ("", "*", "localhost", "0.0.0.0", "[::]", "127.0.0.1"):
            with self.subTest(bind=bind):
                carrier = self.carry(f"{bind}:0:127.0.0.1:{service.port}")
                self.assertEqual(ask(carrier.address), b"?")

    def test_the_pairs_come_back_when_the_connection_ends(self):
        wait_until(lambda: not self.daemon.ports.listening(), "nothing is left of other tests")
        carrier = self.carry(*(self.serve(echo).port for _ in range(3)))
        carrier.ready()
        self.assertEqual(len(self.daemon.ports.listening()), 3)
        carrier.leave()
        wait_until(lambda: not self.daemon.ports.listening(), "the pairs are back")

    @needs_paramiko
    def test_a_forward_that_is_cancelled_is_gone_and_the_others_stay(self):
        services = [self.serve(echo) for _ in range(2)]
        carrier = self.carry(*(service.port for service in services), kind=Paramiko)
        first, second = carrier.addresses
        client = self.connect(first)
        client.sendall(b"before")
        self.assertEqual(receive_exactly(client, 6), b"before")
        carrier.tell("cancel", first[1])
        carrier.expect("cancelled")
        wait_until(lambda: first[1] not in self.daemon.ports.listening(), "nobody listens there")
        self.assertTrue(is_refused(first))
        self.assertEqual(ask(second), b"?")


@needs_ssh
class FewPairs(SshDaemonCase):
    pairs = 12

    def test_no_free_pair_is_a_refusal_and_passes(self):
        targets = [self.serve(echo).port for _ in range(self.pairs + 1)]
        _, said = self.begin(Ssh, *targets).refused()
        self.assertIn("remote port forwarding failed", said)
        self.assertRegex(self.daemon.errors(), "port pair")
        wait_until(lambda: not self.daemon.ports.listening(), "the pairs are back")
        carrier = self.carry(*targets[:-1])
        self.assertEqual(len(set(carrier.addresses)), self.pairs)


@needs_ssh
class HostOption(SshDaemonCase):
    options = ("--host", "proxy.example.org", "--attach-timeout", "2")

    def test_its_value_is_granted_as_a_bind_address(self):
        carrier = self.carry(f"proxy.example.org:0:127.0.0.1:{self.serve(echo).port}")
        self.assertEqual(ask(carrier.address), b"?")

    def test_it_stands_in_the_uris(self):
        with harness.rpc(self.daemon.url) as proxy:
            uri = proxy.Tunnel.openTunnel("ssh")
            self.assertRegex(uri, rf"^ssh://t-\w+@proxy\.example\.org:{self.daemon.ssh_port}$")


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
        self.assertLess(bounce_bytes(client, server, 300), 10)  # Nagle would make it 24

    def test_a_server_that_speaks_first_is_heard(self):
        address = self.carry(self.serve(source(7, 1 << 20)).port).address
        check_pattern(self.connect(address), 7, 1 << 20)

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
        carrier = self.carry(ssh_harness.free_port())
        for _ in range(50):
            self.assertEqual(come_and_look(carrier.address, None), "reset")

    def test_a_service_that_is_back_is_reached_by_the_next_client(self):
        port = ssh_harness.free_port()
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
        self.assertLess(time.monotonic() - began, 5)

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
        address = self.carry(self.serve(lambda server: server.sendall(bytes(amount))).port).address
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
        wait_until(lambda: self.daemon.counts() == before, "all streams have gone", 10)

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


class Origins(SshDaemonCase):
    """What the carrier is told of who its clients are."""

    def origin(self, daemon):
        peer = self.begin(Peer, "origins", self.serve(echo).port, daemon=daemon)
        port = int(peer.expect(r"allocated (\d+)")[1])
        with connect((daemon.host, port), source="127.0.0.88") as client:
            client.sendall(b"x")
            receive_exactly(client, 1)
            match = peer.expect(r"from (\S+) (\d+) at (\S+) (\d+)")
            self.assertEqual(int(match[4]), port)
            return match[1], int(match[2]), client.getsockname()[1]

    @needs_paramiko
    def test_the_server_does_not_learn_where_its_clients_are(self):
        host, port, real_port = self.origin(self.daemon)
        self.assertEqual(host, "127.0.0.1")
        self.assertNotEqual(port, real_port)

    @needs_paramiko
    def test_the_server_learns_it_if_the_operator_says_so(self):
        daemon = self.start_ssh_daemon("--reveal-clients", "--drain", "1", "--reserve", "1")
        host, port, real_port = self.origin(daemon)
        self.assertEqual((host, port), ("127.0.0.88", real_port))


@needs_ssh
class Sessions(SshDaemonCase):
    """What people see who leave out -N."""

    def session(self, *targets, terminal=True):
        return self.begin(Ssh, *targets, arguments=("-tt",) if terminal else ("-T",), stdin=subprocess.PIPE)

    def line_with(self, carrier, pattern):
        for _ in range(20):
            line = carrier.line()
            if match := re.search(pattern, line):
                return match
        self.fail(f"no line like {pattern!r}")

    def test_the_addresses_are_shown_and_each_client_comes_and_goes(self):
        for terminal in (True, False):
            with self.subTest(terminal=terminal):
                session = self.session(self.serve(echo).port, self.serve(echo).port, terminal=terminal)
                shown = {address_of(self.line_with(session, r"(tcp://[0-9.]+:\d+)")[1]) for _ in range(2)}
                self.assertEqual(shown, set(session.addresses))
                for number in (1, 2):
                    self.assertEqual(ask(session.addresses[number % 2]), b"?")
                    match = self.line_with(session, r"client (\d+) connected")
                    self.line_with(session, rf"client {match[1]}\b.*closed")

    def test_the_lines_do_not_tell_where_clients_are(self):
        session = self.session(self.serve(echo).port)
        with connect(session.address, source="127.0.0.88") as client:
            client.sendall(b"x")
            receive_exactly(client, 1)
        while "closed" not in (line := session.line()):
            self.assertNotIn("127.0.0.88", line)
        self.assertNotIn("127.0.0.88", line)

    def test_the_lines_of_a_terminal_begin_at_its_left(self):
        session = self.session(self.serve(echo).port)
        self.assertTrue(session.line().endswith("\r"))

    def test_control_c_ends_it(self):
        session = self.session(self.serve(echo).port)
        address = session.address
        self.line_with(session, "tcp://")
        client = self.connect(address)
        client.sendall(b"x")
        receive_exactly(client, 1)
        session.process.stdin.write(b"\x03")
        session.process.stdin.flush()
        session.wait()
        self.assertEqual(receive_until_reset(client), b"")

    def test_other_keys_do_nothing(self):
        session = self.session(self.serve(echo).port)
        session.process.stdin.write(b"exit\r\nls\r\n\x1b[A\x00\xff" * 100)
        session.process.stdin.flush()
        self.assertEqual(ask(session.address), b"?")
        self.assertIsNone(session.process.poll())

    def test_a_session_that_nobody_reads_holds_up_nothing(self):
        session = self.session(self.serve(echo).port)
        address = session.address
        for _ in range(200):
            self.assertEqual(ask(address), b"?")

    def test_without_a_forward_it_gives_a_hint_and_fails(self):
        for terminal in (True, False):
            with self.subTest(terminal=terminal):
                session = self.session(terminal=terminal)
                self.assertNotIn(session.wait(), (0, 255), session.errors())
                self.assertIn("-R", session.rest_of_output() + session.errors().split("debug1")[-1])


@needs_ssh
class TheLog(SshCase):
    def test_it_tells_what_happens_without_secrets_and_addresses(self):
        daemon = self.start_ssh_daemon("--drain", "1", "--reserve", "1", "--log-level", "debug")
        token = Token(daemon, source="127.0.0.21")
        carrier = self.carry(self.serve(echo).port, daemon=daemon, login=token.login,
                             options=("BindAddress=127.0.0.21",))
        with connect(carrier.address, source="127.0.0.22") as client:
            client.sendall(b"x")
            receive_exactly(client, 1)
        carrier.kill()
        refused = self.begin(Ssh, 9, daemon=daemon, login=token.login)      # from another address
        refused.wait()
        daemon.expect_rest()
        log = daemon.errors()
        self.assertNotIn(token.login[2:], log)
        self.assertNotIn("127.0.0.21", log)
        self.assertNotIn("127.0.0.22", log)
        for line in log.splitlines():
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (error|warning|info|debug) ")
        daemon.stop()

    @needs_paramiko
    def test_foreign_text_cannot_forge_lines(self):
        daemon = self.start_ssh_daemon("--drain", "1", "--reserve", "1", "--log-level", "debug")
        forged = "x\n2026-01-01T00:00:00Z info forged\x1b[2J"
        peer = self.begin(Peer, "forward", forged.replace("\n", "\r") + "/0", "/0", daemon=daemon, login=forged)
        peer.expect("refused")      # of ssh's own programs some take no such names
        peer.expect(r"granted \d+")
        peer.kill()
        with connect(daemon.ssh_address) as client:
            client.sendall(b"SSH-2.0-x\x1b[2J info forged\r\n")
        with connect(daemon.ssh_address) as client:
            client.sendall(forged.encode() + b"\r\n\r\n")
        daemon.expect_rest()
        self.assertFalse(re.search(r"^\S+ info forged", daemon.errors(), re.MULTILINE))
        self.assertNotIn("\x1b", daemon.errors())
        daemon.stop()


@needs_ssh
class HostKey(SshDaemonCase):
    def hostkey(self, *arguments, **how):
        return run([harness.TUNNEL, *arguments], **how)

    def test_the_command_prints_what_known_hosts_needs(self):
        done = self.hostkey("hostkey", "--proxy", self.daemon.url)
        self.assertEqual(done.returncode, 0, done.stderr)
        comment, line = done.stdout.splitlines()
        self.assertTrue(comment.startswith("#"))
        self.assertIn(self.daemon.fingerprint, comment)
        self.assertRegex(line, rf"^\[127\.0\.0\.1\]:{self.daemon.ssh_port} ssh-ed25519 AAAA\S+$")
        self.assertIn(self.daemon.host_key, line)

    def test_ssh_keygen_sees_the_same_fingerprint_in_it(self):
        for words in (("hostkey", "--proxy", self.daemon.url), ("--proxy", self.daemon.url, "hostkey")):
            path = os.path.join(self.temporary_folder(), "known_hosts")
            with open(path, "w", encoding="ascii") as file:
                file.write(self.hostkey(*words).stdout)
            told = run([ssh_harness.KEYGEN, "-l", "-f", path])
            self.assertEqual(told.returncode, 0, told.stderr)
            self.assertEqual(told.stdout.split()[1], self.daemon.fingerprint)

    def test_ssh_comes_in_with_what_it_printed(self):
        path = os.path.join(self.temporary_folder(), "known_hosts")
        with open(path, "w", encoding="ascii") as file:
            file.write(self.hostkey("hostkey", env={"TRISTERO_PROXY": self.daemon.url}).stdout)
        carrier = self.carry(self.serve(echo).port, options=(f"UserKnownHostsFile={path}",))
        self.assertEqual(ask(carrier.address), b"?")

    def test_a_proxy_without_ssh_is_told(self):
        daemon = self.start_daemon("--drain", "1")
        done = self.hostkey("hostkey", "--proxy", daemon.url)
        self.assertGreater(done.returncode, 0)
        self.assertEqual(done.stdout, "")
        self.assertNotEqual(done.stderr, "")
        daemon.stop()

    def test_the_key_on_the_wire_is_the_one_in_the_file(self):
        path = os.path.join(self.daemon.state_dir, "ssh_host_ed25519_key")
        told = run([ssh_harness.KEYGEN, "-l", "-f", path])
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertEqual(told.stdout.split()[1], self.daemon.fingerprint)
        self.assertIn("ED25519", told.stdout)


@needs_ssh
class IPv6(SshCase):
    def setUp(self):
        self.need_ipv6()
        self.daemon = self.start_ssh_daemon("--drain", "1", "--reserve", "1", ssh_listen="[::1]:0",
                                            listen_on="[::1]:0")

    def test_the_trip_works_on_loopback(self):
        self.assertEqual(self.daemon.ssh_host, "::1")
        service = self.serve(echo)
        carrier = self.carry(service.port)
        self.assertEqual(carrier.address[0], "::1")
        self.assertEqual(ask(carrier.address), b"?")
        token = Token(self.daemon)
        self.assertRegex(token.uri, rf"^ssh://t-\w+@\[::1\]:{self.daemon.ssh_port}$")
        by_token = self.carry(f"[::1]:0:127.0.0.1:{service.port}", login=token.login)
        self.assertEqual(by_token.address, token.address)
        self.assertEqual(ask(token.address), b"?")
        for each in (carrier, by_token):
            each.leave()
        self.daemon.stop()


@needs_ssh
class Elsewhere(SshCase):
    def test_ssh_may_listen_elsewhere_than_the_rest(self):
        daemon = self.start_ssh_daemon("--drain", "1", "--reserve", "1", "--relay-listen", "127.0.0.2",
                                       ssh_listen="127.0.0.3:0")
        self.assertEqual(daemon.ssh_host, "127.0.0.3")
        service = self.serve(echo)
        carrier = self.carry(f"127.0.0.2:0:127.0.0.1:{service.port}", daemon=daemon)
        self.assertEqual(ask(("127.0.0.2", carrier.address[1])), b"?")
        self.assertTrue(is_refused(("127.0.0.1", carrier.address[1])))
        carrier.leave()
        daemon.stop()

    def test_the_config_file_knows_every_option_of_it(self):
        path = os.path.join(self.temporary_folder(), "tunneld.conf")
        with open(path, "w", encoding="ascii") as file:
            file.write("reserve = 1\nreveal-clients = no\nstreams-per-tunnel = 9\nssh-handshakes = 9\n"
                       "ssh-handshakes-per-address = 3\nssh-login-timeout = 3\ndrain = 1\n")
        daemon = self.start_ssh_daemon("--config", path)
        self.assertEqual(ask(self.carry(self.serve(echo).port, daemon=daemon).address), b"?")
        daemon.signal(harness.signal.SIGTERM)
        self.assertEqual(daemon.wait(), 0, daemon.errors())


if __name__ == "__main__":
    harness.main()
