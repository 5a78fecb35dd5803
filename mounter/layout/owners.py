"""Whose the bytes of a volume are: every allocated extent with its inode, or with what the file system keeps there."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from mounter.layout.model import Numbers, Tree


class Part(StrEnum):
    """What bytes of a disk are for. ``OTHER``: of a file that has no name any more, or that is not known."""

    FILE = "file"
    DIRECTORY = "directory"
    METADATA = "metadata"
    JOURNAL = "journal"
    FREE = "free-space"
    SWAP = "swap"
    UNPARTITIONED = "unpartitioned"
    OTHER = "other"


# Owners that are no inodes.
METADATA, JOURNAL, FREE = -1, -2, -3


@dataclass(frozen=True, slots=True)
class Owners:
    """Sorted extents ``[starts, ends)`` in bytes of the volume that do not overlap; ``owner``: an inode, or one of the
    marks above. What lies between is free."""

    starts: Numbers
    ends: Numbers
    owner: Numbers
    tree: Tree

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, int]], tree: Tree) -> "Owners":
        """``rows``: start, end, owner. Where a damaged or hostile volume gives bytes to two, the first in order has them."""
        table = np.array(list(rows), dtype=np.int64).reshape(-1, 3)
        table = table[table[:, 1] > table[:, 0]]
        table = table[np.argsort(table[:, 0], kind="stable")]
        if len(table):
            reached = np.concatenate([[0], np.maximum.accumulate(table[:, 1])[:-1]])
            table[:, 0] = np.maximum(table[:, 0], reached)
            table = table[table[:, 1] > table[:, 0]]
        return cls(table[:, 0].copy(), table[:, 1].copy(), table[:, 2].copy(), tree)

    def at(self, offsets: Numbers) -> Numbers:
        """Who has the byte at each offset."""
        if not len(self.starts):
            return np.full(len(offsets), FREE, dtype=np.int64)
        index = np.searchsorted(self.starts, offsets, side="right") - 1
        inside = (index >= 0) & (offsets < self.ends[np.maximum(index, 0)])
        found: Numbers = np.where(inside, self.owner[np.maximum(index, 0)], FREE)
        return found


def paths(tree: Tree, wanted: Iterable[int]) -> dict[int, bytes]:
    """The first path of each of these inodes; those without a name are left out."""
    left = set(wanted)
    found: dict[int, bytes] = {tree.root: b"/"} if tree.root in left else {}
    waiting = [(b"", tree.root)]
    while waiting and left:
        path, directory = waiting.pop()
        for name, child in tree.children[directory].items():
            full = path + b"/" + name
            if child in left:
                found.setdefault(child, full)
            if child in tree.children:
                waiting.append((full, child))
    return found
