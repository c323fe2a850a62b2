#!/usr/bin/python3 -B
"""The XML-RPC interface: methods, signatures, help, faults."""

import http.client
import xmlrpc.client

import harness
from harness import DaemonCase, address_of, fault_of, in_thread


class Introspection(DaemonCase):
    def test_the_methods_are_listed(self):
        methods = self.daemon.rpc().system.listMethods()
        for method in ("Tunnel.openTunnel", "Tunnel.getTunnelAddress", "system.listMethods",
                       "system.methodHelp", "system.methodSignature", "system.multicall"):
            self.assertIn(method, methods)

    def test_nobody_can_shut_the_service_down(self):
        self.assertNotIn("system.shutdown", self.daemon.rpc().system.listMethods())
        fault = fault_of(self.daemon.rpc().system.shutdown, "now")
        self.assertIn("system.shutdown", fault.faultString)
        self.assertIn("Tunnel.openTunnel", self.daemon.rpc().system.listMethods())

    def test_both_signatures_of_openTunnel_are_told(self):
        self.assertEqual(self.daemon.rpc().system.methodSignature("Tunnel.openTunnel"),
                         [["string"], ["string", "string"]])
        self.assertEqual(self.daemon.rpc().system.methodSignature("Tunnel.getTunnelAddress"),
                         [["string", "string"]])

    def test_every_method_has_a_help_text_that_helps(self):
        system = self.daemon.rpc().system
        for method in system.listMethods():
            self.assertGreater(len(system.methodHelp(method)), 30, method)
        self.assertIn("tcp", system.methodHelp("Tunnel.openTunnel"))
        self.assertIn("openTunnel", system.methodHelp("Tunnel.getTunnelAddress"))

    def test_help_and_signature_of_an_unknown_method_are_faults(self):
        system = self.daemon.rpc().system
        for ask in (system.methodHelp, system.methodSignature):
            self.assertIn("Tunnel.noSuch", fault_of(ask, "Tunnel.noSuch").faultString)

    def test_several_calls_go_in_one_request(self):
        calls = xmlrpc.client.MultiCall(self.daemon.rpc())
        calls.Tunnel.openTunnel()
        calls.Tunnel.openTunnel("tcp")
        first, second = calls()
        self.assertNotEqual(first, second)
        for uri in (first, second):
            harness.discard(address_of(uri))

    def test_a_fault_among_several_calls_spoils_only_its_own(self):
        calls = xmlrpc.client.MultiCall(self.daemon.rpc())
        calls.Tunnel.getTunnelAddress("nonsense")
        calls.system.listMethods()
        answers = calls()
        self.assertRaises(xmlrpc.client.Fault, lambda: answers[0])
        self.assertIn("Tunnel.openTunnel", answers[1])

    def test_several_calls_within_several_calls_are_refused(self):
        inner = [{"methodName": "system.listMethods", "params": []}]
        outer = [{"methodName": "system.multicall", "params": [inner]}]
        answers = self.daemon.rpc().system.multicall(outer)
        self.assertIn("faultCode", answers[0])

    def test_many_callers_at_once_get_tunnels_of_their_own(self):
        def open_one(_):
            with harness.rpc(self.daemon.url) as proxy:
                return proxy.Tunnel.openTunnel()

        uris = [opening.result() for opening in [in_thread(open_one, n) for n in range(12)]]
        self.assertEqual(len(set(uris)), 12)
        for uri in uris:
            harness.discard(address_of(uri))


