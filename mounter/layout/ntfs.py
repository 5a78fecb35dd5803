"""The names and records of an NTFS volume, and how to bring them up to date from what was written since.

Every name is in the MFT record of its file, beside the file's times and size; the directories' own index blocks say the
same again. So the MFT alone is read, and of it only the records that were written::

    MFT |0|1|2| … |5 root| … |41: name "x" in 5| … |77: more of 41, base 41|
                  changes  ####                ####      records that are parsed anew
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mounter.layout import ntfs_format as disk
from mounter.layout.model import MOST_NODES, Bytes, Changes, Doubt, LayoutDoubt, Node, Tree, reachable
from mounter.ports import FileType
from proxy.units import MiB

# What ntfs-3g shows where a guest's users are not mapped to ours: everybody may do everything.
_MODE = 0o777

# Records of the MFT that are read at once.
_PIECE = 1 * MiB

_COLUMNS = 11


class NtfsLayout:
    """The ``Layout`` of one NTFS volume."""

    def __init__(self, volume: Bytes) -> None:
        self._volume = volume
        self.boot = disk.boot(volume)
        self._table = disk.table(volume, self.boot)
        self.fingerprint = hashlib.sha256(repr(self.boot).encode()).digest()
        self._count = self._table.size // self.boot.record
        if self._count > 2 * MOST_NODES:
            raise LayoutDoubt(Doubt.TOO_LARGE, f"{self._count} MFT records")

    def full(self) -> Tree:
        """See ``Layout``."""
        return self._tree(_Facts.parsed(self._records([(0, self._count)])))

    def update(self, tree: Tree, changes: Changes) -> Tree:
        """See ``Layout``."""
        before = _Facts(tree.extra["records"], tree.extra["names"], tree.extra["text"])
        count = int(tree.extra["table"][0])
        runs = tuple((int(c), int(n)) for c, n in tree.extra["runs"])
        if count > self._count or not _continues(runs, self._table.runs):
            raise LayoutDoubt(Doubt.GEOMETRY, "the MFT lies elsewhere than before")
        ranges = self._changed(changes, count)
        if not ranges:
            return tree
        return self._tree(before.without(ranges).joined(_Facts.parsed(self._records(ranges))))

    def _changed(self, changes: Changes, before: int) -> list[tuple[int, int]]:
        """Ranges of records that were written, or that the MFT had not when it was read before."""
        size, position = self.boot.record, 0
        wanted = np.zeros(self._count, dtype=np.bool_)
        wanted[before:] = True
        for cluster, clusters in self._table.runs:
            start, length = cluster * self.boot.cluster, clusters * self.boot.cluster
            first = int(np.searchsorted(changes.ends, start, side="right"))
            last = int(np.searchsorted(changes.starts, start + length, side="left"))
            for begin, end in zip(changes.starts[first:last].tolist(), changes.ends[first:last].tolist(), strict=True):
                low, high = max(begin, start) - start + position, min(end, start + length) - start + position
                wanted[low // size : -(-high // size)] = True
            position += length
        edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]]).astype(np.int8)))
        return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]

    def raw_records(self) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of every record in use, its update sequence undone; torn ones are left out."""
        for number, raw in self._pieces([(0, self._count)]):
            with suppress(LayoutDoubt):
                data = disk.fixed(raw)
                if data is not None:
                    yield number, data

    def _records(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, disk.Record]]:
        for number, raw in self._pieces(ranges):
            found = disk.record(raw)
            if found is not None:
                yield number, found

    def _pieces(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        size = self.boot.record
        step = _PIECE // size
        for low, high in ranges:
            for first in range(low, high, step):
                count = min(step, high - first)
                data = disk.read_records(self._volume, self.boot, self._table, first, count)
                for number in range(count):
                    yield first + number, data[number * size : (number + 1) * size]

    def _tree(self, facts: "_Facts") -> Tree:
        extra: dict[str, NDArray[Any]] = {
            "records": facts.records,
            "names": facts.names,
            "text": facts.text,
            "table": np.array([self._count], dtype=np.int64),
            "runs": np.array(self._table.runs, dtype=np.int64).reshape(-1, 2),
        }
        nodes, held = facts.nodes(), facts.children()
        children: dict[int, dict[bytes, int]] = {}
        above = [disk.ROOT]
        while above:
            number = above.pop()
            here = held.get(number, {})
            if number == disk.ROOT:
                here = {name: child for name, child in here.items() if child >= disk.FIRST_OF_USERS}
            if number in children:
                raise LayoutDoubt(Doubt.DAMAGED, f"directory {number} has two names")
            children[number] = here
            above += [child for child in here.values() if nodes[child].type is FileType.DIRECTORY]
        alive = reachable(disk.ROOT, children)
        return Tree(disk.ROOT, {n: nodes[n] for n in alive}, children, extra)


class _Facts:
    """What all records in use say, as arrays: that is how they are remembered.

    ``records``: number, sequence, base, base's sequence, directory, times known, written, changed, size, index, ask.
    ``names``: number of the record, parent, parent's sequence, begin and length in ``text``.
    """

    def __init__(self, records: NDArray[np.int64], names: NDArray[np.int64], text: NDArray[np.uint8]) -> None:
        self.records = records
        self.names = names
        self.text = text

    @classmethod
    def parsed(cls, found: Iterable[tuple[int, disk.Record]]) -> "_Facts":
        rows: list[tuple[int, ...]] = []
        names: list[tuple[int, ...]] = []
        text = bytearray()
        for number, r in found:
            written, changed = r.times or (0, 0)
            times = (r.times is not None, written, changed)
            rows.append((number, r.sequence, r.base, r.base_sequence, r.directory, *times, r.size, r.index, r.ask))
            for parent, sequence, name in r.names:
                names.append((number, parent, sequence, len(text), len(name)))
                text += name
        records = np.array(rows, dtype=np.int64).reshape(-1, _COLUMNS)
        return cls(records, np.array(names, dtype=np.int64).reshape(-1, 5), np.frombuffer(bytes(text), dtype=np.uint8))

    def without(self, ranges: list[tuple[int, int]]) -> "_Facts":
        """All but what records in these (sorted) ranges said."""
        lows = np.array([low for low, _ in ranges], dtype=np.int64)
        highs = np.array([high for _, high in ranges], dtype=np.int64)

        def outside(numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
            at = np.searchsorted(lows, numbers, side="right") - 1
            kept: NDArray[np.bool_] = (at < 0) | (numbers >= highs[np.maximum(at, 0)])
            return kept

        return _Facts(self.records[outside(self.records[:, 0])], self.names[outside(self.names[:, 0])], self.text)

    def joined(self, new: "_Facts") -> "_Facts":
        """Both. Text of names that are gone is left out."""
        kept = [self.text[at : at + length] for at, length in self.names[:, 3:5].tolist()] if len(self.names) else []
        old = self.names.copy()
        old[:, 3] = np.concatenate([[0], np.cumsum(old[:, 4])[:-1]]) if len(old) else old[:, 3]
        text = np.concatenate([*kept, new.text]) if kept else new.text
        moved = new.names.copy()
        moved[:, 3] += int(old[:, 4].sum())
        return _Facts(np.concatenate([self.records, new.records]), np.concatenate([old, moved]), text)

    def nodes(self) -> dict[int, Node]:
        """Every file by the number of its base record."""
        rows = self.records.tolist()
        base = {row[0]: row for row in rows if not row[2]}
        more: dict[int, list[list[int]]] = defaultdict(list)
        for row in rows:
            if row[2] and row[2] in base and base[row[2]][1] == row[3]:
                more[row[2]].append(row)
        return {number: _node([row, *more.get(number, ())]) for number, row in base.items()}

    def children(self) -> dict[int, dict[bytes, int]]:
        """Directory -> name -> file, of names whose directory is the one that they mean."""
        rows = {row[0]: row for row in self.records[:, :5].tolist()}
        text = self.text.tobytes()
        out: dict[int, dict[bytes, int]] = {}
        for number, parent, sequence, at, length in self.names.tolist():
            own = rows[number]
            file = own[2] or number
            if own[2] and (file not in rows or rows[file][1] != own[3] or rows[file][2]):
                continue
            above = rows.get(parent)
            if above is None or above[2] or not above[4] or (sequence and above[1] != sequence):
                continue
            held = out.setdefault(parent, {})
            name = text[at : at + length]
            if held.setdefault(name, file) != file:
                raise LayoutDoubt(Doubt.DAMAGED, "a directory has a name twice")
        return out


def _node(rows: list[list[int]]) -> Node:
    """One file from all its records, the base first."""
    directory, ask = bool(rows[0][4]), any(row[10] for row in rows)
    timed = next((row for row in rows if row[5]), rows[0])
    size = max(row[9 if directory else 8] for row in rows)
    kind = FileType.DIRECTORY if directory else FileType.FILE
    return Node(kind, max(size, 0), _MODE, 0, 0, timed[6], timed[7], None, ask)


def _continues(before: tuple[tuple[int, int], ...], now: tuple[tuple[int, int], ...]) -> bool:
    """Whether the MFT lies where it lay, and perhaps goes on behind that. The last run may have grown."""
    if not before or len(now) < len(before) or now[: len(before) - 1] != before[:-1]:
        return False
    last = now[len(before) - 1]
    return last[0] == before[-1][0] and last[1] >= before[-1][1]
