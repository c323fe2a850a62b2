#!/usr/bin/python3 -B
"""Who may call: the file of users, passwords over HTTP, and those who guess them."""

import base64
import http.client
import os
import re
import shutil
import sys
import time
import xmlrpc.client

import harness
from harness import (TUNNEL, TUNNELD, Case, address_of, connect, in_thread, nine_of_ten,
                     receive_until_end, run)

JO = "jo:word"
# A caller who does not stop: each time it is cut off, it begins again.
SEND_FOR_EVER = """
import socket, sys
print("begins", flush=True)
while True:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
        try:
            connection.sendall(sys.argv[2].encode())
            while True:
                connection.sendall(bytes(1 << 20))
        except OSError:
            pass
"""
CALL = xmlrpc.client.dumps((), "system.listMethods").encode()


def hash_line(user, password, *how):
    """A line of an htpasswd file; how: -B for bcrypt, -5 for SHA-512."""
    done = run(["htpasswd", "-nb", *how, user, password])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip() + "\n"


def open_url(url, source=None):
    """Opens a tunnel, and ends it."""
    with harness.rpc(url, source) as proxy:
        harness.discard(address_of(proxy.Tunnel.openTunnel()), source)


class UsersCase(Case):
    def users_file(self, *lines, mode=0o600):
        path = os.path.join(self.temporary_folder(), "users.htpasswd")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(lines or [hash_line("jo", "word", "-B")])
        os.chmod(path, mode)
        return path

    def start(self, *options, lines=()):
        return self.start_daemon("--drain", "1", "--users", self.users_file(*lines), *options,
                                 user=JO)

    def answer(self, daemon, credentials=None, source=None, authorization=None,
               timeout_s=harness.WAIT_S):
        """The HTTP answer to a call: status, fields, body."""
        fields = {"Content-Type": "text/xml"}
        if credentials is not None:
            authorization = "Basic " + base64.b64encode(credentials.encode()).decode()
        if authorization is not None:
            fields["Authorization"] = authorization
        connection = http.client.HTTPConnection(
            "127.0.0.1", daemon.port, timeout=timeout_s,
            source_address=(source, 0) if source else None)
        try:
            connection.request("POST", "/RPC2", CALL, fields)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read().decode()
        finally:
            connection.close()

    def begin_call(self, daemon, credentials):
        """The connection, on which an answer will come. Others that are begun later are heard later."""
        connection = connect(("127.0.0.1", daemon.port))
        self.addCleanup(connection.close)
        authorization = b"Basic " + base64.b64encode(credentials.encode())
        connection.sendall(b"POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\n"
                           b"Authorization: %s\r\nContent-Length: %d\r\n\r\n%s"
                           % (authorization, len(CALL), CALL))
        return connection

    def status(self, *arguments, **how):
        return self.answer(*arguments, **how)[0]

    def usual_seconds(self, daemon, credentials, times, source=None):
        """How long nine calls of ten take, of one who was verified lately."""
        return nine_of_ten(self.seconds_of_an_answer(daemon, credentials, source) for _ in range(times))

    def seconds_of_an_answer(self, daemon, credentials, source):
        began = time.monotonic()
        self.assertEqual(self.status(daemon, credentials, source), 200)
        return time.monotonic() - began


