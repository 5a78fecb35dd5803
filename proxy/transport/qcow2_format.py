"""qcow2 on disk: QEMU's docs/interop/qcow2.txt, as of QEMU 7.2. Structs and their checks, no reading and no mapping.

Everything in an image was written by somebody else. Nothing in here is believed before it was compared with the size of
the container, so that a hostile header costs an error and never memory or time. Numbers are big-endian.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from proxy.errors import FormatError
from proxy.units import MiB

MAGIC = b"QFI\xfb"

HEADER_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
"""magic, version, backing offset, backing size, cluster bits, size, crypt method, L1 entries, L1 offset,
refcount table offset, refcount table clusters, snapshots, snapshots offset"""
HEADER_V3 = struct.Struct(">QQQII")
"""incompatible, compatible and autoclear features, refcount order, header length; follows the fields of version 2"""
EXTENSION = struct.Struct(">II")
"""type, length; data and padding to a multiple of 8 follow"""
BITMAPS_EXTENSION = struct.Struct(">IIQQ")
"""number of bitmaps, reserved, directory size, directory offset"""
BITMAP_ENTRY = struct.Struct(">QIIBBHI")
"""table offset, table entries, flags, type, granularity bits, name size, extra data size; extra data and name follow"""

assert (HEADER_V2.size, HEADER_V3.size, BITMAPS_EXTENSION.size, BITMAP_ENTRY.size) == (72, 32, 24, 24)  # noqa: S101

HEADER_MINIMUM = 104
"""Bytes of a version 3 header up to and with its own length."""
COMPRESSION_TYPE_AT = 104

EXTENSION_END = 0x00000000
EXTENSION_FEATURE_NAMES = 0x6803F857
EXTENSION_BITMAPS = 0x23852875
FEATURE_NAME_SIZE = 48

INCOMPATIBLE_DIRTY = 1 << 0
INCOMPATIBLE_CORRUPT = 1 << 1
INCOMPATIBLE_DATA_FILE = 1 << 2
INCOMPATIBLE_COMPRESSION = 1 << 3
INCOMPATIBLE_EXTENDED_L2 = 1 << 4
INCOMPATIBLE_KNOWN = (1 << 5) - 1
AUTOCLEAR_BITMAPS = 1 << 0

COMPRESSION_ZLIB, COMPRESSION_ZSTD = 0, 1

OFFSET_MASK = (1 << 56) - (1 << 9)
"""Host offsets in L1, L2 and bitmap tables: bits 9 to 55."""
L2_COMPRESSED = 1 << 62
L2_ZERO = 1 << 0

BITMAP_IN_USE = 1 << 0
BITMAP_AUTO = 1 << 1
BITMAP_EXTRA_COMPATIBLE = 1 << 2
BITMAP_DIRTY_TRACKING = 1

# QEMU's own limits: what it cannot open, no guest has written.
CLUSTER_BITS = range(9, 22)
EXTENDED_L2_CLUSTER_BITS = range(14, 22)
L1_LIMIT = 32 * MiB
BITMAP_DIRECTORY_LIMIT = 64 * MiB
BITMAP_LIMIT = 65535
BITMAP_GRANULARITY_BITS = range(9, 32)
BITMAP_TABLE_LIMIT = 128 * MiB
NAME_LIMIT = 1023


@dataclass(frozen=True, slots=True)
class BitmapsExtension:
    """Where the bitmap directory lies: bytes from the beginning of the container."""

    count: int
    directory_size: int
    directory_offset: int


@dataclass(frozen=True, slots=True)
class Header:
    """What reading needs of a header. Sizes and offsets in bytes; ``compression``: 0 zlib, 1 zstd."""

    version: int
    cluster_bits: int
    size: int
    l1_offset: int
    l1_entries: int
    crypt_method: int = 0
    incompatible: int = 0
    autoclear: int = 0
    compression: int = COMPRESSION_ZLIB
    backing: str | None = None
    bitmaps: BitmapsExtension | None = None
    feature_names: Mapping[int, str] = field(default_factory=dict)

    @property
    def cluster_size(self) -> int:
        """Bytes of one cluster."""
        return 1 << self.cluster_bits

    @property
    def extended_l2(self) -> bool:
        """Whether L2 entries have 16 bytes and clusters 32 subclusters."""
        return bool(self.incompatible & INCOMPATIBLE_EXTENDED_L2)

    @property
    def l2_entries(self) -> int:
        """Clusters that one L2 table maps."""
        return self.cluster_size // (16 if self.extended_l2 else 8)

    @property
    def l2_span(self) -> int:
        """Guest bytes that one L2 table maps."""
        return self.l2_entries * self.cluster_size

    @property
    def l1_needed(self) -> int:
        """Entries of the L1 table that the disk's size needs; the rest holds the state of saved machines."""
        return -(-self.size // self.l2_span)

    def refusal(self) -> tuple[str, str] | None:
        """Reason and detail when this is a good image that this reader does not read, else ``None``."""
        if self.crypt_method:
            return "image-encrypted", {1: "AES", 2: "LUKS"}.get(self.crypt_method, f"method {self.crypt_method}")
        if self.incompatible & INCOMPATIBLE_CORRUPT:
            return "image-corrupt", "QEMU marked the image corrupt; look at it with qemu-img check"
        if self.incompatible & INCOMPATIBLE_DATA_FILE:
            return "external-data-file", "guest data lies in another file than the metadata"
        unknown = self.incompatible & ~INCOMPATIBLE_KNOWN
        if unknown:
            bits = [bit for bit in range(64) if unknown >> bit & 1]
            return "unknown-feature", ", ".join(self.feature_names.get(bit, f"bit {bit}") for bit in bits)
        if self.compression not in (COMPRESSION_ZLIB, COMPRESSION_ZSTD):
            return "unknown-feature", f"compression type {self.compression}"
        return None


@dataclass(frozen=True, slots=True)
class Bitmap:
    """One persistent bitmap. ``granularity``: guest bytes a bit; the table's offset and entries are not checked yet."""

    name: str
    granularity: int
    flags: int
    kind: int
    table_offset: int
    table_entries: int
    extra_data_size: int = 0

    @property
    def in_use(self) -> bool:
        """Not saved since it was last changed: a machine still writes to the image, or died while it did."""
        return bool(self.flags & BITMAP_IN_USE)

    @property
    def auto(self) -> bool:
        """Whoever opens the image for writing must go on recording."""
        return bool(self.flags & BITMAP_AUTO)

    @property
    def usable(self) -> bool:
        """A dirty bitmap without extensions that would change its meaning."""
        understood = not self.extra_data_size or bool(self.flags & BITMAP_EXTRA_COMPATIBLE)
        return self.kind == BITMAP_DIRTY_TRACKING and understood


def parse_cluster_size(what: str, first: bytes) -> int:
    """Bytes of a cluster, from at least the first ``HEADER_V2.size`` bytes of a container. Raises ``FormatError``."""
    if len(first) < HEADER_V2.size or first[:4] != MAGIC:
        raise FormatError(what, "no qcow2 header")
    version, cluster_bits = HEADER_V2.unpack_from(first)[1:5:3]
    if version not in (2, 3):
        raise FormatError(what, f"qcow2 version {version}")
    if cluster_bits not in CLUSTER_BITS:
        raise FormatError(what, f"clusters of 2^{cluster_bits} bytes")
    return 1 << int(cluster_bits)


def parse_header(what: str, cluster: bytes, container_size: int) -> Header:
    """The header from the first cluster of a container (which may be cut where the container ends).

    ``what`` names the image in errors. Features are reported and not judged (``Header.refusal``). Raises ``FormatError``.
    """
    cluster_size = parse_cluster_size(what, cluster)
    fields = HEADER_V2.unpack_from(cluster)
    version, backing_offset, backing_size, cluster_bits, size, crypt_method, l1_entries, l1_offset = fields[1:9]
    features, length, compression = _version_3(what, cluster) if version == 3 else ((0, 0), HEADER_V2.size, 0)
    incompatible, autoclear = features
    if length > len(cluster):
        raise FormatError(what, f"header of {length} bytes in a cluster of {cluster_size} bytes")
    backing = _backing(what, cluster, backing_offset, backing_size)
    extensions = dict(_extensions(what, cluster, length, backing_offset or len(cluster)))
    header = Header(
        version=version,
        cluster_bits=cluster_bits,
        size=size,
        l1_offset=l1_offset,
        l1_entries=l1_entries,
        crypt_method=crypt_method,
        incompatible=incompatible,
        autoclear=autoclear,
        compression=compression,
        backing=backing,
        bitmaps=_bitmaps(what, extensions.get(EXTENSION_BITMAPS), container_size),
        feature_names=_feature_names(extensions.get(EXTENSION_FEATURE_NAMES, b"")),
    )
    _check_tables(what, header, container_size)
    return header


def parse_bitmap_directory(what: str, directory: bytes, count: int) -> Sequence[Bitmap]:
    """All entries of a bitmap directory. Raises ``FormatError``."""
    bitmaps: list[Bitmap] = []
    position = 0
    for _ in range(count):
        if position + BITMAP_ENTRY.size > len(directory):
            raise FormatError(what, f"bitmap directory ends before its {count} entries do")
        fields = BITMAP_ENTRY.unpack_from(directory, position)
        table_offset, table_entries, flags, kind, granularity_bits, name_size, extra_size = fields
        begin = position + BITMAP_ENTRY.size + extra_size
        end = begin + name_size
        if end > len(directory) or not 0 < name_size <= NAME_LIMIT:
            raise FormatError(what, "bitmap directory entry with a name outside of the directory")
        name = directory[begin:end].decode(errors="replace")
        if granularity_bits not in BITMAP_GRANULARITY_BITS:
            raise FormatError(what, f"bitmap {name!r} with a granularity of 2^{granularity_bits} bytes")
        bitmaps.append(Bitmap(name, 1 << granularity_bits, flags, kind, table_offset, table_entries, extra_size))
        position = -(-end // 8) * 8
    return bitmaps


def _version_3(what: str, first: bytes) -> tuple[tuple[int, int], int, int]:
    """(incompatible, autoclear) features, header length, compression type."""
    if len(first) < HEADER_MINIMUM:
        raise FormatError(what, "header is cut off")
    incompatible, _compatible, autoclear, refcount_order, length = HEADER_V3.unpack_from(first, HEADER_V2.size)
    if length < HEADER_MINIMUM or length % 8 or refcount_order > 6:
        raise FormatError(what, f"header of {length} bytes, refcount order {refcount_order}")
    compression = first[COMPRESSION_TYPE_AT] if length > COMPRESSION_TYPE_AT < len(first) else COMPRESSION_ZLIB
    if bool(incompatible & INCOMPATIBLE_COMPRESSION) != (compression != COMPRESSION_ZLIB):
        raise FormatError(what, f"compression type {compression} contradicts the feature bits {incompatible:#x}")
    return (incompatible, autoclear), length, compression


def _backing(what: str, cluster: bytes, offset: int, size: int) -> str | None:
    if not offset:
        return None
    if size > NAME_LIMIT or offset + size > len(cluster):
        raise FormatError(what, f"name of the backing file: {size} bytes at {offset}")
    return cluster[offset : offset + size].decode(errors="replace")


def _extensions(what: str, cluster: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """(type, data) up to the end marker or to ``end``. Each takes at least 8 bytes, so it ends."""
    position = start
    while position + EXTENSION.size <= end:
        kind, length = EXTENSION.unpack_from(cluster, position)
        if kind == EXTENSION_END:
            return
        position += EXTENSION.size
        if length > end - position:
            raise FormatError(what, f"header extension {kind:#010x} of {length} bytes at {position}")
        yield kind, cluster[position : position + length]
        position += -(-length // 8) * 8


def _bitmaps(what: str, data: bytes | None, container_size: int) -> BitmapsExtension | None:
    if data is None:
        return None
    if len(data) != BITMAPS_EXTENSION.size:
        raise FormatError(what, f"bitmaps extension of {len(data)} bytes")
    count, _reserved, size, offset = BITMAPS_EXTENSION.unpack(data)
    inside = offset + size <= container_size
    if not inside or size > BITMAP_DIRECTORY_LIMIT or not 0 < count <= min(BITMAP_LIMIT, size // BITMAP_ENTRY.size):
        raise FormatError(what, f"bitmap directory: {count} entries, {size} bytes at {offset}")
    return BitmapsExtension(count, size, offset)


def _feature_names(data: bytes) -> Mapping[int, str]:
    """Names of incompatible features by bit."""
    names: dict[int, str] = {}
    for at in range(0, len(data) - FEATURE_NAME_SIZE + 1, FEATURE_NAME_SIZE):
        kind, bit, name = data[at], data[at + 1], data[at + 2 : at + FEATURE_NAME_SIZE]
        if kind == 0:
            names[bit] = name.rstrip(b"\0").decode(errors="replace")
    return names


def _check_tables(what: str, header: Header, container_size: int) -> None:
    if header.extended_l2 and header.cluster_bits not in EXTENDED_L2_CLUSTER_BITS:
        raise FormatError(what, f"extended L2 entries with clusters of 2^{header.cluster_bits} bytes")
    if header.l1_entries * 8 > L1_LIMIT or header.l1_entries < header.l1_needed:
        raise FormatError(what, f"L1 table of {header.l1_entries} entries for {header.size} bytes")
    if header.l1_offset % header.cluster_size or header.l1_offset + header.l1_entries * 8 > container_size:
        raise FormatError(what, f"L1 table at {header.l1_offset} of a container of {container_size} bytes")
