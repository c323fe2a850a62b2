"""outlet: lines for a descriptor, which a thread writes, so that no client waits for whoever
reads them."""
import collections
import os
import select
import threading
from typing import Callable, Deque

LINES_MAX = 500
DRAIN_S = 1.0


class Outlet:
    """A stream for print and logging. Lines that find too many before them are left out, and
    counted; once those have been read, the count is told. on_failure is called, by the
    thread, with each error that a line could not be written for."""

    def __init__(self, fd: int, on_failure: Callable[[OSError], None] = lambda error: None) -> None:
        self._fd = fd
        self._on_failure = on_failure
        self._lines: Deque[str] = collections.deque()
        self._left_out = 0
        self._is_writing = True         # soon
        self._changed = threading.Condition()
        threading.Thread(target=self._write_all, daemon=True).start()

    def write(self, line: str) -> None:
        with self._changed:
            if self._left_out or len(self._lines) >= LINES_MAX:
                self._left_out += 1
            else:
                self._lines.append(line)
            self._changed.notify_all()

    def drain(self) -> None:
        """Waits until all is written, for a moment."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_writing and not self._has_more(), DRAIN_S)

    def _has_more(self) -> bool:
        return bool(self._lines) or self._left_out > 0

    def _next_line(self) -> str:
        with self._changed:
            self._is_writing = False
            self._changed.notify_all()
            self._changed.wait_for(self._has_more)
            self._is_writing = True
            if self._lines:
                return self._lines.popleft()
            count, self._left_out = self._left_out, 0
            return f"tristero-tunnel: {count} lines were left out here, since nobody read them\n"

    def _write_all(self) -> None:
        while True:
            data = self._next_line().encode(errors="backslashreplace")
            try:
                while data:
                    data = data[self._write(data):]
            except OSError as error:
                self._on_failure(error)

    def _write(self, data: bytes) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:         # another program has set O_NONBLOCK
            select.select([], [self._fd], [])
            return 0
