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


# Longest wait, in seconds, after which a paced worker looks whether the copy was ended or the pace changed.
PACE_STEP = 0.2

Pace = Callable[[int], float]
"""Asked before bytes are read, with their number, from any worker. 0.0: read them now, they are counted; else ask again in so
many seconds. It need not be the same answer then: a pace may be changed, or lifted, while a copy runs."""


class Sink(Protocol):
    """Where the bytes go: an ``ImageWriter`` or a ``BlockTarget``. Called from several threads for different ranges."""

    def write(self, offset: int, data: memoryview) -> None: ...
    def zero(self, offset: int, length: int) -> None: ...


@dataclass(frozen=True, slots=True)
class CopyResult:
    """Bytes and seconds. ``source_seconds`` and ``sink_seconds`` are summed over all workers: the larger one tells where
    the bottleneck is. ``paced_seconds``: as long they waited because of the pace."""

    bytes_read: int
    bytes_zero: int
    seconds: float
    source_seconds: float
    sink_seconds: float
    paced_seconds: float = 0.0

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
    pace: Pace | None = None,
) -> CopyResult:
    """Bring the extents over: DATA is read and written in pieces of at most ``segment`` bytes, ZERO goes to ``sink.zero``.
    ``extents`` is walked through more than once, so it is no iterator that ends.

    ``granularity`` (bytes): of the image that is written, read or compared with. Segments grow to a multiple of it, so that
    no chunk is cut; extents that are aligned to it stay so. ``pace``: holds reads up, see ``Pace``. Returns, or raises, after
    all workers have ended: the first error of source, sink or ``progress``, or ``Cancelled`` within one segment's time after
    ``cancelled()`` said so. What was written before stays written.
    """
    keep_freed_memory()
    segment = align_up(segment, granularity)
    begin = perf_counter()
    work = _Copy(source, sink, extents, disk=disk, segment=segment, progress=progress, cancelled=cancelled, pace=pace)
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
    return CopyResult(
        bytes_read=work.read,
        bytes_zero=work.zero,
        seconds=perf_counter() - begin,
        source_seconds=work.source_seconds,
        sink_seconds=work.sink_seconds,
        paced_seconds=work.paced_seconds,
    )


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
        pace: Pace | None,
    ) -> None:
        self._source = source
        self._sink = sink
        self._disk = disk
        self._segment = segment
        self._progress = progress
        self._cancelled = cancelled
        self._pace = pace
        self._total = total(extents)
        self._pieces: Iterator[Extent] = segments(extents, segment)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.error: BaseException | None = None
        self.read = 0
        self.zero = 0
        self.source_seconds = 0.0
        self.sink_seconds = 0.0
        self.paced_seconds = 0.0

    def run(self) -> None:
        """One worker, to the end of the work or to the first error of any."""
        buffer = memoryview(bytearray(self._segment))
        try:
            while (piece := self._next()) is not None:
                if self._pace is not None and piece.kind is Kind.DATA and not self._wait(self._pace, piece.length):
                    return
                self._move(piece, buffer)
        except BaseException as error:  # noqa: BLE001  # every error is the caller's, who raises the first one
            with self._lock:
                self._ended.set()
                self.error = self.error or error

    def stop(self) -> None:
        """No worker begins another segment."""
        with self._lock:
            self._ended.set()

    def _next(self) -> Extent | None:
        with self._lock:
            return None if self._is_over() else next(self._pieces, None)

    def _is_over(self) -> bool:
        """Whether no further segment is to begin. The caller holds the lock."""
        if not self._ended.is_set() and self._cancelled is not None and self._cancelled():
            self._ended.set()
            self.error = self.error or Cancelled(f"copy of disk {self._disk}")
        return self._ended.is_set()

    def _wait(self, pace: Pace, length: int) -> bool:
        """Until the pace lets these bytes be read; false if the copy ends first."""
        begin = perf_counter()
        over = False
        while not over and (seconds := pace(length)) > 0:
            self._ended.wait(min(seconds, PACE_STEP))
            with self._lock:
                over = self._is_over()
        with self._lock:
            self.paced_seconds += perf_counter() - begin
        return not over

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
