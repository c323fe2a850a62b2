#!/usr/bin/python3 -B
"""tristero-tunnel expose --backend ssh: the installed ssh carries the tunnel."""

import fcntl
import glob
import os
import resource
import signal
import time
import unittest

import harness
from expose_harness import ExposeCase, address_of_url, children_of, fetch
from harness import TUNNEL, connect, in_thread, receive_exactly, run, visit_until_reset, wait_until
from ssh_harness import SSH, SshDaemon


def processor_s(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        user, system = stat.read().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


class SshCase(ExposeCase):
    def expose(self, *arguments, **how):
        return super().expose(*arguments, "--backend", "ssh", **how)


@unittest.skipUnless(SSH, "there is no ssh")
class Carrying(SshCase):
    def test_many_clients_are_served_at_once_at_one_address(self):
        program = self.expose(self.line_service())
        _, address = address_of_url(program.line())
        clients = [connect(address) for _ in range(20)]
        for number, client in enumerate(clients):
            client.sendall(b"a%d\n" % number)
        for number, client in enumerate(clients):
            wanted = (b"a%d" % number)[::-1] + b"\n"
            self.assertEqual(receive_exactly(client, len(wanted)), wanted)
            client.close()

    def test_a_lost_ssh_is_started_again_at_the_same_address(self):
        program = self.expose(self.web())
        _, address = address_of_url(program.line())
        for number in range(1, 3):
            os.kill(children_of(program.pid)[0], signal.SIGKILL)
            wait_until(lambda: program.errors().count("attached again") == number, "it is back")
            self.assertEqual(fetch(address), b"hello from behind /")
        self.assertEqual(program.errors().count("lost the connection"), 2)

    def test_a_new_address_is_printed_where_the_old_one_is_gone(self):
        where = {"listen_on": f"127.0.0.1:{self.closed_port()}",
                 "ssh_listen": f"127.0.0.1:{self.closed_port()}"}
        with SshDaemon(**where) as first:
            program = self.start_program([TUNNEL, "--proxy", first.url, "expose", str(self.web()),
                                          "--backend", "ssh"])
            address_of_url(program.line())
            first.process.kill()
            first.process.wait()
            wait_until(lambda: "next try" in program.errors(), "it tries again")
            with SshDaemon(**where, ports=first.ports, state_dir=first.state_dir):
                _, address = address_of_url(program.line())
                self.assertEqual(fetch(address), b"hello from behind /")
                wait_until(lambda: "at a new address" in program.errors(), "it is told")

    def test_a_service_that_is_down_is_told_and_the_tunnel_stays(self):
        port = self.closed_port()
        program = self.expose(port)
        _, address = address_of_url(program.line())
        self.assertEqual(visit_until_reset(address), b"")
        wait_until(lambda: f"can't reach the service at 127.0.0.1:{port}" in program.errors(), "it is told")
        self.web(port)
        self.assertEqual(fetch(address), b"hello from behind /")

    def test_while_there_are_no_descriptors_clients_wait_and_the_processor_rests(self):
        program = self.expose("--dir", self.temporary_folder())
        _, address = address_of_url(program.line())
        _, hard = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)
        taken = set(os.listdir(f"/proc/{program.pid}/fd"))
        free = next(number for number in range(hard) if str(number) not in taken)
        resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (free, hard))
        answer = in_thread(fetch, address)
        before = processor_s(program.pid)
        time.sleep(2)
        self.assertLess(processor_s(program.pid) - before, 0.4)
        resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (hard, hard))
        self.assertIn(b"<html", answer.result())


