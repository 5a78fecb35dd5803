"""On-disk structures of ext2, ext3 and ext4. Source: Documentation/filesystems/ext4/ of Linux; all little-endian."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

from mounter.layout.model import Bytes, Doubt, LayoutDoubt, Node, exactly
from mounter.ports import TYPE_OF_MODE, FileType
from proxy.units import GiB, KiB, MiB

ROOT = 2

INCOMPAT_META_BG, INCOMPAT_64BIT = 0x10, 0x80
# filetype, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir, inline_data, casefold. Not among them:
# compression, a journal to replay, encryption (names that only a key shows).
_INCOMPAT_KNOWN = 0x2 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x20000
_COMPAT_SPARSE2 = 0x200
_RO_SPARSE = 0x1

FLAG_EXTENTS = 0x80000
FLAG_INLINE = 0x10000000
_FLAG_EA_INODE = 0x200000

_HEAD = struct.Struct("<HHIIIIIHHIII")
_REST = struct.Struct("<II4xHHHH")
_EXTRA = struct.Struct("<HHII")
_ENTRY = struct.Struct("<IHB")
_EXTENT_HEAD = struct.Struct("<HHHH")

# A directory of 512 MiB holds several million names; a longer one is a hostile claim.
_LARGEST_DIRECTORY = 512 * MiB
_LONGEST_LINK = 4 * KiB

# Levels of an extent tree that Linux makes at most (EXT4_MAX_EXTENT_DEPTH and the root).
_LEVELS = 6
_LONGEST_WRITTEN = 32768

# Extents and index blocks that a file may have beyond its size: what was reserved behind its end.
_PREALLOCATED = 1024

_NANO = 10**9


@dataclass(frozen=True, slots=True)
class Super:
    """Facts of the superblock. ``first``: the block in which the first group begins; sizes in bytes."""

    block: int
    blocks: int
    first: int
    per_group: int
    inodes_per_group: int
    inodes: int
    inode_size: int
    descriptor: int
    compat: int
    incompat: int
    ro_compat: int
    first_meta: int
    backups: tuple[int, int]
    cluster: int

    @property
    def groups(self) -> int:
        """How many block groups there are."""
        return -(-(self.blocks - self.first) // self.per_group)


@dataclass(frozen=True, slots=True)
class Inode:
    """``raw``: its bytes; ``node``: its record, without the target of a symbolic link."""

    raw: bytes
    node: Node
    flags: int
    links: int
    sectors: int
    acl: int

    @property
    def body(self) -> bytes:
        """``i_block``: where its data is, or the data itself."""
        return self.raw[40:100]

    def has_blocks(self, s: Super) -> bool:
        """Whether ``i_block`` says where data is: not for devices, nor for links whose target lies in it."""
        if self.node.type is FileType.SYMLINK:
            return not fast_link(self, s)
        return self.node.type in (FileType.FILE, FileType.DIRECTORY)


def superblock(volume: Bytes) -> Super:
    """Raises ``LayoutDoubt`` for anything that this module does not know."""
    raw = exactly(volume, 1024, 1024)
    inodes, blocks, _, _, _, first, shift, cluster_shift, per_group = struct.unpack_from("<IIIIIIIII", raw)
    magic, _, _, _ = struct.unpack_from("<HHHH", raw, 0x38)
    (revision,) = struct.unpack_from("<I", raw, 0x4C)
    (size,) = struct.unpack_from("<H", raw, 0x58)
    compat, incompat, ro_compat = struct.unpack_from("<III", raw, 0x5C)
    (inodes_per_group,) = struct.unpack_from("<I", raw, 0x28)
    (descriptor,) = struct.unpack_from("<H", raw, 0xFE)
    (first_meta,) = struct.unpack_from("<I", raw, 0x104)
    if magic != 0xEF53 or shift > 6 or not per_group or not inodes_per_group or revision > 1:
        raise LayoutDoubt(Doubt.UNKNOWN_FORMAT, "no ext superblock that makes sense")
    if incompat & ~_INCOMPAT_KNOWN:
        raise LayoutDoubt(Doubt.UNKNOWN_FORMAT, f"ext features {incompat & ~_INCOMPAT_KNOWN:#x}")
    if incompat & INCOMPAT_64BIT:
        blocks |= struct.unpack_from("<I", raw, 0x150)[0] << 32
    inode_size = size if revision else 128
    width = max(descriptor, 64) if incompat & INCOMPAT_64BIT else 32
    block = 1024 << shift
    fits = 128 <= inode_size <= block and width <= block and blocks * block <= volume.size and first < blocks
    if not fits or inodes > (1 << 32) - 1:
        raise LayoutDoubt(Doubt.DAMAGED, "the superblock does not fit the volume")
    backups = struct.unpack_from("<II", raw, 0x24C)
    cluster = 1024 << min(cluster_shift, 32)
    facts = (block, blocks, first, per_group, inodes_per_group, inodes, inode_size, width)
    return Super(*facts, compat, incompat, ro_compat, first_meta, backups, cluster)


def inode_tables(volume: Bytes, s: Super) -> list[int]:
    """First block of each group's inode table, out of the group descriptors."""
    return [table for _, _, table in _descriptors(volume, s)]


