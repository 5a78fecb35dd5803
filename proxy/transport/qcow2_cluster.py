"""Compressed clusters of qcow2 images, and the small bounded cache that images use.

Compressed clusters lie back to back, seldom aligned to anything. A read of several of them fetches their whole stretch at
once, since a device answers one read of 500 KiB sooner than twenty of 25 KiB.
"""

import zlib
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

import zstandard

from proxy.errors import FormatError
from proxy.ports import BlockSource
from proxy.transport.qcow2_format import COMPRESSION_ZLIB
from proxy.units import KiB, MiB, align_down

SECTOR = 512

# Clusters whose compressed bytes are further apart than this are fetched by reads of their own.
GAP = 64 * KiB

# Longest stretch that is fetched at once.
STRETCH = 4 * MiB

# Whole clusters kept, because a reader that asks for less than a cluster comes back for the rest. Four: as many readers.
CLUSTER_CACHE = 4

# QEMU's clusters end at 2 MiB and so do the windows of its encoder; a hostile frame may ask for gigabytes.
ZSTD_WINDOW = 8 * MiB

K = TypeVar("K")
V = TypeVar("V")


class Lru(Generic[K, V]):
    """The ``capacity`` entries (at least 1) that were used last. Calls may come from many threads at once."""

    def __init__(self, capacity: int) -> None:
        self._capacity = max(1, capacity)
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._lock = Lock()

    def get(self, key: K) -> V | None:
        """The entry, which is then the newest one, or ``None``."""
        with self._lock:
            value = self._entries.get(key)
            if value is not None:
                self._entries.move_to_end(key)
            return value

    def put(self, key: K, value: V) -> None:
        """Keeps ``value``, and drops the oldest entries beyond the capacity."""
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            while len(self._entries) > self._capacity:
                self._entries.popitem(last=False)


class Compressed(NamedTuple):
    """A request: the bytes of the cluster that L2 entry ``entry`` describes, from ``skip`` on, into ``view``."""

    entry: int
    skip: int
    view: memoryview


class CompressedClusters:
    """Reads compressed clusters of one image. Calls may come from many threads at once."""

    def __init__(self, container: BlockSource, cluster_bits: int, compression: int) -> None:
        self._container = container
        self._cluster_size = 1 << cluster_bits
        self._shift = 62 - (cluster_bits - 8)
        self._compression = compression
        self._cache: Lru[int, bytearray] = Lru(CLUSTER_CACHE)

    def read(self, wanted: Sequence[Compressed]) -> None:
        """Fills every view. Raises ``FormatError`` for clusters that do not decompress, ``ReadFailed``."""
        first = 0
        while first < len(wanted):
            low, high = self._place(wanted[first].entry)
            last = first + 1
            while last < len(wanted):
                start, end = self._place(wanted[last].entry)
                if not (low <= start <= high + GAP and end - low <= STRETCH):
                    break
                high = max(high, end)
                last += 1
            stretch = bytearray(high - low)
            self._container.read_into(low, memoryview(stretch))
            for one in wanted[first:last]:
                start, end = self._place(one.entry)
                self._fill(one, memoryview(stretch)[start - low : end - low])
            first = last

    def _place(self, entry: int) -> tuple[int, int]:
        """First byte in the container, widened to a sector, and the end of the last sector, cut where the container ends."""
        offset = entry & ((1 << self._shift) - 1)
        sectors = (entry & ((1 << 62) - 1)) >> self._shift
        start = align_down(offset, SECTOR)
        end = min(start + (sectors + 1) * SECTOR, self._container.size)
        if offset >= end:
            raise FormatError(
                self._container.identity, f"L2 entry {entry:#x}: compressed data outside of the container"
            )
        return start, end

    def _fill(self, one: Compressed, sectors: memoryview) -> None:
        if len(one.view) == self._cluster_size:
            self._decompress(one.entry, sectors, one.view)
            return
        cluster = self._cache.get(one.entry)
        if cluster is None:
            cluster = bytearray(self._cluster_size)
            self._decompress(one.entry, sectors, memoryview(cluster))
            self._cache.put(one.entry, cluster)
        one.view[:] = memoryview(cluster)[one.skip : one.skip + len(one.view)]

    def _decompress(self, entry: int, sectors: memoryview, cluster: memoryview) -> None:
        """Exactly a cluster of data; compressed bytes behind it belong to somebody else."""
        source = sectors[entry & (SECTOR - 1) :]
        try:
            filled = _inflate(source, cluster) if self._compression == COMPRESSION_ZLIB else _unzstd(source, cluster)
        except (zlib.error, zstandard.ZstdError) as error:
            raise FormatError(self._container.identity, f"L2 entry {entry:#x}: {error}") from error
        if filled != len(cluster):
            raise FormatError(self._container.identity, f"L2 entry {entry:#x}: {filled} bytes instead of a cluster")


def _inflate(source: memoryview, cluster: memoryview) -> int:
    # Raw deflate. QEMU writes a window of 12 bits and refuses larger ones; allowing all costs nothing.
    data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(source, len(cluster))
    cluster[: len(data)] = data
    return len(data)


def _unzstd(source: memoryview, cluster: memoryview) -> int:
    # A cluster may consist of several frames. The reader decodes into place and never trusts a frame's own size.
    decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
    filled = 0
    with decoder.stream_reader(source, read_across_frames=True) as reader:
        while filled < len(cluster):
            count = reader.readinto(cluster[filled:])
            if not count:
                break
            filled += count
    return filled
