"""From a file descriptor to places in the volume, whatever the file's layout.

::

    BLOCKS            descriptor -> blocks                        (320 MiB at most; VMFS 5: 256 MiB)
    POINTER_BLOCKS    descriptor -> table -> blocks               a table: 8 GiB (VMFS 5: 1 GiB)
    DOUBLE            descriptor -> table of tables -> table -> blocks
    SUB_BLOCKS        descriptor -> pieces of 64 KiB (8 KiB)      small files, directories
    RESIDENT          in the descriptor itself

Blocks are decoded a table at a time, so that a map of any file takes the memory of one table. An absent pointer on any
level is a hole on that level and says nothing of the next ones.
"""

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from proxy.transport.qcow2_cluster import Lru
from proxy.transport.vmfs.addresses import (
    DATA,
    HOLE,
    TYPE_MASK,
    ZEROED,
    AddressType,
    Blocks,
    decode_blocks,
    pointer_array,
)
from proxy.transport.vmfs.fs_format import FileDescriptor, FileType, Geometry, Layout
from proxy.transport.vmfs.lun import Metadata
from proxy.transport.vmfs.reasons import Subject, VmfsReason

KEPT_TABLES = 16
"""Decoded tables kept for reading, 72 KiB each (VMFS 5: 9): 128 GiB of a disk. Decoding one takes longer than to read it."""

_OF_BLOCKS = frozenset({Layout.BLOCKS, Layout.POINTER_BLOCKS, Layout.DOUBLE})

Resolve = Callable[[int], int]
"""Volume offset of a sub-block or pointer block by its address. Refuses what is not in the resource file."""


class Run(NamedTuple):
    """Bytes ``[start, end)`` of a file: one of ``HOLE``, ``DATA``, ``ZEROED``; ``DATA`` lies at ``offset`` of the volume."""

    start: int
    end: int
    kind: int
    offset: int


