#!/usr/bin/python3 -B
"""tristero-tunnel expose, to the programs that people come with: git, curl, rsync, WebSockets."""

import asyncio
import contextlib
import hashlib
import http.server
import os
import random
import shutil
import socket
import unittest

import harness
from browser import CHROMIUM, Browser
from expose_harness import ExposeCase, Web, address_of_url
from harness import in_thread, run
from ssh_harness import Service, inetd

try:
    import websockets
except ImportError:
    websockets = None

CURL, GIT, RSYNC = map(shutil.which, ("curl", "git", "rsync"))
MIB = 1 << 20


class ClientCase(ExposeCase):
    def quietly(self, *command, env=None, timeout_s=60):
        """What the program printed, which had nothing to complain about."""
        done = run([str(word) for word in command], env=env, timeout_s=timeout_s)
        self.assertEqual(done.returncode, 0, f"{command[:3]}: {done.stderr[-2000:]}")
        return done.stdout

    def address_of(self, *arguments):
        """Where clients reach what is exposed by these."""
        self.program = self.expose(*arguments)
        return address_of_url(self.program.line())[1]

    def served_by(self, *command, **how):
        """A port with a program that inetd would start for each connection."""
        service = Service(inetd(*command, **how))
        self.addCleanup(service.close)
        return service.port

    def random_files(self, folder, count, most_bytes):
        for number in range(count):
            with open(os.path.join(folder, f"file{number}"), "wb") as file:
                file.write(random.randbytes(random.randrange(most_bytes)))


@unittest.skipUnless(GIT, "git is not installed")
class Git(ClientCase):
    def setUp(self):
        self.folder = self.temporary_folder()
        self.alone = {"HOME": self.folder, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0",
                      "GIT_AUTHOR_NAME": "x", "GIT_AUTHOR_EMAIL": "x@example.org",
                      "GIT_COMMITTER_NAME": "x", "GIT_COMMITTER_EMAIL": "x@example.org"}

    def git(self, *arguments):
        return self.quietly(GIT, *arguments, env=self.alone).strip()

    def path(self, name):
        return os.path.join(self.folder, name)

    def commit(self, work, count):
        self.random_files(work, count, MIB)
        self.git("-C", work, "add", ".")
        self.git("-C", work, "commit", "-q", "-m", f"{count} files")

    def test_what_is_cloned_and_pushed_is_whole(self):
        self.git("init", "-q", "--bare", self.path("origin"))
        self.git("init", "-q", "-b", "trunk", self.path("work"))
        for count in (8, 12):
            self.commit(self.path("work"), count)
        self.git("-C", self.path("work"), "push", "-q", self.path("origin"), "trunk")
        host, port = self.address_of(self.served_by(
            GIT, "daemon", "--inetd", "--export-all", "--enable=receive-pack",
            f"--base-path={self.folder}", self.folder, env={**os.environ, **self.alone}))
        url = f"git://{host}:{port}/origin"

        for clone in [in_thread(self.git, "clone", "-q", "-b", "trunk", url, self.path(f"clone{number}"))
                      for number in range(4)]:
            clone.result()
        for number in range(4):
            clone = self.path(f"clone{number}")
            self.git("-C", clone, "fsck", "--full", "--strict")
            self.assertEqual(self.git("-C", clone, "rev-parse", "HEAD"),
                             self.git("-C", self.path("work"), "rev-parse", "HEAD"))
            self.assertEqual(self.git("-C", clone, "status", "--porcelain"), "")
            self.commit(clone, 6)
        for push in [in_thread(self.git, "-C", self.path(f"clone{number}"), "push", "-q", url,
                               f"trunk:branch{number}") for number in range(4)]:
            push.result()
        self.git("-C", self.path("origin"), "fsck", "--full", "--strict")
        for number in range(4):
            self.assertEqual(self.git("-C", self.path("origin"), "rev-parse", f"branch{number}"),
                             self.git("-C", self.path(f"clone{number}"), "rev-parse", "HEAD"))


