#!/usr/bin/python3 -B
"""Serving by the library through proxies that the environment names."""

import subprocess

import harness
from detour import Detour
from serving_harness import BAD_PROXIES, NO_PROXIES, SERVE, DetourCase

class ByWayOf(DetourCase):
    def start_serving(self, url, environment):
        program = harness.Program([SERVE, url, "1", "echo"], env=environment, stdin=subprocess.PIPE)
        self.addCleanup(program.clean_up)
        return program

    def test_an_http_proxy_carries_calls_and_the_connection(self):
        proxy = self.run_server(Detour())
        rpc_port, port = self.serve(http_proxy=proxy.url("http"))
        self.assertEqual(proxy.asked, [f"POST {self.NAME}:{rpc_port}"] * 2 +
                         [f"CONNECT {self.NAME}:{port - 1}"])

    def test_that_of_https_goes_first_for_the_connection(self):
        calls, carriers = self.run_server(Detour()), self.run_server(Detour())
        _, port = self.serve(http_proxy=calls.url("http"), https_proxy=carriers.url("http"))
        self.assertEqual(len(calls.asked), 2)
        self.assertEqual(carriers.asked, [f"CONNECT {self.NAME}:{port - 1}"])

    def test_passwords_of_proxies_are_not_told(self):
        daemon = self.start_daemon("--drain", "0")
        for proxy in BAD_PROXIES:
            for name in ("http_proxy", "https_proxy"):
                result = harness.run([SERVE, daemon.url, "1", "echo"],
                                     env={**NO_PROXIES, name: proxy})
                with self.subTest(proxy=proxy, name=name):
                    self.assertRegex(result.stdout, "^error ")
                    self.assertNotIn("sec", result.stdout.replace("secon", ""))

    def test_a_socks_proxy_resolves_the_names(self):
        proxy = self.run_server(Detour())
        rpc_port, port = self.serve(ALL_PROXY=proxy.url("socks5h"))
        self.assertEqual(proxy.asked, [f"SOCKS {self.NAME}:{rpc_port}"] * 2 +
                         [f"SOCKS {self.NAME}:{port - 1}"])


if __name__ == "__main__":
    harness.main()
