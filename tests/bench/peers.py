"""peers: the relays that are compared, each behind the same small interface.

A peer is started once, with a configuration that is the best known for it, and
stays idle while others have their turn. path() says, for one connection, where
the bench program's server goes and where its client does."""

import getpass
import os
import shutil
import subprocess
import xmlrpc.client

from processes import Failure, Program, family, listens, wait_until

# sshd and nginx are here for root, and for others not always in PATH.
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def installed(program):
    return shutil.which(program, path=PATH)


def write(path, text, mode=0o644):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w",
              encoding="utf-8") as file:
        file.write(text)
    return path


class Peer:
    """What listens on self.port and connects to self.server_port."""

    name = None
    program = None
    package = None
    http_options = ()                   # for wrk, where it asks for more than an address

    def __init__(self, ports, servers=()):
        """servers: the ports of those that it is to stand in front of, if they are known."""
        self.port, self.server_port = ports.take(), ports.take()
        self.fronts = {server: ports.take() for server in servers} or {self.server_port: self.port}
        self._running = []

    @classmethod
    def why_missing(cls):
        return None if installed(cls.program) else f"Debian package {cls.package} is not installed"

    def start(self, folder):
        self.run(self.arguments(folder), folder)
        for port in self.listens_at():
            self.wait_for(port)

    def listens_at(self):
        return list(self.fronts.values())

    def run(self, arguments, folder):
        self._running.append(Program(arguments, folder))
        return self._running[-1]

    def wait_for(self, port):
        try:
            wait_until(lambda: listens(port), f"{self.name} listens")
        except Failure as failure:
            said = "; ".join(program.log() for program in self._running)
            raise Failure(f"{failure}; it said: {said}") from None

    def arguments(self, folder):
        raise NotImplementedError

    def path(self):
        return f"listen:{self.server_port}", str(self.port)

    def port_for(self, server):
        """Where clients of that server connect."""
        return self.fronts[server]

    def pids(self):
        return [pid for program in self._running for pid in family(program.pid)]

    def stop(self):
        for program in reversed(self._running):
            program.end()
        self._running.clear()


class Direct(Peer):
    """No relay: the client connects to the server."""

    name = "direct"

    @classmethod
    def why_missing(cls):
        return None

    def start(self, folder):
        pass

    def path(self):
        return f"listen:{self.server_port}", str(self.server_port)

    def port_for(self, server):
        return server


class PlainRelay(Peer):
    name = "read/write"

    @classmethod
    def why_missing(cls):
        return None

    def arguments(self, folder):
        return [os.path.join(os.environ["BENCH_PROGRAMS"], "plain_relay"), str(self.port),
                str(self.server_port)]


class Daemon(Peer):
    """tristero-tunneld. Each path is a tunnel of its own."""

    name = "daemon"
    TUNNELS = 200

    def __init__(self, ports, first_port=10000, tunnels=TUNNELS, spare_pairs=0, servers=()):
        super().__init__(ports, servers)
        self._tunnels = tunnels
        self._range = f"{first_port}-{first_port + 2 * (tunnels + spare_pairs) - 1}"

    @classmethod
    def why_missing(cls):
        return None

    def arguments(self, folder):
        return [os.environ["TRISTERO_TUNNELD"], "--listen", f"127.0.0.1:{self.port}",
                "--ports", self._range, "--max-tunnels", str(self._tunnels),
                "--log-level", "warning"]

    def listens_at(self):
        return [self.port]

    def path(self):
        with xmlrpc.client.ServerProxy(f"http://127.0.0.1:{self.port}/RPC2") as proxy:
            server = proxy.Tunnel.openTunnel()
            client = proxy.Tunnel.getTunnelAddress(server)
        return "attach:" + server.rpartition(":")[2], client.rpartition(":")[2]

    @property
    def pid(self):
        return self._running[0].pid


class HAProxy(Peer):
    """Splicing asked for both ways, by pipes of 1 MiB: the best of what was tried
    for bulk. With splice-auto, 2.6 goes on copying here and needs twice the
    processor time; a second thread changes nothing for one connection."""

    name = "haproxy"
    program = package = "haproxy"

    def arguments(self, folder):
        config = write(os.path.join(folder, "haproxy.cfg"), f"""
global
    maxconn 1000
    nbthread 1
    tune.pipesize 1048576
defaults
    mode tcp
    option splice-request
    option splice-response
    timeout connect 10s
    timeout client 1h
    timeout server 1h
{"".join(self._listen(server, port) for server, port in self.fronts.items())}
""")
        return [installed("haproxy"), "-db", "-f", config]

    @staticmethod
    def _listen(server, port):
        return f"""
listen to-{server}
    bind 127.0.0.1:{port}
    server bench 127.0.0.1:{server}
"""


