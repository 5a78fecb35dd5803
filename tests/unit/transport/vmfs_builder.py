"""A writer of VMFS 5 and 6 volumes for tests, from the facts of the layout. For readers only: no host could use what it makes
(no hash tables, allocation bitmaps or journal).

::

    block   0 .. 3 (6)   4 (7) ..                                         ..
            headers      .fdc  .fbb .pbc .sbc .pb2 .sdd .jbc  files' blocks, contiguous or scattered

A data block holds a marker of its own in its first and last sector and zeroes between; a block to be zeroed holds somebody
else's bytes. So a reader that mistakes one for another is noticed, and a disk of 1 TiB takes a few MiB.
"""

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from proxy.transport.vmfs.fs_format import Geometry, Layout, parse_descriptor
from proxy.transport.vmfs.reasons import Subject
from proxy.units import KiB, MiB
from tests.unit.transport.vmfs_lun_builder import VOLUME_UUID, VolumeOnLuns

HOLE, DATA, ZEROED, LARGE = 0, 1, 2, 3
"""Classes of a disk's blocks. ``LARGE`` comes in whole groups of 512 (fewer at the end of the disk)."""

BLOCK = MiB
STALE = b"\xee" * 512
DIRECTORY, REGULAR, SYMLINK, SYSTEM, RAW_DEVICE = 2, 3, 4, 5, 6
SMALLER_AT = 4096
ROOT, FBB, FDC, PBC, SBC, VH, PB2, SDD, JBC = range(9)
SYSTEM_NAMES = {FBB: "fbb", FDC: "fdc", PBC: "pbc", SBC: "sbc", VH: "vh", PB2: "pb2", SDD: "sdd", JBC: "jbc"}


@dataclass(frozen=True)
class Shape:
    """Numbers that ESXi chose for a version: pieces per cluster and clusters per group of each resource file."""

    reserved: int
    descriptors: tuple[int, int]
    sub_blocks: tuple[int, int]
    pointer_blocks: tuple[int, int]


SHAPES = {5: Shape(4, (200, 64), (64, 64), (16, 64)), 6: Shape(7, (256, 8), (256, 8), (32, 8))}


@dataclass(frozen=True)
class Resource:
    """Where a resource file begins in the volume, and how its pieces lie in it."""

    start: int
    per_cluster: int
    clusters: int
    size: int
    groups: int
    alignment: int

    @property
    def group_size(self) -> int:
        return self.clusters * (2 * self.alignment + self.per_cluster * self.size)

    @property
    def length(self) -> int:
        return 64 * KiB + self.groups * self.group_size

    def offset(self, number: int) -> int:
        """Of piece ``number``, in the volume."""
        cluster, member = divmod(number, self.per_cluster)
        group, inside = divmod(cluster, self.clusters)
        head = 64 * KiB + group * self.group_size + self.clusters * 2 * self.alignment
        return self.start + head + (inside * self.per_cluster + member) * self.size

    def header(self) -> bytes:
        total = self.per_cluster * self.clusters * self.groups
        sizes = (self.per_cluster, self.clusters, 64 * KiB, self.size, self.group_size, total, self.groups)
        return struct.pack("<7I", *sizes) + bytes(4) + b"dmfr" + struct.pack("<I", 1)


