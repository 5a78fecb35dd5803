"""The stream-optimised form of a VMDK ("Virtual Disk Format 5.0", VMware, "Stream-Optimized Compressed Sparse Extents").

What a vSphere host sends when a disk is exported and takes when one is imported. Little-endian, in sectors of 512 bytes.

::

    |header|descriptor|pad|grain 0|grain 7|…|table 0|grain 512|…|table 1|directory|footer|end|
    grain      | LBA 64 | bytes 32 | zlib stream …        | pad to a sector
    metadata   | sectors 64 | 0    | type 32 | pad to a sector | that many sectors
    types      0 end of stream, 1 grain table, 2 grain directory, 3 footer (the header again, with the directory's place),
               4 progress: a sign of life while nothing but zeroes is found; VMware's own writers send it

A grain that is not in the stream reads as zero. A table has the sector in the stream of each of its grains' markers, the
directory that of each table; 0: nothing there. Writers that can go back (``qemu-img``) keep the directory in front.
"""

import re
import struct
from dataclasses import dataclass, replace
from enum import IntEnum

from proxy.errors import FormatError
from proxy.transport.vmdk.descriptor import NO_PARENT, SECTOR, SIZE_LIMIT
from proxy.units import KiB, MiB, align_up

HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
MARKER = struct.Struct("<QI")
METADATA = struct.Struct("<QII")
MAGIC = b"KDMV"
NEWLINES = b"\n \r\n"
"""Spoiled by transfers that take the file for text."""

STREAM_VERSION = 3
FLAGS = 0x3_0001
"""Line ends can be checked, grains are compressed, markers are there."""
FLAGS_NEEDED = 0x3_0000
DEFLATE = 1
DIRECTORY_AT_END = 0xFFFF_FFFF_FFFF_FFFF

GRAIN = 64 * KiB
TABLE_ENTRIES = 512
TABLE_SECTORS = TABLE_ENTRIES * 4 // SECTOR
ENTRY_LIMIT = 1 << 32
"""Entries have 32 bits: 2 TiB of stream."""

DESCRIPTOR_AT = 1
DESCRIPTOR_SECTORS = 20
OVERHEAD = 128
"""Where the first marker stands: the places that VMware's tools and qemu-img use."""

SMALLEST_GRAIN = 4 * KiB
LARGEST_GRAIN = MiB
TABLES_LIMIT = 1 << 22
"""Of 64 TiB in grains of 64 KiB it would be half as many."""

DESCRIPTOR_LIMIT = 64 * KiB

_PARENT = re.compile(r"^\s*parentCID\s*=\s*([0-9a-fA-F]{8})\s*$", re.MULTILINE)
_TYPE = re.compile(r'^\s*createType\s*=\s*"([^"]*)"', re.MULTILINE)


