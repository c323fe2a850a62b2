#!/usr/bin/python3 -B
"""ssh_peer: an ssh client of paramiko, for tests to look through it.

    ssh_peer.py HOST PORT LOGIN FINGERPRINT SOURCE KEY-FILE WHAT ARGUMENT...

Connects from SOURCE, checks the host key's fingerprint, logs in (by the key of the
file, or by nothing if that is "-"), does WHAT, says so line by line, and goes on
until its standard input ends. What can be told is the functions below whose names
have no underscore.
"""

import base64
import hashlib
import os
import socket
import sys
import threading

import paramiko

WAIT_S = 30


def say(*words):
    os.write(sys.stdout.fileno(), " ".join(map(str, words)).encode() + b"\n")


def _log_in(host, port, login, fingerprint, source, key_file):
    connection = socket.create_connection((host, int(port)), WAIT_S, (source, 0) if source != "-" else None)
    transport = paramiko.Transport(connection)
    transport.start_client(timeout=WAIT_S)
    blob = transport.get_remote_server_key().asbytes()
    seen = "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    if seen != fingerprint:
        raise AssertionError(f"the host key is {seen}, not {fingerprint}")
    if key_file != "-":
        transport.auth_publickey(login, paramiko.Ed25519Key.from_private_key_file(key_file))
    else:
        transport.auth_none(login)
    return transport


def _until_told():
    """The lines of standard input, each as words."""
    for line in sys.stdin:
        yield line.split()


# --- carrying --------------------------------------------------------------

def _pump(channel, connection):
    """Both ways, each with its own end, and a reset as what it is."""
    def up():
        try:
            while piece := channel.recv(65536):
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            channel.close()

    upwards = threading.Thread(target=up, daemon=True)
    upwards.start()
    try:
        while piece := connection.recv(65536):
            channel.sendall(piece)
        channel.shutdown_write()
        upwards.join()
    except OSError:
        pass
    channel.close()
    connection.close()


class _Goals:
    """Where each port of the proxy leads. A client that has waited comes at once,
    before that is known here."""

    def __init__(self):
        self._ports = {}
        self._changed = threading.Condition()

    def set(self, allocated, port):
        with self._changed:
            self._ports[allocated] = port
            self._changed.notify_all()

    def get(self, allocated):
        with self._changed:
            if not self._changed.wait_for(lambda: allocated in self._ports, WAIT_S):
                raise AssertionError(f"port {allocated} leads nowhere")
            return self._ports[allocated]


def _lead(channel, goals, allocated):
    try:
        connection = socket.create_connection(("127.0.0.1", goals.get(allocated)))
    except OSError:
        channel.close()
        return
    _pump(channel, connection)


def _forward(transport, ports, tell_origin):
    goals = _Goals()

    def comes(channel, origin, server):
        if tell_origin:
            say("from", origin[0] or "-", origin[1], "at", server[0] or "-", server[1])
        threading.Thread(target=_lead, args=(channel, goals, server[1]), daemon=True).start()

    for port in ports:
        allocated = transport.request_port_forward("", 0, comes)
        goals.set(allocated, int(port))
        say("allocated", allocated)


def carry(transport, *ports):
    """Says "allocated PORT" for each; "rekey" makes new keys, "cancel PORT" gives one back."""
    _forward(transport, ports, False)
    for word, *arguments in _until_told():
        if word == "rekey":
            transport.renegotiate_keys()
            say("rekeyed")
        elif word == "cancel":
            # paramiko's own cancel_port_forward forgets what leads where, of all
            answer = transport.global_request("cancel-tcpip-forward", ("", int(arguments[0])), wait=True)
            say("refused" if answer is None else "cancelled")


def origins(transport, *ports):
    """The same, and says from where each client is said to come."""
    _forward(transport, ports, True)
    for _ in _until_told():
        pass


# --- single questions ------------------------------------------------------

def forward(transport, *binds):
    """For each "ADDRESS/PORT": granted PORT, or refused."""
    for bind in binds:
        address, _, port = bind.rpartition("/")
        try:
            say("granted", transport.request_port_forward(address, int(port), lambda *_: None))
        except paramiko.SSHException:
            say("refused")
    for _ in _until_told():
        pass


def cancel(transport, *binds):
    """For each "ADDRESS/PORT": granted or refused."""
    for bind in binds:
        address, _, port = bind.rpartition("/")
        answer = transport.global_request("cancel-tcpip-forward", (address, int(port)), wait=True)
        say("refused" if answer is None else "granted")


def channel_request(transport, name):
    """What this is answered with in a session."""
    session = transport.open_session(timeout=WAIT_S)
    session.settimeout(WAIT_S)
    try:
        if name == "exec":
            session.exec_command("id")
        elif name == "subsystem":
            session.invoke_subsystem("sftp")
        elif name == "x11":
            session.request_x11(handler=lambda *_: None)
        else:
            message = paramiko.Message()
            message.add_byte(bytes([98]))       # SSH_MSG_CHANNEL_REQUEST
            message.add_int(session.remote_chanid)
            message.add_string(name)
            message.add_boolean(True)
            session._event_pending()
            transport._send_user_message(message)
            session._wait_for_event()
    except paramiko.SSHException:
        say("refused")
    else:
        say("granted")


def opens(transport, *kinds):
    """What opening a channel of each kind is answered with."""
    for kind in kinds:
        try:
            transport.open_channel(kind, ("127.0.0.1", 22), ("127.0.0.1", 12345), timeout=WAIT_S)
            say("granted")
        except paramiko.ChannelException as error:
            say("refused", error.code)


def nothing(_transport):
    """Is just there."""
    say("there")
    for _ in _until_told():
        pass


def main(scenarios):
    *whom, what = sys.argv[1:8]
    try:
        transport = _log_in(*whom)
    except paramiko.AuthenticationException as error:
        say("not let in")
        print(error, file=sys.stderr)
        sys.exit(1)
    scenarios[what](transport, *sys.argv[8:])
    transport.close()


if __name__ == "__main__":
    main(globals())