class Start(UsersCase):
    def assert_refused(self, arguments, status, *pieces):
        done = run([TUNNELD, *arguments])
        self.assertEqual(done.returncode, status, done.stderr)
        self.assertEqual(done.stdout, "")
        for piece in pieces:
            self.assertIn(piece, done.stderr)

    def test_an_address_that_others_reach_is_refused_and_told_why(self):
        for address in ("0.0.0.0:0", "[::]:0", "192.0.2.1:8000"):
            self.assert_refused(["--listen", address], 2, address, "--users FILE", "--open-to-all")

    def test_the_word_that_it_is_open_to_all_is_enough(self):
        daemon = self.start_daemon("--open-to-all", listen_on="0.0.0.0:0")
        open_url(f"http://127.0.0.1:{daemon.port}/")
        self.assertRegex(daemon.errors(), r" info everybody may call\n")
        daemon.stop()

    def test_users_are_enough(self):
        daemon = self.start_daemon("--drain", "1", "--users", self.users_file(),
                                   listen_on="0.0.0.0:0", user=JO)
        self.assertEqual(self.status(daemon), 401)
        self.assertIn("1 user may call", daemon.errors())
        daemon.stop()

    def test_relaying_elsewhere_needs_neither(self):
        daemon = self.start_daemon("--relay-listen", "0.0.0.0")
        daemon.stop()

    def test_a_bad_users_file_is_told_with_its_line(self):
        path = self.users_file("# users\n", "jo:$apr1$abcdefgh$0123456789\n")
        self.assert_refused(["--listen", "127.0.0.1:0", "--users", path], 2, path + ":2", "$apr1$",
                            "htpasswd -B")
        self.assert_refused(["--listen", "127.0.0.1:0", "--users", "/nowhere/users"], 2,
                            "/nowhere/users", "No such file")

    def test_a_file_that_everybody_may_read_is_warned_of(self):
        path = self.users_file(mode=0o644)
        daemon = self.start_daemon("--users", path, user=JO)
        self.assertRegex(daemon.errors(), rf" warning everybody .* may read {re.escape(path)}")
        daemon.stop()


class Clients(UsersCase):
    """Every kind of client, with a name and password that need encoding."""

    NAME, PASSWORD = "j\u00f6 x", "p:w@/% \u00e9"
    USER = "j%C3%B6%20x:p%3Aw%40%2F%25%20%C3%A9"

    def setUp(self):
        lines = hash_line("jo", "word", "-B"), hash_line(self.NAME, self.PASSWORD, "-5")
        self.daemon = self.start("--log-addresses", "yes", lines=lines)
        self.url = self.daemon.url_of(self.USER)
        self.bare_url = self.url.replace(self.USER + "@", "")
        self.wrong_url = self.daemon.url_of("jo:hunter%202")

    def tearDown(self):
        self.assertNotIn("hunter", self.daemon.errors())
        self.daemon.stop()

    def test_python(self):
        open_url(self.url)
        for url in (self.bare_url, self.wrong_url):
            with self.assertRaises(xmlrpc.client.ProtocolError) as caught:
                open_url(url)
            self.assertEqual(caught.exception.errcode, 401)

    def test_curl(self):
        for user in ([], ["-u", f"{self.NAME}:{self.PASSWORD}"],
                     ["--anyauth", "-u", f"{self.NAME}:{self.PASSWORD}"], ["-u", "jo:hunter 2"]):
            done = run(["curl", "-sS", "-w", "%{http_code}", "-H", "Content-Type: text/xml",
                        "--data-binary", CALL.decode(), *user, self.bare_url])
            expected = "200" if self.PASSWORD in "".join(user) else "401"
            self.assertTrue(done.stdout.endswith(expected), done.stdout + done.stderr)
        done = run(["curl", "-sS", "-H", "Content-Type: text/xml", "--data-binary", CALL.decode(),
                    self.url])
        self.assertIn("Tunnel.openTunnel", done.stdout)

    def perl(self, script, *arguments):
        return run([os.environ.get("PERL") or shutil.which("perl"), "-MRPC::XML::Client", "-e",
                    script + ' print ref $answer ? join(" ", @{$answer->value}) : $answer;',
                    *arguments])

    def test_perl_with_a_user_in_the_url(self):
        script = "$answer = RPC::XML::Client->new($ARGV[0])->send_request('system.listMethods');"
        self.assertIn("Tunnel.openTunnel", self.perl(script, self.url).stdout)
        self.assertIn("Unauthorized", self.perl(script, self.bare_url).stdout)
        self.assertIn("Unauthorized", self.perl(script, self.wrong_url).stdout)

    def test_perl_that_is_asked_first(self):
        script = ("$client = RPC::XML::Client->new($ARGV[0]);"
                  "$client->credentials('tristero-tunnel', 'jo', 'word');"
                  "$answer = $client->send_request('system.listMethods');")
        self.assertIn("Tunnel.openTunnel", self.perl(script, self.bare_url).stdout)

    def test_the_command(self):
        done = run([TUNNEL, "open", "--proxy", self.url])
        self.assertEqual(done.returncode, 0, done.stderr)
        done = run([TUNNEL, "open"], env={"TRISTERO_PROXY": self.url})
        self.assertEqual(done.returncode, 0, done.stderr)
        for line in done.stdout.splitlines():
            self.assertRegex(line, r"^(server|client) tcp://127\.0\.0\.1:\d+$")
        for port in re.findall(r" at port (\d+)", self.daemon.errors()):
            harness.discard(("127.0.0.1", int(port)))
        for url in (self.bare_url, self.wrong_url):
            done = run([TUNNEL, "open", "--proxy", url])
            self.assertEqual(done.returncode, 1)
            self.assertIn(self.bare_url, done.stderr)
            self.assertIn("user and password", done.stderr)
            self.assertNotIn("hunter", done.stderr)

    def test_the_command_keeps_a_password_to_itself_in_a_broken_url(self):
        for url in ("http://jo:hunter2@127.0.0.1:99999/", "htp://jo:hunter2@127.0.0.1/",
                    "http://jo:hunter2@[::1/", "http://jo:hun%00ter2@127.0.0.1:1/",
                    "http://jo:hun%0ater2@127.0.0.1:1/", "jo:hunter2@127.0.0.1:x/RPC2"):
            with self.subTest(url=url):
                done = run([TUNNEL, "open", "--proxy", url])
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertNotIn("hun", done.stderr)
                self.assertNotIn("ter2", done.stderr)