@unittest.skipUnless(SSH, "there is no ssh")
class AsAChild(SshCase):
    def test_ssh_ends_with_a_command_that_is_killed(self):
        program = self.expose(self.web())
        program.line()
        child, = children_of(program.pid)
        program.process.kill()
        program.process.wait()
        wait_until(lambda: not os.path.exists(f"/proc/{child}"), "ssh has ended")

    def test_how_ssh_ended_is_told(self):
        for wrapping in ((), ("/usr/bin/env", "--ignore-signal=CHLD")):
            program = self.start_program([*wrapping, TUNNEL, "--proxy", self.daemon.url, "expose",
                                          str(self.web()), "--backend", "ssh"])
            program.line()
            os.kill(children_of(program.pid)[0], signal.SIGKILL)
            wait_until(lambda: "lost the connection to the proxy: ssh was ended by signal 9" in
                       program.errors(), "it is told")

    def test_ssh_ends_with_the_command_also_if_it_stands_still_or_was_to_ignore_it(self):
        for wrapping in ((), ("/usr/bin/env", "--ignore-signal=TERM")):
            program = self.start_program([*wrapping, TUNNEL, "--proxy", self.daemon.url, "expose",
                                          str(self.web()), "--backend", "ssh"])
            program.line()
            child, = children_of(program.pid)
            if not wrapping:
                os.kill(child, signal.SIGSTOP)
            program.signal(signal.SIGINT)
            self.assertEqual(program.wait(), 0)
            self.assertFalse(os.path.exists(f"/proc/{child}"))

    def test_the_user_s_own_configuration_is_not_looked_at(self):
        home = self.temporary_folder()
        os.mkdir(os.path.join(home, ".ssh"))
        with open(os.path.join(home, ".ssh", "config"), "w", encoding="ascii") as file:
            file.write("Host *\n  Port 1\n  ProxyCommand false\n")
        for folder in home, "", "/nowhere":
            program = self.expose(self.web(), env={"HOME": folder})
            self.assertEqual(fetch(address_of_url(program.line())[1]), b"hello from behind /")

    def test_ssh_gets_no_descriptors_of_others_and_no_token_in_its_arguments(self):
        with open("/dev/zero", "rb") as other:
            program = self.expose(self.web(), pass_fds=[other.fileno()])
            program.line()
        child, = children_of(program.pid)
        self.assertNotIn("/dev/zero", [os.readlink(each) for each in glob.glob(f"/proc/{child}/fd/*")])
        with open(f"/proc/{child}/cmdline", encoding="ascii") as arguments:
            self.assertNotIn("t-", arguments.read())

    def test_a_folder_for_temporary_files_may_have_any_name(self):
        folder = os.path.join(self.temporary_folder(), "50% ${HOME}\" \\ a:b " + 100 * "x")
        os.mkdir(folder)
        for service in ([self.web()], ["unix:" + self.local_web()], ["--dir", folder]):
            program = self.expose(*service, env={"TMPDIR": folder})
            self.assertTrue(fetch(address_of_url(program.line())[1]))
            self.assertEqual(len(os.listdir(folder)), 1)
            program.signal(signal.SIGTERM)
            self.assertEqual(program.wait(), 0)
            self.assertEqual(os.listdir(folder), [])

    def test_a_folder_for_temporary_files_is_not_tidied_away(self):
        folder = self.temporary_folder()
        self.expose(self.web(), env={"TMPDIR": folder}).line()
        path, = glob.glob(f"{folder}/*")
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        with self.assertRaises(BlockingIOError):        # as systemd-tmpfiles asks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)


@unittest.skipUnless(SSH, "there is no ssh")
class Refused(SshCase):
    def refusal(self, **environment):
        done = run([TUNNEL, "--proxy", self.daemon.url, "expose", str(self.web()), "--backend", "ssh"],
                   env=environment)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        return done.stderr

    def test_a_proxy_without_ssh_is_told(self):
        daemon = self.start_daemon()
        done = run([TUNNEL, "--proxy", daemon.url, "expose", str(self.web()), "--backend", "ssh"])
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("ssh", done.stderr)

    def test_where_no_folder_can_be_made_is_told(self):
        self.assertIn("can't make a folder for temporary files in /nowhere: No such file",
                      self.refusal(TMPDIR="/nowhere"))

    def test_a_machine_without_ssh_is_told(self):
        self.assertIn("can't start ssh: No such file", self.refusal(PATH=self.temporary_folder()))

    def test_what_an_ssh_says_that_does_not_know_an_option_is_told(self):
        folder = self.temporary_folder()
        path = os.path.join(folder, "ssh")
        with open(path, "w", encoding="ascii") as file:
            file.write("#!/bin/sh\necho \"command-line line 0: Bad configuration option\" >&2\nexit 255\n")
        os.chmod(path, 0o700)
        self.assertIn("can't expose by ssh: command-line line 0: Bad configuration option",
                      self.refusal(PATH=folder))


if __name__ == "__main__":
    harness.main()
