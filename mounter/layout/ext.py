"""The names and records of an ext2, ext3 or ext4 volume, and how to bring them up to date from what was written since.

What is remembered of an inode was read from these bytes, and they are remembered with it::

    record     the inode in its table
    directory  the same, the blocks of its extent tree (or indirect blocks), its own blocks
    link       the same as a directory, where the target does not lie in the inode
"""

import hashlib
from collections.abc import Iterable

import numpy as np

from mounter.layout import ext_format as disk
from mounter.layout.model import MOST_NODES, Bytes, Changes, Doubt, LayoutDoubt, Node, Numbers, Tree, exactly, reachable
from mounter.ports import FileType

Rows = list[tuple[int, int, int]]


class ExtLayout:
    """The ``Layout`` of one ext volume. Its journal must have been replayed, or be empty."""

    def __init__(self, volume: Bytes) -> None:
        self._volume = volume
        self.superblock = disk.superblock(volume)
        self._tables = disk.inode_tables(volume, self.superblock)
        facts = repr((self.superblock, self._tables)).encode()
        self.fingerprint = hashlib.sha256(facts).digest()

    def full(self) -> Tree:
        """See ``Layout``."""
        reading = _Reading(self, {}, {}, {})
        reading.load([disk.ROOT])
        return reading.tree([])

    def update(self, tree: Tree, changes: Changes) -> Tree:
        """See ``Layout``."""
        numbers = np.fromiter(tree.nodes, dtype=np.int64, count=len(tree.nodes))
        places = self._places(numbers)
        stale = {int(n) for n in numbers[changes.touch(places, places + self.superblock.inode_size)]}
        sources = tree.extra["sources"]
        moved = changes.touch(sources[:, 1], sources[:, 2])
        stale_data = {int(n) for n in sources[moved, 0]}
        if not stale and not stale_data:
            return tree
        keys = {int(n): int(k) for n, k in tree.extra["keys"]}
        reading = _Reading(self, dict(tree.nodes), dict(tree.children), keys)
        reading.refresh(stale, stale_data)
        kept = sources[
            ~np.isin(sources[:, 0], np.fromiter(reading.sourced, dtype=np.int64, count=len(reading.sourced)))
        ]
        return reading.tree([kept])

    def inode(self, number: int) -> disk.Inode:
        """Raises ``LayoutDoubt`` for one that is not in use."""
        return disk.inode(exactly(self._volume, self.place(number), self.superblock.inode_size))

    def place(self, number: int) -> int:
        """Where an inode lies in the volume."""
        if not 0 < number <= self.superblock.inodes:
            raise LayoutDoubt(Doubt.DAMAGED, f"a name refers to inode {number} of {self.superblock.inodes}")
        group, within = divmod(number - 1, self.superblock.inodes_per_group)
        return self._tables[group] * self.superblock.block + within * self.superblock.inode_size

    def _places(self, numbers: Numbers) -> Numbers:
        tables = np.array(self._tables, dtype=np.int64)
        group, within = np.divmod(numbers - 1, self.superblock.inodes_per_group)
        found: Numbers = tables[group] * self.superblock.block + within * self.superblock.inode_size
        return found

    def link(self, i: disk.Inode) -> tuple[bytes, list[tuple[int, int]]]:
        """Target of a symbolic link, and the extents outside of the inode that it was read from."""
        size = disk.link_size(i)
        if disk.fast_link(i, self.superblock):
            return i.body[:size], []
        if i.flags & disk.FLAG_INLINE:
            return disk.inline_data(i), []
        data, extents = self._data(i)
        return b"".join(data)[:size].split(b"\0", 1)[0], extents

    def directory(self, i: disk.Inode) -> tuple[dict[bytes, int], list[tuple[int, int]]]:
        """What a directory holds, and the extents outside of the inode that it was read from."""
        extents: list[tuple[int, int]] = []
        if i.flags & disk.FLAG_INLINE:
            data = disk.inline_data(i)
            # 4 bytes tell the parent; entries go on in the attribute as in another block.
            blocks: Iterable[bytes] = [part for part in (data[4:60], data[60:]) if part]
        else:
            blocks, extents = self._data(i)
        held: dict[bytes, int] = {}
        for block in blocks:
            for name, number in disk.entries(block):
                if name not in (b".", b".."):
                    if name in held or b"/" in name or b"\0" in name:
                        raise LayoutDoubt(Doubt.DAMAGED, "a directory has a name twice, or an impossible one")
                    held[name] = number
        return held, extents

    def key(self, i: disk.Inode) -> int:
        """Changes whenever what the inode says about its directory's data does: 63 bits of a digest. Times do not count,
        or reading a directory in the guest would make us read it again."""
        text = i.raw if i.flags & disk.FLAG_INLINE else i.body + b"%d %d" % (i.flags, i.node.size)
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1

    def _data(self, i: disk.Inode) -> tuple[list[bytes], list[tuple[int, int]]]:
        """Blocks in logical order, and where all that was read lies."""
        size = self.superblock.block
        found = disk.mapping(self._volume, self.superblock, i)
        extents = [(block * size, (block + 1) * size) for block in found.index]
        blocks: list[bytes] = []
        last = -(-i.node.size // size)
        for logical, block, length in found.runs:
            count = min(length, last - logical)
            if count <= 0:
                continue
            extents.append((block * size, (block + count) * size))
            data = exactly(self._volume, block * size, count * size)
            blocks += [data[at : at + size] for at in range(0, len(data), size)]
        return blocks, extents


class _Reading:
    """A tree in the making. ``sourced``: inodes of which the sources are told anew."""

    def __init__(
        self, layout: ExtLayout, nodes: dict[int, Node], children: dict[int, dict[bytes, int]], keys: dict[int, int]
    ) -> None:
        self._layout = layout
        self._nodes = nodes
        self._children = children
        self._keys = keys
        self._rows: Rows = []
        self.sourced: set[int] = set()

    def load(self, numbers: Iterable[int]) -> None:
        """Read inodes that are not known, and all below them."""
        waiting = list(numbers)
        while waiting:
            number = waiting.pop()
            if number in self._nodes:
                continue
            if len(self._nodes) >= MOST_NODES:
                raise LayoutDoubt(Doubt.TOO_LARGE, f"more than {MOST_NODES} files")
            i = self._read(number)
            if i.node.type is FileType.DIRECTORY:
                self._list(number, i)
                waiting.extend(self._children[number].values())

    def refresh(self, stale: set[int], stale_data: set[int]) -> None:
        """``stale``: inodes to be read again; ``stale_data``: those whose directory or link data changed."""
        again: set[int] = set()
        for number in stale | stale_data:
            try:
                i = self._layout.inode(number)
            except LayoutDoubt:
                # It was deleted. Whoever still names it makes it be read again, and then that is an error.
                self._forget(number)
                continue
            before = self._nodes[number]
            if i.node.type is not before.type:
                self._forget(number)  # deleted, and its number taken by something else
            elif i.node.type is not FileType.DIRECTORY:
                self._read(number)
            elif number in stale_data or self._layout.key(i) != self._keys.get(number):
                self._nodes[number] = i.node
                self._list(number, i)
                again.add(number)
            else:
                self._nodes[number] = i.node
        for number in again:
            self.load(self._children[number].values())
        # What was forgotten may still have a name in a directory that did not change: its inode tells.
        self._load_missing()

    def _load_missing(self) -> None:
        while missing := self._missing():
            self.load(missing)

    def _missing(self) -> set[int]:
        found = {disk.ROOT}
        above = [disk.ROOT] if disk.ROOT in self._children else []
        while above:
            for child in self._children[above.pop()].values():
                if child not in found and child in self._children:
                    above.append(child)
                found.add(child)
        return {number for number in found if number not in self._nodes}

    def tree(self, sources: list[Numbers]) -> Tree:
        """What was read and kept, without what has no name any more. ``sources``: rows to keep."""
        root = self._nodes.get(disk.ROOT)
        if root is None or root.type is not FileType.DIRECTORY:
            raise LayoutDoubt(Doubt.DAMAGED, "the root is no directory")
        alive = reachable(disk.ROOT, self._children)
        nodes = {number: node for number, node in self._nodes.items() if number in alive}
        children = {number: held for number, held in self._children.items() if number in alive}
        living = np.fromiter(alive, dtype=np.int64, count=len(alive))
        rows = np.concatenate([*sources, np.array(self._rows, dtype=np.int64).reshape(-1, 3)])
        keys = np.array([(n, k) for n, k in self._keys.items() if n in children], dtype=np.int64).reshape(-1, 2)
        extra = {"sources": rows[np.isin(rows[:, 0], living)], "keys": keys}
        return Tree(disk.ROOT, nodes, children, extra)

    def _read(self, number: int) -> disk.Inode:
        i = self._layout.inode(number)
        node = i.node
        if node.type is FileType.SYMLINK:
            target, extents = self._layout.link(i)
            node = node._replace(link_target=target)
            self._source(number, extents)
        self._nodes[number] = node
        return i

    def _list(self, number: int, i: disk.Inode) -> None:
        held, extents = self._layout.directory(i)
        self._children[number] = held
        self._keys[number] = self._layout.key(i)
        self._source(number, extents)

    def _source(self, number: int, extents: Iterable[tuple[int, int]]) -> None:
        if number in self.sourced:
            self._rows = [row for row in self._rows if row[0] != number]
        self.sourced.add(number)
        self._rows += [(number, start, end) for start, end in extents]

    def _forget(self, number: int) -> None:
        self._nodes.pop(number, None)
        self._children.pop(number, None)
        self._keys.pop(number, None)
        self._source(number, ())