def metadata_blocks(volume: Bytes, s: Super) -> Iterator[tuple[int, int]]:
    """First block and number of blocks of whatever is neither data nor free, but for the blocks of inodes' maps."""
    length = -(-s.inodes_per_group * s.inode_size // s.block)
    described = -(-s.groups * s.descriptor // s.block)
    yield 0, s.first + 1  # what is before the first group: the boot block, or the superblock within block 0
    for group, (blocks, inodes, table) in enumerate(_descriptors(volume, s)):
        first = s.first + group * s.per_group
        if _has_super(s, group):
            yield first, 1 if s.incompat & INCOMPAT_META_BG else 1 + described
        yield blocks, 1
        yield inodes, 1
        yield table, length
    if s.incompat & INCOMPAT_META_BG:
        per_block = s.block // s.descriptor
        for number in range(-(-s.groups // per_block)):
            yield _descriptors_at(s, number, per_block), 1


def _descriptors(volume: Bytes, s: Super) -> Iterator[tuple[int, int, int]]:
    """Block bitmap, inode bitmap and inode table of each group."""
    if s.groups * s.inodes_per_group < s.inodes or s.groups * s.descriptor > GiB // 4:
        raise LayoutDoubt(Doubt.DAMAGED, f"{s.inodes} inodes in {s.groups} groups")
    per_block = s.block // s.descriptor
    for number in range(-(-s.groups // per_block)):
        data = exactly(volume, _descriptors_at(s, number, per_block) * s.block, s.block)
        for at in range(0, min(per_block, s.groups - number * per_block) * s.descriptor, s.descriptor):
            low = struct.unpack_from("<III", data, at)
            high = struct.unpack_from("<III", data, at + 0x20) if s.descriptor >= 64 else (0, 0, 0)
            yield low[0] | high[0] << 32, low[1] | high[1] << 32, low[2] | high[2] << 32


def _descriptors_at(s: Super, number: int, per_block: int) -> int:
    """The block that holds a block of group descriptors: one after the other, or (meta_bg) one in each meta group."""
    if not s.incompat & INCOMPAT_META_BG or number < s.first_meta:
        return s.first + 1 + number
    group = number * per_block
    return s.first + group * s.per_group + _has_super(s, group)


def _has_super(s: Super, group: int) -> bool:
    """Whether a copy of the superblock begins the group."""
    if group <= 1:
        return group == 0 or not s.compat & _COMPAT_SPARSE2 or group in s.backups
    if s.compat & _COMPAT_SPARSE2:
        return group in s.backups
    if not s.ro_compat & _RO_SPARSE:
        return True
    return any(_is_power(group, base) for base in (3, 5, 7))


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1


def inode(raw: bytes) -> Inode:
    """Parse one inode. Raises ``LayoutDoubt`` for one that is not in use."""
    mode, uid, low, _, ctime, mtime, _, gid, links, sectors, flags, _ = _HEAD.unpack_from(raw)
    acl, high, sectors_high, acl_high, uid_high, gid_high = _REST.unpack_from(raw, 104)
    kind = TYPE_OF_MODE.get(mode & 0o170000)
    if kind is None or not links:
        raise LayoutDoubt(Doubt.DAMAGED, "a name refers to an inode that is not in use")
    ctime_extra = mtime_extra = 0
    if len(raw) >= 140:
        extra, _, ctime_extra, mtime_extra = _EXTRA.unpack_from(raw, 128)
        ctime_extra = ctime_extra if extra >= 8 else 0
        mtime_extra = mtime_extra if extra >= 12 else 0
    size = low | high << 32 if kind in (FileType.FILE, FileType.DIRECTORY) else low
    node = Node(
        kind,
        size,
        mode & 0o7777,
        uid | uid_high << 16,
        gid | gid_high << 16,
        _time(mtime, mtime_extra),
        _time(ctime, ctime_extra),
    )
    return Inode(raw, node, flags, links, sectors | sectors_high << 32, acl | acl_high << 32)


def _time(seconds: int, extra: int) -> int:
    """Signed 32 bits and two more for the epoch; nanoseconds above those."""
    signed = seconds - (1 << 32) if seconds & 0x80000000 else seconds
    return (signed + ((extra & 3) << 32)) * _NANO + (extra >> 2)


def fast_link(i: Inode, s: Super) -> bool:
    """Whether a symbolic link's target lies in the inode: no data blocks, but perhaps one of attributes."""
    if i.flags & FLAG_INLINE:
        return False
    if i.flags & _FLAG_EA_INODE:
        return i.node.size < 60
    return i.sectors == (s.cluster // 512 if i.acl else 0)


@dataclass(slots=True)
class Mapping:
    """Where an inode's data lies: runs ``(logical block, block, count)`` in logical order, and the blocks that say so."""

    runs: list[tuple[int, int, int]]
    index: list[int]


def mapping(volume: Bytes, s: Super, i: Inode, most: int = _LARGEST_DIRECTORY) -> Mapping:
    """``most``: bytes; who claims more raises ``LayoutDoubt``."""
    if i.node.size > most:
        raise LayoutDoubt(Doubt.TOO_LARGE, f"{i.node.size} bytes of directory or link")
    mapper = _Mapper(volume, s.block, min(most, i.node.size) // s.block + 1)
    if i.flags & FLAG_EXTENTS:
        mapper.extents(i.body, _LEVELS)
        mapper.out.runs.sort()
    else:
        mapper.block_map(i)
    return mapper.out


class _Mapper:
    """``budget``: blocks that the file has at most; neither runs nor index blocks can be more."""

    def __init__(self, volume: Bytes, block: int, budget: int) -> None:
        self.out = Mapping([], [])
        self._volume = volume
        self._block = block
        self._budget = budget

    def extents(self, data: bytes, levels: int) -> None:
        """A node of an extent tree, and all below it."""
        magic, count, _, depth = _EXTENT_HEAD.unpack_from(data)
        if magic != 0xF30A or depth >= levels or 12 + 12 * count > len(data):
            raise LayoutDoubt(Doubt.DAMAGED, "an extent tree makes no sense")
        for at in range(12, 12 + 12 * count, 12):
            if depth:
                _, low, high = struct.unpack_from("<IIH", data, at)
                self.extents(self._index(low | high << 32), depth)
                continue
            logical, length, high, low = struct.unpack_from("<IHHI", data, at)
            # What is reserved and not yet written reads as zeroes; its length has the top bit set.
            if length <= _LONGEST_WRITTEN:
                self.out.runs.append((logical, low | high << 32, length))
            if len(self.out.runs) > self._budget + _PREALLOCATED:
                raise LayoutDoubt(Doubt.DAMAGED, "an extent tree has no end")

    def block_map(self, i: Inode) -> None:
        """12 direct blocks, then behind one, two and three levels of indirection."""
        pointers = struct.unpack("<15I", i.body)
        wanted = min(-(-i.node.size // self._block), self._budget)
        for logical, block in enumerate(self._pointed(pointers, wanted)):
            if not block:
                continue
            last = self.out.runs[-1] if self.out.runs else (0, 0, -1)
            if last[0] + last[2] == logical and last[1] + last[2] == block:
                self.out.runs[-1] = (last[0], last[1], last[2] + 1)
            else:
                self.out.runs.append((logical, block, 1))

    def _pointed(self, pointers: tuple[int, ...], wanted: int) -> Iterator[int]:
        yield from pointers[: min(12, wanted)]
        left = wanted - 12
        for level, pointer in enumerate(pointers[12:], 1):
            if left <= 0:
                return
            count = min(left, (self._block // 4) ** level)
            yield from self._indirect(pointer, level, count)
            left -= count

    def _indirect(self, pointer: int, level: int, count: int) -> Iterator[int]:
        if not pointer:
            yield from repeat(0, count)
            return
        per_block = self._block // 4
        below = struct.unpack(f"<{per_block}I", self._index(pointer))
        if level == 1:
            yield from below[:count]
            return
        for block in below:
            if count <= 0:
                return
            part = min(count, per_block ** (level - 1))
            yield from self._indirect(block, level - 1, part)
            count -= part

    def _index(self, block: int) -> bytes:
        self.out.index.append(block)
        if len(self.out.index) > self._budget + _PREALLOCATED:
            raise LayoutDoubt(Doubt.DAMAGED, "a block map has no end")
        return exactly(self._volume, block * self._block, self._block)


def entries(block: bytes) -> Iterator[tuple[bytes, int]]:
    """Name and inode of each entry of a directory block, ``.`` and ``..`` among them. Index blocks and checksums of hashed
    directories look like unused entries."""
    at, end = 0, len(block)
    while at + 8 <= end:
        number, length, name = _ENTRY.unpack_from(block, at)
        if length in (0, 0xFFFF):  # of blocks of 64 KiB, whose length does not fit
            length = end - at
        if length < 8 or length % 4 or at + length > end or 8 + name > length:
            raise LayoutDoubt(Doubt.DAMAGED, "a directory entry does not fit its block")
        if number and name:
            yield block[at + 8 : at + 8 + name], number
        at += length


def inline_data(i: Inode) -> bytes:
    """Data in the inode: in ``i_block``, and on in its attribute ``system.data``."""
    rest = b""
    raw = i.raw
    (extra,) = struct.unpack_from("<H", raw, 128) if len(raw) > 130 else (0,)
    start = 128 + extra
    if start + 4 <= len(raw) and raw[start : start + 4] == b"\x00\x00\x02\xea":
        first = at = start + 4
        while at + 16 <= len(raw) and any(raw[at : at + 4]):
            length, kind, offset, _, size = struct.unpack_from("<BBHII", raw, at)
            if kind == 7 and raw[at + 16 : at + 16 + length] == b"data":
                rest = raw[first + offset : first + offset + size]
            at += 16 + (length + 3) // 4 * 4
    return (i.body + rest)[: i.node.size] if i.node.type is not FileType.DIRECTORY else i.body + rest


def link_size(i: Inode) -> int:
    """Bytes of a symbolic link's target. Raises ``LayoutDoubt`` when they are too many."""
    if not 0 < i.node.size <= _LONGEST_LINK:
        raise LayoutDoubt(Doubt.DAMAGED, f"a symbolic link of {i.node.size} bytes")
    return i.node.size
