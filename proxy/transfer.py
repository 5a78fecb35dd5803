"""The one copy loop, for backup and restore: several workers, each reads the next segment and writes it.

::

    extents   |DDDDDDDDDDDDDDDD|ZZZZZZZZZZ|DDDD|
    segments  |1----|2----|3---|          |4---|        in offset order, pulled by whichever worker is free
    worker A  read 1, write 1, read 3, write 3 …        one buffer each: memory = workers x segment
    worker B  read 2, write 2, zero …, read 4 …

Reading, hashing, compressing and storing overlap because they happen in different workers; the first error ends all.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from typing import Protocol

from proxy.errors import Cancelled
from proxy.extents import Extent, Kind, segments, total
from proxy.heap import keep_freed_memory
from proxy.ports import BlockSource, ImageReader, Progress, ProgressSink
from proxy.units import MiB, align_up

# Large enough that a request costs little beside its bytes (256 KiB needs depth 16 for the same speed), small enough that
# many workers stay within a few MiB.
SEGMENT = 1 * MiB

# Two keep two cores busy; twice that hides the time that a worker waits for the array or for a durable write.
WORKERS = 4


class Sink(Protocol):
    """Where the bytes go: an ``ImageWriter`` or a ``BlockTarget``. Called from several threads for different ranges."""

    def write(self, offset: int, data: memoryview) -> None: ...
    def zero(self, offset: int, length: int) -> None: ...


@dataclass(frozen=True, slots=True)
class CopyResult:
    """Bytes and seconds. ``source_seconds`` and ``sink_seconds`` are summed over all workers: the larger one tells where
    the bottleneck is."""

    bytes_read: int
    bytes_zero: int
    seconds: float
    source_seconds: float
    sink_seconds: float

    @property
    def bottleneck(self) -> str:
        """``source`` or ``sink``."""
        return "source" if self.source_seconds > self.sink_seconds else "sink"


def copy(
    source: BlockSource,
    sink: Sink,
    extents: Iterable[Extent],
    *,
    disk: str,
    workers: int = WORKERS,
    segment: int = SEGMENT,
    granularity: int = 1,
    progress: ProgressSink | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> CopyResult:
    """Bring the extents over: DATA is read and written in pieces of at most ``segment`` bytes, ZERO goes to ``sink.zero``.
    ``extents`` is walked through more than once, so it is no iterator that ends.

    ``granularity`` (bytes): of the image that is written, read or compared with. Segments grow to a multiple of it, so that
    no chunk is cut; extents that are aligned to it stay so. Returns, or raises, after all workers have ended: the first
    error of source, sink or ``progress``, or ``Cancelled`` within one segment's time after ``cancelled()`` said so. What was
    written before stays written.
    """
    keep_freed_memory()
    segment = align_up(segment, granularity)
    begin = perf_counter()
    work = _Copy(source, sink, extents, disk=disk, segment=segment, progress=progress, cancelled=cancelled)
    few = sum(1 for _ in islice(segments(extents, segment), workers))
    helpers = [threading.Thread(target=work.run, name=f"copy-{disk}-{n}") for n in range(1, few)]
    try:
        for thread in helpers:
            thread.start()
        work.run()
    finally:
        work.stop()
        for thread in helpers:
            if thread.ident is not None:
                thread.join()
    if work.error is not None:
        raise work.error
    return CopyResult(work.read, work.zero, perf_counter() - begin, work.source_seconds, work.sink_seconds)


class Judge:
    """Compares bytes, which a copy brings to a sink, with the chunk ids of an ``image``. May be asked from any thread."""

    def __init__(self, image: ImageReader) -> None:
        self.image = image
        self._zeroes = bytes(image.granularity)

    def differing(self, offset: int, data: memoryview) -> Iterator[Extent]:
        """Each chunk that is not the image's, in order, and whether the image has DATA or ZERO there. ``offset``: a multiple
        of the image's granularity, in bytes; ``data``: whole chunks, but at the disk's end."""
        step = self.image.granularity
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            expected = self.image.digest_at(offset + start)
            if expected is None:
                if not self._zeroes.startswith(piece):
                    yield Extent(offset + start, len(piece), Kind.ZERO)
            elif self.image.chunk_digest(piece) != expected:
                yield Extent(offset + start, len(piece))


class _Copy:
    """State shared by the workers of one copy; everything but the constructor's facts is changed under ``_lock`` only."""

    def __init__(
        self,
        source: BlockSource,
        sink: Sink,
        extents: Iterable[Extent],
        *,
        disk: str,
        segment: int,
        progress: ProgressSink | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self._source = source
        self._sink = sink
        self._disk = disk
        self._segment = segment
        self._progress = progress
        self._cancelled = cancelled
        self._total = total(extents)
        self._pieces: Iterator[Extent] = segments(extents, segment)
        self._lock = threading.Lock()
        self._ended = False
        self.error: BaseException | None = None
        self.read = 0
        self.zero = 0
        self.source_seconds = 0.0
        self.sink_seconds = 0.0

    def run(self) -> None:
        """One worker, to the end of the work or to the first error of any."""
        buffer = memoryview(bytearray(self._segment))
        try:
            while (piece := self._next()) is not None:
                self._move(piece, buffer)
        except BaseException as error:  # noqa: BLE001  # every error is the caller's, who raises the first one
            with self._lock:
                self._ended = True
                self.error = self.error or error

    def stop(self) -> None:
        """No worker begins another segment."""
        with self._lock:
            self._ended = True

    def _next(self) -> Extent | None:
        with self._lock:
            if self._ended:
                return None
            if self._cancelled is not None and self._cancelled():
                self._ended = True
                self.error = self.error or Cancelled(f"copy of disk {self._disk}")
                return None
            return next(self._pieces, None)

    def _move(self, piece: Extent, buffer: memoryview) -> None:
        begin = middle = perf_counter()
        if piece.kind is Kind.ZERO:
            self._sink.zero(piece.start, piece.length)
        else:
            part = buffer[: piece.length]
            self._source.read_into(piece.start, part)
            middle = perf_counter()
            self._sink.write(piece.start, part)
        end = perf_counter()
        with self._lock:
            self.source_seconds += middle - begin
            self.sink_seconds += end - middle
            if piece.kind is Kind.ZERO:
                self.zero += piece.length
            else:
                self.read += piece.length
            if self._progress is not None:
                self._progress(Progress(self._disk, self.read + self.zero, self._total, self.read))
