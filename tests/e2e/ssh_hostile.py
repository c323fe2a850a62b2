#!/usr/bin/python3 -B
"""ssh_hostile: ssh clients that are let in, and then do what no ssh client does.

    ssh_hostile.py HOST PORT LOGIN FINGERPRINT SOURCE KEY-FILE WHAT ARGUMENT...

As ssh_peer. Each ends by itself, or by the end of its standard input, and ends well
also when it was thrown out: what counts is how the proxy fares. Says "allocated
PORT" for its addresses, and "done" when it has done its worst.
"""

import contextlib
import itertools
import os
import random
import struct
import sys
import threading
import time

import paramiko
from paramiko.common import (MSG_CHANNEL_CLOSE, MSG_CHANNEL_DATA, MSG_CHANNEL_EOF, MSG_CHANNEL_OPEN,
                             MSG_CHANNEL_OPEN_FAILURE, MSG_CHANNEL_OPEN_SUCCESS, MSG_CHANNEL_REQUEST,
                             MSG_CHANNEL_WINDOW_ADJUST, MSG_GLOBAL_REQUEST, MSG_REQUEST_FAILURE,
                             MSG_REQUEST_SUCCESS)

import ssh_peer
from ssh_peer import say

IGNORE, KEXINIT, EXTENDED_DATA = 2, 20, 95
CHANNEL_SUCCESS, CHANNEL_FAILURE = 99, 100
LAST = 0xffffffff
THROWN_OUT = (paramiko.SSHException, EOFError, OSError)


def _message(number, *fields):
    """Numbers as uint32, bytes as strings, bools as they are; raw text in a tuple."""
    message = paramiko.Message()
    message.add_byte(bytes([number]))
    for field in fields:
        if isinstance(field, bool):
            message.add_boolean(field)
        elif isinstance(field, int):
            message.add_int(field)
        elif isinstance(field, tuple):
            message.packet.write(field[0])
        else:
            message.add_string(field)
    return message


def _send(transport, number, *fields):
    transport._send_message(_message(number, *fields))


def _global(transport, name, want_reply, *fields):
    _send(transport, MSG_GLOBAL_REQUEST, name, want_reply, *fields)


def _address(transport, on_channel=None):
    """An address, whose channels go to on_channel, or are kept and let be."""
    kept = []
    port = transport.request_port_forward(
        "", 0, lambda channel, *_: (on_channel or kept.append)(channel))
    transport.kept = kept       # or they were closed
    say("allocated", port)
    return port


def _first_channel(transport):
    arrived = []
    there = threading.Event()

    def comes(channel):
        arrived.append(channel)
        there.set()
    _address(transport, comes)
    if not there.wait(ssh_peer.WAIT_S):
        raise AssertionError("no client came")
    transport.kept_too = arrived
    return arrived[0]


def _until_closed():
    """The test closes standard input when it has seen enough."""
    say("done")
    sys.stdin.read()


def _deafen(transport):
    """Nothing is read from the connection any more."""
    transport.packetizer.read_message = lambda: threading.Event().wait()


def _heedless(table, *numbers):
    """Of messages of these numbers nothing is made any more."""
    return {number: (lambda *_: None) if number in numbers else handler for number, handler in table.items()}


class _Deadline(threading.Thread):
    """For those that block in sending, as they must: ends the process well."""

    def __init__(self, seconds):
        super().__init__(daemon=True)
        self.seconds = seconds
        self.start()

    def run(self):
        time.sleep(self.seconds)
        say("done")
        sys.stdin.read()
        os._exit(0)


# --- requests --------------------------------------------------------------

def unknown_requests(transport, count):
    """Each gets a failure, in order, and nothing else happens."""
    answers = [transport.global_request(name, ("x" * 100, 7), wait=True)
               for number in range(int(count))
               for name in ("nonsense@example.org", "", "tcpip-forward2", "hostkeys-prove-00@openssh.com",
                            "streamlocal-forward@openssh.com")]
    say("granted" if any(answer is not None for answer in answers) else "refused")
    _address(transport)
    _until_closed()


