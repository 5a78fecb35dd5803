"""VMFS 5 and 6 on disk: volume descriptor, file descriptors, resource file headers. Little-endian; offsets in bytes.

Two generations of one design. ``Geometry`` holds what differs, so that nothing else asks for the version::

                              VMFS 5                     VMFS 6
    metadata alignment        512                        4096
    file descriptor           2048                       8192      lock | facts (one alignment further) | … pointers
    pointers in it            256 of 32 bits at 1024     320 of 64 bits at 5632
    a small file in it        at 1024, 1 KiB             at 4608, 3.5 KiB
    pointer block             1024 pointers, own         8192 pointers, kept in sub-blocks
                              resource file

A resource file is an array of equal pieces, after a header: cluster groups of ``clusters`` clusters of ``per_cluster`` pieces::

    |header|…|locks of group 0|piece 0|piece 1|…|locks of group 1|…
             `- group_at      `- + clusters * 2 * alignment
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from proxy.transport.vmfs.lvm_format import format_uuid
from proxy.transport.vmfs.reasons import Subject, VmfsReason
from proxy.units import KiB, MiB, TiB

DESCRIPTOR_AT = 0x200000
DESCRIPTOR_SIZE = 512
MAGICS = (0x2FABF15E, 0x2FABF15F)
"""Shared datastores, and those of ESXi's own local disk ("VMFS-L")."""
MAJOR_VMFS5, MAJOR_VMFS6 = 14, 24

CONFIG_DENSE_SUB_BLOCKS = 0x04

BLOCK_SIZES = {MAJOR_VMFS5: (512 * KiB, MiB), MAJOR_VMFS6: (MiB,)}
"""File blocks. VMFS 5 makes 1 MiB, and 512 KiB by hand; volumes upgraded from VMFS 3 keep 2, 4, 8 MiB: refused."""

SUB_BLOCKS = {MAJOR_VMFS5: (8 * KiB, 32 * KiB), MAJOR_VMFS6: (64 * KiB,)}
"""Sub-blocks. VMFS 5 makes 8 KiB, and 32 KiB by hand."""

ALIGNMENTS = {MAJOR_VMFS5: 512, MAJOR_VMFS6: 4096}

LARGE_BLOCK_SHIFT = 9
"""VMFS 6: a large block is 2**9 file blocks."""

FILE_SIZE_LIMIT = 64 * TiB
"""ESXi's limit is 62 TiB for a disk; system files stay far below."""

LOCK_MAGIC = 0x10C00001
DESCRIPTOR_MARK = b"dmdf"
"""VMFS 6 marks the facts of a file descriptor."""

RESOURCE_HEADER = struct.Struct("<IIIIII")
RESOURCE_MARK_AT, RESOURCE_MARK = 0x20, b"dmfr"
SMALLER_AT = 0x34
"""VMFS 6: in the header of the bitmap of blocks, where the header is that tells how many file blocks a large one has."""
RESOURCE_HEADER_SIZE = 512


class FileType(IntEnum):
    """What a file descriptor, or an entry of a directory, is of."""

    DIRECTORY = 2
    REGULAR = 3
    SYMLINK = 4
    SYSTEM = 5
    RAW_DEVICE = 6


class SystemFile(IntEnum):
    """Numbers of the first file descriptors."""

    ROOT = 0
    BLOCK_BITMAP = 1
    FILE_DESCRIPTORS = 2
    POINTER_BLOCKS = 3
    SUB_BLOCKS = 4
    POINTER_BLOCKS_2 = 6


class Layout(IntEnum):
    """What the pointers of a file descriptor point to ("zero level address")."""

    BLOCKS = 1
    SUB_BLOCKS = 2
    POINTER_BLOCKS = 3
    POINTER_BLOCKS_2 = 5
    DOUBLE = 0x10D0
    RESIDENT = 0x10D1


