"""One disk of a restore: written, made durable, read back and compared with its image.

What is proven when it is done:

1. The index names every chunk of the image: its own digest, and the image's digest over all ids in their order, were
   compared with the manifest when the image was opened.
2. A chunk is written only after its bytes were compared with its id. What was written and zeroed covers the disk from its
   first to its last byte, each once: the extents are a map, and the bytes that went through are counted.
3. Read back from the device after the flush, every chunk has its id again. So the device has the image's digest.

A **differential** restore reads the device first and brings only the chunks that differ. It trusts nothing but that reading,
and what is proven afterwards is the same::

    image    |DDDDDD|ZZZZ|DDDD|ZZZZ|
    device   |DDDDDDDDDDD|ZZZZZZZZZ|       (a device that cannot tell its holes is DATA everywhere)
    read     |##########|                  chunks whose id differs are written, or zeroed where the image is zero
    written  |?????|????|####|    |        what the device has as a hole and the image as data is brought unread
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

from proxy.errors import Cancelled, TransportError, WriteFailed
from proxy.extents import Extent, Kind, aligned, intersect, is_map, normal
from proxy.model import ImageInfo, Reason, ReasonCode
from proxy.ports import (
    BlockSource,
    BlockTarget,
    DiskPlace,
    ImageReader,
    ImageRepository,
    ProgressSink,
    RestoreTargets,
)
from proxy.transfer import SEGMENT, WORKERS, CopyResult, Judge, copy
from proxy.units import MiB

# Bytes of packs that are read ahead, of all disks together.
AHEAD = 16 * MiB


@dataclass(frozen=True, slots=True)
class RestoredDisk:
    """One disk that was restored. ``digest``: of the image and, if it was ``compared``, of the device as it was read back.

    Bytes: ``bytes_written`` without zeroes; ``bytes_zeroed`` of areas that were told to be zero; ``bytes_read`` from the
    device to find what differs. ``seconds`` without the comparison. ``reasons``: why only a part was written, or all.
    """

    key: str
    device: str
    size: int
    bytes_written: int
    digest: str
    seconds: float
    bytes_zeroed: int = 0
    bytes_read: int = 0
    compared: bool = True
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class DiskPorts:
    """What the disks need. ``free``: asked before a disk is written, raises if its place is not free any more."""

    repository: ImageRepository
    targets: RestoreTargets
    free: Callable[[], None]
    progress: ProgressSink | None
    cancelled: Callable[[], bool] | None
    at_once: int


@dataclass(frozen=True, slots=True)
class DiskOptions:
    """As in ``RestoreRequest``."""

    overwrite: bool
    differential: bool
    compare: bool


class DiskRestore:
    """One disk on its way to its place."""

    def __init__(self, ports: DiskPorts, options: DiskOptions, image: ImageInfo, place: DiskPlace) -> None:
        self._ports = ports
        self._options = options
        self._image = image
        self._place = place
        self._workers = WORKERS
        self._ahead = AHEAD

    def restore(self, reader: ImageReader, width: int, begun: Callable[[], None]) -> RestoredDisk:
        """All of it; ``begun`` is called before the first write. ``width``: disks that share threads and memory."""
        ports, image = self._ports, self._image
        self._workers, self._ahead = max(WORKERS // width, 2), AHEAD // width
        # Asked again for every disk: since the restore began, hours may have passed.
        ports.free()
        if ports.cancelled is not None and ports.cancelled():
            raise Cancelled(f"restore of disk {image.key}")
        with ports.targets.open(self._place, image.size, overwrite=self._options.overwrite) as target:
            begun()
            start = perf_counter()
            written = self._differences(reader, target) if self._options.differential else self._all(reader, target)
            target.flush()
            seconds = perf_counter() - start
        if self._options.compare:
            self._compare(reader)
        return RestoredDisk(
            key=image.key,
            device=target.identity,
            size=image.size,
            bytes_written=written.data,
            digest=image.digest,
            seconds=seconds,
            bytes_zeroed=written.zero,
            bytes_read=written.read,
            compared=self._options.compare,
            reasons=written.reasons,
        )

    def compare(self, reader: ImageReader, width: int, _begun: Callable[[], None]) -> None:
        """Only what comes after the writing: for a disk that could not be read back then. ``width`` as in ``restore``."""
        self._workers, self._ahead = max(WORKERS // width, 2), AHEAD // width
        self._compare(reader)

    def _all(self, reader: ImageReader, target: BlockTarget, why: tuple[Reason, ...] = ()) -> "_Written":
        if not is_map(reader.map(), self._image.size):
            raise WriteFailed(target.identity, 0, self._image.size, "the image's extents do not cover the disk once")
        reader.will_read(reader.map(), self._ahead)
        copied = self._copy(reader, target, reader.map(), reader.granularity, self._image.key)
        if copied.bytes_read + copied.bytes_zero != self._image.size:
            raise WriteFailed(target.identity, 0, self._image.size, "not every byte of the image came through")
        return _Written(copied.bytes_read, copied.bytes_zero, 0, why)

    def _differences(self, reader: ImageReader, target: BlockTarget) -> "_Written":
        """Only what differs from what the place holds now; everything if it cannot be read."""
        try:
            device = self._ports.targets.read_back(self._place, self._image.size)
        except TransportError as error:
            return self._all(reader, target, (Reason(ReasonCode.TARGET_NOT_COMPARABLE, error.message),))
        with device:
            there, holes = _data_and_holes(device, reader.granularity, self._image.size)
            found = _Differences(reader, target)
            compared = self._copy(device, found, there, reader.granularity, f"{self._image.key} (differences)")
        missing = list(_data_in(reader.map(), holes))
        reader.will_read(missing, self._ahead)
        copied = self._copy(reader, target, missing, reader.granularity, self._image.key)
        data = found.data + copied.bytes_read
        reason = Reason(
            ReasonCode.DIFFERENCES_FROM_TARGET, f"{data + found.zero_bytes} of {self._image.size} bytes differ"
        )
        return _Written(data, found.zero_bytes, compared.bytes_read, (reason,))

    def _compare(self, reader: ImageReader) -> None:
        with self._ports.targets.read_back(self._place, self._image.size) as device:
            there, holes = _data_and_holes(device, reader.granularity, self._image.size)
            for lost in _data_in(reader.map(), holes):
                raise _differs(device.identity, lost.start, lost.length)
            self._copy(
                device,
                _Comparison(reader, device.identity),
                there,
                reader.granularity,
                f"{self._image.key} (read back)",
            )

    def _copy(
        self, source: BlockSource, sink: "BlockTarget | _Differences | _Comparison", extents: Iterable[Extent],
        granularity: int, name: str,
    ) -> CopyResult:  # fmt: skip
        return copy(
            source,
            sink,
            extents,
            disk=name,
            workers=self._workers,
            granularity=granularity,
            progress=self._ports.progress,
            cancelled=self._ports.cancelled,
        )


@dataclass(frozen=True, slots=True)
class _Written:
    """Bytes: written as data, zeroed, read from the device before."""

    data: int
    zero: int
    read: int
    reasons: tuple[Reason, ...]


def _data_and_holes(device: BlockSource, granularity: int, size: int) -> tuple[list[Extent], list[Extent]]:
    """What has to be read from a device, and what is known to be zero, in whole chunks."""
    extents = aligned(device.extents(), granularity, size)
    if not is_map(extents, size):
        extents = [Extent(0, size)]
    return [e for e in extents if e.kind is Kind.DATA], [e for e in extents if e.kind is Kind.ZERO]


def _data_in(image: Iterable[Extent], holes: Sequence[Extent]) -> Iterator[Extent]:
    """Where the image has DATA in the holes; both in order."""
    waiting = iter(holes)
    hole = next(waiting, None)
    for extent in image:
        while hole is not None and hole.start < extent.end:
            if extent.kind is Kind.DATA:
                yield from intersect([extent], [hole])
            if hole.end > extent.end:
                break
            hole = next(waiting, None)


class _Comparison(Judge):
    """A sink that keeps nothing: what it is given has to be the image's."""

    def __init__(self, image: ImageReader, device: str) -> None:
        super().__init__(image)
        self._device = device

    def write(self, offset: int, data: memoryview) -> None:
        for wrong in self.differing(offset, data):
            raise _differs(self._device, wrong.start, wrong.length)

    def zero(self, offset: int, length: int) -> None:
        raise _differs(self._device, offset, length)  # holes are compared by the maps


