"""sessions: many streams over one connection, by WebMUX. Does no I/O.

A Mux is one end: bytes from the peer go into receive(), bytes for it come out of
output(). What happens to a session is told by calling its on_change; look at it
then. Ids are odd: only the side that accepted the connection opens sessions.
"""
from collections import OrderedDict, deque
from typing import Callable, Deque, Dict, Optional, Union

from .webmux import Control, Data, Decoder, Flags, Frame, Header, Opcode, ProtocolError, encode

FIRST_CREDIT = 16384            # of a direction that nothing was said about
WINDOW = 1 << 20                # what this side announces
WINDOW_MAX = 16 << 20           # what a session's window grows to
GROWTH_MAX = 64 << 20           # by how much all windows together grow
MSS = 65536
SMALL = 4096                    # a piece that is not worth an object of its own
IDS = range(3, 256, 2)


class Budget:
    """What the windows of all sessions of a tunnel may grow by, in bytes."""

    def __init__(self, limit_bytes: int = GROWTH_MAX) -> None:
        self.left = limit_bytes

    def take(self, count: int) -> bool:
        if count > self.left:
            return False
        self.left -= count
        return True

    def give(self, count: int) -> None:
        self.left += count


class _Credit:
    """What the peer may send in a session.

    The peer may have opened the session before it read our announcement, and then
    has FIRST_CREDIT. That can't be seen, so both are reckoned with: granted is what
    it has for sure, and slack what it may have beyond. If it goes on beyond
    FIRST_CREDIT it has read the announcement; if it comes near, it gets the rest."""

    def __init__(self, sure: int, announced: int, budget: Budget) -> None:
        self.received = self.taken = 0
        self.granted = sure
        self.slack = announced - sure
        self._topped_up = not self.slack
        self._window = announced
        self._grown = 0
        self._budget = budget
        self._grow_at = announced

    def admits(self, count: int) -> bool:
        return self.received + count <= self.granted + self.slack

    def receive(self, count: int) -> int:
        """Counts what came, and returns what to grant at once."""
        self.received += count
        if self._topped_up or self.received < FIRST_CREDIT * 3 // 4:
            return 0
        self._topped_up = True
        difference, self.granted = self.slack, self.granted + self.slack
        if self.received > FIRST_CREDIT:
            self.slack = 0
            return 0
        return difference

    def take(self, count: int) -> int:
        """Counts what the reader took, and returns what to grant for it."""
        self.taken += count
        if not self._topped_up:
            return 0
        if self.taken >= self._grow_at and self.received - self.taken <= self._window // 4:
            self._grow()
        due = self.taken + self._window - self.granted
        if due < self._window // 4:
            return 0
        self.granted += due
        return due

    def _grow(self) -> None:
        """The reader has kept up with a whole window."""
        more = min(self._window, WINDOW_MAX - self._window)
        if more > 0 and self._budget.take(more):
            self._window += more
            self._grown += more
        self._grow_at = self.taken + self._window

    def close(self) -> None:
        self._budget.give(self._grown)
        self._grown = 0


class Session:
    """One stream of a Mux. Made by the Mux only."""

    def __init__(self, mux: "Mux", number: int, protocol: int, credit: _Credit,
                 send_credit: Optional[int], mss: int) -> None:
        self.id = number
        self.protocol = protocol
        self.on_change: Callable[[], None] = lambda: None
        self.finished = False       # the peer sends no more
        self.was_reset = False      # by either side, or the connection is over
        self.over = False           # was reset, or finished in both directions
        self.credit = credit
        self.send_credit = send_credit      # None is no limit
        self.mss = mss
        self.syn_due = False
        self.syn_received = False
        self.fin_due = self.fin_sent = False
        self.outgoing = bytearray()
        self.incoming: Deque[Union[bytes, bytearray]] = deque()
        self._mux = mux

    def confirm(self) -> None:
        """Accepts a session that the peer opened."""
        self.syn_due = True
        self._mux.make_ready(self)

    def send(self, data: bytes) -> None:
        """Queues data. The caller looks at unsent, and waits before it sends more."""
        if self.was_reset:
            raise ConnectionResetError(f"session {self.id} was reset")
        if self.fin_due:
            raise ValueError(f"session {self.id} has been finished")
        self.outgoing += data
        self._mux.make_ready(self)

    @property
    def unsent(self) -> int:
        return len(self.outgoing)

    def finish(self) -> None:
        """This side sends no more, once all that it has sent is gone."""
        self.fin_due = True
        self._mux.make_ready(self)

    def reset(self) -> None:
        """Ends both directions at once."""
        self._mux.reset(self)

    def keep(self, payload: bytes) -> None:
        """Of small pieces each would take many times its bytes: they are joined."""
        last = self.incoming[-1] if self.incoming else b""
        if len(payload) >= SMALL:
            self.incoming.append(payload)
        elif isinstance(last, bytearray) and len(last) < MSS:
            last += payload
        else:
            self.incoming.append(bytearray(payload))

    def take(self) -> bytes:
        """The next bytes that came; b"" when there are none now. The credit for them
        comes back to the peer by return_credit."""
        return bytes(self.incoming.popleft()) if self.incoming else b""

    def return_credit(self, count: int) -> None:
        due = self.credit.take(count)
        if due and not self.finished:
            self._mux.grant(self, due)