_FILE_TYPES = frozenset(map(int, FileType))
_LAYOUTS = frozenset(map(int, Layout))


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes and places that follow from the version and the volume descriptor."""

    major: int
    alignment: int
    descriptor_size: int
    facts_at: int
    pointers_at: int
    pointers: int
    pointer_size: int
    resident_at: int
    block_size: int
    sub_block: int
    pointers_per_table: int
    dense: bool
    group_at: int
    clusters: int

    @property
    def resident_size(self) -> int:
        """Bytes of a file that fit into its descriptor."""
        return self.descriptor_size - self.resident_at

    @property
    def table_size(self) -> int:
        """Bytes of a pointer block."""
        return self.pointers_per_table * self.pointer_size

    @property
    def root_at(self) -> int:
        """Volume offset of the first file descriptor; the other system files' follow it."""
        start = (self.alignment * 1024 + 0x3FFFFF) // MiB * MiB
        return start + self.group_at + self.clusters * 2 * self.alignment


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a volume says of itself. ``volume``: the logical volume that it was made on."""

    major: int
    local: bool
    uuid: str
    label: str
    volume: str
    geometry: Geometry


@dataclass(frozen=True, slots=True)
class Resource:
    """Header of a resource file; ``size``: bytes of one piece."""

    per_cluster: int
    clusters: int
    group_at: int
    size: int
    group_size: int
    total: int

    def offset(self, cluster: int, index: int, alignment: int) -> int:
        """Where a piece begins, within the resource file."""
        group, member = divmod(cluster, self.clusters)
        head = self.group_at + group * self.group_size + self.clusters * 2 * alignment
        return head + (member * self.per_cluster + index) * self.size


@dataclass(frozen=True, slots=True)
class FileDescriptor:
    """One file. ``at``: volume offset of the descriptor; ``pointers``, ``resident``: raw bytes of the same place.

    ``unit``: bytes that one of its pointers stands for; ``blocks``: how many are allocated, ``zeroed``: how many of those are
    still to be zeroed; ``lock_mode``: 0 when no host has the file open.
    """

    at: int
    address: int
    generation: int
    links: int
    type: FileType
    size: int
    unit: int
    blocks: int
    modified: int
    layout: Layout
    zeroed: int
    large_blocks: int
    lock_mode: int
    lock_owner: str
    pointers: bytes
    resident: bytes


def parse_descriptor(raw: bytes, subject: Subject) -> Descriptor:
    """The 512 bytes at ``DESCRIPTOR_AT`` of a volume. Refuses what is not VMFS 5 or 6 as ESXi makes them."""
    magic, major = struct.unpack_from("<II", raw)
    if magic not in MAGICS:
        raise subject.refuse(VmfsReason.NO_VOLUME, f"magic {magic:#010x} in a logical volume")
    if major not in (MAJOR_VMFS5, MAJOR_VMFS6):
        raise subject.refuse(VmfsReason.VMFS_VERSION, f"internal version {major}")
    six = major == MAJOR_VMFS6
    block_size = struct.unpack_from("<Q", raw, 0xA1)[0]
    group_at, clusters, sub_block = struct.unpack_from("<III", raw, 0xD1)
    alignment, shift = struct.unpack_from("<II", raw, 0x134)
    if block_size not in BLOCK_SIZES[major] or sub_block not in SUB_BLOCKS[major]:
        raise subject.refuse(VmfsReason.VMFS_VERSION, f"blocks of {block_size}, sub-blocks of {sub_block} bytes")
    if six and (alignment != ALIGNMENTS[major] or shift != LARGE_BLOCK_SHIFT):
        raise subject.refuse(VmfsReason.VMFS_VERSION, f"aligned to {alignment}, large blocks of 2^{shift}")
    if not 0 < clusters <= 1024 or not 0 < group_at <= MiB:
        raise subject.refuse(VmfsReason.VMFS_DAMAGED, f"cluster groups of {clusters} at {group_at}")
    dense = bool(struct.unpack_from("<I", raw, 0x19)[0] & CONFIG_DENSE_SUB_BLOCKS)
    return Descriptor(
        major=major,
        local=magic == MAGICS[1],
        uuid=format_uuid(raw[9:25]),
        label=raw[0x1D:0x9D].split(b"\0", 1)[0].decode(errors="replace"),
        volume=format_uuid(raw[0xB1:0xC1]),
        geometry=_geometry(major, (block_size, sub_block), (group_at, clusters), dense=dense),
    )


def _geometry(major: int, sizes: tuple[int, int], groups: tuple[int, int], *, dense: bool) -> Geometry:
    six = major == MAJOR_VMFS6
    return Geometry(
        major=major,
        alignment=ALIGNMENTS[major],
        descriptor_size=8192 if six else 2048,
        facts_at=ALIGNMENTS[major],
        pointers_at=8192 - 320 * 8 if six else 1024,
        pointers=320 if six else 256,
        pointer_size=8 if six else 4,
        resident_at=4096 + 512 if six else 1024,
        block_size=sizes[0],
        sub_block=sizes[1],
        pointers_per_table=8192 if six else 1024,
        dense=dense,
        group_at=groups[0],
        clusters=groups[1],
    )


def parse_resource(raw: bytes, what: str, geometry: Geometry, subject: Subject) -> Resource:
    """The header of a resource file."""
    resource = Resource(*RESOURCE_HEADER.unpack_from(raw))
    sound = 0 < resource.clusters <= 4096 and 0 < resource.per_cluster <= 4096 and 0 < resource.size <= MiB
    cluster = 2 * geometry.alignment + resource.per_cluster * resource.size
    if not sound or resource.group_at != geometry.group_at or resource.group_size != resource.clusters * cluster:
        raise subject.refuse(VmfsReason.VMFS_DAMAGED, f"{what}: {resource}")
    return resource


def check_block_bitmap(head: bytes, smaller: bytes, subject: Subject) -> None:
    """Refuses a VMFS 6 volume whose addresses do not count 512 file blocks to a large block. ``smaller``: the header
    that ``head`` leads to."""
    per_large = int.from_bytes(smaller[:4], "little")
    marks = {part[RESOURCE_MARK_AT : RESOURCE_MARK_AT + 4] for part in (head, smaller)}
    if marks != {RESOURCE_MARK} or per_large != 1 << LARGE_BLOCK_SHIFT:
        raise subject.refuse(VmfsReason.VMFS_VERSION, f"{per_large} file blocks to a large block")


def parse_file_descriptor(raw: bytes, at: int, geometry: Geometry, subject: Subject) -> FileDescriptor:
    """A file descriptor that was read at volume offset ``at``. Refuses one that is free, damaged or of another place."""
    lock_magic, own_at = struct.unpack_from("<IQ", raw)
    if lock_magic != LOCK_MAGIC or own_at != at:
        detail = f"no file descriptor at {at} (lock {lock_magic:#x} of {own_at})"
        raise subject.refuse(VmfsReason.VMFS_DAMAGED, detail)
    facts = raw[geometry.facts_at :]
    address, generation, links, kind, _flags, size, _block_size, blocks, modified = struct.unpack_from(
        "<IIIIIQQQI", facts
    )
    layout, zeroed = struct.unpack_from("<II", facts, 0x44)
    if geometry.major == MAJOR_VMFS6 and facts[0x64:0x68] != DESCRIPTOR_MARK:
        raise subject.refuse(VmfsReason.VMFS_DAMAGED, f"the file descriptor at {at} lacks its mark")
    if kind not in _FILE_TYPES or size > FILE_SIZE_LIMIT or not links:
        raise subject.refuse(
            VmfsReason.VMFS_DAMAGED, f"file descriptor at {at}: type {kind}, {size} bytes, {links} links"
        )
    if kind != FileType.RAW_DEVICE and layout not in _LAYOUTS:
        raise subject.refuse(VmfsReason.UNKNOWN_LAYOUT, f"file descriptor at {at}: layout {layout:#x}")
    return FileDescriptor(
        at=at,
        address=address,
        generation=generation,
        links=links,
        type=FileType(kind),
        size=size,
        unit=1 << min(facts[0x89], 63),
        blocks=blocks,
        modified=modified,
        layout=Layout(layout) if layout in _LAYOUTS else Layout.RESIDENT,
        zeroed=zeroed,
        large_blocks=struct.unpack_from("<I", facts, 0x8C)[0],
        lock_mode=struct.unpack_from("<I", raw, 0x24)[0],
        lock_owner=format_uuid(raw[0x28:0x38]),
        pointers=raw[geometry.pointers_at :],
        resident=raw[geometry.resident_at :],
    )