class Faults(DaemonCase):
    def assert_names(self, fault, *pieces):
        self.assertGreater(fault.faultCode, 0)
        for piece in pieces:
            self.assertIn(piece, fault.faultString)

    def test_an_unknown_backend_lists_those_there_are(self):
        for name in ("smtp", "TCP", "", "tcp ", "tcp\n", "ssh"):
            fault = fault_of(self.daemon.rpc().Tunnel.openTunnel, name)
            self.assert_names(fault, "unknown backend", "tcp")

    def test_a_malformed_uri_is_named(self):
        for uri in ("", "nonsense", "tcp://", "tcp://host", "tcp://host:", "tcp://host:0",
                    "tcp://host:65536", "tcp://host:99999999999999999999", "tcp://:8010",
                    "tcp://host:80x", "tcp://host:-1", "tcp://host:8010/path",
                    "tcp://user@host:8010", "tcp://[::1:8010", "tcp://::1:8010",
                    "tcp://[zz]:8010", "tcp//host:8010", "://host:8010", "tcp://ho st:8010",
                    " tcp://host:8010", "tcp://host:8010 ", "tcp://" + "a" * 5000 + ":8010",
                    "a" * 100 + "://host:8010", "tcp://h\u00f6st:8010", "tcp://host:8010\n"):
            with self.subTest(uri=uri[:60]):
                fault = fault_of(self.daemon.rpc().Tunnel.getTunnelAddress, uri)
                self.assert_names(fault, "malformed URI")
                if 0 < len(uri) < 40 and uri.isascii() and uri.isprintable():
                    self.assert_names(fault, uri)

    def test_an_unknown_tunnel_is_named(self):
        tunnel = self.open_tunnel()
        port = tunnel.server_address[1]
        for uri in (tunnel.client_uri, f"tcp://127.0.0.1:{port + 2}", "tcp://127.0.0.1:1",
                    f"tcp://elsewhere.example.org:{port}", f"ssh://127.0.0.1:{port}"):
            fault = fault_of(self.daemon.rpc().Tunnel.getTunnelAddress, uri)
            self.assert_names(fault, "unknown tunnel", uri)

    def test_wrong_parameters_are_told(self):
        tunnel = self.daemon.rpc().Tunnel
        for call, arguments in ((tunnel.openTunnel, (1,)), (tunnel.openTunnel, ("tcp", "tcp")),
                                (tunnel.openTunnel, (["tcp"],)), (tunnel.openTunnel, ({},)),
                                (tunnel.openTunnel, (True,)),
                                (tunnel.openTunnel, (xmlrpc.client.Binary(b"tcp"),)),
                                (tunnel.getTunnelAddress, ()), (tunnel.getTunnelAddress, (8010,)),
                                (tunnel.getTunnelAddress, ("tcp://127.0.0.1:8010", 1)),
                                (self.daemon.rpc().system.listMethods, (1,)),
                                (self.daemon.rpc().system.methodHelp, ())):
            with self.subTest(call=repr(call), arguments=arguments):
                self.assert_names(fault_of(call, *arguments), "wrong parameters")

    def test_an_unknown_method_is_named(self):
        for name in ("Tunnel.closeTunnel", "openTunnel", "tunnel.opentunnel", "x" * 300):
            method = xmlrpc.client._Method(self.daemon.rpc()._ServerProxy__request, name)
            self.assertIn(name[:20], fault_of(method).faultString)

    def test_each_kind_has_a_code_of_its_own(self):
        self.daemon.expect_rest()       # all pairs are free
        tunnel = self.daemon.rpc().Tunnel
        faults = [fault_of(tunnel.openTunnel, "smtp"), fault_of(tunnel.openTunnel, 1),
                  fault_of(tunnel.getTunnelAddress, "nonsense"),
                  fault_of(tunnel.getTunnelAddress, "tcp://127.0.0.1:1"),
                  fault_of(self.daemon.rpc().Tunnel.closeTunnel)]
        for _ in range(self.pairs):
            self.open_tunnel()
        faults.append(fault_of(tunnel.openTunnel))
        self.assertEqual(len({fault.faultCode for fault in faults}), len(faults), faults)

    def test_a_fault_leaves_no_tunnel_behind(self):
        for _ in range(3 * self.pairs):
            fault_of(self.daemon.rpc().Tunnel.openTunnel, "smtp")
        self.daemon.expect_rest()


class Connections(DaemonCase):
    def test_one_connection_carries_many_calls(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=10)
        self.addCleanup(connection.close)
        body = xmlrpc.client.dumps((), "system.listMethods")
        for _ in range(20):
            connection.request("POST", "/RPC2", body, {"Content-Type": "text/xml"})
            answer = connection.getresponse()
            self.assertEqual(answer.status, 200)
            self.assertIn("text/xml", answer.getheader("Content-Type"))
            self.assertIn(b"Tunnel.openTunnel", answer.read())


if __name__ == "__main__":
    harness.main()
