#!/usr/bin/python3 -B
"""tristero-tunnel expose --dir: a folder's files, to clients of a tunnel."""

import contextlib
import email.utils
import hashlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import time
import unittest

import harness
from expose_harness import FolderCase
from harness import TUNNEL, connect, in_thread, receive_until_end, run, wait_until
from ssh_harness import SSH


@unittest.skipUnless(SSH, "there is no ssh")
class Serving(FolderCase):
    backend = "ssh"

    def test_files_come_as_they_are_with_a_type_by_their_suffix(self):
        content = os.urandom(5_000_000)
        self.write("big.bin", content)
        self.write("page.HTML", b"<p>")
        self.write("empty.txt", b"")
        self.write("sub/\u00e4 b%.css", b"p{}")
        self.expose_folder()
        status, headers, body = self.ask("/big.bin")
        self.assertEqual((status, headers["Content-Type"]), (200, "application/octet-stream"))
        self.assertEqual(hashlib.sha256(body).digest(), hashlib.sha256(content).digest())
        self.assertEqual(self.ask("/page.HTML")[1]["Content-Type"], "text/html; charset=utf-8")
        self.assertEqual(self.ask("/empty.txt")[2], b"")
        status, headers, body = self.ask("/sub/%C3%A4%20b%25.css")
        self.assertEqual((status, headers["Content-Type"], body), (200, "text/css; charset=utf-8", b"p{}"))

    def test_a_folder_is_listed_and_its_links_lead_to_what_they_name(self):
        names = ["a.txt", "<script>&\"'.txt", "with blank", "\u00fcml\u00e4ut", "a:b", "100%", "q?x#y",
                 "new\nline", "back\\slash", "a+b;c&d=e", 255 * "n", "%41"]
        for name in names:
            self.write(name, name.encode())
        self.write("zfolder/inside", b"inside")
        self.write(".hidden")
        self.expose_folder()
        status, headers, page = self.ask("/")
        self.assertEqual((status, headers["Content-Type"]), (200, "text/html; charset=utf-8"))
        page = page.decode("utf-8")
        self.assertNotIn("<script>", page)
        self.assertNotIn("hidden", page)
        self.assertIn("&lt;script&gt;&amp;", page)
        links = re.findall(r'href="([^"]*)"', page)
        self.assertEqual(links[0], "zfolder/")
        self.assertEqual(len(links), len(names) + 1)
        got = {self.ask("/" + link)[2].decode() for link in links[1:]}
        self.assertEqual(got, set(names))
        self.assertIn('href="inside"', self.ask("/zfolder/")[2].decode())
        self.assertIn('href="../"', self.ask("/zfolder/")[2].decode())

    def test_a_path_that_is_no_text_is_told_as_far_as_it_can_be(self):
        path = os.path.join(os.fsencode(self.folder), b"\xff")
        os.mkdir(path)
        program = self.start_program([TUNNEL, "--proxy", self.daemon.url, "expose", "--json", "--dir",
                                      path])
        self.assertEqual(json.loads(program.line())["service"], f"{self.folder}/?")

    def test_a_list_has_an_end(self):
        for number in range(10001):
            with open(os.path.join(self.folder, str(number)), "wb"):
                pass
        self.expose_folder()
        _, _, page = self.ask("/")
        self.assertEqual(page.count(b"<a href"), 10000)
        self.assertIn(b"There are more than 10000", page)

    def test_an_index_takes_the_list_s_place(self):
        self.write("sub/index.html", b"<h1>me")
        self.expose_folder()
        self.assertEqual(self.ask("/sub/")[2], b"<h1>me")
        status, headers, _ = self.ask("/sub")
        self.assertEqual((status, headers["Location"]), (301, "/sub/"))

    def test_a_redirection_keeps_the_query(self):
        self.write("s u b/index.html")
        self.expose_folder()
        for query in ("?x", "?x=1&y=%26%3D%C3%BC&x=", "?a/b=c%23d"):
            status, headers, _ = self.ask("/s%20u%20b" + query)
            self.assertEqual((status, headers["Location"]), (301, "/s%20u%20b/" + query))

    def raw(self, request):
        """(status, body) of an answer to what no library would ask so."""
        with connect(self.address) as client:
            client.sendall(request + b"Connection: close\r\n\r\n")
            head, _, body = receive_until_end(client).partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    def test_a_whole_url_is_as_good_as_its_path(self):
        """Each server is to take what is meant for a proxy."""
        self.write("file")
        self.write(".hidden")
        self.write("sub/file")
        self.expose_folder()
        for url, wanted in ((b"http://x.example/file", 200), (b"HTTP://x.example:80/file?query", 200),
                            (b"http://x.example", 200), (b"http://x.example/", 200),
                            (b"http://x.example/sub", 301), (b"http://x.example/.hidden", 404),
                            (b"http://x.example/../file", 404), (b"http:/file", 404),
                            (b"ftp://x.example/file", 404), (b"*", 404), (b"file", 404)):
            status, body = self.raw(b"GET " + url + b" HTTP/1.1\r\nHost: x.example\r\n")
            self.assertEqual(status, wanted, url)
        self.assertEqual(self.raw(b"GET http://x.example/file HTTP/1.1\r\nHost: x\r\n")[1],
                         b"some content\n")

    def test_a_request_without_a_host_is_refused(self):
        """Unless it is of HTTP 1.0 (RFC 9112, 3.2)."""
        self.write("file")
        self.expose_folder()
        self.assertEqual(self.raw(b"GET /file HTTP/1.1\r\n")[0], 400)
        self.assertEqual(self.raw(b"GET /file HTTP/1.0\r\n")[0], 200)

    def test_what_is_no_encoded_byte_stands_for_itself(self):
        for name in ("a", "%", "%4", "%zz", "100%"):
            self.write(name, name.encode())
        self.expose_folder()
        for path, wanted in (("/%61", b"a"), ("/%", b"%"), ("/%25", b"%"), ("/%4", b"%4"), ("/%zz", b"%zz"),
                             ("/%254", b"%4"), ("/100%", b"100%"), ("/100%25", b"100%")):
            self.assertEqual(self.ask(path)[::2], (200, wanted), path)
        self.assertEqual(self.raw(b"GET /%\x16\x11 HTTP/1.1\r\nHost: x\r\n")[0], 404)

    def test_an_index_that_leads_out_is_none(self):
        with open(os.path.join(os.path.dirname(self.folder), "secret"), "w", encoding="ascii") as file:
            file.write("secret")
        for name, goal in (("out", "../../secret"), ("loop", "index.html"), ("nowhere", "nothing"),
                           ("under", "file/x"), ("null", "/dev/null")):
            self.write(f"{name}/file")
            os.symlink(goal, os.path.join(self.folder, name, "index.html"))
        self.write("fifo/file")
        os.mkfifo(os.path.join(self.folder, "fifo", "index.html"))
        self.write("folder/file")
        os.mkdir(os.path.join(self.folder, "folder", "index.html"))
        self.expose_folder()
        for name in ("out", "loop", "nowhere", "under", "null", "fifo", "folder"):
            status, _, page = self.ask(f"/{name}/")
            links = re.findall(rb'href="([^"]*)"', page)
            self.assertEqual((status, [link for link in links if link != b"index.html/"]),
                             (200, [b"../", b"file"]), name)

    def test_a_file_that_tells_no_size_is_sent_to_its_end(self):
        """As those that the kernel makes up when they are read."""
        for folder, name in (("/proc/sys/kernel", "ostype"), ("/proc", "kallsyms"),
                             ("/sys/devices/system/cpu", "online")):
            if not os.path.exists(os.path.join(folder, name)):
                continue
            with self.subTest(folder=folder):
                self.expose_folder(folder)
                with open(os.path.join(folder, name), "rb") as file:
                    content = file.read()
                for asked in ({}, {"Range": "bytes=0-0", "If-None-Match": "*"}):
                    status, headers, body = self.ask(f"/{name}", headers=asked)
                    self.assertEqual((status, headers["Content-Length"]), (200, None))
                    self.assertTrue(body == content)
                status, headers, body = self.ask(f"/{name}", method="HEAD")
                self.assertEqual((status, headers["Content-Length"], body), (200, None, b""))

    def test_devices_are_not_there(self):
        self.expose_folder("/dev")
        for path in ("/null", "/zero", "/tty", "/full", "/random"):
            self.assertEqual(self.status(path), 404, path)
        self.assertNotIn(b'"null"', self.ask("/")[2])

    def test_nothing_outside_the_folder_and_nothing_hidden_is_there(self):
        top = os.path.dirname(self.folder)
        with open(os.path.join(top, "secret"), "w", encoding="ascii") as file:
            file.write("secret")
        self.write(".hidden")
        self.write(".git/config")
        self.write("sub/file")
        os.symlink("../secret", os.path.join(self.folder, "out"))
        os.symlink("..", os.path.join(self.folder, "up"))
        os.symlink("/etc", os.path.join(self.folder, "etc"))
        os.symlink("/proc/self/root", os.path.join(self.folder, "magic"))
        os.symlink("loop", os.path.join(self.folder, "loop"))
        os.symlink("sub/file", os.path.join(self.folder, "in"))
        os.mkfifo(os.path.join(self.folder, "fifo"))
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(os.path.join(self.folder, "socket"))
        self.expose_folder()
        for path in ("/out", "/up", "/up/", "/up/secret", "/etc/", "/etc/passwd", "/magic/etc/passwd",
                     "/loop", "/fifo", "/socket", "/.hidden", "/.git/config", "/.git/", "/./in",
                     "/../secret", "/%2e%2e/secret", "/sub/../../secret", "/sub/%2e%2e/%2e%2e/secret",
                     "/..%2fsecret", "//etc/passwd", "/sub//file", "/in%00", "/in/", "/nothing",
                     "/" + 300 * "x", "/" + 2000 * "y/"):
            with self.subTest(path=path[:40]):
                self.assertEqual(self.status(path), 404)
        self.assertEqual(self.status("/in"), 200)
        page = self.ask("/")[2].decode()
        self.assertEqual(re.findall(r'href="([^"]*)"', page), ["sub/", "in"])

    def test_only_reading_is_allowed(self):
        self.write("file")
        self.expose_folder()
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            status, headers, _ = self.ask("/file", method=method, body=b"x" * 100)
            self.assertEqual((status, headers["Allow"]), (405, "GET, HEAD"))
        status, headers, body = self.ask("/file", method="HEAD")
        self.assertEqual((status, headers["Content-Length"], body), (200, "13", b""))
        self.assertEqual(self.ask("/file", body=b"a body, which means nothing")[2], b"some content\n")

    def test_parts_of_a_file_are_given(self):
        self.write("file", bytes(range(100)))
        self.expose_folder()
        whole = bytes(range(100))
        for value, wanted in (("bytes=0-0", whole[:1]), ("bytes=10-19", whole[10:20]),
                              ("bytes=90-", whole[90:]), ("bytes=-7", whole[-7:]),
                              ("bytes=95-1000", whole[95:]), ("bytes=-1000", whole),
                              ("bytes=0-99999999999999999999999", whole)):
            status, headers, body = self.ask("/file", headers={"Range": value})
            self.assertEqual((status, body), (206, wanted), value)
            first = whole.index(wanted[0])
            self.assertEqual(headers["Content-Range"],
                             f"bytes {first}-{first + len(wanted) - 1}/100")
        for value in ("bytes=100-", "bytes=-0", "bytes=1000-2000"):
            status, headers, _ = self.ask("/file", headers={"Range": value})
            self.assertEqual((status, headers["Content-Range"]), (416, "bytes */100"), value)
        for value in ("bytes=5-4", "bytes=0-1,5-6", "bytes=-", "bytes=x-y", "lines=1-2", "bytes=1"):
            self.assertEqual(self.ask("/file", headers={"Range": value})[::2], (200, whole), value)

    def test_an_empty_file_has_no_parts(self):
        self.write("file", b"")
        self.expose_folder()
        for value in ("bytes=0-", "bytes=-5", "bytes=0-9"):
            self.assertEqual(self.ask("/file", headers={"Range": value})[::2], (200, b""), value)

    def test_what_has_not_changed_is_not_sent_again(self):
        path = self.write("file")
        self.expose_folder()
        changed = self.ask("/file")[1]["Last-Modified"]
        self.assertEqual(self.ask("/file", headers={"If-Modified-Since": changed})[::2], (304, b""))
        os.utime(path, (0, email.utils.parsedate_to_datetime(changed).timestamp() + 2))
        self.assertEqual(self.status("/file", headers={"If-Modified-Since": changed}), 200)
        self.assertEqual(self.status("/file", headers={"If-Modified-Since": "nonsense"}), 200)
        part = {"Range": "bytes=0-0", "If-Range": changed}      # of another file than the one that is there
        self.assertEqual(self.ask("/file", headers=part)[::2], (200, b"some content\n"))

    def test_a_connection_serves_many_requests_and_many_are_served_at_once(self):
        self.write("file", os.urandom(100_000))
        self.expose_folder()

        def fetch_ten():
            connection = self.connection()
            sizes = []
            for _ in range(10):
                connection.request("GET", "/file")
                sizes.append(len(connection.getresponse().read()))
            local = connection.sock is not None     # the connection was kept
            connection.close()
            return sizes, local

        for each in [in_thread(fetch_ten) for _ in range(20)]:
            self.assertEqual(each.result(), (10 * [100_000], True))

    def test_who_only_keeps_a_connection_makes_room_and_who_is_slow_is_waited_for(self):
        """A carrier has places for 127, and browsers go when they are let go."""
        def go_when_let_go(connection):
            self.assertEqual(receive_until_end(connection.sock), b"")
            connection.close()

        self.write("file")
        content = self.write("big", os.urandom(64 << 20))
        program = self.start_program([TUNNEL, "--proxy", self.daemon.url, "expose", "--dir", self.folder])
        self.address = harness.address_of(program.line().rstrip("/"))
        slow = self.connection()
        slow.request("GET", "/big")
        answer = slow.getresponse()
        kept = [self.connection() for _ in range(126)]
        for connection in kept:
            connection.request("GET", "/file")
            self.assertEqual(connection.getresponse().read(), b"some content\n")
        going = [in_thread(go_when_let_go, connection) for connection in kept]
        began = time.monotonic()
        self.assertEqual(self.status("/file"), 200)
        self.assertLess(time.monotonic() - began, 20)
        time.sleep(max(0, began + 13 - time.monotonic()))
        with open(content, "rb") as file:
            self.assertEqual(hashlib.sha256(answer.read()).digest(), hashlib.file_digest(file, "sha256").digest())
        for each in going:
            each.result()

    def test_a_file_that_becomes_shorter_ends_early(self):
        path = self.write("log", bytes(256 << 20))
        self.expose_folder()
        connection = self.connection()
        connection.request("GET", "/log")
        answer = connection.getresponse()
        os.truncate(path, 0)
        began = time.monotonic()
        with self.assertRaises(http.client.IncompleteRead):
            answer.read()
        self.assertLess(time.monotonic() - began, 10)
        self.write("log")
        self.assertEqual(self.ask("/log")[2], b"some content\n")

    def test_nonsense_is_survived(self):
        self.write("file")
        self.expose_folder()
        for nonsense in (b"\0" * 1000, b"GET\r\n\r\n", b"GET file HTTP/1.1\r\nHost: x\r\n\r\n",
                         b"GET " + b"/a" * 40000, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000):
            with connect(self.address) as client:
                try:
                    client.sendall(nonsense)
                    with contextlib.suppress(OSError):      # it has been reset meanwhile
                        client.shutdown(socket.SHUT_WR)
                    harness.how_it_ended(client)
                except (ConnectionResetError, BrokenPipeError):
                    pass
            self.assertEqual(self.status("/file"), 200)

    def test_clients_who_come_while_it_has_no_descriptor_left_wait(self):
        """And keep no processor busy meanwhile."""
        self.write("file")
        program = self.expose_folder()
        kept = self.connection()
        kept.request("GET", "/file")
        self.assertEqual(kept.getresponse().read(), b"some content\n")
        path = os.path.join(self.folder, "file")
        wait_until(lambda: path not in harness.open_files(program), "it has closed the file")
        before = harness.leave_descriptors(program, 0)
        kept.request("GET", "/file")
        answer = kept.getresponse()
        self.assertEqual((answer.status, answer.read()), (503, b"Too much to do; try again.\n"))
        asking = [in_thread(self.ask, "/file") for _ in range(3)]
        busy_s = harness.cpu_seconds(program)
        time.sleep(2)
        busy_s = harness.cpu_seconds(program) - busy_s
        harness.set_limit(program, resource.RLIMIT_NOFILE, before)
        self.assertLess(busy_s, 0.5)
        for each in asking:
            self.assertEqual(each.result()[::2], (200, b"some content\n"))

    def test_it_ends_and_leaves_nothing_in_the_temporary_folder(self):
        temporary = self.temporary_folder()
        program = self.start_program([TUNNEL, "--proxy", self.daemon.url, "expose", "--dir",
                                      self.folder, "--backend", "ssh"], env={"TMPDIR": temporary})
        program.line()
        self.assertEqual(len(os.listdir(temporary)), 1)
        program.signal(signal.SIGTERM)
        self.assertEqual(program.wait(), 0, program.errors())
        self.assertEqual(os.listdir(temporary), [])

    def test_a_folder_that_is_none_is_told_at_once(self):
        path = self.write("file")
        for folder, reason in ((path, "Not a directory"), (path + "x", "No such file")):
            done = run([TUNNEL, "--proxy", self.daemon.url, "expose", "--dir", folder])
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn(folder, done.stderr)
            self.assertIn(reason, done.stderr)


if __name__ == "__main__":
    harness.main()