def cancels(transport, port):
    """Of what was never granted to it, then of what was, twice."""
    def cancel(address, number):
        answer = transport.global_request("cancel-tcpip-forward", (address, number), wait=True)
        say("refused" if answer is None else "granted")

    for address, number in (("", 0), ("", 1), ("", int(port)), ("127.0.0.1", int(port)), ("", LAST),
                            ("x" * 30000, int(port))):
        cancel(address, number)
    own = _address(transport)
    cancel("", own)
    cancel("", own)
    _until_closed()


def forwards_without_end(transport, count):
    """Asks for more and more; says how many it got."""
    granted = 0
    for _ in range(int(count)):
        answer = transport.global_request("tcpip-forward", ("", 0), wait=True)
        granted += answer is not None
    say("granted", granted)
    _until_closed()


def the_same_forward_twice(transport):
    port = _address(transport)
    for address in ("", "127.0.0.1", "localhost"):
        answer = transport.global_request("tcpip-forward", (address, port), wait=True)
        say("refused" if answer is None else "granted")
    _until_closed()


def forwards_that_come_and_go(transport, count):
    for _ in range(int(count)):
        port = transport.request_port_forward("", 0, lambda *_: None)
        transport.cancel_port_forward("", port)
    _address(transport)
    _until_closed()


def strange_requests(transport):
    """Of forwards: with ports, addresses and lengths that make no sense."""
    for fields in ((), (b"",), (b"", LAST), (b"", 65536), (b"\0", 0), (b"x" * 40000, 0), (b"\xff" * 300, 22),
                   (b"%s%n", 0), ((struct.pack(">I", LAST),),), ((struct.pack(">I", 20) + b"short",),),
                   (b"", 22), (b"", 1), (b"localhost\0", 0), (b"127.0.0.1 ", 0)):
        for name in (b"tcpip-forward", b"cancel-tcpip-forward"):
            with contextlib.suppress(*THROWN_OUT):
                _global(transport, name, random.random() < 0.5, *fields)
    _until_closed()


def requests_unread(transport):
    """Asks and asks, and takes no answer."""
    _deafen(transport)
    _Deadline(4)
    with contextlib.suppress(*THROWN_OUT):
        while True:
            _global(transport, b"nonsense@example.org", True, b"x" * 1000)
    _until_closed()


def pings_unread(transport):
    """The same with what libraries answer by themselves: unimplemented numbers."""
    _deafen(transport)
    _Deadline(4)
    with contextlib.suppress(*THROWN_OUT):
        while True:
            _send(transport, 191, b"x" * 1000)
    _until_closed()


def opens_unread(transport):
    _deafen(transport)
    _Deadline(4)
    with contextlib.suppress(*THROWN_OUT):
        for number in range(1 << 24):
            _send(transport, MSG_CHANNEL_OPEN, b"direct-tcpip", number, 1 << 20, 1 << 15, b"127.0.0.1", 22,
                  b"x" * 1000, 1)
    _until_closed()


def forwards_unread(transport):
    _deafen(transport)
    _Deadline(4)
    with contextlib.suppress(*THROWN_OUT):
        while True:
            _global(transport, b"tcpip-forward", True, b"x" * 1000, 0)
    _until_closed()


# --- channels --------------------------------------------------------------

def sessions_without_end(transport, count):
    """Says how many it could open at once."""
    opened = []
    with contextlib.suppress(*THROWN_OUT):
        for _ in range(int(count)):
            with contextlib.suppress(paramiko.ChannelException):
                opened.append(transport.open_session(timeout=ssh_peer.WAIT_S))
    say("granted", len(opened))
    _until_closed()


