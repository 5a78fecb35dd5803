"""A qcow2 image, versions 2 and 3, read straight from its container: read-only, many threads, no qemu-nbd between.

The active layer only (internal snapshots are not looked at), and of that what the image itself holds: whatever it leaves
to a backing file is told as "not here", and ``proxy.transport.layers`` looks in the next layer.

A set dirty bit is fine: it says that reference counts may be wrong, and reading needs none (L1 and L2 are right). The
words of a refusal: ``not-qcow2``, ``image-damaged``, ``image-corrupt`` (QEMU's own mark), ``image-encrypted``,
``external-data-file``, ``unknown-feature``. The hypervisor can still serve such a disk itself over the LAN.
"""

import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from proxy.errors import ChangesUnknown, FormatError, ReadFailed, TransportRefused
from proxy.extents import Extent
from proxy.model import ChangeId, ReasonCode
from proxy.ports import BlockSource
from proxy.transport import qcow2_format as fmt
from proxy.transport import qcow2_map as mapping
from proxy.transport.guard import check_read, fill_zero
from proxy.transport.qcow2_cluster import Compressed, CompressedClusters, Lru
from proxy.transport.qcow2_map import ABSENT
from proxy.transport.runs import DATA, ZERO, Runs
from proxy.units import KiB, MiB

# L2 tables kept for reading. 16 MiB map 128 GiB of 64 KiB clusters; more is only for disks that are read at random, and a
# proxy that reads ten disks at once has ten of these.
TABLE_CACHE = 16 * MiB

# Neighbouring L2 tables are fetched in one read of at most this many bytes; larger ones only take memory.
TABLE_BATCH = 4 * MiB

COMPRESSED = 3
"""A fourth class, only met when reading; in maps compressed clusters are DATA."""


class _Piece(NamedTuple):
    """Guest bytes ``[start, end)`` of one class; ``host``: where DATA begins in the container, or a compressed entry."""

    kind: int
    start: int
    end: int
    host: int


