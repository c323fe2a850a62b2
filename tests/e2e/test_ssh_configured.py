#!/usr/bin/python3 -B
"""The files of ssh: keys that may open tunnels, the proxy's own key, and bad configurations."""

import os
import signal
import stat
import time
import unittest

import harness
import ssh_harness
from harness import TUNNELD, PortBlock, in_thread, receive_exactly, run, wait_until
from ssh_harness import Ssh, SshCase, Token, ask, check_pattern, echo, make_key, needs_ssh, send_pattern


class Keys(SshCase):
    """Owners that are known by their keys, and the file of those."""

    def setUp(self):
        self.folder = self.temporary_folder()
        self.file = os.path.join(self.folder, "authorized_keys")
        self.jane, self.janes_line = make_key(self.folder, "jane")
        self.joe, self.joes_line = make_key(self.folder, "joe")

    def write(self, *lines):
        """As editors do: the file is whole at every moment."""
        with open(self.file + ".new", "w", encoding="utf-8") as file:
            file.write("".join(lines))
        os.chmod(self.file + ".new", 0o600)
        os.rename(self.file + ".new", self.file)

    def start(self, *lines, options=("--reserve", "1"), **how):
        self.write(*lines)
        self.daemon = self.start_ssh_daemon("--drain", "1", "--ssh-authorized-keys", self.file, *options, **how)

    def reload(self, expected="info the configuration was read again"):
        before = self.daemon.errors().count(expected)
        self.daemon.signal(signal.SIGHUP)
        wait_until(lambda: self.daemon.errors().count(expected) > before,
                   f"{expected} in the log: {self.daemon.errors()}")

    def gets_in(self, identity, **how):
        """Whether whoever has that key is served."""
        with ssh_harness.Service(echo) as service:
            carrier = self.begin(Ssh, service.port, identity=identity, **how)
            wait_until(lambda: carrier.process.poll() is not None or carrier.ports(), "in or not")
            if carrier.process.poll() is not None:
                self.assertIn("Permission denied", carrier.errors())
                return False
            self.assertEqual(ask(carrier.address), b"?")
            carrier.leave()
            return True

    @needs_ssh
    def test_who_has_a_key_gets_in_and_nobody_else(self):
        self.start("# ours\n\n", self.janes_line)
        self.assertTrue(self.gets_in(self.jane))
        self.assertFalse(self.gets_in(self.joe))
        self.assertFalse(self.gets_in(None))
        self.daemon.stop()

    @needs_ssh
    def test_every_usual_kind_of_key_will_do(self):
        pairs = [make_key(self.folder, kind, kind) for kind in ("rsa", "ecdsa", "ed25519")]
        self.start(*(line for _, line in pairs))
        for path, line in pairs:
            with self.subTest(kind=line.split()[0]):
                self.assertTrue(self.gets_in(path))
        self.daemon.stop()

    @needs_ssh
    def test_a_token_needs_no_key(self):
        self.start(self.janes_line)
        token = Token(self.daemon)
        self.assertTrue(self.gets_in(None, login=token.login))
        self.daemon.stop()

    @needs_ssh
    def test_keys_come_and_go_and_live_carriers_do_not_notice(self):
        self.start(self.janes_line)
        service = self.serve()
        carrier = self.carry(service.port, identity=self.jane)
        client, server = self.both(carrier.address, service)
        sending = in_thread(send_pattern, server, 1, 8 << 20, False)
        self.write(self.joes_line)
        self.assertFalse(self.gets_in(self.joe))        # until it is told
        self.reload()
        check_pattern(client, 1, 8 << 20, end=False)
        sending.result()
        self.assertTrue(self.gets_in(self.joe))
        self.assertFalse(self.gets_in(self.jane))
        self.both(carrier.address, service)
        client.sendall(b"still here")
        self.assertEqual(receive_exactly(server, 10), b"still here")
        carrier.leave()
        self.daemon.stop()

    @needs_ssh
    def test_a_bad_file_changes_nothing_and_is_told_with_its_line(self):
        self.start(self.janes_line)
        for text in ("nonsense\n", "ssh-ed25519 AAAA\n", "ssh-ed25519 !!!! x\n"):
            with self.subTest(text=text):
                self.write("# of today\n", text)
                self.reload("error the configuration stays as it was: ")
                self.assertIn(self.file + ":2", self.daemon.errors())
        os.unlink(self.file)
        self.reload("error the configuration stays as it was: ")
        self.assertIn("No such file", self.daemon.errors())
        self.assertTrue(self.gets_in(self.jane))
        self.write(self.janes_line)
        self.reload()
        self.daemon.stop()

    @needs_ssh
    def test_a_key_s_owner_regains_the_address_by_whatever_name_and_from_wherever(self):
        self.start(self.janes_line, self.joes_line, options=("--reserve", "60"))
        service = self.serve(echo)
        carrier = self.carry(service.port, identity=self.jane, login="here")
        address = carrier.address
        carrier.kill()
        wait_until(
            lambda: address[1] in self.daemon.ports.listening(), "the address is reserved")
        other = self.carry(service.port, identity=self.joe, login="here")
        self.assertNotEqual(other.address, address)
        refused = self.begin(Ssh, f"{address[1]}:127.0.0.1:{service.port}", identity=self.joe, login="here")
        self.assertIn("remote port forwarding failed", refused.refused()[1])
        back = wait_until(lambda: self.regained(service, address), "jane has her address again")
        self.assertEqual(ask(back.address), b"?")
        self.daemon.signal(signal.SIGTERM)
        self.assertEqual(self.daemon.wait(), 0, self.daemon.errors())

    def regained(self, service, address):
        back = self.begin(Ssh, f"{address[1]}:127.0.0.1:{service.port}", identity=self.jane, login="there",
                          options=("BindAddress=127.0.0.2",))
        wait_until(lambda: back.process.poll() is not None or back.ports(), "granted or not")
        return back if back.ports() else None

    @needs_ssh
    def test_many_bad_logins_do_not_keep_the_others_out(self):
        self.start(self.janes_line, options=("--reserve", "1", "--ssh-handshakes-per-address", "0"))
        refused = [self.begin(Ssh, 9, identity=self.joe) for _ in range(12)]
        self.assertTrue(self.gets_in(self.jane))
        for each in refused:
            each.wait()
        self.daemon.stop()


