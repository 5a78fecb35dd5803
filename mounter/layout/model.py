"""What the layouts have in common: the tree of a volume as values, and the doubt that ends in a full walk."""

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mounter.ports import FileType
from proxy.errors import MountFailed
from proxy.extents import Extent

Numbers = NDArray[np.int64]
_T = TypeVar("_T")

# 5 million files take about 2 GiB here; a hostile volume can claim billions, and a larger one is walked as a whole.
MOST_NODES = 5_000_000


class Doubt(StrEnum):
    """Why a volume is walked as a whole."""

    NO_MEMORY = "no-memory"
    """Nothing is remembered of the base point's volume: the first time, or the cache is gone or stale."""
    REFUSED = "catalog-has-another-base"
    UNKNOWN_FORMAT = "unknown-format"
    CONTAINER = "in-a-container"
    """It does not lie in one partition or disk: LVM, RAID, encryption."""
    DIRTY = "dirty"
    GEOMETRY = "geometry-changed"
    MOVED = "moved"
    DAMAGED = "damaged"
    TOO_LARGE = "too-large"
    DISAGREES = "readers-disagree"
    """The walk of the guest's file systems and this package do not list the same: nothing is remembered."""
    UNREADABLE = "unreadable"


class LayoutDoubt(Exception):
    """This volume must be walked as a whole. Never leaves ``mounter``."""

    def __init__(self, doubt: Doubt, why: str) -> None:
        super().__init__(f"{doubt.value}: {why}")
        self.doubt = doubt
        self.why = why


class Node(NamedTuple):
    """One inode's record, as ``mounter.ports.FileEntry`` says it. ``ask``: only the guest's file system can tell it
    (reparse points and the like); the other fields then only serve to see that it changed."""

    type: FileType
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    link_target: bytes | None = None
    ask: bool = False


@dataclass(slots=True)
class Tree:
    """All names of a volume. ``children``: directory -> name -> inode, for every directory that can be reached from
    ``root``; ``nodes``: inode -> record, of all that have a name and of the root. ``extra``: what the layout itself
    needs to bring it up to date, as arrays. Values: updating makes a new one."""

    root: int
    nodes: dict[int, Node]
    children: dict[int, dict[bytes, int]]
    extra: dict[str, NDArray[Any]] = field(default_factory=dict)

    def names(self) -> int:
        """How many names there are, without the root."""
        return sum(map(len, self.children.values()))


class Bytes(Protocol):
    """A volume's bytes (``mounter.tsk.image.Region``)."""

    @property
    def size(self) -> int: ...
    def pread(self, offset: int, length: int) -> bytes: ...


class Layout(Protocol):
    """One opened volume. All methods raise ``LayoutDoubt`` for what they do not trust."""

    fingerprint: bytes
    """What must not change between two points: where inodes lie, what the features mean."""

    def full(self) -> Tree:
        """Everything, read anew."""
        ...

    def update(self, tree: Tree, changes: "Changes") -> Tree:
        """The tree as it is now: what was read from bytes in ``changes`` is read again, and nothing else."""
        ...


class Changes:
    """Bytes of a volume that may differ from the base point's; sorted, apart from each other."""

    def __init__(self, starts: Numbers, ends: Numbers) -> None:
        self.starts = starts
        self.ends = ends

    @classmethod
    def of(cls, extents: Iterable[Extent], offset: int, size: int) -> "Changes":
        """The part of a disk's changed extents (sorted) that lies in a volume at ``offset``."""
        inside = [(max(e.start, offset), min(e.end, offset + size)) for e in extents]
        pairs = np.array([(s - offset, e - offset) for s, e in inside if s < e], dtype=np.int64).reshape(-1, 2)
        return cls(pairs[:, 0].copy(), pairs[:, 1].copy())

    def __len__(self) -> int:
        return len(self.starts)

    def touch(self, starts: Numbers, ends: Numbers) -> NDArray[np.bool_]:
        """For each extent ``[start, end)`` whether a byte of it is among these."""
        if not len(self.starts):
            return np.zeros(len(starts), dtype=np.bool_)
        at = np.searchsorted(self.ends, starts, side="right")
        inside = np.minimum(at, len(self.starts) - 1)
        found: NDArray[np.bool_] = (at < len(self.starts)) & (self.starts[inside] < ends)
        return found


def exactly(volume: Bytes, offset: int, length: int) -> bytes:
    """Bytes of a volume. Raises ``LayoutDoubt`` when it has fewer."""
    data = volume.pread(offset, length) if offset >= 0 and offset + length <= volume.size else b""
    if len(data) != length or not length:
        raise LayoutDoubt(Doubt.DAMAGED, f"{length} bytes at {offset} are not within the volume")
    return data


def reachable(root: int, children: Mapping[int, Mapping[bytes, int]]) -> set[int]:
    """All inodes that have a name, and the root. Raises ``LayoutDoubt`` when a directory has two names."""
    seen = {root}
    above = [root]
    while above:
        for child in children[above.pop()].values():
            if child in children:
                if child in seen:
                    raise LayoutDoubt(Doubt.DAMAGED, f"directory {child} has two names")
                above.append(child)
            seen.add(child)
    return seen


def guarded(call: Callable[[], _T]) -> _T:
    """Whatever a hostile volume makes of the parsers is a doubt."""
    try:
        return call()
    except (struct.error, ValueError, KeyError, IndexError, OverflowError, RecursionError, MemoryError) as error:
        raise LayoutDoubt(Doubt.DAMAGED, f"{type(error).__name__}: {error}") from None
    except MountFailed as error:
        raise LayoutDoubt(Doubt.UNREADABLE, error.message) from None
