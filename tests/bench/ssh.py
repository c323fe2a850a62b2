"""ssh: the daemon's ssh beside OpenSSH's own sshd, for the same stock clients.

What attaches is ssh -N -R 0:... on both sides, with the same cipher; the proxy
alone differs. Each proxy has one connection of each cipher throughout, and those
have their turns in every round, in another order each time."""

import os
import random
import re
import tempfile
import time

import peers
from processes import Failure, Program, cpu_s, process_kib, wait_until
from report import SSH_CIPHERS, say

FIRST_PORT = 10000              # of the daemon's tunnels
SPARE_PAIRS = 100
STREAMS = 100                   # at once
HTTP_CONNECTIONS = 100
HTTP_LIMIT_S = 30               # an answer that is later has failed
PAGE_BYTES = 1400
WARM_UP_TUNNELS = 5             # before memory is counted, whose first ones cost more
WARM_UP_MIB = 8                 # that go through each of the tunnels then
REST_S = 1                      # after which a proxy is idle

PACKAGES = ("openssh-server", "openssh-client", "libssh-4", "nginx", "wrk")


class SshDaemon(peers.Daemon):
    """tristero-tunneld, where who is on this machine needs no key."""

    def __init__(self, ports, tunnels):
        super().__init__(ports, FIRST_PORT, tunnels, SPARE_PAIRS)
        self.ssh_port = ports.take()
        self.ssh_options = []

    def arguments(self, folder):
        return [*super().arguments(folder), "--ssh-listen", f"127.0.0.1:{self.ssh_port}",
                "--state-dir", os.path.join(folder, "state")]

    def start(self, folder):
        super().start(folder)
        self.wait_for(self.ssh_port)


