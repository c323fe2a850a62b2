#!/usr/bin/python3 -B
"""soak: random lives of tunnels for some minutes, and nothing left of them in the end.

    SOAK_MINUTES    how long; a third of a minute by default
    SOAK_SEED       of what the lives are; a random one by default, which is printed
    SOAK_WORKERS    how many lives at once

Some workers open tunnels and play lives of the kinds in KINDS below: all sizes,
either order of coming, half closes, resets, slow readers, peers that are frozen,
thawed and killed, ends that never come, strangers, bad and slow calls, while the
main thread has the configuration read again. Each byte is compared with what it
must be, and each end with what it must look like. At the end the daemon must be
what it was after a short warm-up. The first failure ends the soak.

The seed decides what each worker plays; how the workers' lives fall together is up
to the machine."""

import collections
import contextlib
import os
import random
import re
import signal
import socket
import sys
import threading
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import harness                  # noqa: E402
from harness import Daemon, Pattern, Peer, Tunnel, connect, reset, wait_until      # noqa: E402

MINUTES = float(os.environ.get("SOAK_MINUTES") or 1 / 3)
SEED = int(os.environ.get("SOAK_SEED") or random.randrange(1 << 32))
WORKERS = int(os.environ.get("SOAK_WORKERS") or 8)
WARM_UP_SHARE = 0.25            # of the time, and at most a minute
WARM_UP_MOST_S = 60
LARGEST = 32 << 20
LINGER_S = 4
ATTACH_TIMEOUT_S = 5
PAIRS = 3 * WORKERS + 8         # a life takes one; those before it may be ending still
GROWTH_KIB = 1024           # may stay of the lives after the warm-up

# Whatever else stands in the log, of at least a warning's gravity, is a failure.
EXPECTED_LOG = re.compile(r"\S+ warning tunnel \d+ turned away "
                          r"(\(hidden\), which did not open it|\d+ strangers in all)")


class Wrong(AssertionError):
    """Something that the proxy must not do."""


def some_size(chance, largest=LARGEST):
    """As many small as large ones, and nothing at all now and then."""
    return 0 if chance.random() < 0.1 else int(2 ** chance.uniform(0, largest.bit_length() - 1))


# --- ends of a tunnel ------------------------------------------------------

class End:
    """One end of a tunnel in this process: sends one pattern and checks another."""

    def __init__(self, connection, chance, sends, gets):
        self.connection = connection
        self.chance = random.Random(chance.random())
        self.sends, self.gets = Pattern(sends), Pattern(gets)
        self.largest_piece = self.chance.choice((1, 2, 8, 64, 256)) * 4096

    def send(self, count):
        while count:
            piece = self.sends.take(min(count, self.largest_piece))
            self.connection.sendall(piece)
            count -= len(piece)

    def finish(self):
        self.connection.shutdown(socket.SHUT_WR)

    def receive(self, count=None, pause_s=0.0):
        """count bytes, or all until the end; how many came."""
        got = 0
        while count is None or got < count:
            if pause_s:
                time.sleep(self.chance.random() * pause_s)
            room = self.largest_piece if count is None else min(self.largest_piece, count - got)
            piece = self.connection.recv(room)
            if not piece:
                break
            self.gets.check(piece)
            got += len(piece)
        return got

    def receive_exactly(self, count, pause_s=0.0):
        got = self.receive(count, pause_s)
        if got != count:
            raise Wrong(f"the stream ended after {got} of {count} bytes")

    def expect_end(self):
        if rest := self.connection.recv(1):
            raise Wrong(f"{rest!r} after all that was sent")

    def expect_reset(self):
        """Whatever came before it was right; an end would be a lie."""
        with contextlib.suppress(ConnectionResetError):
            self.receive()
            raise Wrong("a proper end where a reset was due")

    def close(self):
        self.connection.close()


