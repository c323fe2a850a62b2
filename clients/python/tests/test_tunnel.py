#!/usr/bin/env python3
"""Opening a tunnel, against a proxy of the tests' own."""
import asyncio
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
from harness import WAIT_S, Case, listen, main
from tristero_tunnel import Tunnel, TunnelError


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
            error = self.open(proxy.url, 1, **{variable: f"{scheme}://alice:secret@{silent}"})
            self.assertIn(f": by way of {scheme}://{silent}: no answer in time", error)
            self.assertLess(time.monotonic() - began, 4)

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