class HttpServer(peers.Peer):
    """nginx with one small file. One process, as nginx stream is in peers."""

    name = "nginx"
    program = package = "nginx"

    def arguments(self, folder):
        peers.write(os.path.join(folder, "page"), "x" * PAGE_BYTES)
        spare = "\n".join(f"    {module}_temp_path {folder}/{module};" for module in
                          ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        return peers.nginx_arguments(folder, 2000, f"""
http {{
    access_log off;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 100000000;
{spare}
    server {{
        listen 127.0.0.1:{self.port} backlog=1024;
        root {folder};
    }}
}}
""")


class Wrk:
    """Who asks the HTTP server, through a tunnel, for its page."""

    name = "wrk"

    @staticmethod
    def why_missing():
        return None if peers.installed("wrk") else "Debian package wrk is not installed"


def failures(told):
    """What wrk says of requests that failed, if there were some, and how many did."""
    lines = re.findall(r"Socket errors:.*|Non-2xx or 3xx responses:.*", told)
    return "; ".join(lines), sum(int(number) for line in lines
                                 for number in re.findall(r"\b\d+\b", line.partition(":")[2]))


class Tunnel:
    """An ssh client attached to a proxy, with a port for each server behind it."""

    def __init__(self, proxy, cipher, servers, folder):
        self.proxy, self.cipher = proxy, cipher
        self._folder = tempfile.mkdtemp(dir=folder)
        forwards = [f"0:127.0.0.1:{server}" for server in servers]
        self._client = Program(
            peers.ssh_command(proxy.ssh_port, forwards, *proxy.ssh_options,
                              "-c", SSH_CIPHERS[cipher], "-o", "LogLevel=INFO"), self._folder)
        try:
            self._ports = {server: self._allocated(server) for server in servers}
        except BaseException:
            self.end()
            raise

    def _allocated(self, server):
        """As the client tells on its standard error."""
        wanted = re.compile(rf"Allocated port (\d+) for remote forward to 127\.0\.0\.1:{server}\s")

        def told():
            return wanted.search(self._client.log() + "\n")

        try:
            wait_until(lambda: told() or self._client.process.poll() is not None, "a tunnel opens")
        except Failure as failure:
            raise Failure(f"{failure}; {self.proxy.name}, ssh said: {self._client.log()}") from None
        if not told():
            raise Failure(f"no tunnel at {self.proxy.name}, ssh said: {self._client.log()}")
        return int(told()[1])

    def port(self, server):
        """Where clients of that server connect."""
        return self._ports[server]

    def end(self):
        self._client.end()


class SshPart:
    """What a bench.Bench does for ssh, with its sizes, results and programs."""

    def __init__(self, bench, ports, folder):
        self._bench, self._ports, self._folder = bench, ports, folder
        self._sizes, self._results = bench.sizes, bench.results
        self._server_port = ports.take()
        self._kinds = [self._daemon, self._sshd]

    def run(self):
        if not peers.installed("ssh"):      # without which nothing here can be measured
            self._results.miss("ssh", "Debian package openssh-client is not installed")
            return
        try:
            self._daemon().stop()
        except Failure as failure:
            if "built without" not in str(failure):
                raise
            self._results.miss("ssh", "tristero-tunneld was built without it")
            return
        if reason := peers.Sshd.why_missing():
            self._results.miss(peers.Sshd.name, reason)
            self._kinds.remove(self._sshd)
        self._compare()
        for number in range(self._sizes.rounds):
            random.shuffle(self._kinds)
            for kind in self._kinds:
                self._memory(kind, number)

    def _daemon(self):
        return self._bench.start(SshDaemon(self._ports, 2 * self._sizes.ssh_tunnels + 20))

    def _sshd(self):
        return self._bench.start(peers.Sshd(self._ports))

    # --- side by side

    def _compare(self):
        proxies, tunnels = [], []
        http = None
        try:
            missing = {kind.name: kind.why_missing() for kind in (HttpServer, Wrk)}
            for name, reason in missing.items():
                if reason:
                    self._results.miss(name, reason)
            if not any(missing.values()):
                http = self._bench.start(HttpServer(self._ports))
            servers = [self._server_port, *([http.port] if http else [])]
            for kind in self._kinds:
                proxies.append(kind())
                for cipher in SSH_CIPHERS:
                    tunnels.append(Tunnel(proxies[-1], cipher, servers, self._folder))
            for number in range(self._sizes.rounds):
                self._compare_once(tunnels, http, number)
        finally:
            for tunnel in tunnels:
                tunnel.end()
            for proxy in proxies:
                proxy.stop()
            if http:
                http.stop()

    def _compare_once(self, tunnels, http, number):
        measures = [self._down, self._up, self._many, self._pingpong]
        if http:
            measures += [lambda tunnel: self._requests(tunnel, http, "http"),
                         lambda tunnel: self._requests(tunnel, http, "http close",
                                                       "-H", "Connection: close")]
        random.shuffle(tunnels)
        say(f"round {number + 1}/{self._sizes.rounds}: ssh, "
            + ", ".join(f"{tunnel.proxy.name} {tunnel.cipher}" for tunnel in tunnels))
        for measure in measures:
            for tunnel in list(tunnels):
                try:
                    measure(tunnel)
                except (Failure, OSError) as failure:
                    if tunnel.proxy.name == SshDaemon.name:
                        raise
                    tunnels.remove(tunnel)
                    tunnel.end()
                    self._results.miss(f"{tunnel.proxy.name} {tunnel.cipher}", f"failed: {failure}")

    def _add(self, measure, tunnel, value):
        self._results.add(f"ssh {measure} {tunnel.cipher}", tunnel.proxy.name, value)

    def _move(self, tunnel, streams, mib, way):
        """Bytes a second, and the proxy's processor time for each byte."""
        with self._bench.program("streams", self._server_port, tunnel.port(self._server_port),
                                 streams, mib, way) as program:
            program.stage("ready")
            pids = tunnel.proxy.pids()
            before_s = cpu_s(pids)
            program.go_on()
            moved = program.stage("moved")
            used_s = cpu_s(pids) - before_s
            program.finish()
        return moved["bytes"] / (moved["ns"] / 1e9), used_s / moved["bytes"]

    def _one(self, tunnel, way):
        rate, used = self._move(tunnel, 1, self._sizes.ssh_mib, way)
        self._add(way, tunnel, rate / 2**20)
        self._add(f"cpu {way}", tunnel, used * 2**30)

    def _down(self, tunnel):
        self._one(tunnel, "down")

    def _up(self, tunnel):
        self._one(tunnel, "up")

    def _many(self, tunnel):
        rate, used = self._move(tunnel, STREAMS, self._sizes.ssh_mib, "down")
        self._add("many", tunnel, rate / 2**20)
        self._add("cpu many", tunnel, used * 2**30)

    def _pingpong(self, tunnel):
        with self._bench.program("pingpong", f"listen:{self._server_port}",
                                 tunnel.port(self._server_port), self._sizes.trips) as pingpong:
            times = pingpong.stage("done")
            pingpong.finish()
        self._add("p50", tunnel, times["p50_ns"] / 1e3)

    def _requests(self, tunnel, http, measure, *options):
        pids = tunnel.proxy.pids()
        before_s = cpu_s(pids)
        with Program([peers.installed("wrk"), "-t", "1", "-c", str(HTTP_CONNECTIONS),
                      "-d", f"{self._sizes.http_seconds}s",
                      "--timeout", f"{HTTP_LIMIT_S}s", *options,
                      f"http://127.0.0.1:{tunnel.port(http.port)}/page"], self._folder) as wrk:
            told = wrk.whole_output()
        used_s = cpu_s(pids) - before_s
        rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
        count = re.search(r"(\d+) requests in", told)
        if not rate or not count or int(count[1]) == 0:
            raise Failure(f"wrk, {tunnel.proxy.name}: {told.strip()}")
        self._add(measure, tunnel, float(rate[1]))
        self._add(f"cpu {measure}", tunnel, used_s / int(count[1]) * 1e6)
        errors, failed = failures(told)
        if errors:
            say(f"wrk, {tunnel.proxy.name} {tunnel.cipher}: {errors}")
        self._add(f"{measure} failed", tunnel, failed)

    # --- memory

    def _memory(self, kind, number):
        """Of the proxy's processes, what each tunnel adds that has moved bytes, and rests."""
        proxy = kind()
        say(f"round {number + 1}/{self._sizes.rounds}: memory of ssh tunnels, {proxy.name}")
        cipher = next(iter(SSH_CIPHERS))
        tunnels, kib = [], []
        try:
            for count in (WARM_UP_TUNNELS, self._sizes.ssh_tunnels):
                for _ in range(count):
                    tunnels.append(Tunnel(proxy, cipher, [self._server_port], self._folder))
                    for way in ("down", "up"):
                        self._move(tunnels[-1], 1, WARM_UP_MIB, way)
                time.sleep(REST_S)
                kib.append([sum(process_kib(pid, what) for pid in proxy.pids())
                            for what in ("Pss", "Pss_Anon")])
        finally:
            for tunnel in tunnels:
                tunnel.end()
            proxy.stop()
        for measure, before, after in zip(("ssh memory", "ssh memory own"), *kib):
            self._results.add(measure, proxy.name, (after - before) / self._sizes.ssh_tunnels)