def nginx_arguments(folder, connections, config):
    """Of one process, which ends when bench.py does, however that ends."""
    path = write(os.path.join(folder, "nginx.conf"), f"""{config}
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.error.log;
events {{ worker_connections {connections}; }}
""")
    return [installed("nginx"), "-p", folder, "-c", path, "-e", f"{folder}/nginx.error.log"]


class Nginx(Peer):
    """As it comes, with a buffer of 16 KiB for each direction: 64 KiB were slower.
    One process, which is all that one connection uses."""

    name = "nginx stream"
    program = "nginx"
    package = "libnginx-mod-stream"
    MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"

    @classmethod
    def why_missing(cls):
        return super().why_missing() or (None if os.path.exists(cls.MODULE) else
                                         f"Debian package {cls.package} is not installed")

    def arguments(self, folder):
        return nginx_arguments(folder, 1000, f"""
load_module {self.MODULE};
stream {{
    server {{
        listen 127.0.0.1:{self.port};
        proxy_pass 127.0.0.1:{self.server_port};
        proxy_timeout 1h;
    }}
}}
""")


class Socat(Peer):
    name = "socat"
    program = package = "socat"

    def arguments(self, _folder):
        return [installed("socat"), "-b", "65536",
                f"TCP4-LISTEN:{self.port},bind=127.0.0.1,fork,reuseaddr,nodelay",
                f"TCP4:127.0.0.1:{self.server_port},nodelay"]


def ssh_command(port, forwards, *options):
    """A client that attaches by ssh; the same for all, but for the key, if it needs one."""
    arguments = [installed("ssh"), "-N", "-F", "none", "-p", str(port),
                 "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes",
                 "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                 "-o", "ExitOnForwardFailure=yes", *options]
    for forward in forwards:
        arguments += ["-R", forward]
    return [*arguments, "127.0.0.1"]


class Sshd(Peer):
    """OpenSSH's own server, whose users may have ports forwarded. Started by root, it
    lets in nobody, whose connections are two processes each, as any user's are but root's."""

    name = "sshd"
    program = "sshd"
    package = "openssh-server"
    SEPARATION = "/run/sshd"            # where sshd of root insists on locking itself up

    @classmethod
    def why_missing(cls):
        return super().why_missing() or (None if installed("ssh") else
                                         "Debian package openssh-client is not installed")

    def __init__(self, ports, servers=()):
        super().__init__(ports, servers)
        self.ssh_port = ports.take()
        self.ssh_options = []
        self._made_separation = False

    def start(self, folder):
        keys = {name: os.path.join(folder, name) for name in ("host_key", "user_key")}
        for key in keys.values():
            subprocess.run([installed("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key],
                           check=True, stdin=subprocess.DEVNULL)
        is_root = os.geteuid() == 0
        self.ssh_options = ["-i", keys["user_key"],
                            "-l", "nobody" if is_root else getpass.getuser()]
        if is_root and not os.path.isdir(self.SEPARATION):
            os.mkdir(self.SEPARATION, 0o755)
            self._made_separation = True
        config = write(os.path.join(folder, "sshd_config"), f"""
ListenAddress 127.0.0.1:{self.ssh_port}
AddressFamily inet
HostKey {keys["host_key"]}
AuthorizedKeysFile none
AuthorizedKeysCommand {os.path.realpath(installed("cat"))} {keys["user_key"]}.pub
AuthorizedKeysCommandUser {getpass.getuser()}
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
AllowTcpForwarding yes
""")
        self.run([installed("sshd"), "-D", "-e", "-f", config], folder)
        self.wait_for(self.ssh_port)

    def stop(self):
        super().stop()
        if self._made_separation:
            os.rmdir(self.SEPARATION)
            self._made_separation = False


class OpenSSH(Sshd):
    """ssh -R, with the cipher that both prefer: the proxy is sshd, and ssh the one
    who attaches. The processor time of both counts, since bytes go through both."""

    name = "OpenSSH -R"

    def start(self, folder):
        super().start(folder)
        forwards = [f"127.0.0.1:{port}:127.0.0.1:{server}" for server, port in self.fronts.items()]
        self.run(ssh_command(self.carrier_port(folder), forwards, *self.ssh_options,
                             "-o", "LogLevel=ERROR"), folder)
        for port in self.listens_at():
            self.wait_for(port)

    def carrier_port(self, _folder):
        """Where ssh reaches sshd."""
        return self.ssh_port


ALL = (Daemon, Direct, PlainRelay, HAProxy, Nginx, Socat, OpenSSH)