class Mux:
    """One end of a connection that carries sessions.

    opens_sessions is for the side that accepted the connection. on_open gets each
    session that the peer opens, before anything else of it."""

    def __init__(self, opens_sessions: bool = False, budget: Optional[Budget] = None,
                 on_open: Callable[[Session], None] = lambda session: None) -> None:
        self.sessions: Dict[int, Session] = {}
        self.on_output: Callable[[], None] = lambda: None
        self._opens = opens_sessions
        self._on_open = on_open
        self._budget = budget or Budget()
        self._decoder = Decoder(self._admit)
        self._peer_default: Optional[int] = FIRST_CREDIT
        self._peer_mss = MSS
        self._free_ids = deque(IDS)             # the one that rested longest first
        self._late: Dict[int, _Credit] = {}     # what may still come after our RST
        self._controls = bytearray(encode(Control(Opcode.SET_DEFAULT_CREDIT, 0, WINDOW)))
        self._resets: Dict[int, None] = {}      # due, in this order
        self._grants: Dict[int, int] = {}       # credit due to be returned
        self._ready: "OrderedDict[int, Session]" = OrderedDict()

    # --- what this side does

    def open(self, protocol: int = 0) -> Session:
        """A new session; IndexError when all ids are in use."""
        number = self._free_ids.popleft()
        session = self._add(number, protocol, WINDOW)
        session.confirm()
        return session

    def _add(self, number: int, protocol: int, sure: int) -> Session:
        session = Session(self, number, protocol, _Credit(sure, WINDOW, self._budget),
                          self._peer_default, self._peer_mss)
        self.sessions[number] = session
        return session

    def reset(self, session: Session) -> None:
        if session.over:
            return
        self._late[session.id] = session.credit
        self._resets[session.id] = None
        self._drop(session)
        self.on_output()

    def grant(self, session: Session, count: int) -> None:
        if not session.over:
            self._grants[session.id] = self._grants.get(session.id, 0) + count
            self.on_output()

    def make_ready(self, session: Session) -> None:
        if not session.over and self._has_turn(session):
            self._ready.setdefault(session.id, session)
            self.on_output()

    def end(self) -> None:
        """The connection is over: every session is reset."""
        for session in list(self.sessions.values()):
            self._drop(session)

    def _drop(self, session: Session) -> None:
        """The session was reset."""
        session.was_reset = True
        session.outgoing.clear()
        session.incoming.clear()
        self._end_session(session)

    def _end_session(self, session: Session) -> None:
        session.over = True
        session.credit.close()
        del self.sessions[session.id]
        self._ready.pop(session.id, None)
        self._grants.pop(session.id, None)
        if self._opens:
            self._free_ids.append(session.id)
        session.on_change()

    # --- what goes to the peer

    def output(self, limit_bytes: int = 4 * MSS) -> bytes:
        """The next bytes for the peer, about as many as the limit; b"" when there is
        nothing to send now."""
        out = self._controls
        self._controls = bytearray()
        for number in self._resets:
            out += encode(Data(number, Flags.RST))
        self._resets.clear()
        while self._ready and len(out) < limit_bytes:
            out += encode(self._take_turn())
        for number, count in self._grants.items():
            if not self.sessions[number].syn_due:   # never before our own SYN
                out += encode(Control(Opcode.ADD_CREDIT, number, count))
        self._grants = {number: count for number, count in self._grants.items()
                        if self.sessions[number].syn_due}
        return bytes(out)

    def _has_turn(self, session: Session) -> bool:
        may_send = session.outgoing and session.send_credit != 0
        return bool(session.syn_due or may_send or self._fin_is_next(session))

    @staticmethod
    def _fin_is_next(session: Session) -> bool:
        return session.fin_due and not session.fin_sent and not session.outgoing

    def _take_turn(self) -> Frame:
        """Of the next session at most one MSS; then it stands at the end of the line."""
        number, session = self._ready.popitem(last=False)
        frame = self._next_frame(session)
        if session.fin_sent and session.finished:
            self._end_session(session)
            return frame
        if self._has_turn(session):
            self._ready[number] = session
        if not session.outgoing:
            session.on_change()
        return frame

    def _next_frame(self, session: Session) -> Data:
        flags = Flags.NONE
        if session.syn_due:
            flags |= Flags.SYN
            session.syn_due = False
        elif self._fin_is_next(session):
            session.fin_sent = True
            return Data(session.id, Flags.FIN)
        count = min(len(session.outgoing), session.mss)
        if session.send_credit is not None:
            count = min(count, session.send_credit)
            session.send_credit -= count
        payload = bytes(session.outgoing[:count])
        del session.outgoing[:count]
        protocol = session.protocol if flags & Flags.SYN else 0
        return Data(session.id, flags, payload, protocol)

    # --- what comes from the peer

    def receive(self, data: bytes) -> None:
        """Takes bytes of the peer, cut anywhere. After ProtocolError the connection
        can only be closed."""
        self._decoder.feed(data)
        while True:
            frame = self._decoder.next()
            if frame is None:
                return
            if isinstance(frame, Control):
                self._receive_control(frame)
            else:
                self._receive_data(frame)

    def _admit(self, header: Header) -> None:
        """Refuses a payload before it comes: what nobody has granted."""
        if header.control:
            return
        if header.session < IDS.start:
            raise ProtocolError(f"a frame for session {header.session}, which is reserved")
        session = self.sessions.get(header.session)
        late = self._late.get(header.session)
        if session and (session.syn_received or header.flags & Flags.SYN):
            allowed = session.credit.admits(header.payload_bytes)
        elif late and not header.flags & Flags.SYN:
            allowed = late.admits(header.payload_bytes)
        else:
            allowed = header.payload_bytes <= WINDOW
        if not allowed:
            raise ProtocolError(f"session {header.session} sent beyond its credit")

    def _receive_control(self, frame: Control) -> None:
        if frame.opcode is Opcode.SET_DEFAULT_CREDIT:
            self._peer_default = frame.value or None
        elif frame.opcode is Opcode.SET_MSS:
            self._set_mss(frame.session, min(frame.value, MSS) or MSS)
        elif frame.opcode is Opcode.ADD_CREDIT:
            session = self.sessions.get(frame.session)
            if session and session.syn_received and session.send_credit is not None:
                session.send_credit += frame.value
                self.make_ready(session)

    def _set_mss(self, number: int, mss: int) -> None:
        if number == 0:
            self._peer_mss = mss
        for session in self.sessions.values():
            if number in (0, session.id):
                session.mss = mss

    def _receive_data(self, frame: Data) -> None:
        session = self.sessions.get(frame.session)
        if frame.flags & Flags.RST:
            if session:
                self._drop(session)
            elif self._opens or frame.session in self._resets:
                self._late.pop(frame.session, None)
                self._resets.pop(frame.session, None)
            return
        if frame.flags & Flags.SYN:
            session = self._receive_syn(frame, session)
        if session is None or not session.syn_received:
            self._receive_late(frame, session)
            return
        self._receive_payload(frame, session)

    def _receive_syn(self, frame: Data, session: Optional[Session]) -> Optional[Session]:
        if session is None and self._opens:
            if frame.session in self._late:
                return None             # a confirmation that crossed our RST
            raise ProtocolError(f"a SYN for session {frame.session}, which nobody opened")
        if session is None:
            if frame.session not in IDS:
                raise ProtocolError(f"a SYN for session {frame.session}, which is not the peer's")
            self._resets.pop(frame.session, None)   # that was of the session before
            session = self._add(frame.session, frame.protocol, FIRST_CREDIT)
            session.syn_received = True
            self._late.pop(frame.session, None)
            self._on_open(session)
            return session
        if session.syn_received:
            raise ProtocolError(f"a second SYN for session {frame.session}")
        session.syn_received = True
        self._late.pop(frame.session, None)
        return session

    def _receive_late(self, frame: Data, session: Optional[Session]) -> None:
        """A frame for a session that is not open."""
        late = self._late.get(frame.session)
        if late:
            late.receive(len(frame.payload))
        elif session:
            raise ProtocolError(f"session {frame.session} sent before its SYN")
        elif not frame.flags & Flags.FIN:
            self._resets[frame.session] = None
            self.on_output()

    def _receive_payload(self, frame: Data, session: Session) -> None:
        if frame.payload:
            if session.finished:
                raise ProtocolError(f"session {session.id} sent after its FIN")
            due = session.credit.receive(len(frame.payload))
            if session.over:            # on_open has reset it: late already
                return
            session.keep(frame.payload)
            if due:
                self.grant(session, due)
        if frame.flags & Flags.FIN:
            session.finished = True
            if session.fin_sent and not session.over:
                self._end_session(session)
                return
        if not session.over:
            session.on_change()
