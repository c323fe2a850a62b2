"""carrying: what is measured of relays that carry many streams, the same for each of them.

What is measured is a route: its name; port_for(server), where clients of that server
connect; pids(), the processes whose time counts; measure(what), what a measure of it is
called in the table; http_options, with which wrk asks there; and stop()."""

import os
import random
import re

import peers
from processes import Failure, Program, cpu_s
from report import DAEMON, say

STREAMS = 100                   # at once
HTTP_CONNECTIONS = 100
HTTP_LIMIT_S = 30               # an answer that is later has failed
PAGE_BYTES = 1400


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


class Carrying:
    """Measures routes, by the sizes and programs of a bench.Bench, for its results.
    Has an HTTP server, if there can be one, until it is stopped."""

    def __init__(self, bench, ports, folder):
        self._bench, self._sizes, self._results = bench, bench.sizes, bench.results
        self._folder = folder
        self.server_port = ports.take()
        self._http = None
        missing = {kind.name: kind.why_missing() for kind in (HttpServer, Wrk)}
        for name, reason in missing.items():
            if reason:
                self._results.miss(name, reason)
        if not any(missing.values()):
            self._http = bench.start(HttpServer(ports))

    def stop(self):
        if self._http:
            self._http.stop()

    def servers(self):
        """Ports of the servers that a route has to lead to."""
        return [self.server_port, *([self._http.port] if self._http else [])]

    def compare(self, routes, measures):
        """One turn of each. Those that fail are out, unless it is the daemon's."""
        random.shuffle(routes)
        for measure in measures:
            for route in list(routes):
                try:
                    measure(route)
                except (Failure, OSError) as failure:
                    if route.name == DAEMON:
                        raise
                    routes.remove(route)
                    route.stop()
                    self._results.miss(route.measure(route.name), f"failed: {failure}")

    def measures(self):
        """Of bytes, then of requests."""
        return [self.down, self.up, self.many, self.pingpong, *self.http_measures()]

    def http_measures(self):
        return [self.http, self.http_close] if self._http else []

    def add(self, measure, route, value):
        self._results.add(route.measure(measure), route.name, value)

    def move(self, route, streams, mib, way):
        """Bytes a second, and the processor time for each byte."""
        with self._bench.program("streams", self.server_port, route.port_for(self.server_port),
                                 streams, mib, way) as program:
            program.stage("ready")
            pids = route.pids()
            before_s = cpu_s(pids)
            program.go_on()
            moved = program.stage("moved")
            used_s = cpu_s(pids) - before_s
            program.finish()
        return moved["bytes"] / (moved["ns"] / 1e9), used_s / moved["bytes"]

    def _move(self, route, measure, streams, way):
        rate, used = self.move(route, streams, self._sizes.carry_mib, way)
        self.add(measure, route, rate / 2**20)
        if route.pids():
            self.add(f"cpu {measure}", route, used * 2**30)

    def down(self, route):
        self._move(route, "down", 1, "down")

    def up(self, route):
        self._move(route, "up", 1, "up")

    def many(self, route):
        self._move(route, "many", STREAMS, "down")

    def pingpong(self, route):
        with self._bench.program("pingpong", f"listen:{self.server_port}",
                                 route.port_for(self.server_port), self._sizes.trips) as pingpong:
            times = pingpong.stage("done")
            pingpong.finish()
        self.add("p50", route, times["p50_ns"] / 1e3)

    def http(self, route):
        self._requests(route, "http")

    def http_close(self, route):
        self._requests(route, "http close", "-H", "Connection: close")

    def _requests(self, route, measure, *options):
        pids = route.pids()
        before_s = cpu_s(pids)
        with Program([peers.installed("wrk"), "-t", "1", "-c", str(HTTP_CONNECTIONS),
                      "-d", f"{self._sizes.http_seconds}s",
                      "--timeout", f"{HTTP_LIMIT_S}s", *options, *route.http_options,
                      f"http://127.0.0.1:{route.port_for(self._http.port)}/page"],
                     self._folder) as wrk:
            told = wrk.whole_output()
        used_s = cpu_s(pids) - before_s
        rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
        count = re.search(r"(\d+) requests in", told)
        if not rate or not count or int(count[1]) == 0:
            raise Failure(f"wrk, {route.name}: {told.strip()}")
        self.add(measure, route, float(rate[1]))
        if pids:
            self.add(f"cpu {measure}", route, used_s / int(count[1]) * 1e6)
        errors, failed = failures(told)
        if errors:
            say(f"wrk, {route.measure(route.name)}: {errors}")
        self.add(f"{measure} failed", route, failed)