class Life:
    """A tunnel, its ends and what one life does with them."""

    def __init__(self, daemon, chance, tally):
        self.daemon, self.chance, self.tally = daemon, chance, tally
        self.seeds = [chance.randrange(1 << 32) for _ in range(2)]
        self._left = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._left.close()

    def open(self):
        tunnel = Tunnel(self.daemon)
        self._left.callback(tunnel.end)
        return tunnel

    def buffers(self):
        """Small ones make the proxy wait for this end."""
        return {"receive_buffer": 16384, "send_buffer": 16384} if self.chance.random() < 0.3 else {}

    def server(self, tunnel):
        return End(tunnel.attach(**self.buffers()), self.chance, *self.seeds)

    def client(self, tunnel):
        return End(tunnel.connect(**self.buffers()), self.chance, *reversed(self.seeds))

    def both(self):
        """In either order, perhaps with bytes that come before the other end does."""
        tunnel = self.open()
        if self.chance.random() < 0.5:
            server = self.server(tunnel)
            client = self.client(tunnel)
        else:
            client = self.client(tunnel)
            server = self.server(tunnel)
        return server, client

    def beside(self, function, *arguments):
        return harness.in_thread(function, *arguments)

    def count_bytes(self, count):
        self.tally.add_bytes(count)

    def peer(self, tunnel, role):
        address = tunnel.server_address if role == "server" else tunnel.client_address
        peer = Peer(address, self.chance.choice((0, 16384)))
        self._left.callback(peer.clean_up)
        tunnel._attached = tunnel._attached or role == "server"
        return peer


# --- kinds of lives --------------------------------------------------------

def whole(life):
    """Both send all they have and finish, both at once."""
    ends = life.both()
    sizes = [some_size(life.chance) for _ in ends]
    pause_s = 0.002 if life.chance.random() < 0.3 else 0

    def send_all(end, size):
        end.send(size)
        end.finish()

    sending = [life.beside(send_all, end, size) for end, size in zip(ends, sizes)]

    def receive_all(end, size):
        end.receive_exactly(size, pause_s if size < 1 << 20 else 0)
        end.expect_end()

    receiving = [life.beside(receive_all, end, size) for end, size in zip(ends, reversed(sizes))]
    for each in sending + receiving:
        each.result()
    life.count_bytes(sum(sizes))


def question_and_answer(life):
    """The client finishes, the server reads to the end, answers and closes."""
    server, client = life.both()
    sizes = some_size(life.chance), some_size(life.chance)
    asking = life.beside(lambda: (client.send(sizes[0]), client.finish()))
    server.receive_exactly(sizes[0])
    server.expect_end()
    asking.result()
    answering = life.beside(lambda: (server.send(sizes[1]), server.close()))
    client.receive_exactly(sizes[1])
    client.expect_end()
    answering.result()
    client.close()
    life.count_bytes(sum(sizes))


def early_bytes(life):
    """Whoever comes first says all before the other one is there."""
    tunnel = life.open()
    comes = [life.server, life.client]
    life.chance.shuffle(comes)
    size = some_size(life.chance, 1 << 20)
    first = comes[0](tunnel)
    saying = life.beside(lambda: (first.send(size), first.finish()))
    time.sleep(life.chance.random() * 0.3)
    second = comes[1](tunnel)
    second.receive_exactly(size)
    second.expect_end()
    saying.result()
    second.send(1000)
    second.close()
    first.receive_exactly(1000)
    first.expect_end()
    life.count_bytes(size + 1000)


def small_talk(life):
    """Questions and answers in turn."""
    server, client = life.both()
    for _ in range(life.chance.randrange(1, 200)):
        size = some_size(life.chance, 16384) + 1
        for one, other in ((client, server), (server, client)):
            one.send(size)
            other.receive_exactly(size)
        life.count_bytes(2 * size)
    for one, other in ((client, server), (server, client)):
        one.finish()
        other.expect_end()


