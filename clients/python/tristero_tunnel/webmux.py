"""webmux: the frames of WebMUX as bytes and back.

A frame is a little-endian header of 32 bits, in the long form a second word of
32 bits, a payload, and padding to a multiple of 4 bytes, or 8 in the long form.
Nothing here knows what a session is: see sessions.
"""
import enum
import struct
from dataclasses import dataclass
from typing import Callable, Optional, Union

LONG = 0x80000000
CONTROL = 0x40000000
SESSION_SHIFT, SESSION_MASK = 18, 0xFF
OPCODE_SHIFT, OPCODE_MASK = 26, 0xF
LENGTH_MASK = 0x3FFFF

CONTROL_PAYLOAD_MAX = 65536     # a name of an atom, or a stack; nobody has longer ones


class ProtocolError(Exception):
    """The peer broke the rules; its connection can't go on."""


class Flags(enum.IntFlag):
    """What a frame of a session says beside its payload."""

    NONE = 0
    SYN = 0x20000000
    FIN = 0x10000000
    RST = 0x08000000
    PUSH = 0x04000000


FLAGS_MASK = 0x3C000000


class Opcode(enum.IntEnum):
    INTERN_ATOM = 0
    DEFINE_STACK = 1
    SET_MSS = 2
    ADD_CREDIT = 3
    SET_DEFAULT_CREDIT = 4
    NO_OP = 5


# The form that each has: whether it is long, and whether a payload follows.
_LONG_OPCODES = {Opcode.INTERN_ATOM, Opcode.DEFINE_STACK, Opcode.ADD_CREDIT,
                 Opcode.SET_DEFAULT_CREDIT}
_PAYLOAD_OPCODES = {Opcode.INTERN_ATOM, Opcode.DEFINE_STACK}


@dataclass(frozen=True)
class Data:
    """A frame of a session. protocol is the SYN's, and 0 without one."""

    session: int
    flags: Flags = Flags.NONE
    payload: bytes = b""
    protocol: int = 0


@dataclass(frozen=True)
class Control:
    """A control frame. value is the credit, the MSS, or the atom."""

    opcode: Opcode
    session: int = 0
    value: int = 0
    payload: bytes = b""


Frame = Union[Data, Control]


@dataclass(frozen=True)
class Header:
    """The first part of a frame, which says how long the rest is."""

    control: bool
    opcode: Optional[Opcode]
    session: int
    flags: Flags
    value: int              # of a control frame, or the protocol of a SYN
    start: int              # where the payload starts: 4 or 8
    payload_bytes: int
    frame_bytes: int        # with header and padding


def _padded(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def encode(frame: Frame) -> bytes:
    """The bytes of a frame, in the shortest form that can say it."""
    head = frame.session << SESSION_SHIFT
    if isinstance(frame, Control):
        head |= CONTROL | frame.opcode << OPCODE_SHIFT
        if frame.opcode not in _LONG_OPCODES:
            return struct.pack("<I", head | frame.value)
        if frame.opcode not in _PAYLOAD_OPCODES:
            return struct.pack("<II", head | LONG, frame.value)
        return _long(head | frame.value, frame.payload)
    head |= frame.flags
    if frame.flags & Flags.SYN:
        head |= frame.protocol
        return _long(head, frame.payload) if frame.payload else struct.pack("<I", head)
    count = len(frame.payload)
    if count > LENGTH_MASK:
        return _long(head, frame.payload)
    return struct.pack("<I", head | count) + frame.payload + bytes(-count % 4)


def _long(head: int, payload: bytes) -> bytes:
    count = len(payload)
    return struct.pack("<II", head | LONG, count) + payload + bytes(-count % 8)


def read_header(data: bytearray) -> Optional[Header]:
    """The header at the start of data; None when it is not there yet."""
    if len(data) < 4:
        return None
    head = int.from_bytes(data[:4], "little")
    is_long = bool(head & LONG)
    if is_long and len(data) < 8:
        return None
    word = int.from_bytes(data[4:8], "little") if is_long else 0
    session = head >> SESSION_SHIFT & SESSION_MASK
    low = head & LENGTH_MASK
    if head & CONTROL:
        return _control_header(head, session, low, word)
    flags = Flags(head & FLAGS_MASK)
    syn = bool(flags & Flags.SYN)
    count = word if is_long else 0 if syn else low
    return _header(False, None, session, flags, low if syn else 0, is_long, count)


def _control_header(head: int, session: int, low: int, word: int) -> Header:
    number = head >> OPCODE_SHIFT & OPCODE_MASK
    try:
        opcode = Opcode(number)
    except ValueError:
        raise ProtocolError(f"unknown opcode {number}") from None
    is_long = bool(head & LONG)
    if is_long != (opcode in _LONG_OPCODES):
        raise ProtocolError(f"{opcode.name} in the wrong form")
    if opcode is Opcode.NO_OP and low:
        raise ProtocolError("NO_OP with a length")
    count = word if opcode in _PAYLOAD_OPCODES else 0
    if count > CONTROL_PAYLOAD_MAX:
        raise ProtocolError(f"{opcode.name} of {count} bytes")
    value = low if not is_long or opcode in _PAYLOAD_OPCODES else word
    return _header(True, opcode, session, Flags.NONE, value, is_long, count)


def _header(control: bool, opcode: Optional[Opcode], session: int, flags: Flags, value: int,
            is_long: bool, count: int) -> Header:
    unit = 8 if is_long else 4
    return Header(control, opcode, session, flags, value, unit, count,
                  unit + _padded(count, unit))


class Decoder:
    """Makes frames of a stream of bytes, however it is cut.

    admit is called with each header before its payload is waited for, and raises
    ProtocolError for a payload that must not come: so what a peer says of lengths
    takes no memory."""

    def __init__(self, admit: Callable[[Header], None] = lambda header: None) -> None:
        self._admit = admit
        self._data = bytearray()
        self._header: Optional[Header] = None

    def feed(self, data: bytes) -> None:
        self._data += data

    def next(self) -> Optional[Frame]:
        """The next whole frame; None when more bytes are needed."""
        if self._header is None:
            self._header = read_header(self._data)
            if self._header is None:
                return None
            self._admit(self._header)
        header = self._header
        if len(self._data) < header.frame_bytes:
            return None
        payload = bytes(self._data[header.start:header.start + header.payload_bytes])
        del self._data[:header.frame_bytes]
        self._header = None
        if header.opcode is not None:
            return Control(header.opcode, header.session, header.value, payload)
        return Data(header.session, header.flags, payload, header.value)
