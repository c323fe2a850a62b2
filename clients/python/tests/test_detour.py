#!/usr/bin/env python3
"""Connections by way of the proxies that the environment names."""
import os
import socket
import time
from unittest import mock

import common  # noqa: F401, finds what follows
from harness import Case, in_thread, listen, main, receive_exactly
from tristero_tunnel import detour

VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY",
             "no_proxy", "NO_PROXY")


class DetourCase(Case):
    def setUp(self):
        self.listener = listen()
        self.addCleanup(self.listener.close)
        self.where = "127.0.0.1:%d" % self.listener.getsockname()[1]

    def name(self, **variables):
        """These variables and no others, until the end of the test."""
        patch = mock.patch.dict(os.environ, variables)
        patch.start()
        self.addCleanup(patch.stop)
        for variable in set(VARIABLES) - set(variables):
            os.environ.pop(variable, None)

    def connect(self, scheme="webmux", host="proxy.invalid", port=8010, timeout_s=10):
        connection = detour.connect(scheme, host, port, timeout_s)
        self.addCleanup(connection.close)
        return connection

    def expect_error(self, text, **how):
        with self.assertRaises(OSError) as caught:
            self.connect(**how)
        self.assertIn(text, str(caught.exception))
        self.assertNotIn("secret", str(caught.exception))

    def answer(self, *talk):
        """Takes a connection; talk is what it receives, exactly, and what it sends, in turn."""
        def run():
            connection, _ = self.listener.accept()
            self.addCleanup(connection.close)
            connection.settimeout(10)
            for number, words in enumerate(talk):
                if number % 2:
                    connection.sendall(words)
                else:
                    self.assertEqual(receive_exactly(connection, len(words)), words)
            return connection

        return in_thread(run)


class Choice(DetourCase):
    def setUp(self):
        super().setUp()
        self.name()

    def chosen(self, scheme, host="proxy.example.org", **variables):
        self.name(**variables)
        return detour.named_for(scheme, host)

    def test_calls_go_by_the_variable_of_their_scheme_and_carriers_by_that_of_https(self):
        all_set = {"http_proxy": "a", "https_proxy": "b", "ALL_PROXY": "c"}
        self.assertEqual([self.chosen(scheme, **all_set) for scheme in ("http", "https", "webmux")],
                         ["a", "b", "b"])

    def test_that_of_all_is_for_what_has_none(self):
        self.assertEqual([self.chosen(scheme, ALL_PROXY="c") for scheme in ("http", "https", "webmux")],
                         ["c", "c", "c"])
        self.assertEqual(self.chosen("webmux", ALL_PROXY="c", http_proxy="a"), "c")

    def test_a_carrier_goes_by_that_of_http_if_there_is_no_other(self):
        self.assertEqual(self.chosen("webmux", http_proxy="a"), "a")
        self.assertEqual(self.chosen("https", http_proxy="a"), "")

    def test_lower_case_goes_first_and_what_is_empty_is_not_set(self):
        self.assertEqual(self.chosen("https", https_proxy="a", HTTPS_PROXY="b"), "a")
        self.assertEqual(self.chosen("https", https_proxy="", HTTPS_PROXY="b"), "b")
        self.assertEqual(self.chosen("http", all_proxy="a", ALL_PROXY="b"), "a")

    def test_that_of_http_counts_in_lower_case_alone(self):
        for scheme in ("http", "webmux"):
            self.assertEqual(self.chosen(scheme, HTTP_PROXY="a"), "")

    def test_hosts_of_no_proxy_are_connected_to_directly(self):
        for names, host in (("*", "a.org"), ("a.org", "a.org"), ("b.org, .A.org", "x.a.ORG"),
                            ("b.org a.org", "a.org."), ("10.0.0.0/8,::1", "10.1.2.3"),
                            ("10.0.0.0/8,[::1]", "::1"), ("127.0.0.1", "127.0.0.1")):
            with self.subTest(names=names, host=host):
                self.assertEqual(self.chosen("http", host, http_proxy="a", no_proxy=names), "")

    def test_other_hosts_are_not(self):
        for names, host in (("a.org", "ba.org"), ("a.org", "org"), (",.,", "a.org"),
                            ("10.0.0.0/8", "11.0.0.1"), ("0.0.1", "127.0.0.1"), ("10.0.0.0/99", "10.0.0.0")):
            with self.subTest(names=names, host=host):
                self.assertEqual(self.chosen("http", host, http_proxy="a", no_proxy=names), "a")

    def test_of_no_proxy_too_lower_case_goes_first(self):
        self.assertEqual(self.chosen("http", "a.org", http_proxy="a", no_proxy="b.org", NO_PROXY="*"), "a")
        self.assertEqual(self.chosen("http", "a.org", http_proxy="a", no_proxy="", NO_PROXY="*"), "")

    def test_without_any_it_connects_directly(self):
        connection = self.connect(host="127.0.0.1", port=self.listener.getsockname()[1])
        self.assertEqual(connection.getpeername(), self.listener.getsockname())