class Qcow2Image:
    """One image of a chain. Owns its container; opening reads the header and the L1 table.

    Raises ``TransportRefused`` (with ``mode`` and ``disk`` in it) for what it cannot read, ``ReadFailed`` from the container.
    """

    def __init__(self, container: BlockSource, *, mode: str, disk: str) -> None:
        self._container = container
        self._disk = disk
        self.identity = container.identity
        self.header = self._open(mode)
        self.size = self.header.size
        self._tables: Lru[int, array[int]] = Lru(TABLE_CACHE // self.header.cluster_size)
        self._compressed = CompressedClusters(container, self.header.cluster_bits, self.header.compression)
        self._closed = False

    def allocation(self) -> Sequence[Extent]:
        """What this image itself holds: normal, DATA and ZERO, with gaps where a backing file would be asked.

        Where a disk is fragmented beyond measure, it may tell more DATA than there is, never less. Raises ``ReadFailed``.
        """
        runs = Runs()
        unit = self.header.cluster_size // (mapping.SUBCLUSTERS if self.header.extended_l2 else 1)
        longest = max(1, TABLE_BATCH // self.header.cluster_size)
        try:
            for first, count in mapping.adjacent(self._l1, self.header.cluster_size, longest):
                tables = self._read(self._l1[first], count * self.header.cluster_size)
                mapping.add_classes(runs, first * self.header.l2_span, self._classes(tables), unit)
        except FormatError as error:
            raise ReadFailed(self.identity, 0, self.size, error.message) from error
        return runs.extents(self.size)

    def read_allocated(self, offset: int, buffer: memoryview) -> Sequence[tuple[int, int]]:
        """Fills the parts of ``buffer`` that this image holds. Returns (offset, length) of the others, left untouched.

        The range may leave the image. What lies behind its end reads as zero and no lower layer shines through, as in
        QEMU. Raises ``ReadFailed``.
        """
        if self._closed:
            check_read(self.identity, self.size, offset, len(buffer), closed=True)
        end = offset + len(buffer)
        absent: list[tuple[int, int]] = []
        compressed: list[Compressed] = []
        try:
            for piece in _merged(self._pieces(offset, min(end, self.size))):
                view = buffer[piece.start - offset : piece.end - offset]
                if piece.kind == DATA:
                    self._read_into(piece.host, view)
                elif piece.kind == ZERO:
                    fill_zero(view)
                elif piece.kind == ABSENT:
                    absent.append((piece.start, len(view)))
                else:
                    compressed.append(Compressed(piece.host, piece.start & (self.header.cluster_size - 1), view))
            self._compressed.read(compressed)
        except FormatError as error:
            raise ReadFailed(self.identity, offset, len(buffer), error.message) from error
        fill_zero(buffer[max(0, self.size - offset) :])
        return absent

    def bitmaps(self) -> Sequence[fmt.Bitmap]:
        """The persistent bitmaps of the image, in use or not. Raises ``FormatError``, ``ReadFailed``."""
        extension = self.header.bitmaps
        if extension is None:
            return ()
        directory = self._read(extension.directory_offset, extension.directory_size)
        return fmt.parse_bitmap_directory(self.identity, bytes(directory), extension.count)

    def changed(self, since: ChangeId) -> Sequence[Extent]:
        """What the bitmap ``since`` marks: normal, DATA only, within the disk. Raises ``ChangesUnknown``."""
        try:
            bitmap = next((b for b in self.bitmaps() if b.name == since), None)
            if bitmap is None:
                raise ChangesUnknown(self._disk, ReasonCode.TRACKING_LOST, f"no bitmap {since} in {self.identity}")
            self._check_bitmap(bitmap)
            return self._bitmap_extents(bitmap)
        except FormatError as error:
            raise ChangesUnknown(self._disk, ReasonCode.TRACKING_INCONSISTENT, error.message) from error

    def close(self) -> None:
        """Closes the container too."""
        self._closed = True
        self._container.close()

    # opening

    def _open(self, mode: str) -> fmt.Header:
        container = self._container
        try:
            first = self._read(0, min(4 * KiB, container.size))
            length = min(fmt.parse_cluster_size(self.identity, bytes(first)), container.size)
        except FormatError as error:
            raise TransportRefused(mode, self._disk, "not-qcow2", error.message) from error
        try:
            cluster = self._read(0, length)
            header = fmt.parse_header(self.identity, bytes(cluster), container.size)
            refusal = header.refusal()
            if refusal is not None:
                raise TransportRefused(
                    mode, self._disk, *refusal, hint="the LAN transport reads it through the hypervisor"
                )
            self._l1 = self._read_l1(header)
        except FormatError as error:
            raise TransportRefused(mode, self._disk, "image-damaged", error.message) from error
        return header

    def _read_l1(self, header: fmt.Header) -> "array[int]":
        """Host offsets of the L2 tables, 0 where there is none."""
        l1 = _numbers(self._read(header.l1_offset, header.l1_needed * 8))
        for index, entry in enumerate(l1):
            if entry:
                l1[index] = entry & fmt.OFFSET_MASK
        present = [offset for offset in l1 if offset]
        # Two entries never share a table in a sound image. In a hostile one, sharing makes a small file map as a huge one.
        if len(set(present)) != len(present):
            raise FormatError(self.identity, "L1 entries share an L2 table")
        unaligned = any(offset & (header.cluster_size - 1) for offset in present)
        if unaligned or (present and max(present) + header.cluster_size > self._container.size):
            raise FormatError(self.identity, "L1 entry outside of the container or not aligned to a cluster")
        return l1

    # mapping

    def _classes(self, tables: bytes | bytearray) -> bytes:
        if self.header.extended_l2:
            return mapping.extended_table_classes(self.identity, bytes(tables))
        return mapping.table_classes(self.identity, bytes(tables), self.header.version)

    def _pieces(self, start: int, end: int) -> Iterator[_Piece]:
        """A piece a cluster or subcluster, in order, covering ``[start, end)``."""
        span, bits = self.header.l2_span, self.header.cluster_bits
        while start < end:
            index = start // span
            stop = min(end, (index + 1) * span)
            if not self._l1[index]:
                yield _Piece(ABSENT, start, stop, 0)
            else:
                table, base = self._table(self._l1[index]), index * span
                clusters = range((start - base) >> bits, ((stop - 1 - base) >> bits) + 1)
                pieces = self._extended(table, clusters, base) if self.header.extended_l2 else None
                for piece in pieces or self._standard(table, clusters, base):
                    skip = max(0, start - piece.start)
                    host = piece.host + skip if piece.kind == DATA else piece.host
                    if piece.end > start and piece.start < stop:
                        yield _Piece(piece.kind, piece.start + skip, min(piece.end, stop), host)
            start = stop

    def _standard(self, table: "array[int]", clusters: range, base: int) -> Iterator[_Piece]:
        size = self.header.cluster_size
        start = base + clusters.start * size
        for entry in table[clusters.start : clusters.stop]:
            if entry & fmt.L2_COMPRESSED:
                yield _Piece(COMPRESSED, start, start + size, entry)
            elif entry & fmt.L2_ZERO:
                yield _Piece(self._zero(entry), start, start + size, 0)
            elif entry & fmt.OFFSET_MASK:
                yield _Piece(DATA, start, start + size, self._host(entry))
            else:
                yield _Piece(ABSENT, start, start + size, 0)
            start += size

    def _extended(self, table: "array[int]", clusters: range, base: int) -> Iterator[_Piece]:
        size = self.header.cluster_size
        part = size // mapping.SUBCLUSTERS
        for cluster in clusters:
            start, entry, bitmap = base + cluster * size, table[2 * cluster], table[2 * cluster + 1]
            if entry & fmt.L2_COMPRESSED:
                yield _Piece(COMPRESSED, start, start + size, entry)
                continue
            classes = mapping.subclusters(self.identity, entry, bitmap)
            host = self._host(entry) if DATA in classes else 0
            for low, high, kind in mapping.class_runs(classes):
                at = host + low * part if kind == DATA else 0
                yield _Piece(kind, start + low * part, start + high * part, at)

    def _zero(self, entry: int) -> int:
        if self.header.version == 2:
            raise FormatError(self.identity, f"L2 entry {entry:#x}: zero cluster in an image of version 2")
        return ZERO

    def _host(self, entry: int) -> int:
        host = entry & fmt.OFFSET_MASK
        if host & (self.header.cluster_size - 1) or host >= self._container.size:
            raise FormatError(
                self.identity, f"L2 entry {entry:#x} outside of the container or not aligned to a cluster"
            )
        return host

    def _table(self, offset: int) -> "array[int]":
        table = self._tables.get(offset)
        if table is None:
            table = _numbers(self._read(offset, self.header.cluster_size))
            self._tables.put(offset, table)
        return table

    # bitmaps

    def _check_bitmap(self, bitmap: fmt.Bitmap) -> None:
        def unknown(reason: ReasonCode, why: str) -> ChangesUnknown:
            return ChangesUnknown(self._disk, reason, f"bitmap {bitmap.name} in {self.identity} {why}")

        if not self.header.autoclear & fmt.AUTOCLEAR_BITMAPS:
            raise unknown(ReasonCode.TRACKING_INCONSISTENT, "was left behind by a writer that knew no bitmaps")
        if bitmap.in_use:
            raise unknown(ReasonCode.TRACKING_INCONSISTENT, "was not saved (a machine runs on the image or was killed)")
        if not bitmap.usable:
            raise unknown(ReasonCode.TRACKING_INCONSISTENT, "is of a kind that is not known")
        data_bytes = -(-self.size // (8 * bitmap.granularity))
        if bitmap.table_entries != -(-data_bytes // self.header.cluster_size):
            raise unknown(ReasonCode.DISK_RESIZED, f"is not as long as the disk of {self.size} bytes")

    def _bitmap_extents(self, bitmap: fmt.Bitmap) -> Sequence[Extent]:
        if bitmap.table_entries * 8 > fmt.BITMAP_TABLE_LIMIT:
            raise FormatError(self.identity, f"bitmap table of {bitmap.table_entries} entries")
        runs = Runs()
        span = self.header.cluster_size * 8 * bitmap.granularity
        for index, entry in enumerate(_numbers(self._read(bitmap.table_offset, bitmap.table_entries * 8))):
            start = index * span
            offset = entry & fmt.OFFSET_MASK
            if offset:
                mapping.add_bits(runs, start, bytes(self._read(offset, self.header.cluster_size)), bitmap.granularity)
            elif entry & 1:
                runs.add(start, start + span, DATA)
        return runs.extents(self.size)

    # the container

    def _read(self, offset: int, length: int) -> bytearray:
        """Metadata, wholly inside the container. Raises ``FormatError`` when it is not."""
        if offset + length > self._container.size:
            raise FormatError(self.identity, f"{length} bytes of metadata at {offset} lie outside of the container")
        data = bytearray(length)
        self._container.read_into(offset, memoryview(data))
        return data

    def _read_into(self, offset: int, view: memoryview) -> None:
        """Guest data. The last cluster of a file may be cut where the file ends; what is missing there reads as zero."""
        inside = max(0, min(len(view), self._container.size - offset))
        if inside:
            self._container.read_into(offset, view[:inside])
        fill_zero(view[inside:])


def _merged(pieces: Iterator[_Piece]) -> Iterator[_Piece]:
    """Join neighbours of one class, DATA only where it is adjacent in the container too: one read for them all."""
    last: _Piece | None = None
    for piece in pieces:
        if last is not None and _joins(last, piece):
            last = _Piece(last.kind, last.start, piece.end, last.host)
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last


def _joins(last: _Piece, piece: _Piece) -> bool:
    if piece.kind != last.kind or piece.kind == COMPRESSED:
        return False
    return piece.kind != DATA or last.host + last.end - last.start == piece.host


def _numbers(table: bytes | bytearray) -> "array[int]":
    numbers = array("Q")
    numbers.frombytes(table)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers
