#!/usr/bin/env python3
"""Sessions over WebMUX, without a network."""
import random
import tracemalloc

import common  # noqa: F401, finds what follows
from harness import Case, Pattern, main
from tristero_tunnel.sessions import (FIRST_CREDIT, IDS, MSS, WINDOW, WINDOW_MAX, Budget, Mux)
from tristero_tunnel.webmux import (Control, Data, Decoder, Flags, Opcode, ProtocolError, encode)


def frames_of(mux):
    """All that it has to send now."""
    decoder = Decoder()
    frames = []
    while data := mux.output():
        decoder.feed(data)
    while (frame := decoder.next()) is not None:
        frames.append(frame)
    return frames


class Server(Case):
    """The server's end; the test plays the proxy, frame by frame."""

    def setUp(self):
        self.opened = []
        self.mux = Mux(on_open=self.accept)
        self.announced = frames_of(self.mux)

    def accept(self, session):
        self.opened.append(session)
        session.confirm()

    def say(self, *frames):
        for frame in frames:
            self.mux.receive(encode(frame))
        return frames_of(self.mux)

    def open(self, number=3, payload=b""):
        self.assertEqual(self.say(Data(number, Flags.SYN, payload))[0], Data(number, Flags.SYN))
        return self.opened[-1]

    def assert_refused(self, *frames):
        with self.assertRaises(ProtocolError):
            self.say(*frames)

    def test_it_announces_its_credit_first(self):
        self.assertEqual(self.announced, [Control(Opcode.SET_DEFAULT_CREDIT, 0, WINDOW)])

    def test_a_SYN_is_confirmed_with_or_without_data(self):
        self.open(3)
        session = self.open(5, b"hello")
        self.assertEqual(session.take(), b"hello")

    def test_the_first_data_goes_with_the_confirmation(self):
        self.mux.receive(encode(Data(3, Flags.SYN)))
        self.opened[0].send(b"hello")
        self.assertEqual(frames_of(self.mux), [Data(3, Flags.SYN, b"hello")])

    def test_it_waits_for_credit(self):
        session = self.open()
        session.send(bytes(FIRST_CREDIT + 10))
        self.assertEqual([len(f.payload) for f in frames_of(self.mux)], [FIRST_CREDIT])
        self.assertEqual(self.say(Control(Opcode.ADD_CREDIT, 3, 3)), [Data(3, Flags.NONE, bytes(3))])
        self.assertEqual(self.say(Control(Opcode.ADD_CREDIT, 3, 99)), [Data(3, Flags.NONE, bytes(7))])

    def test_a_default_credit_is_for_the_sessions_after_it(self):
        early = self.open(3)
        self.say(Control(Opcode.SET_DEFAULT_CREDIT, 0, 7))
        late = self.open(5)
        self.say(Control(Opcode.SET_DEFAULT_CREDIT, 0, 0))
        unlimited = self.open(7)
        for session, count in ((early, FIRST_CREDIT), (late, 7), (unlimited, 2 * WINDOW)):
            session.send(bytes(2 * WINDOW))
            self.assertEqual(sum(len(f.payload) for f in frames_of(self.mux)), count)

    def test_the_peer_says_the_largest_payload(self):
        self.say(Control(Opcode.SET_MSS, 0, 1000))
        session = self.open()
        session.send(bytes(1500))
        self.assertEqual([len(f.payload) for f in frames_of(self.mux)], [1000, 500])
        self.say(Control(Opcode.SET_MSS, 3, 0), Control(Opcode.ADD_CREDIT, 3, WINDOW))
        session.send(bytes(MSS + 1))
        self.assertEqual([len(f.payload) for f in frames_of(self.mux)], [MSS, 1])

    def test_sessions_take_turns(self):
        self.say(Control(Opcode.SET_DEFAULT_CREDIT, 0, WINDOW))
        for session in [self.open(number) for number in (3, 5, 7)]:
            session.send(bytes(2 * MSS))
        self.assertEqual([f.session for f in frames_of(self.mux)], [3, 5, 7, 3, 5, 7])

    def test_beyond_the_credit_is_a_protocol_error_before_the_payload_comes(self):
        self.open()
        block = Data(3, Flags.NONE, bytes(MSS))
        self.say(*[block] * (WINDOW // MSS))        # just what was announced
        with self.assertRaises(ProtocolError):
            self.mux.receive(encode(Data(3, Flags.NONE, b"x"))[:4])

    def test_who_sends_a_SYN_with_too_much_is_refused(self):
        self.assert_refused(Data(3, Flags.SYN, bytes(WINDOW + 1)))

    def test_what_the_reader_does_not_take_is_not_given_back(self):
        self.open()
        said = self.say(*[Data(3, Flags.NONE, bytes(MSS))] * (WINDOW // MSS))
        self.assertEqual(said, [])

    def test_what_comes_in_small_pieces_takes_no_more_memory(self):
        session = self.open()
        piece = encode(Data(3, payload=b"ab"))
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for _ in range(200):
            self.mux.receive(500 * piece)
            self.mux.output()
        self.assertLess(tracemalloc.get_traced_memory()[0], 2 * 200 * 500 * 2)
        taken = b"".join(iter(session.take, b""))
        self.assertEqual(taken, 200 * 500 * b"ab")

    def test_credit_comes_back_in_quarters(self):
        session = self.open()
        said = []
        for _ in range(WINDOW // MSS // 2):
            said += self.say(Data(3, Flags.NONE, bytes(MSS)))
            session.return_credit(len(session.take()))
        self.assertEqual(said + frames_of(self.mux), 2 * [Control(Opcode.ADD_CREDIT, 3, WINDOW // 4)])

    def test_a_peer_that_missed_the_announcement_is_not_left_waiting(self):
        """Its SYN crossed the announcement: it stops at the first credit."""
        session = self.open()
        said = self.say(Data(3, Flags.NONE, bytes(FIRST_CREDIT)))
        self.assertEqual(said, [Control(Opcode.ADD_CREDIT, 3, WINDOW - FIRST_CREDIT)])
        total, credit = FIRST_CREDIT, WINDOW - FIRST_CREDIT
        while total < 20 * WINDOW:
            count = min(credit, MSS)
            self.assertTrue(count, f"stuck after {total}")
            self.mux.receive(encode(Data(3, Flags.NONE, bytes(count))))
            total, credit = total + count, credit - count
            while data := session.take():
                session.return_credit(len(data))
            credit += sum(f.value for f in frames_of(self.mux))

    def test_windows_grow_with_their_readers_and_within_the_budget(self):
        self.mux._budget = budget = Budget(20 << 20)
        windows = []
        for number in (3, 5):
            session, granted = self.open(number), 0
            for _ in range(64 * WINDOW // MSS):
                said = self.say(Data(number, Flags.NONE, bytes(MSS)))
                session.return_credit(len(session.take()))
                granted += sum(f.value for f in said)
            granted += sum(f.value for f in frames_of(self.mux))
            windows.append(WINDOW + granted - session.credit.received)
        self.assertGreater(windows[0], WINDOW_MAX // 2)
        self.assertLessEqual(windows[0], WINDOW_MAX)
        self.assertLessEqual(sum(windows), (20 << 20) + 2 * WINDOW)
        self.say(Data(3, Flags.RST), Data(5, Flags.RST))
        self.assertEqual(budget.left, 20 << 20)

    def test_a_session_is_over_when_both_have_finished(self):
        session = self.open()
        self.say(Data(3, Flags.FIN))
        self.assertTrue(session.finished and not session.over)
        session.send(b"more")
        session.finish()
        self.assertEqual(frames_of(self.mux), [Data(3, Flags.NONE, b"more"), Data(3, Flags.FIN)])
        self.assertTrue(session.over and not session.was_reset)

    def test_a_FIN_comes_after_the_data_of_its_frame(self):
        session = self.open()
        self.say(Data(3, Flags.FIN, b"last"))
        self.assertEqual((session.take(), session.finished), (b"last", True))

    def test_data_after_a_FIN_is_a_protocol_error(self):
        self.open()
        self.assert_refused(Data(3, Flags.FIN), Data(3, Flags.NONE, b"x"))

    def test_a_reset_drops_what_is_pending(self):
        session = self.open(3, b"hello")
        session.send(bytes(10))
        self.say(Data(3, Flags.RST))
        self.assertTrue(session.was_reset and session.over)
        self.assertEqual((session.take(), frames_of(self.mux)), (b"", []))
        with self.assertRaises(ConnectionResetError):
            session.send(b"x")

    def test_late_frames_after_our_reset_are_dropped_but_count(self):
        self.open().reset()
        self.assertEqual(frames_of(self.mux), [Data(3, Flags.RST)])
        block = Data(3, Flags.NONE, bytes(MSS))
        self.assertEqual(self.say(*[block] * (WINDOW // MSS), Data(3, Flags.FIN)), [])
        self.assert_refused(Data(3, Flags.NONE, b"x"))

    def test_what_comes_for_no_session(self):
        self.assertEqual(self.say(Data(9, Flags.FIN), Data(9, Flags.RST),
                                  Control(Opcode.ADD_CREDIT, 9, 5), Control(Opcode.NO_OP),
                                  Control(Opcode.INTERN_ATOM, 0, 7, b"name")), [])
        self.assertEqual(self.say(Data(9, Flags.NONE, b"x")), [Data(9, Flags.RST)])

    def test_the_answers_to_frames_for_no_session_take_no_memory(self):
        for _ in range(10000):
            self.mux.receive(encode(Data(9, Flags.NONE, b"x")))
        self.assertEqual(frames_of(self.mux), [Data(9, Flags.RST)])

    def test_an_id_is_used_again(self):
        for ending in (Data(3, Flags.RST), None):
            session = self.open()
            if ending:
                self.say(ending)
            else:
                session.reset()
                self.say(Data(3, Flags.NONE, b"late"))
            again = self.open(3, b"new")
            self.assertEqual((again is session, again.take()), (False, b"new"))
            self.say(Data(3, Flags.RST))

    def test_a_reset_that_is_due_is_not_for_the_next_session_of_the_id(self):
        """Both have reset, and the peer has opened again, before ours was sent."""
        self.open().reset()
        self.mux.receive(encode(Data(3, Flags.RST)) + encode(Data(3, Flags.SYN)))
        self.assertEqual(frames_of(self.mux), [Data(3, Flags.SYN)])

    def test_whether_a_reset_is_known_is_answered_once(self):
        """A byte after the peer's own reset asks so; a reset of ours that has crossed
        that one is the answer."""
        for is_sent in (False, True):
            self.setUp()
            self.open().reset()
            resets = frames_of(self.mux) if is_sent else []
            self.mux.receive(encode(Data(3, Flags.RST)) + encode(Data(3, Flags.NONE, b"?")))
            self.assertEqual(resets + frames_of(self.mux), [Data(3, Flags.RST)])

    def test_a_SYN_where_none_may_be_is_a_protocol_error(self):
        for frames in ([Data(0, Flags.SYN)], [Data(1, Flags.SYN)], [Data(4, Flags.SYN)],
                       [Data(3, Flags.SYN), Data(3, Flags.SYN)], [Data(1, Flags.NONE, b"x")]):
            self.setUp()
            self.assert_refused(*frames)


class BothEnds(Case):
    def test_all_ids_can_be_open_at_once(self):
        mux = Mux(opens_sessions=True)
        self.assertEqual(sorted(mux.open().id for _ in IDS), list(range(3, 256, 2)))
        self.assertRaises(IndexError, mux.open)

    def test_who_takes_its_credit_late_or_early_is_served(self):
        """The proxy opens before, or after, it has read the server's announcement."""
        for early in (True, False):
            talk = Talk(random.Random(1), early)
            talk.open()
            talk.run_to_end(bytes_each=3 * WINDOW)

    def test_random_schedules_lose_nothing_and_never_stall(self):
        for seed in range(40):
            with self.subTest(seed=seed):
                chance = random.Random(seed)
                talk = Talk(chance, early=chance.random() < 0.5)
                for _ in range(chance.randrange(1, 40)):
                    talk.open()
                talk.run_to_end(bytes_each=chance.choice((0, 1, 5000, 200000)),
                                resets=chance.random() < 0.5)

    def test_ids_go_round(self):
        talk = Talk(random.Random(2), early=False)
        for _ in range(8):
            for _ in range(100):
                talk.open()
            talk.run_to_end(bytes_each=100)
        self.assertFalse(talk.proxy.sessions or talk.server.sessions)


class Side:
    """One end of a session in a Talk: sends a pattern, checks the other's."""

    def __init__(self, session, seed, other_seed):
        self.session = session
        self.sending, self.expected = Pattern(seed), Pattern(other_seed)

    def step(self, chance, bytes_each):
        while chance.random() < 0.7 and (data := self.session.take()):
            self.expected.check(data)
            self.session.return_credit(len(data))
        left = bytes_each - self.sending.position
        if not self.session.was_reset and not self.session.fin_due and not self.session.unsent:
            if left:
                self.session.send(self.sending.take(min(left, chance.randrange(1, 100000))))
            else:
                self.session.finish()

    def is_done(self, bytes_each):
        if self.session.was_reset:
            return True
        return self.session.over and self.expected.position == bytes_each


class Talk:
    """A proxy's end and a server's, and what is on its way between them."""

    def __init__(self, chance, early):
        self.chance = chance
        self.proxy = Mux(opens_sessions=True)
        self.server = Mux(on_open=self.accept)
        self.ways = [(self.proxy, self.server, bytearray()), (self.server, self.proxy, bytearray())]
        self.sides = []
        if not early:
            self.proxy.receive(self.server.output())

    def open(self):
        self.sides.append(Side(self.proxy.open(), "proxy", "server"))

    def accept(self, session):
        session.confirm()
        self.sides.append(Side(session, "server", "proxy"))

    def step(self):
        sender, receiver, on_way = self.chance.choice(self.ways)
        if self.chance.random() < 0.5:
            on_way += sender.output(self.chance.randrange(1, 200000))
        count = self.chance.choice((1, 7, 1000, 300000))
        receiver.receive(bytes(on_way[:count]))
        del on_way[:count]

    def run_to_end(self, bytes_each, resets=False):
        for _ in range(200000):
            self.step()
            # again, so that most of the steps have something to do
            for side in self.chance.sample(self.sides, min(3, len(self.sides))):
                side.step(self.chance, bytes_each)
                if resets and self.chance.random() < 0.01:
                    side.session.reset()
            self.sides = [side for side in self.sides if not side.is_done(bytes_each)]
            if not self.sides and not any(on_way for *_, on_way in self.ways):
                if not self.proxy.sessions and not self.server.sessions:
                    return
        raise AssertionError(f"stuck: {[vars(side.session) for side in self.sides[:2]]}")


if __name__ == "__main__":
    main()
