#!/usr/bin/python3 -B
"""tristero-tunnel expose --dir: which version of a file a client has, and which one it gets."""

import email.utils
import http.client
import os
import time

import harness
from expose_harness import FolderCase
from harness import wait_until

LONG_AGO_S = 1_000_000_000


def http_date(time_s):
    return email.utils.formatdate(time_s, usegmt=True)


class Conditions(FolderCase):
    def setUp(self):
        super().setUp()
        self.path = self.write("file", bytes(range(100)))
        os.utime(self.path, (0, LONG_AGO_S))
        self.expose_folder()

    def tag(self):
        return self.ask("/file")[1]["ETag"]

    def settled_tag(self):
        """Once it is one that nothing else may get."""
        return wait_until(lambda: (tag := self.tag()).startswith('"') and tag, "the tag is a strong one")

    def replace(self, content):
        """By another file of the same time."""
        other = self.write("other", content)
        os.utime(other, (0, LONG_AGO_S))
        os.rename(other, self.path)

    def tag_of_a_version_just_made(self):
        """Asked for within the second of its making."""
        while True:
            self.replace(bytes(100))
            tag = self.tag()
            if time.time() - os.stat(self.path).st_ctime < 1:
                return tag

    def test_each_version_has_a_tag_of_its_own(self):
        tags = [self.settled_tag()]
        self.assertRegex(tags[0], r'^"[0-9a-f]{32}"$')
        self.assertEqual(self.settled_tag(), tags[0])
        self.replace(bytes(100))
        tags.append(self.settled_tag())
        with open(self.path, "r+b") as file:
            file.write(b"x")
        os.utime(self.path, (0, LONG_AGO_S))
        tags.append(self.settled_tag())
        self.assertEqual(len(set(tags)), 3)

    def test_a_version_that_may_still_change_unseen_has_a_weak_tag(self):
        """By a change so soon after the last that the file's times stay as they are."""
        settled = self.settled_tag()
        tag = self.tag_of_a_version_just_made()
        self.assertRegex(tag, r'^W/"[0-9a-f]{32}"$')
        self.assertNotEqual(tag[2:], settled)
        part = {"Range": "bytes=0-9", "If-Range": tag}
        self.assertEqual(self.status("/file", headers=part), 200)
        self.assertEqual(self.status("/file", headers={"If-None-Match": tag}), 304)
        self.assertEqual(self.settled_tag(), tag[2:])
        self.assertEqual(self.status("/file", headers={"If-None-Match": tag}), 304)

    def test_a_list_of_tags_names_what_the_client_has(self):
        tag = self.settled_tag()
        for had in (tag, "W/" + tag, "*", f'"x", {tag}', f'"a,b" ,{tag},"y"', f',, W/"x",W/{tag}'):
            status, headers, body = self.ask("/file", headers={"If-None-Match": had})
            self.assertEqual((status, body, headers["ETag"]), (304, b"", tag), had)
            self.assertEqual(headers["Content-Length"], "100")
        for other in ('"x"', 'W/"x"', tag[:-1], tag.strip('"'), "", '"*"', "*, *", f'"x{tag}', f"w/{tag}",
                      f'nonsense, {tag}'):
            status, headers, body = self.ask("/file", headers={"If-None-Match": other})
            self.assertEqual((status, len(body), headers["ETag"]), (200, 100, tag), other)

    def test_a_tag_is_worth_more_than_a_date(self):
        tag, date = self.settled_tag(), http_date(LONG_AGO_S)
        before, after = http_date(LONG_AGO_S - 1), http_date(LONG_AGO_S + 1)
        for conditions, wanted in (
                ({"If-Modified-Since": date}, 304), ({"If-Modified-Since": after}, 304),
                ({"If-Modified-Since": before}, 200),
                ({"If-None-Match": '"x"', "If-Modified-Since": date}, 200),
                ({"If-None-Match": tag, "If-Modified-Since": before}, 304),
                ({"If-Unmodified-Since": date}, 200), ({"If-Unmodified-Since": before}, 412),
                ({"If-Match": tag}, 200), ({"If-Match": "*"}, 200), ({"If-Match": f'"x", {tag}'}, 200),
                ({"If-Match": '"x"'}, 412), ({"If-Match": "W/" + tag}, 412),
                ({"If-Match": tag, "If-Unmodified-Since": before}, 200),
                ({"If-Match": '"x"', "If-None-Match": tag}, 412),
                ({"If-Match": tag, "If-None-Match": tag}, 304),
                ({"If-Modified-Since": "nonsense", "If-Unmodified-Since": "nonsense"}, 200)):
            for method in ("GET", "HEAD"):
                self.assertEqual(self.status("/file", method=method, headers=conditions), wanted,
                                 (method, conditions))
        self.assertEqual(self.status("/nothing", headers={"If-Match": '"x"'}), 404)

    def test_a_date_is_read_in_each_of_its_forms(self):
        for form in ("Sun, 09 Sep 2001 01:46:40 GMT", "Sunday, 09-Sep-01 01:46:40 GMT",
                     "Sun Sep  9 01:46:40 2001"):
            self.assertEqual(self.status("/file", headers={"If-Modified-Since": form}), 304, form)

    def test_a_part_is_given_only_of_the_version_that_the_client_has(self):
        tag, part = self.settled_tag(), {"Range": "bytes=10-19"}
        status, headers, body = self.ask("/file", headers={**part, "If-Range": tag})
        self.assertEqual((status, body, headers["ETag"]), (206, bytes(range(10, 20)), tag))
        self.assertEqual(headers["Last-Modified"], http_date(LONG_AGO_S))
        for other in ('"x"', "W/" + tag, "*", f'"x", {tag}', "", "nonsense"):
            self.assertEqual(self.status("/file", headers={**part, "If-Range": other}), 200, other)
        self.replace(bytes(100))
        status, headers, body = self.ask("/file", headers={**part, "If-Range": tag})
        self.assertEqual((status, body), (200, bytes(100)))
        status, _, body = self.ask("/file", headers={"Range": "bytes=100-", "If-Range": tag})
        self.assertEqual((status, body), (200, bytes(100)))

    def test_a_date_is_no_ground_for_a_part(self):
        """What is replaced may be of the same second."""
        date = self.ask("/file")[1]["Last-Modified"]
        self.replace(bytes(100))
        part = {"Range": "bytes=50-", "If-Range": date}
        self.assertEqual(self.ask("/file", headers=part)[::2], (200, bytes(100)))

    def test_a_head_is_asked_of_the_whole(self):
        for value in ("bytes=10-19", "bytes=100-", "bytes=-1"):
            status, headers, body = self.ask("/file", method="HEAD", headers={"Range": value})
            self.assertEqual((status, headers["Content-Length"], body), (200, "100", b""))
            self.assertIsNone(headers["Content-Range"])

    def test_caches_ask_again_for_all_that_they_keep(self):
        """At the same address there may be another service tomorrow."""
        os.mkdir(os.path.join(self.folder, "sub"))
        tag = self.settled_tag()
        for path, headers, wanted in (("/file", {}, 200), ("/file", {"Range": "bytes=0-0"}, 206),
                                      ("/file", {"If-None-Match": tag}, 304), ("/sub", {}, 301),
                                      ("/sub/", {}, 200), ("/nothing", {}, 404)):
            status, headers, _ = self.ask(path, headers=headers)
            self.assertEqual((status, headers["Cache-Control"]), (wanted, "no-cache"))

    def test_a_date_of_the_future_is_not_told(self):
        os.utime(self.path, (0, time.time() + 10_000))
        self.assertIsNone(self.ask("/file")[1]["Last-Modified"])
        self.assertEqual(self.status("/file", headers={"If-Modified-Since": http_date(time.time())}), 200)