class HostKey(SshCase):
    def key_path(self, folder):
        return os.path.join(folder, "ssh_host_ed25519_key")

    @needs_ssh
    def test_it_is_made_once_and_kept(self):
        folder = self.temporary_folder()
        first = self.start_ssh_daemon("--drain", "0", state_dir=folder)
        with open(self.key_path(folder), "rb") as file:
            content = file.read()
        first.stop()
        second = self.start_ssh_daemon("--drain", "0", state_dir=folder)
        self.assertEqual(second.fingerprint, first.fingerprint)
        second.stop()
        with open(self.key_path(folder), "rb") as file:
            self.assertEqual(file.read(), content)

    def test_another_folder_has_another_key(self):
        daemons = [self.start_ssh_daemon("--drain", "0") for _ in range(2)]
        self.assertNotEqual(*(daemon.fingerprint for daemon in daemons))
        for daemon in daemons:
            daemon.stop()

    def test_nobody_else_may_read_it_whatever_the_umask(self):
        for mask in (0o000, 0o077):
            with self.subTest(umask=oct(mask)):
                before = os.umask(mask)
                try:
                    daemon = self.start_ssh_daemon("--drain", "0")
                finally:
                    os.umask(before)
                mode = os.stat(self.key_path(daemon.state_dir)).st_mode
                self.assertTrue(stat.S_ISREG(mode))
                self.assertEqual(stat.S_IMODE(mode), 0o600)
                daemon.stop()

    def test_its_folder_is_made_for_its_owner_alone(self):
        folder = os.path.join(self.temporary_folder(), "new")
        daemon = self.start_ssh_daemon("--drain", "0", state_dir=folder)
        self.assertEqual(stat.S_IMODE(os.stat(folder).st_mode), 0o700)
        daemon.stop()

    @needs_ssh
    def test_one_that_openssh_made_is_taken(self):
        folder = self.temporary_folder()
        make_key(folder, "ssh_host_ed25519_key")
        told = run([ssh_harness.KEYGEN, "-l", "-f", self.key_path(folder)]).stdout
        daemon = self.start_ssh_daemon("--drain", "0", state_dir=folder)
        self.assertEqual(told.split()[1], daemon.fingerprint)
        daemon.stop()

    def test_a_signal_amid_the_first_start_leaves_a_whole_key_or_none(self):
        ports = PortBlock(4)
        self.addCleanup(ports.release)
        for milliseconds in range(0, 60, 6):
            folder = self.temporary_folder()
            daemon = harness.start([TUNNELD, "--listen", "127.0.0.1:0", "--ports", str(ports), "--ssh-listen",
                                    "127.0.0.1:0", "--state-dir", folder],
                                   stdout=harness.subprocess.DEVNULL, stderr=harness.subprocess.PIPE)
            time.sleep(milliseconds / 1000)
            daemon.kill()
            daemon.communicate(timeout=harness.WAIT_S)
            if os.path.exists(self.key_path(folder)):
                self.assertGreater(os.stat(self.key_path(folder)).st_size, 100)
                again = self.start_ssh_daemon("--drain", "0", state_dir=folder)
                again.stop()


