#!/usr/bin/python3 -B
"""peer: one connection as a process of its own, for tests to freeze and kill.

    peer.py HOST PORT RECEIVE_BUFFER

Connects (with the system's receive buffer if that is 0), says "connected", and does what the lines of its standard input say. It
sends and receives beside each other, each in the order of its lines, and says so
when one is done:

    send SEED BYTES       sent          the bytes of that seed's pattern, from where it was
    say HEX               said          these bytes
    finish                finished      half closes
    receive SEED BYTES    received      and they were right
    drip SEED BYTES       received      the same, slowly
    end                   end or reset  nothing more may come before it
    close                               ends the process
"""

import os
import queue
import socket
import sys
import threading
import time

from pattern import Pattern


def answer(word):
    os.write(sys.stdout.fileno(), word.encode() + b"\n")     # whole, whoever else answers


class Lane(threading.Thread):
    """Does one command after the other. What fails ends the process."""

    def __init__(self, connection):
        super().__init__(daemon=True)
        self.connection = connection
        self.patterns = {}
        self.commands = queue.Queue()
        self.start()

    def run(self):
        try:
            while True:
                name, *arguments = self.commands.get()
                answer(getattr(self, name)(*arguments))
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)

    def pattern(self, seed):
        return self.patterns.setdefault(seed, Pattern(int(seed)))


class Sending(Lane):
    def send(self, seed, count):
        left = int(count)
        while left:
            piece = self.pattern(seed).take(min(left, 65536))
            self.connection.sendall(piece)
            left -= len(piece)
        return "sent"

    def say(self, words):
        self.connection.sendall(bytes.fromhex(words))
        return "said"

    def finish(self):
        self.connection.shutdown(socket.SHUT_WR)
        return "finished"


class Receiving(Lane):
    def receive(self, seed, count, at_most=1 << 18, pause_s=0):
        left = int(count)
        while left:
            time.sleep(pause_s)
            piece = self.connection.recv(min(left, at_most))
            if not piece:
                raise AssertionError(f"the stream ended {left} bytes early")
            self.pattern(seed).check(piece)
            left -= len(piece)
        return "received"

    def drip(self, seed, count):
        return self.receive(seed, count, 65536, 0.02)

    def end(self):
        try:
            piece = self.connection.recv(1)
        except ConnectionResetError:
            return "reset"
        if piece:
            raise AssertionError("more came than was due")
        return "end"


def main():
    host, port, receive_buffer = sys.argv[1], *map(int, sys.argv[2:])
    connection = socket.socket()    # without a timeout: the frozen have no sense of time
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect((host, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answer("connected")
    sending, receiving = Sending(connection), Receiving(connection)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "close":
            break
        (sending if hasattr(sending, words[0]) else receiving).commands.put(words)
    connection.close()


if __name__ == "__main__":
    main()