def opens_at_once(transport, count):
    """Sessions, unasked forwards and nonsense, without waiting for an answer."""
    kinds = (b"session", b"forwarded-tcpip", b"direct-tcpip", b"x11", b"auth-agent@openssh.com", b"tun@openssh.com",
             b"", b"direct-streamlocal@openssh.com", b"x" * 1000)
    with contextlib.suppress(*THROWN_OUT):
        for number in range(int(count)):
            kind = kinds[number % len(kinds)]
            _send(transport, MSG_CHANNEL_OPEN, kind, number, random.choice((0, 1, 1 << 20, LAST)),
                  random.choice((0, 1, 1 << 15, LAST)), b"127.0.0.1", 22, b"127.0.0.1", 12345)
    _until_closed()


def shells_without_end(transport, count):
    """One session after the other, each with a terminal and a shell, closed or not."""
    for number in range(int(count)):
        with contextlib.suppress(paramiko.SSHException):
            session = transport.open_session(timeout=ssh_peer.WAIT_S)
            session.settimeout(ssh_peer.WAIT_S)
            session.get_pty()
            session.invoke_shell()
            if number % 2:
                session.close()
        if not transport.is_active():
            break
    _until_closed()


def a_shell_that_is_talked_to(transport, megabytes):
    """Types without end, in a session that nobody reads."""
    _address(transport)
    session = transport.open_session(timeout=ssh_peer.WAIT_S)
    session.settimeout(5)
    session.get_pty(width=LAST, height=LAST, term="x" * 10000)
    session.invoke_shell()
    with contextlib.suppress(*THROWN_OUT):
        for _ in range(int(megabytes) << 4):
            session.sendall(b"y" * 65536)
    _until_closed()


def window_is_ignored(transport, megabytes):
    """Sends a client that does not read far more than it may."""
    channel = _first_channel(transport)
    with contextlib.suppress(*THROWN_OUT):
        for _ in range(int(megabytes) << 5):
            _send(transport, MSG_CHANNEL_DATA, channel.remote_chanid, b"x" * 32768)
    say("sent" if transport.is_active() else "thrown out")
    _until_closed()


def windows_are_huge(transport):
    """Gives credit again and again, beyond what 32 bits hold; reads nothing of it."""
    channel = _first_channel(transport)
    with contextlib.suppress(*THROWN_OUT):
        for amount in (LAST, LAST, 1, 0, 1 << 31, 1 << 31) * 10:
            _send(transport, MSG_CHANNEL_WINDOW_ADJUST, channel.remote_chanid, amount)
    _deafen(transport)
    _until_closed()


def tiny_packets(transport, *sizes):
    """Answers opens with a window without end and a packet size of next to nothing,
    one of these after the other."""
    sizes = itertools.cycle(map(int, sizes))

    def parse_open(self, message):
        message.get_text()
        number = message.get_int()
        self._send_message(_message(MSG_CHANNEL_OPEN_SUCCESS, number, 0, LAST, next(sizes)))
    transport._handler_table = {**transport._handler_table, MSG_CHANNEL_OPEN: parse_open}
    _address(transport)
    _until_closed()


def a_session_of_tiny_packets(transport, size):
    """Has lines shown to it in packets of so many bytes."""
    number = []
    there = threading.Event()

    def parse_success(self, message):
        message.get_int()
        number.append(message.get_int())
        there.set()
    transport._handler_table = {**transport._handler_table, MSG_CHANNEL_OPEN_SUCCESS: parse_success}
    _address(transport)
    _send(transport, MSG_CHANNEL_OPEN, b"session", 7, LAST, int(size))
    if not there.wait(ssh_peer.WAIT_S):
        raise AssertionError("no session was opened")
    with contextlib.suppress(*THROWN_OUT):
        _send(transport, MSG_CHANNEL_REQUEST, number[0], b"shell", True)
    _until_closed()


