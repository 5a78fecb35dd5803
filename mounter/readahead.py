"""Reading ahead for clients that ask for one piece after the other: what comes next is read while they digest the last.

::

    requests      |1--|2--|3--|4--|                    one stream: each begins where one before ended
    blocks        |       |  read ahead  |······|      from the third request on, more with every request, up to ``AHEAD``

A client that keeps many requests under way (nbdcopy) reads ahead by itself; for it this would be one copy more of each
byte, so nothing is done while several requests are under way. Random reads pass through as well. Several streams at once
are told apart: a copy that goes over a disk in parts, or file systems of two partitions.
"""

import threading
from collections import OrderedDict
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass

from proxy.closing import Closeable
from proxy.errors import LanfreeError
from proxy.ports import ImageReader
from proxy.units import MiB

# What is read at once. A store over the network answers in tens of milliseconds: smaller pieces would be mostly waiting;
# larger ones come later than the client wants them.
BLOCK = 1 * MiB

# How far ahead of a stream. At 30 ms an answer, 8 MiB in 4 threads bring some 130 MB/s; it is memory, for each stream.
AHEAD = 8 * MiB
THREADS = 4

# Blocks that are kept for all streams of a disk together: three streams at full length.
ROOM = 24

# Streams that are told apart. A reader of a file system alternates between few places: inodes, directories, data.
STREAMS = 8

# From this many requests under way on, the client does the work itself.
BUSY = 4

# Requests in order before anything is read ahead: two are chance.
CERTAIN = 2


@dataclass(slots=True)
class _Stream:
    """``next``: where its next request begins. ``planned``: first byte that nobody was told to read."""

    next: int
    planned: int
    requests: int = 1
    length: int = 0


class ReadAhead(Closeable):
    """Reads of one image, from many threads. The image stays the caller's."""

    def __init__(self, image: ImageReader) -> None:
        self._image = image
        self._block = max(BLOCK, image.granularity)
        self._streams: list[_Stream] = []
        self._blocks: OrderedDict[int, Future[bytearray]] = OrderedDict()
        self._lock = threading.Lock()
        self._under_way = 0
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """As ``BlockSource.read_into``."""
        end = offset + len(buffer)
        with self._lock:
            self._under_way += 1
            self._follow(offset, end)
            ready = self._ready(offset, end) if self._blocks else {}
        try:
            if ready:
                self._assemble(offset, buffer, ready)
            else:
                self._image.read_into(offset, buffer)
        finally:
            with self._lock:
                self._under_way -= 1

    def close(self) -> None:
        """Read nothing more ahead. Returns when what is under way has ended."""
        with self._lock:
            self._closed = True
            self._blocks.clear()
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    def _follow(self, offset: int, end: int) -> None:
        """Find the request's stream and plan what comes behind it. The lock is held."""
        stream = next((s for s in self._streams if s.next == offset), None)
        if stream is None:
            self._streams.append(_Stream(end, end))
            del self._streams[:-STREAMS]
            return
        self._streams.remove(stream)  # the one that was used last is dropped last
        self._streams.append(stream)
        stream.next = end
        stream.requests += 1
        stream.length += end - offset
        if stream.requests > CERTAIN and self._under_way < BUSY and not self._closed:
            self._plan(stream, min(end + min(2 * stream.length + self._block, AHEAD), self._image.size))

    def _plan(self, stream: _Stream, until: int) -> None:
        """Whole blocks from where the stream stands. The lock is held."""
        number = -(-max(stream.planned, stream.next) // self._block)
        while number * self._block < until:
            if number not in self._blocks and self._holds_data(number):
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="read-ahead")
                self._blocks[number] = self._pool.submit(self._fetch, number)
            number += 1
            stream.planned = number * self._block
        while len(self._blocks) > ROOM:
            _, dropped = self._blocks.popitem(last=False)
            dropped.cancel()

    def _holds_data(self, number: int) -> bool:
        """Whether it is worth reading: holes cost nothing when they are asked for."""
        start = number * self._block
        try:
            offsets = range(start, min(start + self._block, self._image.size), self._image.granularity)
            return any(self._image.digest_at(offset) is not None for offset in offsets)
        except LanfreeError:
            return False  # whoever reads there meets the damage, and names it

    def _fetch(self, number: int) -> bytearray:
        start = number * self._block
        block = bytearray(min(self._block, self._image.size - start))
        self._image.read_into(start, memoryview(block))
        return block

    def _ready(self, offset: int, end: int) -> dict[int, Future[bytearray]]:
        """The blocks of a request that were read ahead; one whose end is asked for is not kept. The lock is held."""
        found: dict[int, Future[bytearray]] = {}
        for number in range(offset // self._block, -(-end // self._block)):
            block = self._blocks.get(number)
            if block is not None:
                found[number] = block
                if end >= min((number + 1) * self._block, self._image.size):
                    del self._blocks[number]
        return found

    def _assemble(self, offset: int, buffer: memoryview, ready: dict[int, "Future[bytearray]"]) -> None:
        """From what was read ahead, and the rest from the image."""
        end, at = offset + len(buffer), offset
        while at < end:
            number = at // self._block
            upto = min((number + 1) * self._block, end)
            part = buffer[at - offset : upto - offset]
            block = _result(ready.get(number))
            if block is None:
                self._image.read_into(at, part)
            else:
                base = number * self._block
                part[:] = memoryview(block)[at - base : upto - base]
            at = upto


def _result(block: "Future[bytearray] | None") -> bytearray | None:
    """``None`` when it was not read ahead, or could not be: then it is read anew, for the error is the request's own."""
    if block is None:
        return None
    try:
        return block.result()
    except (LanfreeError, OSError, CancelledError):
        return None
