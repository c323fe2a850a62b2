#!/usr/bin/env python3
"""The bytes of WebMUX frames."""
import random

import common  # noqa: F401, finds what follows
from harness import Case, main
from tristero_tunnel.webmux import (Control, Data, Decoder, Flags, Opcode, ProtocolError, encode)

# As the format's description gives them.
KNOWN = [
    (Data(3, Flags.SYN, b"", 80), "50 00 0C 20"),
    (Data(3, Flags.NONE, b"hi"), "02 00 0C 00 68 69 00 00"),
    (Data(3, Flags.FIN), "00 00 0C 10"),
    (Data(5, Flags.SYN, b"hello", 0), "00 00 14 A0 05 00 00 00 68 65 6C 6C 6F 00 00 00"),
    (Control(Opcode.ADD_CREDIT, 3, 65536), "00 00 0C CC 00 00 01 00"),
    (Data(5, Flags.RST), "00 00 14 08"),
]


def decode(*pieces):
    """The frames of a stream that arrives in these pieces, and what is left."""
    decoder = Decoder()
    frames = []
    for piece in pieces:
        decoder.feed(piece)
        while (frame := decoder.next()) is not None:
            frames.append(frame)
    return frames


def random_frame(chance):
    session = chance.randrange(256)
    payload = chance.randbytes(chance.choice((0, 1, 2, 3, 4, 5, 7, 8, 9, 100, 5000)))
    if chance.random() < 0.3:
        opcode = chance.choice(list(Opcode))
        if opcode in (Opcode.INTERN_ATOM, Opcode.DEFINE_STACK):
            return Control(opcode, session, chance.randrange(1 << 18), payload)
        limit = {Opcode.SET_MSS: 1 << 18, Opcode.NO_OP: 1}.get(opcode, 1 << 32)
        return Control(opcode, session, chance.randrange(limit))
    flags = Flags.NONE
    for flag in (Flags.SYN, Flags.FIN, Flags.RST, Flags.PUSH):
        if chance.random() < 0.2:
            flags |= flag
    return Data(session, flags, payload, chance.randrange(1 << 18) if flags & Flags.SYN else 0)


def random_cuts(chance, data):
    pieces = []
    while data:
        count = chance.choice((1, 2, 3, 4, 5, 8, 13, 500, 10000))
        pieces.append(data[:count])
        data = data[count:]
    return pieces


class Codec(Case):
    def test_known_frames_have_their_bytes(self):
        for frame, text in KNOWN:
            with self.subTest(text):
                self.assertEqual(encode(frame), bytes.fromhex(text))
                self.assertEqual(decode(bytes.fromhex(text)), [frame])

    def test_every_cut_of_the_known_stream_decodes_alike(self):
        stream = b"".join(bytes.fromhex(text) for _, text in KNOWN)
        frames = [frame for frame, _ in KNOWN]
        for first in range(len(stream) + 1):
            for second in range(first, len(stream) + 1):
                self.assertEqual(decode(stream[:first], stream[first:second], stream[second:]),
                                 frames)

    def test_random_streams_decode_alike_however_they_are_cut(self):
        for seed in range(300):
            chance = random.Random(seed)
            frames = [random_frame(chance) for _ in range(chance.randrange(1, 30))]
            stream = b"".join(map(encode, frames))
            with self.subTest(seed=seed):
                self.assertEqual(decode(stream), frames)
                self.assertEqual(decode(*random_cuts(chance, stream)), frames)

    def test_short_frames_are_padded_to_4_and_long_ones_to_8_bytes(self):
        for count in range(1, 20):
            short = encode(Data(3, Flags.NONE, bytes(count)))
            long = encode(Data(3, Flags.SYN, bytes(count)))
            self.assertEqual(len(short), 4 + (count + 3) // 4 * 4)
            self.assertEqual(len(long), 8 + (count + 7) // 8 * 8)

    def test_padding_is_ignored_whatever_it_is(self):
        short = bytes.fromhex("02 00 0C 00 68 69 FF EE")
        long = bytes.fromhex("00 00 14 A0 01 00 00 00 68 FF FF FF FF FF FF FF")
        self.assertEqual(decode(short + long + short),
                         [Data(3, Flags.NONE, b"hi"), Data(5, Flags.SYN, b"h"),
                          Data(3, Flags.NONE, b"hi")])

    def test_the_long_form_is_taken_where_the_short_one_would_do(self):
        self.assertEqual(decode(bytes.fromhex("00 00 0C 80 02 00 00 00 68 69 00 00 00 00 00 00")),
                         [Data(3, Flags.NONE, b"hi")])
        self.assertEqual(decode(bytes.fromhex("00 00 0C 90 00 00 00 00")), [Data(3, Flags.FIN)])

    def test_what_is_longer_than_the_short_form_says_is_long(self):
        for count in (262143, 262144):
            frame = Data(3, Flags.NONE, bytes(count))
            self.assertEqual(bool(encode(frame)[3] & 0x80), count > 262143)
            self.assertEqual(decode(encode(frame)), [frame])

    def test_a_short_SYN_has_a_protocol_and_no_payload(self):
        self.assertEqual(decode(bytes.fromhex("FF FF 0F 20 00 00 0C 10")),
                         [Data(3, Flags.SYN, b"", 0x3FFFF), Data(3, Flags.FIN)])

    def test_credit_is_no_length(self):
        """Nothing follows an AddCredit or SetDefaultCredit, however much they say."""
        self.assertEqual(decode(bytes.fromhex("00 00 0C CC FF FF FF FF 00 00 00 D0 08 00 00 00"
                                              "00 00 0C 10")),
                         [Control(Opcode.ADD_CREDIT, 3, 0xFFFFFFFF),
                          Control(Opcode.SET_DEFAULT_CREDIT, 0, 8), Data(3, Flags.FIN)])

    def test_unknown_opcodes_and_wrong_forms_are_refused(self):
        for opcode in range(6, 16):
            for long in (0, 0x80000000):
                with self.assertRaises(ProtocolError):
                    decode((long | 0x40000000 | opcode << 26).to_bytes(4, "little") + bytes(4))
        for head in (0xC8000000, 0xD4000000, 0x40000000, 0x44000000, 0x4C000000, 0x50000000,
                     0x54000001):
            with self.subTest(hex(head)), self.assertRaises(ProtocolError):
                decode(head.to_bytes(4, "little") + bytes(4))

    def test_a_long_name_of_an_atom_is_refused_before_it_comes(self):
        with self.assertRaises(ProtocolError):
            decode(bytes.fromhex("00 00 00 C0 01 00 01 00"))


if __name__ == "__main__":
    main()