@unittest.skipUnless(RSYNC, "rsync is not installed")
class Rsync(ClientCase):
    def test_files_go_there_and_come_back(self):
        folder = self.temporary_folder()
        paths = [os.path.join(folder, name) for name in ("from", "served", "back")]
        for path in paths:
            os.mkdir(path)
        self.random_files(paths[0], 60, MIB // 2)
        settings = os.path.join(folder, "rsyncd.conf")
        with open(settings, "w", encoding="utf-8") as file:
            file.write(f"use chroot = no\nuid = {os.getuid()}\ngid = {os.getgid()}\n"
                       f"reverse lookup = no\nlog file = {folder}/log\n"
                       f"[data]\npath = {paths[1]}\nread only = no\n")
        host, port = self.address_of(self.served_by(RSYNC, "--daemon", "--config", settings))
        there = f"rsync://{host}:{port}/data/"
        self.quietly(RSYNC, "-a", paths[0] + "/", there)
        with open(os.path.join(paths[0], "file7"), "ab") as file:
            file.write(b"more")                 # only the differences go, and in small steps
        self.quietly(RSYNC, "-a", "--checksum", "--no-whole-file", paths[0] + "/", there)
        self.quietly(RSYNC, "-a", there, paths[2])
        self.quietly("diff", "-r", paths[0], paths[2])


class _Digests(http.server.BaseHTTPRequestHandler):
    """Answers what is sent to it by its digest, over connections that stay."""
    protocol_version = "HTTP/1.1"

    def _pieces(self):
        if self.headers["Transfer-Encoding"] == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            yield self.rfile.read(int(self.headers["Content-Length"] or 0))

    def do_POST(self):
        digest = hashlib.sha256()
        for piece in self._pieces():
            digest.update(piece)
        body = digest.hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST

    def log_message(self, *_):
        pass


@unittest.skipUnless(CURL, "curl is not installed")
class Curl(ClientCase):
    MANY = 50

    def curl(self, *arguments, **how):
        return self.quietly(CURL, "-q", "-sS", "--fail", "--noproxy", "*", *arguments, **how)

    def shown(self):
        """A folder of files, and its URL."""
        folder = os.path.join(self.temporary_folder(), "shown")
        os.mkdir(folder)
        self.random_files(folder, self.MANY, MIB)
        return folder, "http://%s:%d" % self.address_of("--dir", folder)

    def digests(self):
        server = self.run_server(Web(("127.0.0.1", 0), _Digests))
        return "http://%s:%d" % self.address_of(server.server_port)

    def content(self, *path):
        with open(os.path.join(*path), "rb") as file:
            return file.read()

    def all_files(self, url, folder):
        """Arguments that fetch each file of the URL to one of the folder."""
        return [word for number in range(self.MANY)
                for word in ("-o", f"{folder}/file{number}", f"{url}/file{number}")]

    def test_a_connection_is_kept_for_all_files(self):
        folder, url = self.shown()
        copy = self.temporary_folder()
        told = self.curl("-w", "%{num_connects}\n", *self.all_files(url, copy))
        self.assertEqual(told.split(), ["1"] + ["0"] * (self.MANY - 1))
        self.quietly("diff", "-r", folder, copy)

    def test_many_files_come_at_once(self):
        folder, url = self.shown()
        copy = self.temporary_folder()
        told = self.curl("-Z", "--parallel-immediate", "--parallel-max", self.MANY,
                         "-w", "%{num_connects}\n", *self.all_files(url, copy))
        self.assertGreater(told.split().count("1"), self.MANY // 2)
        self.quietly("diff", "-r", folder, copy)

    def test_parts_come_and_an_interrupted_transfer_goes_on(self):
        folder, url = self.shown()
        path = os.path.join(folder, "big")
        with open(path, "wb") as file:
            file.write(random.randbytes(20 * MIB))
        whole = self.content(path)
        got = os.path.join(self.temporary_folder(), "got")
        for part, wanted in (("0-99", whole[:100]), ("1000000-1999999", whole[1000000:2000000]),
                             ("-77", whole[-77:]), (f"{len(whole) - 1}-", whole[-1:])):
            self.curl("-r", part, "-o", got, f"{url}/big")
            self.assertEqual(self.content(got), wanted, part)
        with open(got, "wb") as file:
            file.write(whole[:3 * MIB + 1])
        self.curl("-C", "-", "-o", got, f"{url}/big")
        self.assertEqual(hashlib.sha256(self.content(got)).digest(), hashlib.sha256(whole).digest())

    def test_what_is_sent_arrives_by_many_at_once_and_by_a_kept_connection(self):
        url = self.digests()
        path = os.path.join(self.temporary_folder(), "sent")
        with open(path, "wb") as file:
            file.write(random.randbytes(4 * MIB))
        wanted = hashlib.sha256(self.content(path)).hexdigest()
        count = 10
        several = [word for number in range(count)
                   for word in ("--next", "-sS", "--fail", "--noproxy", "*", "-H",
                                "Expect:" if number % 2 else "Transfer-Encoding: chunked",
                                "--data-binary", f"@{path}", "-w", " %{num_connects}\n", f"{url}/{number}")]
        self.assertEqual(self.curl(*several[1:]).split(),
                         [wanted, "1"] + [wanted, "0"] * (count - 1))
        for each in [in_thread(self.curl, "-T", path, f"{url}/{number}") for number in range(16)]:
            self.assertEqual(each.result(), wanted)


@unittest.skipUnless(websockets, "websockets of python3 is not installed")
class WebSockets(ClientCase):
    CONNECTIONS, MESSAGES = 5, 200
    options = {"max_size": 2 * MIB, "compression": None, "close_timeout": harness.WAIT_S,
               "ping_timeout": 2 * harness.WAIT_S}

    def talk(self, client):
        """Has client(url, seen) run, where seen are the codes by which the server saw
        connections close."""
        seen = []

        async def serve(connection, path):
            order, _, code = path.strip("/").partition("/")
            try:
                if order == "close":
                    await connection.close(int(code), "so it is")
                elif order == "vanish":
                    connection.transport.abort()
                else:
                    with contextlib.suppress(websockets.ConnectionClosedError):
                        async for message in connection:
                            await connection.send(message)
            finally:
                await connection.wait_closed()
                seen.append((connection.close_code, connection.close_reason))

        async def all_of_it():
            listener = socket.create_server(("127.0.0.1", 0))
            async with websockets.serve(serve, sock=listener, **self.options):
                port = listener.getsockname()[1]
                host, port = await asyncio.get_running_loop().run_in_executor(None, self.address_of, port)
                await client(f"ws://{host}:{port}/", seen)

        asyncio.run(asyncio.wait_for(all_of_it(), 120))

    def connect(self, url):
        return websockets.connect(url, open_timeout=harness.WAIT_S, **self.options)

    async def until(self, seen, timeout_s=harness.WAIT_S):
        async with asyncio.timeout(timeout_s):
            while not seen:
                await asyncio.sleep(0.01)

    def test_messages_of_all_sizes_come_back(self):
        sizes = [1, 125, 126, 65535, 65536, MIB - 1, MIB]
        sizes += [int(2 ** random.uniform(0, 20)) for _ in range(self.MESSAGES - len(sizes))]

        async def echo(url):
            mine = random.sample(sizes, len(sizes))
            async with self.connect(url) as connection:
                async def send():
                    for size in mine:
                        await connection.send(noise[size:2 * size])
                sending = asyncio.create_task(send())
                for size in mine:
                    self.assertEqual(await connection.recv(), noise[size:2 * size])
                await sending

        async def several(url, _):
            await asyncio.gather(*(echo(url) for _ in range(self.CONNECTIONS)))

        noise = random.randbytes(2 * MIB)
        self.talk(several)

    def test_the_codes_of_closing_are_kept(self):
        async def close(url, seen):
            for code in (1000, 1001, 1011, 3000, 4999):
                async with self.connect(url) as connection:
                    await connection.send("text")
                    self.assertEqual(await connection.recv(), "text")
                    await connection.close(code, "that is why")
                    self.assertEqual(connection.close_code, code)
                await self.until(seen)
                self.assertEqual(seen.pop(), (code, "that is why"))
                async with self.connect(f"{url}close/{code}") as connection:
                    await connection.wait_closed()
                    self.assertEqual((connection.close_code, connection.close_reason), (code, "so it is"))
                await self.until(seen)
                self.assertEqual(seen.pop()[0], code)

        self.talk(close)

    @unittest.skipUnless(CHROMIUM, "chromium is not installed")
    def test_a_browser_s_messages_and_codes_are_kept(self):
        def browse(url):
            with Browser() as browser:
                page = browser.open(url.replace("ws:", "http:"))    # what says to come otherwise
                sizes = page.run(f"""
                    const socket = new WebSocket("{url}"), sizes = [];
                    socket.binaryType = "arraybuffer";
                    for (let size = 1; size <= {MIB}; size *= 2)
                        sizes.push(size);
                    return new Promise((done, fail) => {{
                        const got = [];
                        socket.onopen = () => sizes.forEach(size => socket.send(new Uint8Array(size)));
                        socket.onerror = fail;
                        socket.onmessage = message => {{
                            got.push(message.data.byteLength);
                            if (got.length === sizes.length)
                                socket.close(4321, "enough");
                        }};
                        socket.onclose = event => done([...got, event.code]);
                    }})""")
                self.assertEqual(sizes, [1 << power for power in range(21)] + [4321])
                self.assertEqual(page.run(f"""
                    const socket = new WebSocket("{url}close/4242");
                    return new Promise(done => socket.onclose =
                        event => done([event.code, event.reason, event.wasClean]))"""),
                                 [4242, "so it is", True])

        async def client(url, seen):
            await asyncio.get_running_loop().run_in_executor(None, browse, url)
            await self.until(seen)
            self.assertEqual(seen, [(4321, "enough"), (4242, "so it is")])

        self.talk(client)

    def test_who_vanishes_is_missed_at_once(self):
        async def vanish(url, seen):
            async with self.connect(url + "vanish") as connection:
                await asyncio.wait_for(connection.wait_closed(), 5)
                self.assertEqual(connection.close_code, 1006)
            seen.clear()
            async with self.connect(url) as connection:
                await connection.send("text")
                await connection.recv()
                connection.transport.abort()
                await self.until(seen, 5)
                self.assertEqual(seen, [(1006, "")])

        self.talk(vanish)


if __name__ == "__main__":
    harness.main()