class _Differences(Judge):
    """A sink that is given what a device holds, and brings there what the image has instead."""

    def __init__(self, image: ImageReader, target: BlockTarget) -> None:
        super().__init__(image)
        self._target = target
        self._memory = threading.local()
        self._counting = threading.Lock()
        self.data = 0
        self.zero_bytes = 0

    def write(self, offset: int, data: memoryview) -> None:
        for run in normal(self.differing(offset, data)):
            if run.kind is Kind.ZERO:
                self._target.zero(run.start, run.length)
            else:
                part = self._buffer(len(data))[: run.length]
                self.image.read_into(run.start, part)
                self._target.write(run.start, part)
            self._count(run)

    def zero(self, offset: int, length: int) -> None:
        raise ValueError(f"{length} bytes at {offset}: holes are not brought here")

    def _buffer(self, length: int) -> memoryview:
        found: memoryview | None = getattr(self._memory, "buffer", None)
        if found is None or len(found) < length:
            found = self._memory.buffer = memoryview(bytearray(max(length, SEGMENT)))
        return found

    def _count(self, run: Extent) -> None:
        with self._counting:
            if run.kind is Kind.ZERO:
                self.zero_bytes += run.length
            else:
                self.data += run.length


def _differs(device: str, offset: int, length: int) -> WriteFailed:
    return WriteFailed(device, offset, length, "it does not read back as the restore point has it")
