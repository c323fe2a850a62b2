#!/usr/bin/python3 -B
"""tristero-tunnel expose, as it is without --backend: by webmux, for any number of clients."""

import hashlib
import json
import os
import signal
import socket
import socketserver
import subprocess
import time

import harness
from expose_harness import ExposeCase, address_of_url, fetch
from harness import (TUNNEL, connect, in_thread, receive_exactly, receive_until_reset, reset, run,
                     visit_until_reset, wait_until)
from ssh_harness import SshDaemon


class Serving(ExposeCase):
    def test_many_clients_are_served_at_once_at_one_address(self):
        program = self.expose(self.line_service())
        scheme, address = address_of_url(program.line())
        self.assertEqual(scheme, "tcp")
        clients = [connect(address) for _ in range(100)]
        for number, client in enumerate(clients):
            client.sendall(b"a%d\n" % number)
        for number, client in enumerate(clients):
            wanted = (b"a%d" % number)[::-1] + b"\n"
            self.assertEqual(receive_exactly(client, len(wanted)), wanted)
            client.close()
        wait_until(lambda: program.errors().count(" left: ") == 100, "all are told")
        self.assertEqual(program.errors().count(" came\n"), 100)

    def test_a_web_server_a_socket_and_a_folder_are_reached(self):
        folder = self.temporary_folder()
        content = os.urandom(3_000_000)
        with open(os.path.join(folder, "file"), "wb") as file:
            file.write(content)
        for arguments, path, wanted in (((self.web(),), "/x", b"hello from behind /x"),
                                        (("unix:" + self.local_web(),), "/y", b"hello from behind /y"),
                                        (("--dir", folder), "/file", content)):
            scheme, address = address_of_url(self.expose(*arguments).line())
            self.assertEqual(scheme, "http")
            for each in [in_thread(fetch, address, path) for _ in range(8)]:
                self.assertEqual(hashlib.sha256(each.result()).digest(), hashlib.sha256(wanted).digest())

    def test_a_service_that_speaks_first_is_heard(self):
        program = self.expose(self.line_service(b"220 hello\r\n"))
        scheme, address = address_of_url(program.line())
        self.assertEqual(scheme, "tcp")
        with connect(address) as client:
            self.assertEqual(receive_exactly(client, 11), b"220 hello\r\n")

    def test_a_service_that_is_down_is_told_and_the_tunnel_stays(self):
        port = self.closed_port()
        program = self.expose(port)
        _, address = address_of_url(program.line())
        for number in (1, 2):
            self.assertEqual(visit_until_reset(address), b"")
            wait_until(lambda: f"client {number} was not served: can't reach the service at 127.0.0.1:{port}: "
                       "Connection refused\n" in program.errors(), "it is told")
        self.web(port)
        self.assertEqual(fetch(address), b"hello from behind /")

    def test_a_proxy_that_comes_back_is_found_and_its_new_address_printed(self):
        listen_on = f"127.0.0.1:{self.closed_port()}"
        with SshDaemon(listen_on=listen_on) as first:
            program = self.start_program([TUNNEL, "--proxy", first.url, "expose", str(self.web())])
            program.line()
            first.process.kill()
            first.process.wait()
            wait_until(lambda: "Connection refused; next try" in program.errors(), "it tries again")
            self.assertIn("lost the connection to the proxy: ", program.errors())
            self.assertIn("not attached: can't attach to webmux://", program.errors())
            with SshDaemon(listen_on=listen_on, ports=first.ports):
                _, address = address_of_url(program.line())
                self.assertEqual(fetch(address), b"hello from behind /")
                wait_until(lambda: "at a new address" in program.errors(), "it is told")

    def test_json_has_statistics(self):
        program = self.expose(self.line_service(), "--json", "--connections", "2")
        first = json.loads(program.line())
        self.assertEqual((first["event"], first["backend"]), ("address", "webmux"))
        with connect(address_of_url(first["url"])[1]) as client:
            client.sendall(b"abc\n")
            self.assertEqual(receive_exactly(client, 4), b"cba\n")
            while (numbers := self.event(program, "statistics"))["bytes_to_clients"] == 0:
                pass        # they are of a moment before
            self.assertEqual({key: numbers[key] for key in ("clients", "clients_in_all", "refused",
                                                            "bytes_from_clients", "bytes_to_clients",
                                                            "connections", "times_lost")},
                             {"clients": 1, "clients_in_all": 1, "refused": 0, "bytes_from_clients": 4,
                              "bytes_to_clients": 4, "connections": 2, "times_lost": 0})
        left = self.event(program, "client-left")
        self.assertEqual((left["bytes_from_client"], left["bytes_to_client"]), (4, 4))
        program.signal(signal.SIGTERM)
        self.assertEqual(program.wait(), 0, program.errors())
        last = json.loads(program.rest_of_output().splitlines()[-1])
        self.assertEqual((last["event"], last["clients_in_all"]), ("statistics", 1))
        self.assertEqual(program.errors(), "")

    def test_the_last_statistics_have_all_that_passed(self):
        for stays in (False, True):
            program = self.expose(self.line_service(), "--json")
            client = connect(address_of_url(json.loads(program.line())["url"])[1])
            for _ in range(4):
                client.sendall(b"x" * 62499 + b"\n")
                receive_exactly(client, 62500)
            if not stays:
                client.close()
                self.event(program, "client-left")
            program.signal(signal.SIGTERM)
            self.assertEqual(program.wait(), 0, program.errors())
            told = [json.loads(line) for line in program.rest_of_output().splitlines()]
            self.assertEqual([event["event"] for event in told if "client" in event],
                             ["client-came", "client-left"][-2 if stays else 2:])
            self.assertEqual((told[-1]["event"], told[-1]["clients"], told[-1]["clients_in_all"],
                              told[-1]["bytes_from_clients"], told[-1]["bytes_to_clients"]),
                             ("statistics", 0, 1, 250000, 250000))
            client.close()

    def test_who_broke_off_is_told(self):
        class Crash(socketserver.BaseRequestHandler):
            def handle(self):
                self.request.recv(5)
                reset(self.request)

        service = self.run_server(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Crash))
        program = self.expose(service.server_address[1])
        self.assertEqual(visit_until_reset(address_of_url(program.line())[1], b"hello"), b"")
        wait_until(lambda: "client 1 left: the service broke off; 5 bytes from it" in program.errors(), "it is told")
        program = self.expose(self.line_service())
        client = connect(address_of_url(program.line())[1])
        client.sendall(b"a\n")
        receive_exactly(client, 2)
        reset(client)
        wait_until(lambda: "client 1 left: the client broke off, or the proxy cut it off; " in program.errors(),
                   "it is told")

    def test_signals_end_it_at_once_with_a_client_there(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            program = self.expose(self.line_service())
            with connect(address_of_url(program.line())[1]) as client:
                client.sendall(b"a\n")
                receive_exactly(client, 2)
                began = time.monotonic()
                program.signal(number)
                self.assertEqual(program.wait(), 0, program.errors())
                self.assertLess(time.monotonic() - began, 2.8)      # what is served would get three
                self.assertEqual(receive_until_reset(client), b"")

    def test_a_proxy_that_can_t_be_called_or_refuses_ends_it_at_once(self):
        began = time.monotonic()
        for url in ("http://127.0.0.1:1/RPC2", self.daemon.url + "/nowhere"):
            done = run([TUNNEL, "--proxy", url, "expose", str(self.web())])
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn("127.0.0.1", done.stderr)
        self.assertLess(time.monotonic() - began, 20)

    def test_options_of_other_backends_are_refused(self):
        for options in (("--once",), ("--tunnels", "2"), ("--server-first",),
                        ("--backend", "ssh", "--connections", "2"), ("--connections", "17")):
            done = run([TUNNEL, "--proxy", self.daemon.url, "expose", "80", *options])
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertIn("--" + options[-2].lstrip("-") if len(options) > 1 else options[0], done.stderr)


def _own_names(hosts, *command):
    """The command where the file tells the names of hosts."""
    return ["unshare", "-rm", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh", *command]


class Names(ExposeCase):
    def test_a_service_is_found_at_whichever_address_of_its_name_it_comes_up(self):
        hosts = os.path.join(self.temporary_folder(), "hosts")
        with open(hosts, "w", encoding="ascii") as file:
            file.write("127.0.0.1 localhost\n127.0.0.2 localhost\n")
        if run(_own_names(hosts, "true")).returncode:
            self.skipTest("names can't be changed here")
        port = self.closed_port()
        program = self.start_program(_own_names(hosts, TUNNEL, "--proxy", self.daemon.url, "expose",
                                                f"localhost:{port}"))
        _, address = address_of_url(program.line())
        self.assertEqual(visit_until_reset(address), b"")
        wait_until(lambda: "can't reach the service" in program.errors(), "it is told")
        for host in ("127.0.0.2", "127.0.0.1"):
            with socket.create_server((host, port)) as service:
                client = connect(address)
                with service.accept()[0] as connection:
                    connection.sendall(b"here")
                    self.assertEqual(receive_exactly(client, 4), b"here")
                client.close()


class Limits(ExposeCase):
    def test_there_are_as_many_descriptors_as_the_system_allows(self):
        program = self.start_program(["sh", "-c", 'ulimit -S -n 40 && exec "$@"', "sh", TUNNEL, "--proxy",
                                      self.daemon.url, "expose", str(self.line_service())])
        _, address = address_of_url(program.line())
        clients = [connect(address) for _ in range(100)]
        for client in clients:
            client.sendall(b"ab\n")
        for client in clients:
            self.assertEqual(receive_exactly(client, 3), b"ba\n")


class IgnoredSignals(ExposeCase):
    def test_nohup_outlives_the_terminal(self):
        program = self.start_program(["nohup", TUNNEL, "--proxy", self.daemon.url, "expose",
                                      str(self.web())])
        _, address = address_of_url(program.line())
        program.signal(signal.SIGHUP)
        self.assertEqual(fetch(address), b"hello from behind /")
        with self.assertRaises(subprocess.TimeoutExpired):
            program.process.wait(1)


if __name__ == "__main__":
    harness.main()
