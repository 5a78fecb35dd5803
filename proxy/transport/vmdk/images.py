"""One layer of a chain: what a flat or a sparse extent itself holds, many threads at once.

Each has ``allocation`` (normal extents, gaps where the parent is asked) and ``read_allocated`` (fills what it holds, returns
the rest), as ``proxy.transport.qcow2`` has.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from proxy.errors import FormatError, ReadFailed, TransportRefused
from proxy.extents import Extent, Kind, intersect, normal
from proxy.ports import BlockSource
from proxy.transport import runs
from proxy.transport.guard import fill_zero
from proxy.transport.vmdk import sparse_format as fmt
from proxy.transport.vmdk.descriptor import ExtentLine, VmdkReason
from proxy.transport.vmdk.descriptor import Kind as ExtentKind
from proxy.transport.vmdk.sparse_format import ABSENT, DATA, SparseLayout
from proxy.transport.vmfs.lun import LONGEST_READ, PAGE, Metadata
from proxy.transport.vmfs.reasons import Subject
from proxy.units import MiB

TABLE_PAGES = 8 * MiB // PAGE
"""Tables kept of one delta: 4 GiB of a seSparse disk."""

HEADERS = 2048
"""Both headers of a seSparse extent, with what is between them; all of a vmfsSparse one's."""


class Piece(NamedTuple):
    """``length`` bytes of a disk from ``start``: at ``place`` of ``file``; zero, if ``file`` is ``None``."""

    start: int
    length: int
    file: BlockSource | None
    place: int


class FlatImage:
    """The guest's bytes as they are, in one or several files. Owns them."""

    def __init__(self, parts: Sequence[tuple[ExtentLine, BlockSource]], subject: Subject) -> None:
        self._parts: list[tuple[int, ExtentLine, BlockSource]] = []
        position = 0
        for line, file in parts:
            if line.offset + line.size > file.size:
                detail = f"{file.identity} has {file.size} bytes, its extent {line.size} from {line.offset}"
                raise TransportRefused(subject.mode, subject.disk, VmdkReason.EXTENT_TOO_SMALL, detail)
            self._parts.append((position, line, file))
            position += line.size
        self.size = position
        self.identity = parts[0][1].identity

    def allocation(self) -> Sequence[Extent]:
        """Holds all of the disk; holes of its files are ZERO."""
        _start, only, source = self._parts[0]
        if len(self._parts) == 1 and not only.offset and only.size == source.size and source.can_report_extents:
            return source.extents()  # as it mostly is: half a million extents need not be cut and sorted again
        found: list[Extent] = []
        for start, line, file in self._parts:
            whole = [Extent(line.offset, line.size)]
            held = intersect(file.extents(), whole) if file.can_report_extents else whole
            found += [Extent(e.start - line.offset + start, e.length, e.kind) for e in held]
        return normal(found)

    def read_allocated(self, offset: int, buffer: memoryview) -> Sequence[tuple[int, int]]:
        """Fills all of it."""
        end = offset + len(buffer)
        for start, line, file in self._parts:
            low, high = max(offset, start), min(end, start + line.size)
            if low < high:
                file.read_into(low - start + line.offset, buffer[low - offset : high - offset])
        return []

    def locate(self, offset: int, length: int) -> tuple[list[Piece], list[tuple[int, int]]]:
        """Where ``read_allocated`` would read, and (offset, length) of what it would not fill: nothing."""
        end = offset + length
        found = [
            Piece(low, high - low, file, low - start + line.offset)
            for start, line, file in self._parts
            if (low := max(offset, start)) < (high := min(end, start + line.size))
        ]
        return found, []

    def digest(self) -> bytes:
        """Of what its files say about where the disk's bytes are: nothing."""
        return b""

    def files(self) -> list[BlockSource]:
        """What holds its bytes."""
        return [file for _start, _line, file in self._parts]

    def close(self) -> None:
        """Closes the files."""
        for _start, _line, file in self._parts:
            file.close()


class _Run(NamedTuple):
    start: int
    end: int
    kind: int
    place: int