def odd_orders(transport):
    """Ends, closes, data and answers where none is due, on a live channel and others."""
    channel = _first_channel(transport)
    number = channel.remote_chanid
    steps = [(MSG_CHANNEL_EOF, number), (MSG_CHANNEL_EOF, number), (MSG_CHANNEL_DATA, number, b"after the end"),
             (EXTENDED_DATA, number, 1, b"stderr"), (MSG_CHANNEL_WINDOW_ADJUST, number, 1000),
             (MSG_CHANNEL_OPEN_SUCCESS, number, 0, 1000, 1000), (MSG_CHANNEL_OPEN_FAILURE, number, 1, b"no", b""),
             (CHANNEL_SUCCESS, number), (CHANNEL_FAILURE, number), (MSG_REQUEST_SUCCESS,), (MSG_REQUEST_FAILURE,),
             (MSG_CHANNEL_REQUEST, number, b"exit-status", False, 7), (MSG_CHANNEL_REQUEST, number, b"shell", True),
             (MSG_CHANNEL_CLOSE, number), (MSG_CHANNEL_CLOSE, number), (MSG_CHANNEL_DATA, number, b"after the close"),
             (MSG_CHANNEL_EOF, number), (MSG_CHANNEL_WINDOW_ADJUST, number, LAST)]
    with contextlib.suppress(*THROWN_OUT):
        for step in steps:
            _send(transport, *step)
            time.sleep(0.02)
    _until_closed()


def channels_that_are_none(transport):
    """All that can be said of a channel, said of those that there are not."""
    with contextlib.suppress(*THROWN_OUT):
        for number in (0, 1, 77, 1 << 31, LAST):
            for step in ((MSG_CHANNEL_EOF,), (MSG_CHANNEL_DATA, b"x"), (EXTENDED_DATA, 1, b"x"),
                         (MSG_CHANNEL_WINDOW_ADJUST, 1), (MSG_CHANNEL_OPEN_SUCCESS, 0, 1000, 1000),
                         (MSG_CHANNEL_OPEN_FAILURE, 1, b"no", b""), (CHANNEL_SUCCESS,), (CHANNEL_FAILURE,),
                         (MSG_CHANNEL_REQUEST, b"shell", True), (MSG_CHANNEL_CLOSE,)):
                _send(transport, step[0], number, *step[1:])
    _until_closed()


def a_close_alone(transport):
    """Closes without an end, after bytes."""
    channel = _first_channel(transport)
    _send(transport, MSG_CHANNEL_DATA, channel.remote_chanid, b"half of it")
    _send(transport, MSG_CHANNEL_CLOSE, channel.remote_chanid)
    _until_closed()


def an_end_and_a_close(transport):
    """All that is right, without waiting for the client."""
    channel = _first_channel(transport)
    _send(transport, MSG_CHANNEL_DATA, channel.remote_chanid, b"all of it")
    _send(transport, MSG_CHANNEL_EOF, channel.remote_chanid)
    _send(transport, MSG_CHANNEL_CLOSE, channel.remote_chanid)
    _until_closed()


def closes_unanswered(transport):
    """Never answers that a channel was closed."""
    transport._channel_handler_table = _heedless(transport._channel_handler_table, MSG_CHANNEL_CLOSE)
    _address(transport)
    _until_closed()


def closes_unanswered_and_more_sent(transport, megabytes):
    """Goes on sending to its client when the proxy has closed that channel, says when
    that was, and has another address meanwhile."""
    closed = threading.Event()
    transport._channel_handler_table = {**transport._channel_handler_table,
                                        MSG_CHANNEL_CLOSE: lambda *_: closed.set()}
    channel = _first_channel(transport)
    if not closed.wait(ssh_peer.WAIT_S):
        raise AssertionError("the channel was not closed")
    say("closed")
    _address(transport)
    with contextlib.suppress(*THROWN_OUT):
        for _ in range(int(megabytes) << 5):
            _send(transport, MSG_CHANNEL_DATA, channel.remote_chanid, b"x" * 32768)
    say("sent" if transport.is_active() else "thrown out")
    _until_closed()