class ByConnect(DetourCase):
    REQUEST = b"CONNECT proxy.invalid:8010 HTTP/1.1\r\nHost: proxy.invalid:8010\r\n"

    def test_what_comes_after_the_answer_is_for_the_caller(self):
        for url in (f"http://{self.where}/", f"HTTP://{self.where}", self.where):
            self.name(https_proxy=url)
            talk = self.answer(self.REQUEST + b"\r\n", b"HTTP/1.1 200 yes\r\nX: y\r\n\r\nhello", b"bye")
            connection = self.connect()
            self.assertEqual(receive_exactly(connection, 5), b"hello")
            connection.sendall(b"bye")
            talk.result()

    def test_an_IPv6_address_stands_in_brackets(self):
        self.name(https_proxy=self.where)
        talk = self.answer(b"CONNECT [::1]:8010 HTTP/1.1\r\nHost: [::1]:8010\r\n\r\n",
                           b"HTTP/1.0 200 yes\r\n\r\n")
        self.connect(host="::1")
        talk.result()

    def test_user_and_password_are_told_to_it(self):
        self.name(https_proxy=f"http://al%40ice:se:cret@{self.where}")
        talk = self.answer(self.REQUEST + b"Proxy-Authorization: Basic YWxAaWNlOnNlOmNyZXQ=\r\n\r\n",
                           b"HTTP/1.1 200 yes\r\n\r\n")
        self.connect()
        talk.result()

    def test_what_it_refuses_is_an_error_with_its_status(self):
        self.name(https_proxy=f"http://alice:secret@{self.where}")
        for head, text in ((b"HTTP/1.1 403 \x1b[2J\r\n\r\n", "it answered with HTTP status 403"),
                           (b"HTTP/1.1 407 no\r\n\r\n", "it asks for a user and password"),
                           (b"SSH-2.0-x\r\n\r\n", "it does not speak HTTP"),
                           (b"HTTP/1.1 200 yes\r\n" + b"X: y\r\n" * 9999, "it does not speak HTTP")):
            self.answer(b"CONNECT", head)
            self.expect_error(f"by way of http://{self.where}: {text}")

    def test_one_that_ends_is_an_error(self):
        self.name(https_proxy=self.where)
        in_thread(lambda: self.listener.accept()[0].close())
        self.expect_error(f"by way of {self.where}: ")


class BySocks(DetourCase):
    NAME = b"\x03\x0dproxy.invalid"
    DONE = b"\x05\x00\x00\x01" + bytes(6)

    def test_a_proxy_of_socks5h_looks_up_the_name(self):
        self.name(ALL_PROXY=f"socks5h://{self.where}")
        talk = self.answer(b"\x05\x01\x00", b"\x05\x00", b"\x05\x01\x00" + self.NAME + b"\x1f\x4a",
                           self.DONE + b"hello", b"bye")
        connection = self.connect()
        self.assertEqual(receive_exactly(connection, 5), b"hello")
        connection.sendall(b"bye")
        talk.result()

    def test_one_of_socks5_gets_an_address(self):
        self.name(ALL_PROXY=f"socks5://{self.where}")
        look_up = socket.getaddrinfo

        def look_up_here(host, *arguments, **how):
            return look_up("192.0.2.1" if host == "proxy.invalid" else host, *arguments, **how)

        talk = self.answer(b"\x05\x01\x00", b"\x05\x00",
                           b"\x05\x01\x00\x01\xc0\x00\x02\x01\x1f\x4a", b"\x05\x00\x00\x03\x02ab\x00\x00")
        with mock.patch("socket.getaddrinfo", look_up_here):
            self.connect()
        talk.result()

    def test_an_address_stays_one(self):
        for scheme in ("socks5", "socks5h"):
            self.name(ALL_PROXY=f"{scheme}://{self.where}")
            talk = self.answer(b"\x05\x01\x00", b"\x05\x00",
                               b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x1f\x4a",
                               b"\x05\x00\x00\x04" + bytes(18))
            self.connect(host="::1")
            talk.result()

    def test_user_and_password_are_told_to_it_if_it_asks(self):
        self.name(ALL_PROXY=f"socks5h://al%40ice:se:cret@{self.where}")
        talk = self.answer(b"\x05\x02\x00\x02", b"\x05\x02", b"\x01\x06al@ice\x07se:cret",
                           b"\x01\x00", b"\x05\x01\x00" + self.NAME + b"\x1f\x4a", self.DONE)
        self.connect()
        talk.result()

    def test_what_it_refuses_is_an_error(self):
        self.name(ALL_PROXY=f"socks5h://alice:secret@{self.where}")
        for answers, text in (((b"\x05\xff",), "it takes no such login"),
                              ((b"\x05\x02", b"\x01\x01"), "it does not know the user and password"),
                              ((b"\x05\x00", b"\x05\x05\x00\x01"), "it says: connection refused"),
                              ((b"\x05\x00", b"\x05\x63\x00\x01"), "it says: error 99"),
                              ((b"HTTP/1.1",), "it does not speak SOCKS5"),
                              ((b"\x05\x00", b"\x04\x00\x00\x01"), "it does not speak SOCKS5")):
            self.answer(*[words for each in answers for words in (b"", each)])
            with self.subTest(text):
                self.expect_error(f"by way of socks5h://{self.where}: {text}")

    def test_without_a_login_it_may_ask_for_none(self):
        self.name(ALL_PROXY=f"socks5h://{self.where}")
        self.answer(b"\x05\x01\x00", b"\x05\x02")
        self.expect_error("it takes no such login")

    def test_a_login_that_does_not_fit_is_an_error(self):
        self.name(ALL_PROXY=f"socks5h://alice:{'secret' * 43}@{self.where}")
        self.answer(b"\x05\x02\x00\x02", b"\x05\x02")
        self.expect_error("its user or password is longer than 255 bytes")