class BlockMap:
    """Where a file's bytes are. Reads of tables go through ``metadata``; ``volume`` is its size in bytes.

    Opening reads the upper level of a doubly indirect file. Refuses layouts that cannot be, and tables used twice.
    """

    def __init__(
        self, file: FileDescriptor, geometry: Geometry, metadata: Metadata, resolve: Resolve, subject: Subject
    ) -> None:
        if file.type == FileType.RAW_DEVICE:
            raise subject.refuse(VmfsReason.RAW_DEVICE, "the file stands for a LUN and has no blocks")
        self.size = file.size
        self._file = file
        self._geometry = geometry
        self._metadata = metadata
        self._resolve = resolve
        self._subject = subject
        self._unit = geometry.sub_block if file.layout is Layout.SUB_BLOCKS else geometry.block_size
        self._units = -(-file.size // self._unit)
        self._own = pointer_array(file.pointers, geometry)[: geometry.pointers]
        self._kept: Lru[int, Blocks] = Lru(KEPT_TABLES)
        self._tables = self._leaf_tables()
        self._check_capacity()

    def runs(self, start: int, end: int) -> Iterator[Run]:
        """Covers ``[start, end)`` (cut at the file's size) in order, normal: contiguous data is one run. May refuse."""
        return self._walk(start, min(end, self.size))

    def edges(self) -> NDArray[np.int64]:
        """Where data begin and end in the file, bytes, in turn: an even number of rising positions.

        In bulk, a table at a time: half a million runs of a large thin disk take tens of milliseconds. At the end it refuses
        a map that has not as many blocks as the descriptor counts: something was not understood.
        """
        if not self.size or self._file.layout is Layout.RESIDENT:
            return np.array([0, self.size] if self.size else [], np.int64)
        found: list[NDArray[np.int64]] = []
        counts = np.zeros(3, np.int64)
        open_run = False
        for first, _stop, blocks in self._decoded(0, self._units):
            if blocks is None:
                held = np.zeros(1, bool)  # a run of holes, however long, ends what is open
            else:
                counts += np.bincount(blocks.classes, minlength=3)
                held = blocks.classes == DATA
            turns = np.flatnonzero(np.diff(held, prepend=open_run)) + first
            found.append(turns.astype(np.int64))
            open_run = bool(held[-1])
        self._check_counts(int(counts[DATA]), int(counts[ZEROED]))
        units = np.concatenate([*found, np.array([self._units] if open_run else [], np.int64)])
        edges: NDArray[np.int64] = np.minimum(units * self._unit, self.size)
        return edges

    def place(self, offset: int, length: int) -> int:
        """Volume offset of a range that must lie in one block with data: system files have no holes."""
        runs = list(self.runs(offset, offset + length))
        if len(runs) != 1 or runs[0].kind != DATA or runs[0].end - offset != length:
            detail = f"{length} bytes at {offset} of system file {self._file.address:#x} are not there"
            raise self._subject.refuse(VmfsReason.VMFS_DAMAGED, detail)
        return runs[0].offset

    def fingerprint(self) -> bytes:
        """32 bytes that change when anything does that says where the file's bytes are."""
        digest = blake2b(digest_size=32)
        facts = (self._file.address, self._file.generation, self._file.type, self.size, self._file.layout)
        digest.update(repr((*map(int, facts), self._file.at, self._file.zeroed)).encode())
        digest.update(self._file.resident if self._file.layout is Layout.RESIDENT else self._file.pointers)
        digest.update(self._tables.tobytes())
        for pointer in self._tables[self._tables != 0].tolist():
            digest.update(self._table(pointer))
        return digest.digest()

    def uses_large_blocks(self) -> bool:
        """Whether large blocks are among its blocks: their layout was never seen in a volume that a host had made."""
        if self._file.layout is Layout.RESIDENT:
            return False
        return any(blocks is not None and blocks.large for _first, _stop, blocks in self._decoded(0, self._units))

    def _check_counts(self, data: int, zeroed: int) -> None:
        counted, told = (data + zeroed, zeroed), (self._file.blocks, self._file.zeroed)
        # how large blocks are counted was never seen
        if self._file.layout in _OF_BLOCKS and counted != told and not self._file.large_blocks:
            detail = f"(allocated, to be zeroed) blocks: {counted} found, {told} in the descriptor"
            raise self._subject.refuse(VmfsReason.BLOCK_COUNT, detail)

    def _walk(self, start: int, end: int) -> Iterator[Run]:
        if start >= end:
            return
        if self._file.layout is Layout.RESIDENT:
            yield Run(start, end, DATA, self._file.at + self._geometry.resident_at + start)
            return
        last: Run | None = None
        for part in self._decoded(start // self._unit, -(-end // self._unit)):
            found = self._cut(*part)
            if last is None:
                found[0] = _from(found[0], start)
            else:
                found[:1] = _joined(last, found[0])
            # only what is last may go on in the next table, or behind the end
            yield from found[:-1]
            last = found[-1]
        if last is not None:
            yield last._replace(end=min(last.end, end))

    # levels

    def _leaf_tables(self) -> NDArray[np.uint64]:
        """The addresses of tables that point to blocks, 0 for holes, as many as the file's size asks for."""
        layout, per_table = self._file.layout, self._geometry.pointers_per_table
        if layout in {Layout.BLOCKS, Layout.SUB_BLOCKS, Layout.RESIDENT}:
            return np.zeros(0, np.uint64)
        count = -(-self._units // per_table)
        if layout is not Layout.DOUBLE:
            return self._unique(self._own[:count])
        upper = self._unique(self._own[: -(-count // per_table)])
        parts = [
            pointer_array(self._table(int(pointer)), self._geometry) if pointer else np.zeros(per_table, np.uint64)
            for pointer in upper
        ]
        return self._unique(np.concatenate(parts)[:count] if parts else np.zeros(0, np.uint64))

    def _unique(self, tables: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Two pointers never share a table in a sound volume; in a hostile one, sharing makes little map as much."""
        present = tables[tables != 0]
        if len(np.unique(present)) != len(present):
            raise self._subject.refuse(VmfsReason.SHARED_POINTERS, f"in file {self._file.address:#x}")
        return tables

    def _check_capacity(self) -> None:
        """Refuses a size that the layout cannot hold. Of tables, ``_leaf_tables`` took as many as there were."""
        per_table = self._geometry.pointers_per_table
        if self._file.layout is Layout.RESIDENT:
            fits = self.size <= self._geometry.resident_size
        elif self._file.layout in {Layout.BLOCKS, Layout.SUB_BLOCKS}:
            fits = self._units <= self._geometry.pointers
        else:
            fits = self._units <= len(self._tables) * per_table
        if self._file.layout is not Layout.RESIDENT and self._file.unit != self._unit:
            detail = f"layout {self._file.layout.name} in units of {self._file.unit} bytes"
            raise self._subject.refuse(VmfsReason.UNKNOWN_LAYOUT, detail)
        if not fits:
            detail = f"{self.size} bytes do not fit into layout {self._file.layout.name}"
            raise self._subject.refuse(VmfsReason.UNKNOWN_LAYOUT, detail)

    def _table(self, pointer: int) -> bytes:
        if pointer & TYPE_MASK not in {AddressType.SUB_BLOCK, AddressType.POINTER_BLOCK, AddressType.POINTER_BLOCK_2}:
            raise self._subject.refuse(VmfsReason.UNKNOWN_ADDRESS, f"{pointer:#x} is no pointer block")
        return self._metadata.read(self._resolve(pointer), self._geometry.table_size, "pointer block")

    # blocks

    def _decoded(self, first: int, last: int) -> Iterator[tuple[int, int, Blocks | None]]:
        """(first unit, end, blocks) that cover units ``[first, last)``, a table at a time; ``None``: all holes."""
        layout, per_table = self._file.layout, self._geometry.pointers_per_table
        if layout is Layout.SUB_BLOCKS:
            yield first, last, self._sub_blocks(first, last)
            return
        if layout is Layout.BLOCKS:
            yield first, last, _slice(self._leaf(0, None), first, last)
            return
        while first < last:
            number, skip = divmod(first, per_table)
            pointer = int(self._tables[number])
            if not pointer:
                stop = min(last, self._next_table(number) * per_table)
                yield first, stop, None
            else:
                stop = min(last, (number + 1) * per_table)
                yield first, stop, _slice(self._leaf(number, pointer), skip, skip + stop - first)
            first = stop

    def _leaf(self, number: int, pointer: int | None) -> Blocks:
        """A table (``None``: the descriptor's own), decoded: whole, so that what is refused does not depend on the part
        that is asked for."""
        blocks = self._kept.get(number)
        if blocks is None:
            table = self._own if pointer is None else pointer_array(self._table(pointer), self._geometry)
            blocks = self._checked(table[: self._units - number * self._geometry.pointers_per_table])
            self._kept.put(number, blocks)
        return blocks

    def _next_table(self, number: int) -> int:
        following = np.flatnonzero(self._tables[number:])
        return number + int(following[0]) if len(following) else len(self._tables)

    def _checked(self, pointers: NDArray[np.uint64]) -> Blocks:
        blocks = decode_blocks(pointers, self._geometry, self._subject)
        highest = int(blocks.offsets.max(initial=0))
        if highest + self._geometry.block_size > self._metadata.size:
            detail = f"a block at {highest} of a volume of {self._metadata.size} bytes"
            raise self._subject.refuse(VmfsReason.BLOCK_OUTSIDE, detail)
        return blocks

    def _sub_blocks(self, first: int, last: int) -> Blocks:
        pointers = self._own[first:last].tolist()
        if any(pointer and pointer & TYPE_MASK != AddressType.SUB_BLOCK for pointer in pointers):
            detail = f"a pointer of {self._file.address:#x} names no sub-block"
            raise self._subject.refuse(VmfsReason.UNKNOWN_ADDRESS, detail)
        offsets = np.array([self._resolve(pointer) if pointer else 0 for pointer in pointers], np.int64)
        return Blocks(np.array([DATA if pointer else HOLE for pointer in pointers], np.uint8), offsets, 0)

    def _cut(self, first: int, stop: int, blocks: Blocks | None) -> list[Run]:
        """Runs of one class; DATA only as far as it is contiguous in the volume."""
        unit = self._unit
        if blocks is None:
            return [Run(first * unit, stop * unit, HOLE, 0)]
        classes, offsets = blocks.classes, blocks.offsets
        if stop - first == 1:  # as a copy reads: a block at a time, a quarter of the time
            return [Run(first * unit, stop * unit, int(classes[0]), int(offsets[0]))]
        breaks = classes[1:] != classes[:-1]
        breaks |= (classes[1:] == DATA) & (offsets[1:] != offsets[:-1] + unit)
        starts = np.concatenate([[0], np.flatnonzero(breaks) + 1])
        bounds = ((starts + first) * unit).tolist()
        ends = [*bounds[1:], stop * unit]
        return list(map(Run, bounds, ends, classes[starts].tolist(), offsets[starts].tolist()))


def _slice(blocks: Blocks, low: int, high: int) -> Blocks:
    return Blocks(blocks.classes[low:high], blocks.offsets[low:high], blocks.large)


def _from(run: Run, start: int) -> Run:
    """What of a run is not before ``start``."""
    skip = max(0, start - run.start)
    return Run(run.start + skip, run.end, run.kind, run.offset + skip if run.kind == DATA else 0)


def _joined(left: Run, right: Run) -> list[Run]:
    """Neighbours, as one where they are of one class and, if they hold data, contiguous."""
    apart = right.kind == DATA and left.offset + left.end - left.start != right.offset
    if left.kind != right.kind or apart:
        return [left, right]
    return [Run(left.start, right.end, left.kind, left.offset)]