class _Late:
    """A channel whose close is noted and not answered, and what is said of it after that."""

    def __init__(self, transport):
        self._transport = transport
        self.closed = threading.Event()
        self._after = []
        self._table = transport._channel_handler_table
        transport._channel_handler_table = {number: self._heard(number) for number in self._table}

    def _heard(self, number):
        def handle(channel, message):
            if self.closed.is_set():
                self._after.append(number)
            if number == MSG_CHANNEL_CLOSE:
                self.closed.set()
            else:
                self._table[number](channel, message)
        return handle

    def send(self, channel, count):
        """So many bytes more, or all that the window allows, once it is closed."""
        if not self.closed.wait(ssh_peer.WAIT_S):
            raise AssertionError("the channel was not closed")
        left = late = channel.out_window_size if count == "all" else int(count)
        while left:
            piece = min(left, 32768)
            _send(self._transport, MSG_CHANNEL_DATA, channel.remote_chanid, b"x" * piece)
            left -= piece
        say(late, "late bytes")
        self._transport.global_request("", wait=True)       # whatever follows has come now
        say("followed by", *self._after or ["nothing"])
        _send(self._transport, MSG_CHANNEL_CLOSE, channel.remote_chanid)
        self._transport.global_request("", wait=True)
        say("still there" if self._transport.is_active() else "gone")
        _until_closed()


def _hold_up_keys(transport):
    """Begins an exchange of keys, and hears nothing more until it is told to."""
    parse, held = transport._handler_table[KEXINIT], threading.Event()

    def hold_up(_self, message):
        held.set()
        sys.stdin.readline()
        parse(transport, message)
    transport._handler_table = {**transport._handler_table, KEXINIT: hold_up}
    transport._send_kex_init()
    if not held.wait(ssh_peer.WAIT_S):
        raise AssertionError("the proxy did not answer with its part")


def late_bytes(transport, early, late, how=None):
    """Sends its client so many bytes, says so, and sends more when the channel is closed:
    after an end of its own, or while keys are exchanged, if that is how."""
    after = _Late(transport)
    channel = _first_channel(transport)
    channel.settimeout(ssh_peer.WAIT_S)
    if int(early):
        channel.sendall(bytes(int(early)))
    if how == "end":
        channel.shutdown_write()
    if how == "amid-keys":
        _hold_up_keys(transport)
    say("sent")
    after.send(channel, late)


def late_bytes_in_a_late_channel(transport):
    """Opens the channel of its client only when it is told to, and sends all that it may."""
    after = _Late(transport)
    parse_open, asked = transport._handler_table[MSG_CHANNEL_OPEN], []
    arrived = threading.Event()

    def note(_self, message):
        asked.append(message)
        arrived.set()
    transport._handler_table = {**transport._handler_table, MSG_CHANNEL_OPEN: note}
    channels = []
    _address(transport, channels.append)
    if not arrived.wait(ssh_peer.WAIT_S):
        raise AssertionError("no client came")
    say("asked")
    sys.stdin.readline()
    parse_open(transport, asked[0])
    while not channels:
        time.sleep(0.01)
    after.send(channels[0], "all")


def bulk_and_closes_unanswered(transport):
    """Sends its client what a window takes, and does not answer when it is closed."""
    transport._channel_handler_table = _heedless(transport._channel_handler_table, MSG_CHANNEL_CLOSE)
    channel = _first_channel(transport)
    for _ in range(36):
        _send(transport, MSG_CHANNEL_DATA, channel.remote_chanid, b"x" * 32768)
    _until_closed()


def opens_unanswered(transport):
    """Never says whether it takes a client."""
    transport._handler_table = _heedless(transport._handler_table, MSG_CHANNEL_OPEN)
    _address(transport)
    _until_closed()


# --- messages --------------------------------------------------------------

