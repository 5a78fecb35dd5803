"""ext2, ext3 and ext4: inodes, names and extended attributes read here, contents (of directories too) by The Sleuth Kit.

TSK's inodes lack allocated bytes, device numbers and attributes, and its directories have names that are none: remains of
deleted ones in the blocks of a hash tree, told as allocated. On-disk layout: the kernel's documentation, "ext4 Data
Structures and Algorithms": dynamic/inodes.rst, dynamic/attributes.rst, dynamic/directory.rst, globals/group_descr.rst.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence

from mounter.ports import TYPE_OF_MODE, FileEntry, FileType
from mounter.tsk.image import Region
from mounter.tsk.library import Run, TskVolume
from mounter.tsk.native import PIECE, Damaged
from proxy.errors import FastPathRefused

ROOT = 2

# What we read as the kernel does, proven on images. Everything else (encryption, inline data, large directories, journals
# elsewhere, attributes in inodes of their own, …) is for the appliance: bits of s_feature_incompat.
_INCOMPAT = {"filetype": 0x2, "recover": 0x4, "extents": 0x40, "64bit": 0x80, "mmp": 0x100, "flex_bg": 0x200}
_CHECKSUM_SEED = 0x2000
_KNOWN = sum(_INCOMPAT.values()) | _CHECKSUM_SEED
_HUGE_FILES, _BIGALLOC = 0x8, 0x200

# mode, uid, size, atime, ctime, mtime, dtime, gid, links, blocks, flags
_INODE = struct.Struct("<HHIIiiIHHII")
_BLOCK_AT, _BLOCK_LENGTH = 40, 60
# size_high at 108; blocks_high, file_acl_high, uid_high, gid_high at 116
_HIGH = struct.Struct("<I")
_LINUX = struct.Struct("<HHHH")
_EXTRA = struct.Struct("<HHII")
_HUGE_FILE, _EXTENTS = 0x40000, 0x80000

_DEVICES = (FileType.BLOCK_DEVICE, FileType.CHARACTER_DEVICE)
_SECTOR = 512
# inode, rec_len, name_len, file_type
_ENTRY = struct.Struct("<IHBB")
_DOTS = (b".", b"..")
_SECOND = 10**9


class Ext:
    """The port's facts of one ext volume. Raises ``FastPathRefused`` for features that are not read here."""

    label = ""
    root = ROOT

    def __init__(self, region: Region, device: str) -> None:
        self.region = region
        self._device = device
        block = region.pread(1024, 1024)
        _, incompat, read_only = struct.unpack_from("<III", block, 92)
        if incompat & ~_KNOWN or read_only & _BIGALLOC:
            what = f"{incompat & ~_KNOWN:#x}" if incompat & ~_KNOWN else "bigalloc"
            raise FastPathRefused("ext-features", f"{device} has features that are not read here: {what}")
        self._huge = bool(read_only & _HUGE_FILES)
        (size,) = struct.unpack_from("<I", block, 24)
        self._block = 1024 << min(size, 6)
        (first,) = struct.unpack_from("<I", block, 20)
        self._descriptors = (first + 1) * self._block
        (self._per_group,) = struct.unpack_from("<I", block, 40)
        (self._inodes,) = struct.unpack_from("<I", block, 0)
        (revision,) = struct.unpack_from("<I", block, 76)
        (self._size,) = struct.unpack_from("<H", block, 88) if revision else (128,)
        (length,) = struct.unpack_from("<H", block, 254)
        self._descriptor = length if incompat & _INCOMPAT["64bit"] else 32
        if self._size < 128 or self._size > self._block or not self._per_group or self._descriptor < 32:
            raise FastPathRefused("damaged", f"the superblock of {device} makes no sense")
        self._tables: dict[int, int] = {}
        self._tsk = TskVolume(region, device, "ext")

    def names(self, inode: int) -> Sequence[tuple[bytes, int]]:
        """As ``Native``."""
        raw = self._raw(inode)
        if struct.unpack_from("<H", raw)[0] & 0o170000 != 0o040000:
            raise Damaged(f"volume {self._device}", f"inode {inode} is no directory")
        found: list[tuple[bytes, int]] = []
        size: int = struct.unpack_from("<I", raw, 4)[0]
        for run in self._tsk.runs(inode):
            length = min(run.length, size - run.at)
            if run.hole and length > 0:
                raise Damaged(f"volume {self._device}", f"directory {inode} has a hole")
            # PIECE is a multiple of every block size, so no block is cut.
            for at in range(0, length, PIECE):
                data = self.region.pread(run.start + at, min(PIECE, length - at))
                for start in range(0, len(data), self._block):
                    self._add_names(found, data, start, min(start + self._block, len(data)))
        return found

    def entry(self, inode: int, path: bytes) -> FileEntry:
        """As ``Native``."""
        raw = self._raw(inode)
        mode, uid, size, _, ctime, mtime, _, gid, links, blocks, flags = _INODE.unpack_from(raw)
        (high,) = _HIGH.unpack_from(raw, 108)
        blocks_high, _, uid_high, gid_high = _LINUX.unpack_from(raw, 116)
        ctime_ns, mtime_ns = ctime * _SECOND, mtime * _SECOND
        if self._size > 128:
            extra, _, ctime_extra, mtime_extra = _EXTRA.unpack_from(raw, 128)
            if extra >= 8:
                ctime_ns += ((ctime_extra & 3) << 32) * _SECOND + (ctime_extra >> 2)
            if extra >= 12:
                mtime_ns += ((mtime_extra & 3) << 32) * _SECOND + (mtime_extra >> 2)
        kind = TYPE_OF_MODE.get(mode & 0o170000, FileType.OTHER)
        if kind is FileType.FILE:
            size |= high << 32
        if self._huge:
            blocks |= blocks_high << 32
        unit = self._block if self._huge and flags & _HUGE_FILE else _SECTOR
        return FileEntry(
            path,
            kind,
            size,
            mode & 0o7777,
            uid | uid_high << 16,
            gid | gid_high << 16,
            mtime_ns,
            ctime_ns,
            inode,
            self._target(inode, raw, size, flags) if kind is FileType.SYMLINK else None,
            links,
            blocks * unit,
            _device(raw) if kind in _DEVICES else (0, 0),
        )

    def pieces(self, inode: int, offset: int) -> Iterator[bytes]:
        """As ``Native``."""
        return self._tsk.pieces(inode, offset, PIECE)

    def content(self, inode: int, offset: int, length: int) -> bytes:
        """As ``Native``."""
        return self._tsk.content(inode, offset, length)

    def runs(self, inode: int) -> Sequence[Run]:
        """As ``Native``."""
        return self._tsk.runs(inode)

    def xattrs(self, inode: int) -> Mapping[bytes, bytes]:
        """As ``Native``; from the space behind the inode and from its attribute block."""
        raw = self._raw(inode)
        found: dict[bytes, bytes] = {}
        if self._size > 128:
            (extra,) = struct.unpack_from("<H", raw, 128)
            start = 128 + extra + 4
            if raw[start - 4 : start] == _XATTR_MAGIC:
                found |= self._attributes(raw[start:], 0, 0)
        (low,) = struct.unpack_from("<I", raw, 104)
        (high,) = struct.unpack_from("<H", raw, 118)
        number = low | (high << 32 if self._descriptor > 32 else 0)
        if number:
            block = self.region.pread(number * self._block, self._block)
            if block[:4] != _XATTR_MAGIC or len(block) < self._block:
                raise Damaged(f"volume {self._device}", f"inode {inode}: its attribute block is damaged")
            found |= self._attributes(block, 32, 0)
        return found

    def _raw(self, inode: int) -> bytes:
        if not 1 <= inode <= self._inodes:
            raise Damaged(f"volume {self._device}", f"there is no inode {inode}")
        group, index = divmod(inode - 1, self._per_group)
        table = self._tables.get(group)
        if table is None:
            described = self.region.pread(self._descriptors + group * self._descriptor, self._descriptor)
            if len(described) < self._descriptor:
                raise Damaged(f"volume {self._device}", f"group {group} is behind its end")
            (table,) = struct.unpack_from("<I", described, 8)
            if self._descriptor > 32:
                table |= struct.unpack_from("<I", described, 40)[0] << 32
            table = self._tables[group] = table * self._block
        raw = self.region.pread(table + index * self._size, self._size)
        if len(raw) < self._size:
            raise Damaged(f"volume {self._device}", f"inode {inode} is behind its end")
        return raw

    def _add_names(self, found: list[tuple[bytes, int]], data: bytes, at: int, end: int) -> None:
        """The entries of one block. The inner blocks of a hash tree look like one empty entry, and so do checksums."""
        unpack = _ENTRY.unpack_from
        while at + 8 <= end:
            inode, length, size, _ = unpack(data, at)
            if length < 8 or at + length > end or size + 8 > length:
                raise Damaged(f"volume {self._device}", "a directory is damaged")
            if inode:
                name = data[at + 8 : at + 8 + size]
                if name not in _DOTS:
                    found.append((name, inode))
            at += length

    def _target(self, inode: int, raw: bytes, size: int, flags: int) -> bytes:
        """Short targets stand where the others have the numbers of their blocks. They end at a NUL, as for the kernel."""
        if size < _BLOCK_LENGTH and not flags & _EXTENTS:
            target = raw[_BLOCK_AT : _BLOCK_AT + size]
        else:
            target = self._tsk.content(inode, 0, min(size, self._block))
        return target.split(b"\0")[0]

    def _attributes(self, data: bytes, at: int, base: int) -> dict[bytes, bytes]:
        """Entries from ``at`` on; values are counted from ``base``."""
        found: dict[bytes, bytes] = {}
        while at + 16 <= len(data) and data[at : at + 4] != bytes(4):
            length, index, offset, other, size, _ = _XATTR.unpack_from(data, at)
            name = data[at + 16 : at + 16 + length]
            value = data[base + offset : base + offset + size]
            prefix = _PREFIXES.get(index)
            if prefix is None or other or len(name) < length or len(value) < size:
                raise Damaged(f"volume {self._device}", "an extended attribute is damaged or of an unknown kind")
            found[prefix + name] = _acl(value) if index in (2, 3) else value
            at += (16 + length + 3) & ~3
        return found


_XATTR_MAGIC = b"\x00\x00\x02\xea"
# name_len, name_index, value_offs, value_inum, value_size, hash
_XATTR = struct.Struct("<BBHIII")
_PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
    7: b"system.",
}


def _device(raw: bytes) -> tuple[int, int]:
    """Old numbers of 16 bits in the first word, else the new ones of 32 bits in the second."""
    old, new = struct.unpack_from("<II", raw, _BLOCK_AT)
    if old:
        return old >> 8 & 0xFF, old & 0xFF
    return new >> 8 & 0xFFF, (new & 0xFF) | (new >> 12 & 0xFFF00)


def _acl(stored: bytes) -> bytes:
    """An ACL as the kernel gives it (version 2, an id in each entry) from the one on disk (version 1, ids where needed)."""
    made = [struct.pack("<I", 2)]
    at = 4
    while at + 4 <= len(stored):
        tag, rights = struct.unpack_from("<HH", stored, at)
        at += 4
        number = 0xFFFFFFFF
        if tag in (0x02, 0x08) and at + 4 <= len(stored):  # a named user, a named group
            (number,) = struct.unpack_from("<I", stored, at)
            at += 4
        made.append(struct.pack("<HHI", tag, rights, number))
    return b"".join(made)