class Refusals(UsersCase):
    def test_the_answer_asks_for_a_password_and_tells_nothing_else(self):
        daemon = self.start()
        answers = [self.answer(daemon, "jo:wrong"), self.answer(daemon, "nobody:wrong")]
        self.assertEqual(answers[0], answers[1])
        for status, fields, body in (answers[0], self.answer(daemon)):
            self.assertEqual(status, 401)
            self.assertEqual(fields["WWW-Authenticate"],
                             'Basic realm="tristero-tunnel", charset="UTF-8"')
            self.assertEqual(set(fields), {"WWW-Authenticate", "Content-Type", "Content-Length",
                                           "Connection"})
            self.assertLess(len(body), 100)
        daemon.stop()

    def test_what_is_no_basic_authentication_is_none(self):
        daemon = self.start()
        for authorization in ("Bearer am86d29yZA==", "Basic", "Basic !", "Basic am86d29yZA",
                              "Digest username=jo", "Basic " + "A" * 2000):
            self.assertEqual(self.status(daemon, authorization=authorization), 401)
        self.assertEqual(self.status(daemon, authorization="basic am86d29yZA=="), 200)
        with connect(("127.0.0.1", daemon.port)) as caller:
            caller.sendall(b"POST /RPC2 HTTP/1.0\r\nContent-Type: text/xml\r\n"
                           b"Authorization: Basic am86d29yZA==\r\n"
                           b"Authorization: Basic am86d29yZA==\r\nContent-Length: 3\r\n\r\nabc")
            self.assertTrue(receive_until_end(caller).startswith(b"HTTP/1.1 400 "))
        daemon.stop()

    def test_who_goes_on_sending_after_its_request_holds_up_nobody(self):
        daemon = self.start()
        for authorization in (b"", b"Authorization: Basic am86d29yZA==\r\n"):
            request = (b"POST / HTTP/1.0\r\nContent-Type: text/xml\r\n%sContent-Length: %d\r\n\r\n%s"
                       % (authorization, len(CALL), CALL))
            senders = [self.start_program([sys.executable, "-c", SEND_FOR_EVER, str(daemon.port),
                                           request.decode()]) for _ in range(6)]
            for sender in senders:
                sender.line()
            self.assertLess(self.usual_seconds(daemon, JO, 20), 2)
            for sender in senders:
                sender.clean_up()
        daemon.stop()

    def test_without_users_credentials_are_not_looked_at(self):
        daemon = self.start_daemon("--drain", "1")
        self.assertEqual(self.status(daemon, "any:body"), 200)
        self.assertEqual(self.status(daemon, authorization="Basic !"), 200)
        daemon.stop()

    def test_they_are_logged_with_names_of_users_alone(self):
        daemon = self.start()
        self.status(daemon, "jo:hunter2", source="127.0.0.9")
        self.status(daemon, "my-password:hunter2", source="127.0.0.9")
        log = daemon.errors()
        self.assertRegex(log, r" warning refused a call of jo from \(hidden\): the password is wrong")
        self.assertRegex(log, r" warning refused a call of an unknown user from \(hidden\)")
        for secret in ("hunter2", "my-password", "127.0.0.9"):
            self.assertNotIn(secret, log)
        daemon.stop()

    def test_a_flood_of_them_does_not_flood_the_log(self):
        daemon = self.start("--log-addresses", "yes")
        for n in range(400):
            self.status(daemon, "jo:wrong", source=f"127.0.{n % 40}.2")
        lines = re.findall(r"warning refused a call of .* from 127\.0", daemon.errors())
        self.assertGreater(len(lines), 5)
        self.assertLess(len(lines), 50)     # twenty a minute
        daemon.stop()


