"""Small qcow2 images made by hand, with every field open to be spoiled."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import zstandard

from proxy.transport import qcow2_format as fmt

CLUSTER_BITS = 12
CLUSTER = 1 << CLUSTER_BITS
ENTRIES = CLUSTER // 8


@dataclass
class Marks:
    """A bitmap: ``bits`` are the numbers of set bits; ``ones``: table entry "all ones" instead of stored data."""

    name: str
    bits: Sequence[int] = ()
    granularity_bits: int = 16
    flags: int = fmt.BITMAP_AUTO
    kind: int = fmt.BITMAP_DIRTY_TRACKING
    ones: bool = False
    table_entries: int = 1
    extra: bytes = b""


@dataclass
class Image:
    """One image. ``clusters``: guest cluster -> its bytes; ``zero``: plain zero clusters; ``packed``: compressed ones."""

    size: int = 64 * CLUSTER
    clusters: Mapping[int, bytes] = field(default_factory=dict)
    zero: Sequence[int] = ()
    packed: Mapping[int, bytes] = field(default_factory=dict)
    raw_entries: Mapping[int, int] = field(default_factory=dict)
    version: int = 3
    zstd: bool = False
    incompatible: int = 0
    autoclear: int = fmt.AUTOCLEAR_BITMAPS
    crypt_method: int = 0
    backing: str = ""
    bitmaps: Sequence[Marks] = ()
    feature_names: Mapping[int, str] = field(default_factory=dict)
    l1_offset: int = CLUSTER

    def build(self) -> bytearray:
        """header | L1 | L2 of the first clusters | bitmap directory | bitmap tables and data | data."""
        self._data = bytearray(3 * CLUSTER)
        entries = [0] * ENTRIES
        directory = self._append_bitmaps()
        for number, content in self.clusters.items():
            entries[number] = self._append(content) | 1 << 63
        for number in self.zero:
            entries[number] = fmt.L2_ZERO
        for number, content in self.packed.items():
            entries[number] = self._append_packed(content)
        for number, entry in self.raw_entries.items():
            entries[number] = entry
        struct.pack_into(">Q", self._data, CLUSTER, 2 * CLUSTER | 1 << 63)
        struct.pack_into(f">{ENTRIES}Q", self._data, 2 * CLUSTER, *entries)
        self._put_header(directory)
        return self._data

    def _append(self, content: bytes) -> int:
        at = len(self._data)
        self._data += content + bytes(-len(content) % CLUSTER)
        return at

    def _append_packed(self, content: bytes) -> int:
        if self.zstd:
            packed = zstandard.ZstdCompressor(write_content_size=False).compress(content)
        else:
            encoder = zlib.compressobj(9, zlib.DEFLATED, -12)
            packed = encoder.compress(content) + encoder.flush()
        at = self._append(b"somebody" + packed) + 8
        sectors = (at % 512 + len(packed) - 1) // 512
        return fmt.L2_COMPRESSED | sectors << (62 - (CLUSTER_BITS - 8)) | at

    def _append_bitmaps(self) -> tuple[int, int]:
        directory = b""
        for marks in self.bitmaps:
            data = bytearray(CLUSTER)
            for bit in marks.bits:
                data[bit // 8] |= 1 << bit % 8
            stored = [1 if marks.ones else self._append(bytes(data))] + [0] * (marks.table_entries - 1)
            table = self._append(struct.pack(f">{len(stored)}Q", *stored))
            name = marks.name.encode()
            directory += fmt.BITMAP_ENTRY.pack(
                table, len(stored), marks.flags, marks.kind, marks.granularity_bits, len(name), len(marks.extra)
            )
            directory += marks.extra + name
            directory += bytes(-len(directory) % 8)
        return (self._append(directory), len(directory)) if directory else (0, 0)

    def _put_header(self, directory: tuple[int, int]) -> None:
        extensions = b""
        if self.bitmaps:
            extensions += fmt.EXTENSION.pack(fmt.EXTENSION_BITMAPS, 24)
            extensions += fmt.BITMAPS_EXTENSION.pack(len(self.bitmaps), 0, directory[1], directory[0])
        if self.feature_names:
            names = b"".join(struct.pack(">BB46s", 0, bit, name.encode()) for bit, name in self.feature_names.items())
            extensions += fmt.EXTENSION.pack(fmt.EXTENSION_FEATURE_NAMES, len(names)) + names
        extensions += bytes(-len(extensions) % 8) + fmt.EXTENSION.pack(fmt.EXTENSION_END, 0)
        length = 112 if self.version == 3 else fmt.HEADER_V2.size
        backing_at = length + len(extensions) if self.backing else 0
        l1_entries = min(-(-self.size // (ENTRIES * CLUSTER)), 0xFFFFFFFF)
        header = fmt.HEADER_V2.pack(
            fmt.MAGIC, self.version, backing_at, len(self.backing), CLUSTER_BITS, self.size,
            self.crypt_method, l1_entries, self.l1_offset, 0, 0, 0, 0,
        )  # fmt: skip
        if self.version == 3:
            incompatible = self.incompatible | (fmt.INCOMPATIBLE_COMPRESSION if self.zstd else 0)
            header += fmt.HEADER_V3.pack(incompatible, 0, self.autoclear, 4, length)
            header += bytes([int(self.zstd)]) + bytes(7)
        front = header + extensions + self.backing.encode()
        self._data[: len(front)] = front
