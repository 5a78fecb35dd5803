"""Bytes from a thread that makes them to a reader that takes them when it can: bounded, and neither side waits for ever.

::

    archive writer ──write──> [ at most LIMIT bytes ] ──read──> the client's connection
          waits while it is full, STALL seconds at most             waits while it is empty
"""

import errno
import os
import threading
import time
from collections import deque

from proxy.closing import Closeable

LIMIT = 4 << 20
"""Bytes that wait at most: enough that neither side stops for each piece of the other; it is held once a download."""

PIECE = 256 << 10
"""Headers of archives are small: so much is collected before the reader is woken."""

STALL = 60.0
"""Seconds without any room: a client that takes less than ``PIECE`` in it (4 KiB/s) holds a restore point open for nothing."""


class BytePipe(Closeable):
    """One writer, one reader. ``write`` and ``flush`` are a stream's, and raise ``OSError`` when nobody takes it any more.

    ``stall``: seconds that a write waits for room.
    """

    def __init__(self, *, stall: float = STALL) -> None:
        self._stall = stall
        self._changed = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._held = 0  # bytes in _pieces
        self._collected = bytearray()  # the writer's own, until it is a piece
        self._error: BaseException | None = None
        self._ended = False
        self._closed = False
        self._stalled = False

    @property
    def closed(self) -> bool:
        """Whether the reader has gone, or takes nothing."""
        return self._closed or self._stalled

    def write(self, data: bytes, /) -> int:
        """Hand it over, sooner or later. Raises ``OSError``: ``EPIPE`` when the reader has gone, ``ETIMEDOUT`` when it takes
        nothing."""
        if len(data) >= PIECE:
            self.flush()
            for start in range(0, len(data), PIECE):
                self._put(data[start : start + PIECE])
            return len(data)
        self._collected += data
        if len(self._collected) >= PIECE:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """What was collected goes on its way. Raises as ``write``."""
        if self._collected:
            piece, self._collected = bytes(self._collected), bytearray()
            self._put(piece)

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more comes; ``error``: because of this, and what came is not whole. Never waits."""
        with self._changed:
            if error is None and self._collected and not self._closed:
                self._pieces.append(bytes(self._collected))
            self._collected = bytearray()
            self._error, self._ended = error, True
            self._changed.notify_all()

    def read(self) -> bytes:
        """The next piece; empty at the end, and when the reader itself has closed. Raises what the writer ended with."""
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._ended or self._closed)
            if self._pieces:
                piece = self._pieces.popleft()
                self._held -= len(piece)
                self._changed.notify_all()
                return piece
            if self._error is not None and not self._closed:
                raise self._error
            return b""

    def close(self) -> None:
        """The reader goes. The writer sees it at its next write."""
        with self._changed:
            self._closed = True
            self._pieces.clear()
            self._held = 0
            self._changed.notify_all()

    def _put(self, piece: bytes) -> None:
        deadline = time.monotonic() + self._stall
        with self._changed:
            while self._held >= LIMIT and not self.closed:
                left = deadline - time.monotonic()
                self._stalled = left <= 0
                if not self._stalled:
                    self._changed.wait(left)
            if self._stalled:  # a reader that comes after all is told by the end, which then has an error
                raise OSError(errno.ETIMEDOUT, f"nothing of it was taken for {self._stall:.0f} s")
            if self._closed:
                raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
            self._pieces.append(piece)
            self._held += len(piece)
            self._changed.notify_all()