def slow_reader(life):
    """Takes longer than the linger time for what the other has sent and finished."""
    one, other = life.chance.sample(life.both(), 2)
    size = life.chance.randrange(1 << 19, 1 << 21)      # less is soon in the reader's system
    sending = life.beside(lambda: (one.send(size), one.finish()))
    time.sleep(life.chance.choice((0.1, 1.5 * LINGER_S)))
    other.receive_exactly(size)
    other.expect_end()
    sending.result()
    other.close()
    one.expect_end()
    life.count_bytes(size)


def broken_off(life):
    """One is reset in the middle, and for the other it must not look complete."""
    one, other = life.chance.sample(life.both(), 2)
    size = some_size(life.chance)
    breaks_after = life.chance.randrange(size + 1)

    def send_and_break():
        one.send(breaks_after)
        reset(one.connection)

    if life.chance.random() < 0.5:
        sending = life.beside(send_and_break)
        other.expect_reset()
        sending.result()
    else:           # the one who breaks off is the reader
        sending = life.beside(harness.send_until_error, other.connection)
        time.sleep(life.chance.random() * 0.3)
        reset(one.connection)
        if not isinstance(sending.result(), ConnectionError):
            raise Wrong("a writer noticed nothing of its reader's reset")
    life.count_bytes(other.gets.position)


