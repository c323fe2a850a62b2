#!/usr/bin/env python3
"""How a tunnel is kept attached, against a proxy of the tests' own."""
import asyncio
import itertools
import os
import shutil
import ssl
import subprocess
import time
import unittest
import xmlrpc.server
from unittest import mock

import common  # noqa: F401, finds what follows
from detour import Detour
from fake_proxy import FakeProxy
from harness import WAIT_S, Case, connect, listen, main
from tristero_tunnel import Tunnel, TunnelError


class TurnedAway(Case):
    """By a proxy that ends connections of the tunnel before a word."""

    def setUp(self):
        self.proxy = FakeProxy()
        self.addCleanup(self.proxy.close)
        for name in ("BACKOFF_FIRST_S", "BACKOFF_LAST_S"):
            self.set(name, 0.02)
        self.set("PATIENCE_S", 0)
        self.addresses = []

    def set(self, name, seconds):
        patch = mock.patch(f"tristero_tunnel.tunnel.{name}", seconds)
        patch.start()
        self.addCleanup(patch.stop)

    def attached(self, test, carriers=1):
        """Runs the test with a tunnel that is attached."""
        async def run():
            tunnel = await Tunnel.open(self.proxy.url, carriers, on_address=self.addresses.append)
            async with tunnel:
                await asyncio.wait_for(test(tunnel), WAIT_S)

        asyncio.run(run())

    async def lose_carrier(self, tunnel):
        """One on which the proxy was heard."""
        with connect(self.proxy.client_address):
            await tunnel.accept()
        self.proxy.drop_carriers()
        await self.until(lambda: not self.proxy.carriers)

    async def until(self, condition):
        while not condition():
            await asyncio.sleep(0.01)

    def test_after_four_times_it_opens_another_tunnel(self):
        self.proxy.takes = iter([True, False, False, False, False])

        async def test(tunnel):
            first = tunnel.address
            await self.lose_carrier(tunnel)
            await self.until(lambda: self.proxy.carriers)
            self.assertNotEqual(tunnel.address, first)
            self.assertEqual(self.addresses, [tunnel.address])

        self.attached(test)
        self.assertEqual([call for call in self.proxy.calls if call != "address"],
                         ["open webmux", *["turn away"] * 4, "open webmux"])

    def test_not_before_a_while(self):
        self.set("PATIENCE_S", 0.5)
        self.proxy.takes = itertools.chain([True], itertools.repeat(False))

        async def test(tunnel):
            began = time.monotonic()
            await self.lose_carrier(tunnel)
            await self.until(lambda: self.addresses)
            self.assertGreater(time.monotonic() - began, 0.5)

        self.attached(test)

    def test_not_while_another_carrier_is_attached(self):
        self.proxy.takes = itertools.chain([True], itertools.repeat(False))

        async def test(tunnel):
            await self.until(lambda: self.proxy.calls.count("turn away") >= 8)

        self.attached(test, carriers=2)
        self.assertEqual(self.proxy.calls.count("open webmux"), 1)

    def test_one_that_is_heard_in_between_makes_it_begin_again(self):
        refused = [False, False, False]
        self.proxy.takes = iter([True, *refused, True, *refused])

        async def test(tunnel):
            for _ in range(2):
                await self.lose_carrier(tunnel)
                await self.until(lambda: self.proxy.carriers)

        self.attached(test)
        self.assertEqual(self.proxy.calls.count("turn away"), 6)
        self.assertEqual(self.proxy.calls.count("open webmux"), 1)

    def test_another_tunnel_begins_with_none(self):
        self.proxy.takes = iter([True, *[False] * 8])

        async def test(tunnel):
            await self.lose_carrier(tunnel)
            await self.until(lambda: self.proxy.carriers)

        self.attached(test)
        self.assertEqual(len(self.addresses), 2)

    def test_without_another_tunnel_it_goes_on_with_the_one_it_has(self):
        self.proxy.takes = iter([True, *[False] * 5])
        self.proxy.opens = iter([True, False, False])

        async def test(tunnel):
            await self.lose_carrier(tunnel)
            await self.until(lambda: self.proxy.carriers)

        self.attached(test)
        self.assertEqual(self.proxy.calls.count("open webmux"), 3)
        self.assertEqual(self.addresses, [])


class ByWayOf(Case):
    """Calls and carriers through proxies that the environment names."""

    def open(self, url, timeout_s=WAIT_S, **environment):
        """The error that it has; there is one, and it tells no password."""
        environment.setdefault("NO_PROXY", "")
        with mock.patch.dict(os.environ, environment), self.assertRaises(TunnelError) as caught:
            asyncio.run(Tunnel.open(url, timeout_s=timeout_s))
        self.assertNotIn("secret", str(caught.exception))
        return str(caught.exception)

    def test_one_that_is_silent_is_waited_for_no_longer_than_was_said(self):
        proxy = FakeProxy()
        self.addCleanup(proxy.close)
        listener = listen()
        self.addCleanup(listener.close)
        silent = "127.0.0.1:%d" % listener.getsockname()[1]
        for variable, scheme in (("http_proxy", "socks5"), ("https_proxy", "http")):
            began = time.monotonic()
            error = self.open(proxy.url, 3, **{variable: f"{scheme}://alice:secret@{silent}"})
            self.assertIn(f": by way of {scheme}://{silent}: no answer in time", error)
            self.assertLess(time.monotonic() - began, 20)

    @unittest.skipUnless(shutil.which("openssl"), "there is no openssl")
    def test_calls_by_TLS_go_there_too(self):
        certificate = os.path.join(self.temporary_folder(), "certificate.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x",
                        "-addext", "subjectAltName=DNS:proxy.invalid", "-keyout", certificate + ".key",
                        "-out", certificate], check=True, stderr=subprocess.DEVNULL)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate + ".key")
        server = xmlrpc.server.SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        self.run_server(server)             # it knows no method
        detour = self.run_server(Detour())
        where = f"proxy.invalid:{server.server_address[1]}"
        error = self.open(f"https://{where}/RPC2", SSL_CERT_FILE=certificate, https_proxy=detour.url("http"))
        self.assertIn("is not supported", error)
        self.assertEqual(detour.asked, [f"CONNECT {where}"])


if __name__ == "__main__":
    main()
