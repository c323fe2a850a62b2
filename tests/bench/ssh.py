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
from carrying import Carrying
from processes import Failure, Program, process_kib, wait_until
from report import SSH_CIPHERS, say

FIRST_PORT = 10000              # of the daemon's tunnels
SPARE_PAIRS = 100
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


class Tunnel:
    """An ssh client attached to a proxy, with a port for each server behind it. The
    route that carrying.py measures, of whose processes the proxy's alone count."""

    http_options = ()

    def __init__(self, proxy, cipher, servers, folder):
        self.proxy, self.cipher = proxy, cipher
        self.name = proxy.name
        self._folder = tempfile.mkdtemp(dir=folder)
        forwards = [f"0:127.0.0.1:{server}" for server in servers]
        self._client = Program(
            peers.ssh_command(proxy.ssh_port, forwards, *proxy.ssh_options,
                              "-c", SSH_CIPHERS[cipher], "-o", "LogLevel=INFO"), self._folder)
        try:
            self._ports = {server: self._allocated(server) for server in servers}
        except BaseException:
            self.stop()
            raise

    def measure(self, what):
        return f"ssh {what} {self.cipher}"

    def pids(self):
        return self.proxy.pids()

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

    def port_for(self, server):
        return self._ports[server]

    def stop(self):
        self._client.end()


class SshPart:
    """What a bench.Bench does for ssh, with its sizes, results and programs."""

    def __init__(self, bench, ports, folder):
        self._bench, self._ports, self._folder = bench, ports, folder
        self._sizes, self._results = bench.sizes, bench.results
        self._carrying = None
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
        self._carrying = Carrying(self._bench, self._ports, self._folder)
        try:
            self._compare()
            for number in range(self._sizes.rounds):
                random.shuffle(self._kinds)
                for kind in self._kinds:
                    self._memory(kind, number)
        finally:
            self._carrying.stop()

    def _daemon(self):
        return self._bench.start(SshDaemon(self._ports, 2 * self._sizes.ssh_tunnels + 20))

    def _sshd(self):
        return self._bench.start(peers.Sshd(self._ports))

    # --- side by side

    def _compare(self):
        proxies, tunnels = [], []
        carrying = self._carrying
        try:
            for kind in self._kinds:
                proxies.append(kind())
                for cipher in SSH_CIPHERS:
                    tunnels.append(Tunnel(proxies[-1], cipher, carrying.servers(), self._folder))
            for number in range(self._sizes.rounds):
                say(f"round {number + 1}/{self._sizes.rounds}: ssh, "
                    + ", ".join(f"{tunnel.name} {tunnel.cipher}" for tunnel in tunnels))
                carrying.compare(tunnels, carrying.measures())
        finally:
            for tunnel in tunnels:
                tunnel.stop()
            for proxy in proxies:
                proxy.stop()

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
                    tunnels.append(Tunnel(proxy, cipher, [self._carrying.server_port],
                                          self._folder))
                    for way in ("down", "up"):
                        self._carrying.move(tunnels[-1], 1, WARM_UP_MIB, way)
                time.sleep(REST_S)
                kib.append([sum(process_kib(pid, what) for pid in proxy.pids())
                            for what in ("Pss", "Pss_Anon")])
        finally:
            for tunnel in tunnels:
                tunnel.stop()
            proxy.stop()
        for measure, before, after in zip(("ssh memory", "ssh memory own"), *kib):
            self._results.add(measure, proxy.name, (after - before) / self._sizes.ssh_tunnels)