class SparseImage:
    """A vmfsSparse or seSparse extent. Owns its file; opening reads the headers and the grain directory."""

    def __init__(self, line: ExtentLine, file: BlockSource, subject: Subject) -> None:
        self._file = file
        self._subject = subject
        self._metadata = Metadata(file, subject, TABLE_PAGES)
        self.identity = file.identity
        try:
            self._layout = self._open(line)
            self._tables = fmt.table_places(self.identity, self._directory(), self._layout)
            self._check_tables()
        except FormatError as error:
            raise self._refused(VmdkReason.SPARSE_DAMAGED, error.message) from error
        self.size = self._layout.size
        if self.size != line.size:
            detail = f"{self.identity} is of a disk of {self.size} bytes, not {line.size}"
            raise self._refused(VmdkReason.SIZE_MISMATCH, detail)

    def allocation(self) -> Sequence[Extent]:
        """What this delta holds. Raises ``TransportRefused``, ``ReadFailed``."""
        collected = runs.Runs()
        for index in np.flatnonzero(self._tables).tolist():
            start = index * self._layout.span
            for run in self._runs(start, min(start + self._layout.span, self.size)):
                if run.kind != ABSENT:
                    collected.add(run.start, run.end, runs.DATA if run.kind == DATA else runs.ZERO)
        return collected.extents(self.size)

    def read_allocated(self, offset: int, buffer: memoryview) -> Sequence[tuple[int, int]]:
        """Fills what this delta holds. Returns (offset, length) of the rest. Raises ``ReadFailed``."""
        missing: list[tuple[int, int]] = []
        try:
            for run in self._runs(offset, offset + len(buffer)):
                view = buffer[run.start - offset : run.end - offset]
                if run.kind == DATA:
                    self._file.read_into(run.place, view)
                elif run.kind == ABSENT:
                    missing.append((run.start, len(view)))
                else:
                    fill_zero(view)
        except TransportRefused as error:
            raise ReadFailed(self.identity, offset, len(buffer), error.message) from error
        return missing

    def locate(self, offset: int, length: int) -> tuple[list[Piece], list[tuple[int, int]]]:
        """Where ``read_allocated`` would read, and (offset, length) of what it would not fill. Raises ``ReadFailed``."""
        found: list[Piece] = []
        missing: list[tuple[int, int]] = []
        try:
            for run in self._runs(offset, offset + length):
                if run.kind == ABSENT:
                    missing.append((run.start, run.end - run.start))
                else:
                    file = self._file if run.kind == DATA else None
                    found.append(Piece(run.start, run.end - run.start, file, run.place))
        except TransportRefused as error:
            raise ReadFailed(self.identity, offset, length, error.message) from error
        return found, missing

    def digest(self) -> bytes:
        """Of the headers, the directory and every table as they are in the file now. Raises ``ReadFailed``."""
        layout, digest = self._layout, blake2b(digest_size=32)
        parts = [(0, min(self._file.size, HEADERS)), (layout.directory_at, layout.directory_entries * layout.entry)]
        # in the order of the file, where they mostly lie one after the other; the directory says which is whose
        tables = np.sort(self._tables[self._tables != 0])
        for run in np.split(tables, np.flatnonzero(np.diff(tables) != layout.table_size) + 1):
            parts += [(int(run[0]), len(run) * layout.table_size)] if len(run) else []
        for at, length in parts:
            for start in range(at, at + length, LONGEST_READ):
                buffer = bytearray(min(LONGEST_READ, at + length - start))
                self._file.read_into(start, memoryview(buffer))
                digest.update(buffer)
        return digest.digest()

    def files(self) -> list[BlockSource]:
        """What holds its bytes."""
        return [self._file]

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _open(self, line: ExtentLine) -> SparseLayout:
        if line.kind is ExtentKind.VMFS_SPARSE:
            header = self._read(0, fmt.COWD_SIZE)
            layout = fmt.parse_cowd(self.identity, header)
            unfinished = fmt.is_unclean(header)
        else:
            layout, volatile_at = fmt.parse_sesparse(self.identity, self._read(0, 512))
            unfinished = fmt.replay_needed(self.identity, self._read(volatile_at, 512))
        if unfinished:
            detail = f"{self.identity} was not closed properly"
            raise self._refused(VmdkReason.JOURNAL, detail, "the LAN transport reads it through its host")
        return layout

    def _directory(self) -> bytes:
        length = self._layout.directory_entries * self._layout.entry
        at, end = self._layout.directory_at, self._layout.directory_at + length
        parts = (self._read(start, min(LONGEST_READ, end - start)) for start in range(at, end, LONGEST_READ))
        return b"".join(parts)

    def _check_tables(self) -> None:
        present = self._tables[self._tables != 0]
        if len(np.unique(present)) != len(present):
            raise FormatError(self.identity, "two directory entries share a table")
        if len(present) and int(present.max()) + self._layout.table_size > self._file.size:
            raise FormatError(self.identity, "a table lies behind the end of the file")

    def _runs(self, start: int, end: int) -> Iterator[_Run]:
        """Covers ``[start, end)``; grains that are contiguous in the file are one run, up to a table's end."""
        layout = self._layout
        while start < end:
            index = start // layout.span
            stop = min(end, (index + 1) * layout.span)
            if self._tables[index]:
                yield from self._table_runs(index, start, stop)
            else:
                yield _Run(start, stop, ABSENT, 0)
            start = stop

    def _table_runs(self, index: int, start: int, stop: int) -> Iterator[_Run]:
        layout = self._layout
        first, last = (start - index * layout.span) // layout.grain, -(-(stop - index * layout.span) // layout.grain)
        at = int(self._tables[index])
        raw = self._read(at + first * layout.entry, (last - first) * layout.entry)
        try:
            classes, places = fmt.grains(self.identity, raw, layout)
        except FormatError as error:
            raise self._refused(VmdkReason.SPARSE_DAMAGED, error.message) from error
        if int(places.max(initial=0)) + layout.grain > self._file.size and np.any(classes == DATA):
            raise self._refused(VmdkReason.SPARSE_DAMAGED, f"{self.identity}: a grain behind the end of the file")
        breaks = classes[1:] != classes[:-1]
        breaks |= (classes[1:] == DATA) & (places[1:] != places[:-1] + layout.grain)
        begins = np.concatenate([[0], np.flatnonzero(breaks) + 1])
        ends = [*begins[1:].tolist(), len(classes)]
        base = index * layout.span + first * layout.grain
        for low, high, kind, place in zip(
            begins.tolist(), ends, classes[begins].tolist(), places[begins].tolist(), strict=True
        ):
            begin = base + low * layout.grain
            skip = max(0, start - begin)
            yield _Run(begin + skip, min(base + high * layout.grain, stop), kind, place + skip)

    def _read(self, offset: int, length: int) -> bytes:
        if offset + length > self._file.size:
            raise self._refused(VmdkReason.SPARSE_DAMAGED, f"{self.identity}: {length} bytes at {offset} are missing")
        return self._metadata.read(offset, length, "sparse extent")

    def _refused(self, reason: VmdkReason, detail: str, hint: str = "") -> TransportRefused:
        return TransportRefused(self._subject.mode, self._subject.disk, reason, detail, hint=hint)


def zero_extent(size: int) -> list[Extent]:
    """All of a disk that no layer holds."""
    return [Extent(0, size, Kind.ZERO)] if size else []