@dataclass
class Disk:
    """A disk that was written: ``classes`` of its blocks, for asking what it must read as."""

    name: str
    size: int
    classes: NDArray[np.uint8]

    def expected(self, offset: int, length: int) -> bytes:
        data = bytearray(length)
        for block in range(offset // BLOCK, -(-(offset + length) // BLOCK)):
            if self.classes[block] not in {DATA, LARGE}:
                continue
            for at in (block * BLOCK, (block + 1) * BLOCK - 512):
                for position in range(max(at, offset), min(at + 512, offset + length)):
                    data[position - offset] = marker(self.name, block)[position - at]
        return bytes(data)


def marker(name: str, block: int) -> bytes:
    """512 bytes that are those of one block of one disk."""
    return blake2b(f"{name}:{block}".encode()).digest() * 8


class VmfsBuilder:
    """Adds files to a volume; ``finish`` writes the directories. ``at``: path -> offset of its descriptor in the volume."""

    def __init__(self, volume: VolumeOnLuns, *, version: int = 6, label: str = "fixture", tables: int = 1) -> None:
        """``tables``: groups of pointer blocks (version 6: of sub-blocks); one is for 1 TiB on 5, for 16 TiB on 6."""
        self.volume = volume
        self.version = version
        self.at: dict[str, int] = {}
        self.addresses: dict[str, int] = {}
        self._chance = random.Random(label)
        self._names: dict[str, list[tuple[str, int, int]]] = {"": []}
        self._next_file = len(SYSTEM_NAMES) + 1
        self._next_sub_block = 0
        self._next_table = 0
        volume.write(0x200000, self._descriptor(label))
        raw = volume.read(0x200000, 512)
        self.geometry: Geometry = parse_descriptor(raw, Subject("test", label)).geometry
        self._shape = SHAPES[version]
        self._next_block = self._shape.reserved
        self._system(tables)

    # adding

    def file(self, path: str, data: bytes, *, layout: Layout | None = None, kind: int = REGULAR) -> int:
        """A file with its bytes; where it lies follows from its size unless it is said. Returns its descriptor's offset."""
        g = self.geometry
        if layout is None:
            few = -(-len(data) // g.sub_block) <= 8
            layout = Layout.RESIDENT if len(data) <= g.resident_size else Layout.SUB_BLOCKS if few else Layout.BLOCKS
        if layout is Layout.RESIDENT:
            return self._add(path, kind, len(data), layout, resident=data)
        pointers: list[int] = []
        step = g.sub_block if layout is Layout.SUB_BLOCKS else BLOCK
        for start in range(0, len(data), step):
            if layout is Layout.SUB_BLOCKS:
                place, pointer = self._sub_block()
            else:
                place, pointer = self._next_block * BLOCK, int(self._pointers(np.array([self._take(1)]), DATA)[0])
            self.volume.write(place, data[start : start + step])
            pointers.append(pointer)
        return self._add(path, kind, len(data), layout, pointers=np.array(pointers, np.uint64), blocks=len(pointers))

    def disk(
        self,
        path: str,
        size: int,
        classes: Sequence[int] | NDArray[np.uint8],
        *,
        scattered: bool = True,
        content: bool = True,
    ) -> Disk:
        """A flat disk. ``scattered``: its blocks lie in random order; ``content``: its markers are written too."""
        kinds = np.zeros(-(-size // BLOCK), np.uint8)
        kinds[: len(classes)] = classes
        pointers = np.zeros(len(kinds), np.uint64)
        for kind in (DATA, ZEROED):
            where = np.flatnonzero(kinds == kind)
            first = self._take(len(where))
            numbers = np.arange(first, first + len(where))
            if scattered:
                numbers = np.random.default_rng(len(where)).permutation(numbers)
            pointers[where] = self._pointers(numbers, kind)
            self._fill(path, where.tolist(), numbers.tolist(), kind, content=content)
        for start in np.flatnonzero(kinds == LARGE)[::512].tolist():
            assert start % 512 == 0, "a large block begins at a multiple of 512"
            self._next_block = -(-self._next_block // 512) * 512
            first = self._take(512)
            count = min(512, len(kinds) - start)
            pointers[start : start + count] = 7 | first // 512 << 15
            self._fill(path, range(start, start + count), range(first, first + count), DATA, content=content)
        zeroed = int((kinds == ZEROED).sum())
        layout, own = self._levels(pointers)
        allocated, large = int((kinds != HOLE).sum()), len(np.flatnonzero(kinds == LARGE)[::512])
        self._add(path, REGULAR, size, layout, pointers=own, zeroed=zeroed, blocks=allocated, large=large)
        return Disk(path, size, kinds)

    def directory(self, path: str) -> None:
        """An empty directory; files in it may follow."""
        parent, _, name = path.rpartition("/")
        self._names[path] = []
        self._names[parent].append((name, self._next_file, DIRECTORY))
        self.addresses[path] = self._address(self._next_file)
        self._next_file += 1

    def finish(self) -> VolumeOnLuns:
        """Writes the directories."""
        for path, entries in self._names.items():
            data = self._directory(path, entries)
            first = [self._sub_block() for _ in range(-(-len(data) // self.geometry.sub_block))]
            for index, (place, _pointer) in enumerate(first):
                step = self.geometry.sub_block
                self.volume.write(place, data[index * step : (index + 1) * step])
            pointers = np.array([pointer for _place, pointer in first], np.uint64)
            at = self.geometry.root_at if not path else self._descriptor_at(self.addresses[path])
            address = self._address(0) if not path else self.addresses[path]
            self._write_file(at, address, DIRECTORY, len(data), Layout.SUB_BLOCKS, pointers=pointers)
            self.at[path or "/"] = at
        return self.volume

    # addresses

    def _address(self, number: int) -> int:
        cluster, member = divmod(number, self._shape.descriptors[0])
        return 4 | cluster << 6 | member << 22

    def _piece(self, kind: int, number: int, per_cluster: int) -> int:
        cluster, member = divmod(number, per_cluster)
        if self.version == 6:
            return kind | cluster << 6 | member << 56
        return kind | (member >> 4) << 3 | cluster << 6 | (member & 15) << 28

    def _pointers(self, numbers: NDArray[np.int64], kind: int) -> NDArray[np.uint64]:
        n = numbers.astype(np.uint64)
        if self.version == 6:
            tbz = np.uint64(0xFF << 7 if kind == ZEROED else 0)
            return np.uint64(1) | tbz | n // np.uint64(512) << np.uint64(15) | n % np.uint64(512) << np.uint64(51)
        return np.uint64(1) | np.uint64(0x20 if kind == ZEROED else 0) | n << np.uint64(6)

    def _sub_block(self) -> tuple[int, int]:
        """(offset in the volume, pointer) of a new sub-block."""
        number = self._next_sub_block
        self._next_sub_block += 1
        return self._sub_blocks.offset(number), self._piece(2, number, self._sub_blocks.per_cluster)

    def _table(self, pointers: NDArray[np.uint64]) -> int:
        """Writes a pointer block; returns the pointer to it."""
        raw = self._packed(pointers)
        if self.version == 6:
            place, pointer = self._sub_block()
        else:
            place = self._pointer_blocks.offset(self._next_table)
            pointer = self._piece(3, self._next_table, self._pointer_blocks.per_cluster)
            self._next_table += 1
        self.volume.write(place, raw)
        return pointer

    def _levels(self, pointers: NDArray[np.uint64]) -> tuple[Layout, NDArray[np.uint64]]:
        if len(pointers) <= self.geometry.pointers:
            return Layout.BLOCKS, pointers
        level = self._upper(pointers)
        if len(level) <= self.geometry.pointers:
            return Layout.POINTER_BLOCKS, level
        return Layout.DOUBLE, self._upper(level)

    def _upper(self, pointers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        step = self.geometry.pointers_per_table
        parts = (pointers[start : start + step] for start in range(0, len(pointers), step))
        return np.array([self._table(part) if part.any() else 0 for part in parts], np.uint64)

    def _packed(self, pointers: NDArray[np.uint64]) -> bytes:
        return pointers.astype("<u8" if self.geometry.pointer_size == 8 else "<u4").tobytes()

    # structures

    def _take(self, count: int) -> int:
        first = self._next_block
        self._next_block += count
        assert self._next_block * BLOCK <= self.volume.size, "the volume is full"
        return first

    def _fill(self, name: str, blocks: Sequence[int], numbers: Sequence[int], kind: int, *, content: bool) -> None:
        if not content:
            return
        for block, number in zip(blocks, numbers, strict=True):
            for skip in (0, BLOCK - 512):
                self.volume.write(number * BLOCK + skip, marker(name, block) if kind == DATA else STALE)

    def _add(self, path: str, kind: int, size: int, layout: Layout, **facts: object) -> int:
        parent, _, name = path.rpartition("/")
        address = self.addresses[path] = self._address(self._next_file)
        self._names[parent].append((name, self._next_file, kind))
        self._next_file += 1
        at = self.at[path] = self._descriptor_at(address)
        self._write_file(at, address, kind, size, layout, **facts)  # type: ignore[arg-type]
        return at

    def _write_file(
        self,
        at: int,
        address: int,
        kind: int,
        size: int,
        layout: int,
        *,
        pointers: NDArray[np.uint64] | None = None,
        resident: bytes = b"",
        zeroed: int = 0,
        blocks: int = 1,
        large: int = 0,
    ) -> None:
        g = self.geometry
        raw = bytearray(g.descriptor_size)
        struct.pack_into("<IQ", raw, 0, 0x10C00001, at)
        facts = g.facts_at
        struct.pack_into("<5IQQQ", raw, facts, address, 1, 1, kind, 0, size, BLOCK, blocks)
        struct.pack_into("<III", raw, facts + 0x2C, *[1_750_000_000] * 3)
        struct.pack_into("<III", raw, facts + 0x40, 0o644, int(layout), zeroed)
        if self.version == 6:
            raw[facts + 0x64 : facts + 0x68] = b"dmdf"
            struct.pack_into("<II", raw, facts + 0x68, address, 20)
        unit = g.sub_block if layout in {Layout.SUB_BLOCKS, Layout.RESIDENT} else BLOCK
        struct.pack_into("<B", raw, facts + 0x89, unit.bit_length() - 1)
        struct.pack_into("<I", raw, facts + 0x8C, large)
        if pointers is not None:
            packed = self._packed(pointers)
            raw[g.pointers_at : g.pointers_at + len(packed)] = packed
        raw[g.resident_at : g.resident_at + len(resident)] = resident
        self.volume.write(at, bytes(raw))

    def _descriptor_at(self, address: int) -> int:
        cluster, member = address >> 6 & 0xFFFF, address >> 22
        return self._descriptors.offset(cluster * self._shape.descriptors[0] + member)

    def _directory(self, path: str, entries: Sequence[tuple[str, int, int]]) -> bytes:
        own = self.addresses.get(path, self._address(0))
        if self.version == 5:
            dots = [(b".", own, DIRECTORY), (b"..", self._address(0), DIRECTORY)]
            real = [(name.encode(), self._address(number), kind) for name, number, kind in entries]
            return b"".join(struct.pack("<III128s", kind, at, 1, name) for name, at, kind in [*dots, *real])
        blocks = -(-len(entries) // 14)
        data = bytearray(64 * KiB + (1 + blocks) * 4096)
        struct.pack_into("<HHIII", data, 0, 1, 0xF5, len(entries) + 2, len(entries) + 2, 1)
        for at, name, address in ((0x3B8, b".", own), (0x4D8, b"..", self._address(0))):
            struct.pack_into("<IIIIQ264s", data, at, DIRECTORY, address, 1, 0, at, name)
        states = [3] + [1 if number < blocks - 1 or len(entries) % 14 == 0 else 5 for number in range(blocks)]
        states += [8] * (8064 - len(states))
        data[0x10000:0x10004] = bytes([0, 0, 3, 0])
        data[0x10040:0x11000] = bytes(high << 4 | low for high, low in zip(states[::2], states[1::2], strict=True))
        for block in range(blocks):
            start = 0x11000 + block * 4096
            members = entries[block * 14 : block * 14 + 14]
            free = (1 << 14) - (1 << len(members))
            struct.pack_into("<HHHHQ", data, start, 1, 1, 14, 14 - len(members), free)
            for slot, (name, number, kind) in enumerate(members):
                at = start + 64 + slot * 288
                struct.pack_into("<IIIIQ264s", data, at, kind, self._address(number), 1, 0, at, name.encode())
        return bytes(data)

    def _descriptor(self, label: str) -> bytes:
        raw = bytearray(512)
        six = self.version == 6
        struct.pack_into("<II", raw, 0, 0x2FABF15E, 24 if six else 14)
        raw[8:25] = bytes([0x52 if six else 0x51]) + bytes.fromhex("2d6f62685831e2902e8abc2411b17e28")
        struct.pack_into("<I", raw, 0x19, 0x4006 if six else 6)
        raw[0x1D : 0x1D + len(label)] = label.encode()
        struct.pack_into("<Q", raw, 0xA1, BLOCK)
        raw[0xB1:0xC1] = VOLUME_UUID
        per = (64 * KiB, 8, 64 * KiB) if six else (64 * KiB, 64, 8 * KiB)
        struct.pack_into("<III", raw, 0xD1, *per)
        if six:
            struct.pack_into("<III", raw, 0x130, 512, 4096, 9)
        return bytes(raw)

    def _system(self, tables: int) -> None:
        shape, g = self._shape, self.geometry
        pieces = shape.pointer_blocks
        self._descriptors = self._resource(FDC, shape.descriptors, g.descriptor_size, 1)
        bitmaps = self._resource(FBB, (16, 8) if self.version == 6 else (200, 64), 8192 if self.version == 6 else 0, 0)
        if self.version == 6:  # large blocks, and within each of them 512 file blocks
            self.volume.write(bitmaps.start + 0x28, struct.pack("<4I", 0x35, 0x00340348, 3, SMALLER_AT))
            counts = (512, 8, 64 * KiB, 0, 64 * KiB, self.volume.size // BLOCK, 1, 0)
            child = struct.pack("<8I4s7I", *counts, b"dmfr", 1, 0x2A, 0x000100D8, 2, 0, 16, 8)
            self.volume.write(bitmaps.start + SMALLER_AT, child)
        self._pointer_blocks = self._resource(PBC, pieces, g.table_size, 0 if self.version == 6 else tables)
        groups = tables if self.version == 6 else 1
        self._sub_blocks = self._resource(SBC, shape.sub_blocks, g.sub_block, groups)
        self._resource(PB2, pieces, g.table_size, 1)
        self._resource(SDD, (1, 1), 0, 0)
        self._resource(JBC, (8, 4), 2 * MiB, 0)
        self._system_file(VH, 0, shape.reserved * BLOCK)

    def _resource(self, number: int, counts: tuple[int, int], size: int, groups: int) -> Resource:
        """A resource file in blocks of its own; the first descriptors' file must begin where the root is looked for."""
        resource = Resource(self._next_block * BLOCK, *counts, size, groups, self.geometry.alignment)
        self._take(-(-resource.length // BLOCK))
        self.volume.write(resource.start, resource.header())
        if number == FDC:
            self._descriptors = resource
        self._system_file(number, resource.start, resource.length)
        return resource

    def _system_file(self, number: int, start: int, size: int) -> None:
        numbers = np.arange(start // BLOCK, -(-(start + size) // BLOCK))
        address = self._address(number)
        if number == SDD:
            size = 0
        layout, own = (
            self._levels(self._pointers(numbers, DATA))
            if number != SBC
            else (Layout.BLOCKS, self._pointers(numbers, DATA))
        )
        self._write_file(self._descriptor_at(address), address, SYSTEM, size, layout, pointers=own)
        self._names[""].append((f".{SYSTEM_NAMES[number]}.sf", number, SYSTEM))
