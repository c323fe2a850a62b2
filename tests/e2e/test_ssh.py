#!/usr/bin/python3 -B
"""The ssh backend: whoever has an ssh client has a tunnel for many clients."""

import os
import random
import re
import shutil
import socket
import unittest

import harness
from harness import connect, fault_of, is_refused, receive_exactly, receive_until_end, run, wait_until
from ssh_harness import (SSH, Autossh, Dbclient, Paramiko, Ssh, SshCase, SshDaemonCase, Token, ask, echo,
                         inetd, needs_autossh, needs_dbclient, needs_paramiko, needs_ssh, web)

CURL, GIT, RSYNC, WRK = map(shutil.which, ("curl", "git", "rsync", "wrk"))
BODY = bytes(range(256)) * 300


class Uris(SshDaemonCase):
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
        told = self.quietly(WRK, "-t", "2", "-c", "20", "-d", "2s", "--timeout", "20s", f"http://{host}:{port}/")
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
    options = ("--host", "proxy.example.org")

    def test_its_value_is_granted_as_a_bind_address(self):
        carrier = self.carry(f"proxy.example.org:0:127.0.0.1:{self.serve(echo).port}")
        self.assertEqual(ask(carrier.address), b"?")

    def test_it_stands_in_the_uris(self):
        with harness.rpc(self.daemon.url) as proxy:
            uri = proxy.Tunnel.openTunnel("ssh")
            self.assertRegex(uri, rf"^ssh://t-\w+@proxy\.example\.org:{self.daemon.ssh_port}$")


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
                       "ssh-handshakes-per-address = 3\nssh-login-timeout = 20\ndrain = 1\n")
        daemon = self.start_ssh_daemon("--config", path)
        self.assertEqual(ask(self.carry(self.serve(echo).port, daemon=daemon).address), b"?")
        daemon.signal(harness.signal.SIGTERM)
        self.assertEqual(daemon.wait(), 0, daemon.errors())


if __name__ == "__main__":
    harness.main()
