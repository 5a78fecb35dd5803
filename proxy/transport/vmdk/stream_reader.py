"""Reading a stream-optimised VMDK from its beginning to its end, once, in bounded memory.

Nothing of it is believed before it was checked: a host that was broken into, or a proxy between, may send anything. Sizes are
bounded before memory is taken; grains come in ascending order, each once; markers without content are counted; what a grain
unpacks to is bounded by the grain. At the end the tables must list exactly the grains that came by: a host that left one out is
found out.
"""

import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from proxy.errors import FormatError
from proxy.transport.vmdk import stream_format as fmt
from proxy.transport.vmdk.descriptor import SECTOR
from proxy.transport.vmdk.stream_format import DIRECTORY_AT_END, Marker, StreamHeader
from proxy.units import KiB, align_up

PROGRESS_LIMIT = 1_000_000
"""Signs of life: VMware's writers send four of them every ten seconds at the most, for a month here."""

PROGRESS_SECTORS = 128

SKIP = 256 * KiB
"""Bytes of overhead that are read at once and thrown away."""


class Readable(Protocol):
    """Where the stream comes from: a file, an HTTP response."""

    def read(self, length: int, /) -> bytes:
        """At most ``length`` bytes; fewer only at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Grain:
    """``length`` bytes of the disk from ``start`` on, still packed; the disk's last grain is cut at its end."""

    start: int
    length: int
    size: int
    packed: bytes

    @property
    def end(self) -> int:
        """First byte of the disk behind the grain."""
        return self.start + self.length

    def unpack(self, what: str) -> bytes:
        """Its ``length`` bytes; may be called from any thread. Raises ``FormatError``."""
        unpacking = zlib.decompressobj()
        try:
            # One byte more than may come, so that no stream however hostile unpacks to more than a grain.
            data = unpacking.decompress(self.packed, self.size + 1)
        except zlib.error as error:
            raise FormatError(what, f"the grain at {self.start} cannot be unpacked: {error}") from None
        if not self.length <= len(data) <= self.size or not unpacking.eof:
            raise FormatError(what, f"the grain at {self.start} has {len(data)} bytes or more, not {self.size}")
        return data if len(data) == self.length else data[: self.length]


class StreamReader:
    """A stream from its header on. ``what``: its name in errors. Raises ``FormatError``, and what ``source`` raises."""

    def __init__(self, source: Readable, what: str) -> None:
        self._source = source
        self._what = what
        self._sector = 0
        self.header = self._open()
        self.size = self.header.size

    def grains(self) -> Iterator[Grain]:
        """All that the stream holds, in ascending order. When it ends by itself, the whole stream was there and in order."""
        header, tables, footers = self.header, _Tables(self._what, self.header), 0
        position = progress = 0
        while True:
            at = self._sector
            raw = self._exactly(SECTOR, end_allowed=header.directory_at != DIRECTORY_AT_END)
            if not raw:
                return  # a file whose directory is in front may simply end
            value, length = fmt.MARKER.unpack_from(raw)
            if length:
                grain = self._grain(value * SECTOR, length, raw, position)
                tables.note(grain.start, at)
                position = grain.start + header.grain
                yield grain
                continue
            kind = fmt.METADATA.unpack_from(raw)[2]
            if kind == Marker.END:
                break
            if kind == Marker.TABLE and value == fmt.TABLE_SECTORS:
                tables.table(self._sector, self._exactly(value * SECTOR))
            elif kind == Marker.DIRECTORY and value == header.directory_sectors:
                tables.directory(self._sector, self._exactly(value * SECTOR))
            elif kind == Marker.FOOTER and value == 1 and not footers:
                self._footer(tables, self._exactly(SECTOR))
                footers = 1
            elif kind == Marker.PROGRESS and value <= PROGRESS_SECTORS and progress < PROGRESS_LIMIT:
                progress += 1
                self._skip(value)
            else:
                raise FormatError(self._what, f"metadata of type {kind} with {value} sectors in sector {at}")
        if header.directory_at == DIRECTORY_AT_END and not footers:
            raise FormatError(self._what, "it ends without a footer")

    def _open(self) -> StreamHeader:
        header = fmt.parse_header(self._what, self._exactly(SECTOR))
        if header.descriptor_at:
            self._skip(header.descriptor_at - 1)
            fmt.check_descriptor(self._what, self._exactly(header.descriptor_sectors * SECTOR))
        self._skip(header.overhead - self._sector)
        return header

    def _grain(self, start: int, length: int, first: bytes, position: int) -> Grain:
        header = self.header
        if start < position or start % header.grain or start >= header.size:
            raise FormatError(self._what, f"a grain at {start}, after {position} of {header.size} bytes")
        if length > header.packed_limit:
            raise FormatError(self._what, f"the grain at {start} has {length} bytes packed")
        rest = align_up(fmt.MARKER.size + length, SECTOR) - SECTOR
        raw = first + self._exactly(rest) if rest else first
        packed = raw[fmt.MARKER.size : fmt.MARKER.size + length]
        return Grain(start, min(header.grain, header.size - start), header.grain, packed)

    def _footer(self, tables: "_Tables", raw: bytes) -> None:
        footer = fmt.parse_header(self._what, raw)
        if (footer.size, footer.grain) != (self.header.size, self.header.grain):
            raise FormatError(self._what, f"the footer tells of {footer.size} bytes, the header of {self.header.size}")
        tables.check(footer.directory_at)

    def _skip(self, sectors: int) -> None:
        if sectors < 0:
            raise FormatError(self._what, f"the descriptor ends in sector {self._sector}, behind the first grain")
        left = sectors * SECTOR
        while left:
            left -= len(self._exactly(min(SKIP, left)))

    def _exactly(self, length: int, *, end_allowed: bool = False) -> bytes:
        """That many bytes, or none at the end where that is allowed."""
        raw = self._source.read(length)
        if len(raw) < length:
            parts = [raw]
            while parts[-1] and sum(map(len, parts)) < length:
                parts.append(self._source.read(length - sum(map(len, parts))))
            raw = b"".join(parts)
        if len(raw) != length and (raw or not end_allowed):
            raise FormatError(self._what, f"it ends within sector {self._sector + len(raw) // SECTOR}")
        self._sector += length // SECTOR
        return raw


