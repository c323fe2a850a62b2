#!/usr/bin/python3 -B
"""ssh_forger: asks to be let in by a public key, mostly without its secret half.

    ssh_forger.py HOST PORT KEY-FILE PUBLIC-KEY HOW

Says "let in" or "not let in". HOW is one of the texts below."""

import base64
import socket
import sys
import time

import paramiko
from paramiko.common import MSG_SERVICE_REQUEST, MSG_USERAUTH_REQUEST

USER = "jane"


def message(number, *fields):
    made = paramiko.Message()
    made.add_byte(bytes([number]))
    for field in fields:
        if isinstance(field, bool):
            made.add_boolean(field)
        else:
            made.add_string(field)
    return made


def signed(transport, key, blob, user, algorithm):
    """What key says to a login by the key of the blob."""
    text = paramiko.Message()
    text.add_string(transport.session_id)
    text.packet.write(message(MSG_USERAUTH_REQUEST, user, "ssh-connection", "publickey", True, algorithm,
                              blob).asbytes())
    return key.sign_ssh_data(text.asbytes()).asbytes()


def main():
    host, port, key_file, public, how = sys.argv[1:]
    key, blob = paramiko.Ed25519Key.from_private_key_file(key_file), base64.b64decode(public)
    transport = paramiko.Transport(socket.create_connection((host, int(port)), 30))
    transport.start_client(timeout=30)
    let_in, over = [], []
    transport.auth_handler = None
    answers = {6: lambda *_: None,              # the service is there
               51: lambda *_: over.append(1),   # no
               52: lambda *_: let_in.append(1), # come in
               53: lambda *_: None, 60: lambda *_: over.append(1)}
    transport._handler_table = {**transport._handler_table, **answers}
    transport._ensure_authed = lambda *_: None
    transport._send_message(message(MSG_SERVICE_REQUEST, "ssh-userauth"))
    time.sleep(0.2)
    algorithm, user = "ssh-ed25519", USER
    begin = (MSG_USERAUTH_REQUEST, user, "ssh-connection", "publickey")
    if how.startswith("question"):
        transport._send_message(message(*begin, False, algorithm, blob))
    elif how == "no signature":
        transport._send_message(message(*begin, True, algorithm, blob, b""))
    elif how in ("wrong signature", "right signature"):
        transport._send_message(message(*begin, True, algorithm, blob, signed(transport, key, blob, user, algorithm)))
    elif how == "signature of another user":
        transport._send_message(message(*begin, True, algorithm, blob,
                                        signed(transport, key, blob, "joe", algorithm)))
    elif how == "another algorithm":
        transport._send_message(message(*begin, True, "ssh-rsa", blob, signed(transport, key, blob, user, "ssh-rsa")))
    if how == "question, then a service":
        transport._send_message(message(MSG_SERVICE_REQUEST, "ssh-connection"))
        transport._send_message(message(80, "tcpip-forward", True, b"", b""))
    # some of it is not even answered
    deadline = time.monotonic() + (20 if how == "right signature" else 1.5)
    while not over and not let_in and transport.is_active() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    print("let in" if let_in else "not let in")
    transport.close()


if __name__ == "__main__":
    main()
