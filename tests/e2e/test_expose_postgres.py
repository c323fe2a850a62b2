#!/usr/bin/python3 -B
"""tristero-tunnel expose, in front of PostgreSQL."""

import glob
import os
import pwd
import random
import shutil
import signal
import subprocess
import tempfile
import unittest

import harness
from expose_harness import ExposeCase, address_of_url
from harness import in_thread, reserve_port, run, wait_until

PSQL = shutil.which("psql")
# Debian keeps the server out of PATH, a folder a version.
POSTGRES = next(iter(sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"), reverse=True)), None)
ROWS = 20_000


class Server:
    """On a port and a Unix socket, of an owner that is not root, which it refuses."""

    password = "of the tests"

    def __init__(self):
        # Where another user gets to, and so near to "/" that a socket's path has room for it.
        self._folder = tempfile.TemporaryDirectory(prefix="tristero-e2e-", dir="/tmp")
        self._program = self._port = None
        self._who = {}
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self._folder.name, owner.pw_uid, owner.pw_gid)
            self._who = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        try:
            self._start()
        except BaseException:
            self.clean_up()
            raise

    def _start(self):
        folder = self._folder.name
        secret = os.path.join(folder, "password")
        with open(secret, "w", encoding="ascii") as file:
            file.write(self.password + "\n")
        how = {"cwd": folder, "env": {"LC_ALL": "C.UTF-8", "TZ": "UTC"}, **self._who}
        done = run([os.path.join(os.path.dirname(POSTGRES), "initdb"), "--no-sync", "-A", "scram-sha-256",
                    "-U", "tester", f"--pwfile={secret}", "-D", f"{folder}/data"], timeout_s=60, **how)
        if done.returncode:
            raise AssertionError(done.stdout + done.stderr)
        self._port = reserve_port()
        self.port = self._port.getsockname()[1]
        self.socket = f"{folder}/.s.PGSQL.{self.port}"
        self._program = harness.Program(
            [POSTGRES, "-D", f"{folder}/data", "-k", folder, "-p", str(self.port), "-h", "127.0.0.1",
             "-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=30"], **how)
        wait_until(lambda: "ready to accept connections" in self._program.errors(), "PostgreSQL is ready")

    def clean_up(self):
        if self._program:
            self._program.signal(signal.SIGINT)     # ends its sessions, and then itself
            try:
                self._program.wait()
            finally:
                self._program.clean_up()
        if self._port:
            self._port.close()
        self._folder.cleanup()


@unittest.skipUnless(PSQL and POSTGRES, "PostgreSQL is not installed")
class Postgres(ExposeCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.addClassCleanup(super().tearDownClass)
        cls.server = Server()
        cls.addClassCleanup(cls.server.clean_up)

    @classmethod
    def tearDownClass(cls):
        pass        # the class's clean-ups do it, also when PostgreSQL did not start

    def services(self):
        """What can be exposed of it."""
        return self.server.port, "unix:" + self.server.socket

    def expose_service(self, service):
        scheme, self.address = address_of_url(self.expose(service).line())
        self.assertEqual(scheme, "tcp")

    def command(self, *arguments):
        host, port = self.address
        return [PSQL, "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-qAt", "-h", host, "-p", str(port),
                "-U", "tester", *arguments, "postgres"]

    environment = {"PGPASSWORD": Server.password, "PGCLIENTENCODING": "UTF8", "HOME": "/nonexistent"}

    def ask(self, *words, timeout_s=60):
        """What psql prints."""
        done = run(self.command(*(part for word in words for part in ("-c", word))),
                   env=self.environment, timeout_s=timeout_s)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.strip()

    def session(self):
        """A psql that takes words, a line each, and prints what they give."""
        program = self.start_program(self.command(), env={**self.environment, "PGAPPNAME": "session"},
                                     stdin=subprocess.PIPE)
        self.addCleanup(program.process.stdin.close)

        def ask(words):
            program.process.stdin.write(words.encode() + b"\n")
            program.process.stdin.flush()
            return program.line()

        return ask

    def test_rows_go_in_and_come_out_as_they_were(self):
        folder = self.temporary_folder()
        rows = [f"{number}\t{random.randbytes(random.randrange(1, 150)).hex()}\tä {number}\n"
                for number in range(ROWS)]
        with open(os.path.join(folder, "in"), "w", encoding="utf-8") as file:
            file.writelines(rows)
        for number, service in enumerate(self.services()):
            self.expose_service(service)
            table, out = f"numbers{number}", os.path.join(folder, f"out{number}")
            self.ask(f"CREATE TABLE {table} (id int PRIMARY KEY, noise text, words text)",
                     f"\\copy {table} FROM '{folder}/in'")
            self.assertEqual(self.ask(f"SELECT count(*), sum(id) FROM {table}"),
                             f"{ROWS}|{ROWS * (ROWS - 1) // 2}")
            self.ask(f"\\copy (SELECT * FROM {table} ORDER BY id) TO '{out}'")
            with open(out, encoding="utf-8") as file:
                self.assertEqual(file.readlines(), rows)

    def test_sessions_wait_for_and_hear_each_other(self):
        self.expose_service(self.server.port)
        listener, writer = self.session(), self.session()
        self.assertEqual(listener("LISTEN news; SELECT 'listens';"), "listens")
        self.assertEqual(writer("CREATE TABLE held (id int); SELECT 'made';"), "made")
        self.assertEqual(writer("BEGIN; LOCK TABLE held; INSERT INTO held VALUES (1); SELECT 'locked';"),
                         "locked")
        waiting = in_thread(listener, "SELECT count(*) FROM held;")
        wait_until(lambda: writer("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'session' "
                                  "AND wait_event_type = 'Lock';") == "1", "it waits for the lock")
        self.assertEqual(writer("NOTIFY news, 'of the day'; COMMIT; SELECT 'done';"), "done")
        self.assertEqual(waiting.result(), "1")
        heard = listener("SELECT 'looks';")
        heard += wait_until(lambda: listener("SELECT 'looks again';"), "it hears")
        self.assertIn('Asynchronous notification "news" with payload "of the day" received', heard)

    def test_many_sessions_work_at_once(self):
        self.expose_service(self.services()[1])
        self.ask("CREATE TABLE counted (id int, said text)")

        def work(number):
            self.ask(f"INSERT INTO counted SELECT {number}, md5(i::text) FROM generate_series(1, 500) i")
            return self.ask("SELECT string_agg(md5(i::text), '') FROM generate_series(1, 30000) i")

        answers = {each.result() for each in [in_thread(work, number) for number in range(12)]}
        self.assertEqual([len(answer) for answer in answers], [32 * 30000])
        self.assertEqual(self.ask("SELECT count(*), count(DISTINCT id) FROM counted"), "6000|12")

    def test_a_query_is_cancelled_through_a_connection_of_its_own(self):
        self.expose_service(self.server.port)
        program = self.start_program(self.command("-c", "SELECT pg_sleep(60)"), env=self.environment)
        wait_until(lambda: self.ask("SELECT count(*) FROM pg_stat_activity "
                                    "WHERE query = 'SELECT pg_sleep(60)'") == "1", "it sleeps")
        program.signal(signal.SIGINT)
        self.assertEqual(program.wait(), 1)
        self.assertIn("canceling statement due to user request", program.errors())


if __name__ == "__main__":
    harness.main()