class Guessing(UsersCase):
    """Costly hashes, as they should be: some 60 ms each."""

    def start_costly(self):
        return self.start(lines=[hash_line(name, "word", "-B", "-C", "10")
                                 for name in ("jo", "al", "bo", "cy")])

    def test_guessing_from_an_address_becomes_slow(self):
        daemon = self.start_costly()
        answers = [self.answer(daemon, f"jo:{n}", source="127.0.0.2") for n in range(30)]
        while int(answers[-1][1].get("Retry-After", 0)) < 4:       # and so the next may wait
            answers.append(self.answer(daemon, f"jo:{len(answers)}", source="127.0.0.2"))
        statuses = [status for status, _, _ in answers]
        self.assertEqual(set(statuses), {401, 429})
        self.assertLess(statuses.count(401), 10)
        self.assertEqual(statuses[:5], [401] * 5)
        wait_s = int(answers[-1][1]["Retry-After"])
        self.assertGreaterEqual(wait_s, 1)
        self.assertLessEqual(wait_s, 5)
        # a right one has to wait, too, even if it was verified before: or else
        # the passwords of those who have just called could be guessed fast
        self.assertEqual(self.status(daemon, "al:word", source="127.0.0.2"), 429)
        self.assertEqual(self.status(daemon, JO, source="127.0.0.2"), 429)
        self.assertEqual(self.status(daemon, source="127.0.0.2"), 401)
        self.assertEqual(self.status(daemon, JO, source="127.0.0.3"), 200)
        time.sleep(wait_s + 0.1)
        self.assertEqual(self.status(daemon, "al:word", source="127.0.0.2"), 200)
        daemon.stop()

    def test_a_thousand_wrong_passwords_leave_others_answered_within_a_second(self):
        daemon = self.start_costly()
        wrong_at = []       # when a guess had been verified

        def guess():
            statuses = []
            for number in range(50):
                statuses.append(self.status(daemon, f"jo:{number}", source="127.0.0.2"))
                if statuses[-1] == 401:
                    wrong_at.append(time.monotonic())
            return statuses

        guessing = [in_thread(guess) for _ in range(20)]
        time.sleep(0.1)
        for user in ("bo:word", "cy:word", JO):
            began = time.monotonic()
            self.assertEqual(self.status(daemon, user, source="127.0.0.3"), 200)
            # those who are new wait for the guesses that are allowed, and for their own: not for
            # all that are waiting
            self.assertLess(sum(at > began for at in wrong_at), 10, user)
        self.assertLess(self.usual_seconds(daemon, JO, 20, "127.0.0.3"), 1)
        statuses = [status for guesses in guessing for status in guesses.result()]
        self.assertEqual(len(statuses), 1000)
        self.assertTrue(set(statuses) <= {401, 429, 503}, set(statuses))
        self.assertLess(statuses.count(401), 20)
        daemon.stop()

    def test_guessing_from_many_addresses_leaves_the_verified_answered_within_a_second(self):
        daemon = self.start_costly()

        def guess(first):
            return [self.status(daemon, f"jo:{n}", source=f"127.{first + 1}.{n % 250}.2",
                                timeout_s=harness.TEST_LIMIT_S) for n in range(4)]

        guessing = [in_thread(guess, first) for first in range(40)]
        took = []
        while any(thread.is_alive() for thread in guessing):
            took.append(self.seconds_of_an_answer(daemon, JO, "127.0.0.3"))
        for thread in guessing:
            self.assertTrue(set(thread.result()) <= {401, 429, 503})
        self.assertGreater(len(took), 10)
        self.assertLess(nine_of_ten(took), 1)
        daemon.stop()

    def test_many_at_once_with_one_right_password_all_get_in(self):
        daemon = self.start_costly()
        calls = [in_thread(self.status, daemon, "al:word", "127.0.0.2") for _ in range(100)]
        self.assertEqual({call.result() for call in calls}, {200})
        before_s = harness.cpu_seconds(daemon)
        for _ in range(50):
            self.assertEqual(self.status(daemon, "al:word"), 200)
        self.assertLess(harness.cpu_seconds(daemon) - before_s, 2)      # and not 50 times 60 ms and more
        daemon.stop()

    def test_right_passwords_of_many_users_behind_one_address_are_no_guesses(self):
        names = [f"user{n}" for n in range(12)]
        daemon = self.start(lines=[hash_line("jo", "word", "-B"),
                                   *(hash_line(name, "word", "-B") for name in names)])
        self.assertEqual([self.status(daemon, f"{name}:word", source="127.0.0.2")
                          for name in names], [200] * 12)
        daemon.stop()

    def test_right_passwords_of_many_users_at_once_behind_one_address_are_no_guesses(self):
        names = [f"user{n}" for n in range(12)]
        daemon = self.start(lines=[hash_line("jo", "word", "-B"),
                                   *(hash_line(name, "word", "-B", "-C", "10") for name in names)])
        calls = [in_thread(self.status, daemon, f"{name}:word") for name in names]
        while any(call.is_alive() for call in calls):
            self.assertEqual(self.status(daemon, JO), 200)      # who is remembered
        self.assertEqual([call.result() for call in calls], [200] * 12)
        daemon.stop()

    def test_a_remembered_password_is_not_told_while_guesses_are_verified(self):
        daemon = self.start(lines=[hash_line("jo", "word", "-B"),
                                   *(hash_line(name, "word", "-B", "-C", "10")
                                     for name in ("al", "bo"))])
        guesses = [self.begin_call(daemon, f"{name}:{n}") for name in ("al", "bo") for n in range(20)]
        self.assertEqual(self.status(daemon, JO, timeout_s=harness.TEST_LIMIT_S), 429)
        statuses = [int(receive_until_end(guess).split()[1]) for guess in guesses]
        self.assertEqual(set(statuses), {401, 429})
        self.assertLess(statuses.count(401), 10)
        daemon.stop()

    def test_it_ends_in_order_while_somebody_guesses(self):
        daemon = self.start_costly()

        def guess(n):
            for guessed in range(1000):
                try:
                    self.status(daemon, f"jo:{guessed}", source=f"127.{n + 1}.0.2")
                except (OSError, http.client.HTTPException):
                    return

        guessing = [in_thread(guess, n) for n in range(20)]
        time.sleep(0.3)
        daemon.signal(harness.signal.SIGTERM)
        self.assertEqual(daemon.wait(), 0, daemon.errors())
        for thread in guessing:
            thread.result()


if __name__ == "__main__":
    harness.main()
