"""Whose the blocks of an ext2, ext3 or ext4 volume are."""

import struct
from collections.abc import Iterator

from mounter.layout import ext_format as disk
from mounter.layout.ext import ExtLayout
from mounter.layout.model import Bytes, LayoutDoubt, exactly
from mounter.layout.owners import JOURNAL, METADATA, Owners

# No file of a hostile volume may cost more blocks than a real one has: 16 TiB.
_LARGEST_FILE = 16 << 40

_RESIZE_INODE = 7


def owners(volume: Bytes) -> Owners:
    """Raises ``LayoutDoubt``. Files whose own block maps make no sense are left out."""
    layout = ExtLayout(volume)
    tree = layout.full()
    rows = list(_metadata(volume, layout.superblock))
    journal: int = struct.unpack_from("<I", exactly(volume, 1024, 1024), 0xE0)[0]
    if journal:
        rows += ((start, end, JOURNAL) for start, end, _ in _file(volume, layout, journal))
    rows += ((start, end, METADATA) for start, end, _ in _file(volume, layout, _RESIZE_INODE))
    for number in tree.nodes:
        rows += _file(volume, layout, number)
    return Owners.of(rows, tree)


def _metadata(volume: Bytes, s: disk.Super) -> Iterator[tuple[int, int, int]]:
    """Superblocks with the group descriptors behind them, bitmaps, inode tables."""
    for first, count in disk.metadata_blocks(volume, s):
        yield first * s.block, (first + count) * s.block, METADATA


def _file(volume: Bytes, layout: ExtLayout, number: int) -> Iterator[tuple[int, int, int]]:
    """Data of one inode; blocks of its map and of its attributes are metadata."""
    s = layout.superblock
    try:
        i = layout.inode(number)
        if i.flags & disk.FLAG_INLINE or not i.has_blocks(s):
            return
        found = disk.mapping(volume, s, i, most=_LARGEST_FILE)
    except LayoutDoubt:
        return
    for block in found.index:
        yield block * s.block, (block + 1) * s.block, METADATA
    if i.acl:
        yield i.acl * s.block, (i.acl + 1) * s.block, METADATA
    for _, block, count in found.runs:
        yield block * s.block, (block + count) * s.block, number