def frozen(life):
    """A process at one end is frozen and thawed in the middle, both ways at once."""
    tunnel = life.open()
    role = life.chance.choice(("server", "client"))
    peer = life.peer(tunnel, role)
    other = (life.client if role == "server" else life.server)(tunnel)
    sizes = some_size(life.chance, LARGEST // 4), some_size(life.chance, LARGEST // 4)
    to_peer, from_peer = (life.seeds if role == "client" else reversed(life.seeds))
    peer.tell("send", from_peer, sizes[0])
    peer.tell("finish")
    peer.tell("receive", to_peer, sizes[1])
    peer.tell("end")
    sending = life.beside(lambda: (other.send(sizes[1]), other.finish()))
    receiving = life.beside(lambda: (other.receive_exactly(sizes[0]), other.expect_end()))
    for _ in range(life.chance.randrange(1, 4)):
        time.sleep(life.chance.random() * 0.1)
        peer.freeze()
        # not for the linger time, which silence must not reach
        time.sleep(life.chance.random() * LINGER_S / 4)
        peer.thaw()
    sending.result()
    receiving.result()
    peer.expect("sent", "finished", "received", "end")
    life.count_bytes(sum(sizes))


def killed(life):
    """A process at one end is killed in the middle, frozen or not. Its system ends
    or resets what it held, so the other sees either; what came was right."""
    tunnel = life.open()
    role = life.chance.choice(("server", "client"))
    peer = life.peer(tunnel, role)
    other = (life.client if role == "server" else life.server)(tunnel)
    to_peer, from_peer = (life.seeds if role == "client" else reversed(life.seeds))
    peer.tell("send", from_peer, LARGEST)
    peer.tell("receive", to_peer, LARGEST)

    def talk(talk_on):
        with contextlib.suppress(ConnectionError):
            talk_on()

    talking = [life.beside(talk, lambda: other.send(LARGEST)), life.beside(talk, other.receive)]
    time.sleep(life.chance.random() * 0.2)
    if life.chance.random() < 0.5:
        peer.freeze()
        time.sleep(life.chance.random() * 0.2)
    peer.kill()
    for each in talking:
        each.result()
    life.count_bytes(other.gets.position)


def no_server(life):
    """A client waits, and is told by a reset."""
    tunnel = life.open()
    client = life.client(tunnel)
    client.send(some_size(life.chance, 65536))
    client.expect_reset()


def no_client(life):
    """The server goes when nobody comes, by an end or a reset."""
    tunnel = life.open()
    server = life.server(tunnel)
    server.send(some_size(life.chance, 65536))
    time.sleep(life.chance.random() * 0.2)
    if life.chance.random() < 0.5:
        reset(server.connection)
    else:
        server.finish()
        server.expect_reset()       # after the linger time


def nobody(life):
    """Neither ever comes."""
    tunnel = life.open()
    wait_until(lambda: harness.is_refused(tunnel.server_address), "an unused tunnel closes")


def left_hanging(life):
    """One finishes, the other falls silent: both are reset after the linger time."""
    one, other = life.chance.sample(life.both(), 2)
    size = some_size(life.chance, 65536)
    one.send(size)
    one.finish()
    other.receive_exactly(size)
    other.expect_end()
    one.expect_reset()


def strangers(life):
    """They knock at the server port, get nothing, and change nothing."""
    tunnel = life.open()
    for _ in range(life.chance.randrange(1, 6)):
        source = f"127.0.0.{life.chance.randrange(2, 250)}"
        with contextlib.suppress(ConnectionError), connect(tunnel.server_address, source) as stranger:
            stranger.sendall(life.chance.randbytes(life.chance.randrange(1, 1000)))
            if stranger.recv(1):
                raise Wrong("a stranger was told something")
            raise Wrong("a stranger was not reset")
    server, client = life.server(tunnel), life.client(tunnel)
    client.send(1000)
    server.receive_exactly(1000)
    server.close()
    client.expect_end()


def bad_calls(life):
    """Garbage, halves of requests, wrong methods and parameters; then a good one."""
    chance = life.chance
    good = (b"POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: 9\r\n\r\n"
            b"<nothing>")
    for _ in range(chance.randrange(1, 8)):
        request = bytearray(good if chance.random() < 0.7 else chance.randbytes(300))
        for _ in range(chance.randrange(3)):
            request[chance.randrange(len(request))] = chance.randrange(256)
        with connect((life.daemon.host, life.daemon.port)) as caller, \
                contextlib.suppress(ConnectionError):
            for start in range(0, len(request), 50):
                caller.sendall(request[start:start + 50])
                time.sleep(chance.random() * 0.01)
            if chance.random() < 0.5:
                caller.shutdown(socket.SHUT_WR)
                answer = harness.receive_until_end(caller)
                if answer and not answer.startswith(b"HTTP/1."):
                    raise Wrong(f"{bytes(request)!r} was answered by {answer!r}")
    with harness.rpc(life.daemon.url) as proxy:
        for call in (lambda: proxy.Tunnel.getTunnelAddress("tcp://127.0.0.1:9"),
                     lambda: proxy.Tunnel.openTunnel("smoke signals"),
                     lambda: proxy.Tunnel.openTunnel(1), lambda: proxy.no.such.method()):
            harness.fault_of(call)


# A kind, and how often it is played for each time the rarest one is.
KINDS = {whole: 6, question_and_answer: 6, early_bytes: 4, small_talk: 4, slow_reader: 2,
         broken_off: 6, frozen: 2, killed: 2, no_server: 1, no_client: 2, nobody: 1,
         left_hanging: 1, strangers: 3, bad_calls: 3}


# --- the soak --------------------------------------------------------------

class Tally:
    """What happened; shared by the workers."""

    def __init__(self):
        self._lock = threading.Lock()
        self.lives = collections.Counter()
        self.bytes = 0
        self.failures = []

    def add_bytes(self, count):
        with self._lock:
            self.bytes += count

    def add_life(self, kind):
        with self._lock:
            self.lives[kind.__name__] += 1

    def add_failure(self, text):
        with self._lock:
            self.failures.append(text)


def play(daemon, number, until, tally):
    chance = random.Random(f"{SEED} {number}")
    kinds, weights = zip(*KINDS.items())
    while time.monotonic() < until and not tally.failures:
        kind = chance.choices(kinds, weights)[0]
        life_seed = chance.randrange(1 << 32)
        try:
            with Life(daemon, random.Random(life_seed), tally) as life:
                kind(life)
        except BaseException:       # told by the main thread, which ends the soak
            tally.add_failure(f"worker {number}, {kind.__name__}: {traceback.format_exc()}")
            return
        tally.add_life(kind)


def memory_kib(daemon):
    """But for what files hold, of which others have their share, or not any more."""
    with open(f"/proc/{daemon.pid}/smaps_rollup", encoding="ascii") as rollup:
        return int(re.search(r"\nPss_Anon:\s+(\d+)", rollup.read())[1])


def is_sanitized():
    """Sanitizers keep memory for reasons of their own."""
    with open(harness.TUNNELD, "rb") as program:
        text = program.read()
    return b"__asan_init" in text or b"__tsan_init" in text


class Soak:
    def __init__(self):
        self.tally = Tally()
        self.peak = collections.Counter()
        self.daemon = Daemon("--drain", "2", "--linger", str(LINGER_S),
                             "--attach-timeout", str(ATTACH_TIMEOUT_S), "--log-level", "warning",
                             pairs=PAIRS)

    def run_workers(self, seconds, first):
        """Watches them, and has the configuration read again now and then."""
        until = time.monotonic() + seconds
        chance = random.Random(f"{SEED} {first} main")
        workers = [harness.in_thread(play, self.daemon, first + number, until, self.tally)
                   for number in range(WORKERS)]
        while any(worker.is_alive() for worker in workers):
            time.sleep(0.25)
            self.look()
            if chance.random() < 0.1:
                self.daemon.signal(signal.SIGHUP)
        for worker in workers:
            worker.result()
        if self.tally.failures:
            raise Wrong("\n".join(self.tally.failures) + f"\nthe log:\n{self.daemon.errors()[-4000:]}")
        self.daemon.expect_rest()

    def look(self):
        counts = self.daemon.counts()
        counts["memory"] = memory_kib(self.daemon)
        for what, count in counts.items():
            self.peak[what] = max(self.peak[what], count)

    def expect_all_pairs(self):
        """Each port pair is to be had again."""
        tunnels = [Tunnel(self.daemon) for _ in range(PAIRS)]
        with harness.rpc(self.daemon.url) as proxy:
            fault = harness.fault_of(proxy.Tunnel.openTunnel)
        if "no free port pair" not in fault.faultString:
            raise Wrong(fault.faultString)
        for tunnel in tunnels:
            tunnel.end()
        self.daemon.expect_rest()

    def expect_quiet_log(self):
        for line in self.daemon.errors().splitlines():
            if not EXPECTED_LOG.fullmatch(line):
                raise Wrong(f"unexpected in the log: {line}")

    def run(self):
        seconds = MINUTES * 60
        warm_up_s = min(WARM_UP_SHARE * seconds, WARM_UP_MOST_S)
        self.run_workers(warm_up_s, 0)
        before_kib = memory_kib(self.daemon)
        self.run_workers(seconds - warm_up_s, WORKERS)
        after_kib = memory_kib(self.daemon)
        self.summarize(before_kib, after_kib)
        if not is_sanitized() and after_kib > before_kib + GROWTH_KIB:
            raise Wrong(f"memory grew from {before_kib} to {after_kib} KiB")
        self.expect_all_pairs()
        self.expect_quiet_log()
        self.daemon.stop()

    def summarize(self, before_kib, after_kib):
        print(f"{sum(self.tally.lives.values())} lives, {self.tally.bytes >> 20} MiB of them whole or "
              "as far as they came:")
        for kind, count in sorted(self.tally.lives.items()):
            print(f"  {count:7} {kind.replace('_', ' ')}")
        peak, start = self.peak, self.daemon.start_counts
        print(f"tunnels at once: at most {peak['threads'] - start['threads']}")
        print(f"descriptors: {start['descriptors']} at rest, at most {peak['descriptors']}")
        print(f"memory (Pss_Anon): {before_kib} KiB after the warm-up, at most {peak['memory']}, "
              f"{after_kib} at the end", flush=True)


def main():
    print(f"soak of {MINUTES:.3g} minutes, {WORKERS} lives at once, SOAK_SEED={SEED}", flush=True)
    soak = Soak()
    try:
        soak.run()
    except BaseException:
        print(f"FAIL soak, SOAK_SEED={SEED}", flush=True)
        raise
    finally:
        soak.daemon.clean_up()
    print("PASS soak")


if __name__ == "__main__":
    main()