class Changes(FolderCase):
    """Of what is being sent, and of the folder itself."""

    def begin(self, path):
        connection = self.connection()
        connection.request("GET", path)
        return connection.getresponse()

    def test_a_file_that_becomes_longer_is_sent_as_long_as_was_announced(self):
        content = os.urandom(64 << 20)
        path = self.write("log", content)
        self.expose_folder()
        answer = self.begin("/log")
        with open(path, "ab") as file:
            file.write(b"more")
        self.assertEqual(int(answer.headers["Content-Length"]), len(content))
        self.assertEqual(answer.read(), content)
        self.assertEqual(self.ask("/log", headers={"Range": "bytes=-4"})[2], b"more")

    def test_a_file_that_becomes_shorter_is_never_taken_for_a_whole_one(self):
        path = self.write("log", bytes(64 << 20))
        self.expose_folder()
        answer = self.begin("/log")
        os.truncate(path, 0)
        with self.assertRaises(http.client.IncompleteRead):
            answer.read()
        self.assertEqual(self.ask("/log")[::2], (200, b""))

    def test_what_is_at_the_path_now_is_served(self):
        self.write("file", b"old")
        self.write("big", bytes(64 << 20))
        self.write("sub/inside", b"old")
        self.expose_folder()
        big = self.begin("/big")
        os.rename(self.folder, self.folder + ".old")
        for path in ("/", "/file", "/sub/", "/sub/inside"):
            self.assertEqual(self.status(path), 404, path)
        self.write("file", b"new")
        self.write("another")
        self.assertEqual(self.ask("/file")[::2], (200, b"new"))
        self.assertEqual(self.status("/sub/inside"), 404)
        self.assertIn(b'href="another"', self.ask("/")[2])
        self.assertEqual(big.read(), bytes(64 << 20))

    def test_a_link_that_is_turned_leads_to_what_it_leads_to_now(self):
        for name in ("one", "other"):
            self.write(f"{name}/file", name.encode())
        link = os.path.join(self.folder, "now")
        os.symlink("one", link)
        self.expose_folder(link)
        self.assertEqual(self.ask("/file")[2], b"one")
        os.symlink("other", link + ".new")
        os.rename(link + ".new", link)
        self.assertEqual(self.ask("/file")[2], b"other")
        self.assertEqual(self.status("/../one/file"), 404)

    def test_where_the_command_was_started_is_where_its_paths_begin(self):
        """Also once that is another folder."""
        for path in (".", "../shown"):
            with self.subTest(path=path):
                self.write("file", b"old")
                self.expose_folder(path, cwd=self.folder)
                self.assertEqual(self.ask("/file")[2], b"old")
                os.rename(self.folder, self.folder + ".old" + path.replace("/", ""))
                self.write("file", b"new")
                self.assertEqual(self.ask("/file")[2], b"new")

    def test_nothing_else_is_opened_in_a_new_folder_either(self):
        self.expose_folder()
        os.rmdir(self.folder)
        self.write(".hidden")
        os.symlink("/etc", os.path.join(self.folder, "etc"))
        for path in ("/.hidden", "/etc/passwd", "/etc/"):
            self.assertEqual(self.status(path), 404)
        self.assertNotIn(b"hidden", self.ask("/")[2])


if __name__ == "__main__":
    harness.main()