class BadConfiguration(SshCase):
    def assert_refused(self, *arguments, pieces=(), status=None):
        done = run([TUNNELD, "--listen", "127.0.0.1:0", *arguments])
        self.assertIn(done.returncode, [status] if status else [1, 2], done.stderr)
        self.assertEqual(done.stdout, "")
        for piece in pieces:
            self.assertIn(piece, done.stderr)

    def with_ssh(self, *arguments, state_dir=None):
        return ("--ssh-listen", "127.0.0.1:0", "--state-dir", state_dir or self.temporary_folder(), *arguments)

    def test_a_bad_value_is_named_with_its_option(self):
        for option, value in (("ssh-listen", "8022"), ("ssh-listen", "127.0.0.1"),
                              ("ssh-listen", "127.0.0.1:70000"), ("ssh-listen", "nowhere:22"),
                              ("reserve", "-1"), ("reserve", "soon"), ("reveal-clients", "maybe"),
                              ("streams-per-tunnel", "0"), ("streams-per-tunnel", "many"),
                              ("ssh-handshakes", "0"), ("ssh-handshakes", "x"),
                              ("ssh-handshakes-per-address", "-1"), ("ssh-login-timeout", "0"),
                              ("ssh-login-timeout", "1.5")):
            with self.subTest(option=option, value=value):
                self.assert_refused(*self.with_ssh(f"--{option}={value}"), pieces=(option, value))

    def test_help_names_every_option(self):
        told = run([TUNNELD, "--help"]).stdout
        for option in ("ssh-listen", "state-dir", "ssh-authorized-keys", "reserve", "reveal-clients",
                       "streams-per-tunnel", "ssh-handshakes", "ssh-handshakes-per-address",
                       "ssh-login-timeout"):
            self.assertIn(f"--{option}", told)

    def test_a_busy_port_is_told(self):
        holder = harness.listen()
        self.addCleanup(holder.close)
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        self.assert_refused("--ssh-listen", address, "--state-dir", self.temporary_folder(),
                            pieces=(address, "in use"))

    def test_an_address_that_is_not_here_is_told(self):
        self.assert_refused("--ssh-listen", "192.0.2.1:0", "--state-dir", self.temporary_folder(),
                            "--open-to-all", pieces=("192.0.2.1",))

    def test_a_folder_that_can_not_be_there_is_told(self):
        self.assert_refused(*self.with_ssh(state_dir="/nowhere/at/all"), pieces=("/nowhere/at/all",))

    def test_a_folder_that_is_a_file_is_told(self):
        path = os.path.join(self.temporary_folder(), "file")
        with open(path, "w", encoding="ascii"):
            pass
        self.assert_refused(*self.with_ssh(state_dir=path), pieces=(path,))

    def bad_key(self, content, mode=0o600):
        folder = self.temporary_folder()
        path = os.path.join(folder, "ssh_host_ed25519_key")
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, mode)
        self.assert_refused(*self.with_ssh(state_dir=folder), pieces=("ssh_host_ed25519_key",))
        with open(path, "rb") as file:
            self.assertEqual(file.read(), content)      # whatever it is, it is not lost

    def test_a_host_key_that_is_none_is_told_and_left_alone(self):
        for content in (b"", b"nonsense\n", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"
                        b"-----END OPENSSH PRIVATE KEY-----\n", os.urandom(5000)):
            with self.subTest(content=content[:40]):
                self.bad_key(content)

    @unittest.skipUnless(ssh_harness.KEYGEN, "ssh-keygen is not installed")
    def test_a_host_key_of_another_kind_or_that_others_may_read_is_told(self):
        folder = self.temporary_folder()
        for kind, mode in (("rsa", 0o600), ("ed25519", 0o644)):
            with self.subTest(kind=kind, mode=oct(mode)):
                path, _ = make_key(folder, kind, kind)
                with open(path, "rb") as file:
                    self.bad_key(file.read(), mode)

    def test_a_bad_file_of_keys_is_told_with_its_line(self):
        folder = self.temporary_folder()
        path = os.path.join(folder, "authorized_keys")
        self.assert_refused(*self.with_ssh("--ssh-authorized-keys", path), pieces=(path, "No such file"))
        with open(path, "w", encoding="ascii") as file:
            file.write("# ours\n\nnonsense\n")
        os.chmod(path, 0o600)
        self.assert_refused(*self.with_ssh("--ssh-authorized-keys", path), pieces=(path + ":3",), status=2)

    def test_ssh_for_everybody_on_a_public_address_needs_to_be_said(self):
        self.assert_refused("--ssh-listen", "0.0.0.0:0", "--state-dir", self.temporary_folder(),
                            pieces=("0.0.0.0", "open-to-all"))


if __name__ == "__main__":
    harness.main()