class _Tables:
    """Whether the tables list the grains that came by: how many of each table, and the sum of their sectors.

    20 bytes a table: 1 MiB for a disk of 2 TiB. Tables come behind their grains or all at the end, and only the directory says
    which one is whose.
    """

    def __init__(self, what: str, header: StreamHeader) -> None:
        self._what = what
        self._header = header
        self._counts: NDArray[np.uint32] = np.zeros(header.tables, np.uint32)
        self._sums: NDArray[np.uint64] = np.zeros(header.tables, np.uint64)
        self._places, self._table_counts, self._table_sums = array("Q"), array("Q"), array("Q")
        self._directory_at: int | None = None
        self._directory: NDArray[np.uint32] | None = None

    def note(self, start: int, sector: int) -> None:
        """A grain at ``start`` of the disk, whose marker is in ``sector`` of the stream."""
        number = start // self._header.span
        self._counts[number] += 1
        self._sums[number] += np.uint64(sector % fmt.ENTRY_LIMIT)

    def table(self, sector: int, raw: bytes) -> None:
        """A table that begins in ``sector``."""
        if len(self._places) >= self._header.tables:
            raise FormatError(self._what, f"more than its {self._header.tables} tables")
        entries = np.frombuffer(raw, "<u4")
        entries = entries[entries > 1]  # 1: a grain that is known to be zero
        self._places.append(sector % fmt.ENTRY_LIMIT)
        self._table_counts.append(len(entries))
        self._table_sums.append(int(entries.sum(dtype=np.uint64)))

    def directory(self, sector: int, raw: bytes) -> None:
        """The directory, which begins in ``sector``."""
        if self._directory is not None:
            raise FormatError(self._what, "a second directory")
        self._directory_at, self._directory = sector, np.frombuffer(raw, "<u4")[: self._header.tables]

    def check(self, directory_at: int) -> None:
        """Raises ``FormatError`` unless the footer's directory lists what came by."""
        if self._directory is None or self._directory_at != directory_at:
            raise FormatError(self._what, f"a footer with a directory in sector {directory_at}")
        places = np.frombuffer(self._places, np.uint64)
        order = np.argsort(places)
        wanted = np.flatnonzero(self._directory)
        asked = self._directory[wanted].astype(np.uint64)
        found = np.minimum(np.searchsorted(places, asked, sorter=order), max(0, len(places) - 1))
        if len(wanted) and (not len(places) or np.any(places[order[found]] != asked)):
            raise FormatError(self._what, "a directory entry without its table")
        counts, sums = np.zeros_like(self._counts), np.zeros_like(self._sums)
        if len(wanted):
            counts[wanted] = np.frombuffer(self._table_counts, np.uint64)[order[found]]
            sums[wanted] = np.frombuffer(self._table_sums, np.uint64)[order[found]]
        wrong = np.flatnonzero((counts != self._counts) | (sums != self._sums))
        if len(wrong):
            start = int(wrong[0]) * self._header.span
            raise FormatError(self._what, f"the grains from {start} on are not those that their table lists")