class Marker(IntEnum):
    """What a metadata marker announces."""

    END = 0
    TABLE = 1
    DIRECTORY = 2
    FOOTER = 3
    PROGRESS = 4


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """``size`` and ``grain`` in bytes; the others in sectors. ``directory_at``: ``DIRECTORY_AT_END`` in a header that was
    written before its stream was."""

    size: int
    grain: int
    descriptor_at: int = DESCRIPTOR_AT
    descriptor_sectors: int = DESCRIPTOR_SECTORS
    directory_at: int = DIRECTORY_AT_END
    overhead: int = OVERHEAD

    @property
    def span(self) -> int:
        """Bytes of the disk that one table lists."""
        return self.grain * TABLE_ENTRIES

    @property
    def tables(self) -> int:
        """Entries of the directory."""
        return -(-self.size // self.span)

    @property
    def directory_sectors(self) -> int:
        """What the directory takes in the stream."""
        return -(-self.tables * 4 // SECTOR)

    @property
    def packed_limit(self) -> int:
        """Bytes of the longest grain as it is stored: what deflate makes of bytes that it cannot make fewer, and more."""
        return self.grain + self.grain // 64 + KiB

    def at(self, directory: int) -> "StreamHeader":
        """The footer of a stream whose directory begins in that sector."""
        return replace(self, directory_at=directory)


def parse_header(what: str, raw: bytes) -> StreamHeader:
    """The first sector of a stream, or its footer's. Raises ``FormatError``."""
    if len(raw) < SECTOR:
        raise FormatError(what, "a header that is cut off")
    magic, version, flags, capacity, grain, text_at, text, entries, _, directory, overhead, unclean, ends, how = (
        HEADER.unpack_from(raw)
    )
    if magic != MAGIC or not 1 <= version <= STREAM_VERSION:
        raise FormatError(what, f"magic {magic!r}, version {version}: no VMDK stream")
    if flags & FLAGS_NEEDED != FLAGS_NEEDED or how != DEFLATE:
        raise FormatError(what, f"flags {flags:#x}, compression {how}: not stream-optimised")
    if flags & 1 and ends != NEWLINES:
        raise FormatError(what, f"its line ends were changed to {ends!r}")
    if unclean:
        raise FormatError(what, "it was not closed properly")
    header = StreamHeader(capacity * SECTOR, grain * SECTOR, text_at, text, directory, overhead)
    if not 0 < header.size <= SIZE_LIMIT or entries != TABLE_ENTRIES:
        raise FormatError(what, f"{capacity} sectors in tables of {entries}")
    if not SMALLEST_GRAIN <= header.grain <= LARGEST_GRAIN or header.grain & (header.grain - 1):
        raise FormatError(what, f"grains of {grain} sectors")
    if header.tables > TABLES_LIMIT:
        raise FormatError(what, f"{header.tables} tables for {header.size} bytes")
    _check_overhead(what, header)
    return header


def _check_overhead(what: str, header: StreamHeader) -> None:
    """What stands before the first grain: the descriptor, and in files of ``qemu-img`` the directory, twice, and its tables."""
    tables = header.tables * TABLE_SECTORS + header.directory_sectors
    longest = MiB // SECTOR + (0 if header.directory_at == DIRECTORY_AT_END else 2 * tables)
    if not 0 < header.overhead <= longest:
        raise FormatError(what, f"the first grain in sector {header.overhead}")
    end = header.descriptor_at + header.descriptor_sectors
    if header.descriptor_at and (end > header.overhead or header.descriptor_sectors * SECTOR > DESCRIPTOR_LIMIT):
        raise FormatError(what, f"a descriptor of {header.descriptor_sectors} sectors in sector {header.descriptor_at}")


def check_descriptor(what: str, raw: bytes) -> None:
    """That the stream is a whole disk, not what changed since a parent. Raises ``FormatError``."""
    text = raw.rstrip(b"\0").decode(errors="replace")
    kind, parent = _TYPE.search(text), _PARENT.search(text)
    if kind is None or parent is None:
        raise FormatError(what, "a descriptor without its type or its parent")
    if kind[1] != "streamOptimized":
        raise FormatError(what, f"a disk of type {kind[1]!r}")
    if parent[1].lower() != NO_PARENT:
        raise FormatError(what, f"only what differs from its parent {parent[1]}")


def pack_header(header: StreamHeader) -> bytes:
    """One sector."""
    fields = HEADER.pack(
        MAGIC,
        STREAM_VERSION,
        FLAGS,
        header.size // SECTOR,
        header.grain // SECTOR,
        header.descriptor_at,
        header.descriptor_sectors,
        TABLE_ENTRIES,
        0,
        header.directory_at,
        header.overhead,
        0,
        NEWLINES,
        DEFLATE,
    )
    return fields.ljust(SECTOR, b"\0")


def pack_descriptor(header: StreamHeader, name: str) -> bytes:
    """The descriptor in its sectors. ``name``: of the file, for people; the geometry is the one that hosts make up too."""
    sectors = header.size // SECTOR
    text = (
        "# Disk DescriptorFile\n"
        "version=1\n"
        "CID=fffffffe\n"
        f"parentCID={NO_PARENT}\n"
        'createType="streamOptimized"\n\n'
        "# Extent description\n"
        f'RW {sectors} SPARSE "{name}"\n\n'
        "# The Disk Data Base\n"
        "#DDB\n"
        'ddb.adapterType = "lsilogic"\n'
        f'ddb.geometry.cylinders = "{max(1, sectors // (255 * 63))}"\n'
        'ddb.geometry.heads = "255"\n'
        'ddb.geometry.sectors = "63"\n'
        'ddb.virtualHWVersion = "4"\n'
    )
    raw = text.encode("ascii", "replace")
    if len(raw) > header.descriptor_sectors * SECTOR:
        raise FormatError(name, "a name that does not fit into its descriptor")
    return raw.ljust(header.descriptor_sectors * SECTOR, b"\0")


def pack_metadata(kind: Marker, content: bytes = b"") -> bytes:
    """A metadata marker and what it announces, each in whole sectors."""
    padded = content.ljust(align_up(len(content), SECTOR), b"\0")
    return METADATA.pack(len(padded) // SECTOR, 0, kind).ljust(SECTOR, b"\0") + padded


def pack_grain(start: int, packed: bytes) -> bytes:
    """A grain's marker and its compressed bytes, in whole sectors. ``start``: bytes of the disk."""
    raw = MARKER.pack(start // SECTOR, len(packed)) + packed
    return raw.ljust(align_up(len(raw), SECTOR), b"\0")