class Errors(DetourCase):
    def test_an_unknown_scheme_is_named_and_nothing_goes_past_it(self):
        direct = self.listener.getsockname()[1]
        for url in ("gopher://alice:secret@127.0.0.1:1", "https://alice:secret@127.0.0.1:1",
                    "http://alice:secret@[::1", "alice:secret@ x", "http://alice:se/secret@127.0.0.1:99999",
                    "socks4://al@ice:secret@127.0.0.1:1", "http://alice:secret@", "http://alice:secret@:0"):
            self.name(https_proxy=url)
            with self.subTest(url):
                shown = url.rpartition("@")[2]
                self.expect_error(f"{shown}: expected", host="127.0.0.1", port=direct)
                self.expect_error("by way of " + (url.partition(":")[0] if "://" in url else shown),
                                  host="127.0.0.1", port=direct)
        self.listener.settimeout(0)
        with self.assertRaises(BlockingIOError):
            self.listener.accept()

    def test_one_that_is_not_there_is_named_without_its_password(self):
        self.listener.close()
        self.name(https_proxy=f"http://alice:sec@secret@{self.where}")
        self.expect_error(f"by way of http://{self.where}: Connection refused")

    def test_a_name_that_can_t_be_one_is_an_error(self):
        self.name(https_proxy="http://a..b:1")
        self.expect_error("by way of http://a..b:1: ")
        for scheme in ("http", "socks5", "socks5h"):
            self.name(https_proxy=f"{scheme}://{self.where}")
            self.answer(b"", b"\x05\x00")
            self.expect_error(f"by way of {scheme}://{self.where}: ", host="a..b")

    def test_the_port_is_1080_where_none_is_said(self):
        self.name(https_proxy="socks5h://127.0.0.1")
        with mock.patch("socket.create_connection", side_effect=ConnectionRefusedError) as create:
            self.expect_error("by way of socks5h://127.0.0.1: ")
        self.assertEqual(create.mock_calls[0].args[0], ("127.0.0.1", 1080))

    def test_one_that_trickles_is_waited_for_no_longer_than_was_said(self):
        def trickle():
            connection, _ = self.listener.accept()
            with connection:
                try:
                    while True:
                        connection.sendall(b"H")
                        time.sleep(0.1)
                except OSError:
                    pass

        self.name(https_proxy=f"http://{self.where}")
        in_thread(trickle)
        began = time.monotonic()
        self.expect_error(f"by way of http://{self.where}: no answer in time", timeout_s=1)
        self.assertLess(time.monotonic() - began, 20)

    def test_a_connection_has_the_time_of_a_call_again(self):
        self.name(https_proxy=self.where)
        self.answer(b"CONNECT", b"HTTP/1.1 200 yes\r\n\r\n")
        self.assertEqual(self.connect(timeout_s=7).gettimeout(), 7)


if __name__ == "__main__":
    main()