def nonsense(transport, seed, count):
    """Messages of every number, with contents of chance."""
    chance = random.Random(int(seed))
    _address(transport)
    with contextlib.suppress(*THROWN_OUT):
        for _ in range(int(count)):
            number = chance.choice([*range(1, 8), *range(80, 83), *range(90, 101), chance.randrange(1, 256)])
            if number in (1, 20, 21, 30, 31):   # farewell, and new keys
                continue
            message = paramiko.Message()
            message.add_byte(bytes([number]))
            for _ in range(chance.randrange(6)):
                kind = chance.randrange(4)
                if kind == 0:
                    message.add_int(chance.choice((0, 1, 2, 1 << 15, 1 << 31, LAST)))
                elif kind == 1:
                    message.add_string(chance.choice((b"", b"tcpip-forward", b"session", b"shell", b"pty-req",
                                                      chance.randbytes(chance.randrange(2000)))))
                elif kind == 2:
                    message.add_boolean(chance.random() < 0.5)
                else:
                    message.packet.write(chance.randbytes(chance.randrange(20)))
            transport._send_message(message)
    _until_closed()


def key_exchanges_amiss(transport):
    """Begins new keys, and then talks of other things, or nonsense."""
    with contextlib.suppress(*THROWN_OUT):
        _send(transport, KEXINIT, (b"\0" * 16,), *[b""] * 10, False, 0)
        _send(transport, 30, b"\xff" * 40)
        _send(transport, 21)
    _until_closed()


def key_exchanges_without_end(transport, count):
    with contextlib.suppress(*THROWN_OUT):
        for _ in range(int(count)):
            transport.renegotiate_keys()
    _until_closed()


def a_key_exchange_begun(transport):
    """And never gone on with; meanwhile nothing may be sent to it."""
    _address(transport)
    transport._handler_table = _heedless(transport._handler_table, KEXINIT)
    with contextlib.suppress(*THROWN_OUT):
        transport._send_kex_init()
    _until_closed()


def a_key_exchange_drawn_out(transport):
    """Begins one when a client is there and does not go on with it, but is not silent."""
    transport._handler_table = _heedless(transport._handler_table, KEXINIT)
    _first_channel(transport)
    with contextlib.suppress(*THROWN_OUT):
        transport._send_kex_init()
        say("there")            # no earlier, or the client might fill the window before it
        while transport.is_active():
            _send(transport, IGNORE, b"still here")
            time.sleep(0.2)
    _until_closed()


def _until_asked_for_keys(transport):
    """Talks until the proxy wants new keys; it never gets an answer to that."""
    asked = threading.Event()
    transport._handler_table = {**transport._handler_table, KEXINIT: lambda *_: asked.set()}
    for _ in range(200):
        _send(transport, IGNORE, b"x" * 30000)
        if asked.wait(0.01):
            return
    if not asked.wait(ssh_peer.WAIT_S):
        raise AssertionError("the proxy did not ask for new keys")


def keys_unanswered_and_requests(transport, count):
    """Does not answer when it is asked for new keys, and asks much itself."""
    _address(transport)
    _until_asked_for_keys(transport)
    say("asked")
    with contextlib.suppress(*THROWN_OUT):
        for _ in range(int(count)):
            _global(transport, b"", True)
            if not transport.is_active():
                break
    _until_closed()


def keys_unanswered_and_unknown_numbers(transport):
    """The same, and has the proxy say all the while that it does not understand."""
    _first_channel(transport)
    _until_asked_for_keys(transport)
    say("asked")
    with contextlib.suppress(*THROWN_OUT):
        while transport.is_active():
            for _ in range(30):
                _send(transport, 191)
            time.sleep(0.04)
    _until_closed()


def logins_again(transport, login):
    """Asks to be let in again, as somebody else, when it is."""
    with contextlib.suppress(*THROWN_OUT):
        for _ in range(100):
            _send(transport, 50, login.encode(), b"ssh-connection", b"none")
        _send(transport, 5, b"ssh-userauth")
    _until_closed()


if __name__ == "__main__":
    try:
        ssh_peer.main(globals())
    except THROWN_OUT as error:
        print(f"thrown out: {type(error).__name__}: {error}", file=sys.stderr)
        say("done")
        sys.stdin.read()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(0)
