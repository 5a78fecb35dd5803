"""Which machine needs which chunk, and what that takes: counted by id on disk, in memory that does not grow with it.

::

    records of all machines --first bytes of ids--> partitions --too many?--> finer ones --> sorted, counted, one by one

Partitions are unnamed files in the cache directory. How many are needed is a guess from the chunks in packs: where many
machines share them, each has a record of its own, and a partition is cut again.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proxy.closing import Closeable
from proxy.repository.runs_arrays import BLOCK
from proxy.repository.scratch import Scratch, forget

# Records that are counted at once, about: 50 MB, some four times that while they are sorted. Larger costs memory and gains
# nothing, smaller costs more files.
_PARTITION = 1 << 21

# Files that are open at once, for each time that a partition is cut: half of what a process usually may have serves two.
_PARTS = 256

# Ids that were divided by more differ in too few bits: records of one chunk cannot be cut.
_SPENT = 1 << 40

RECORD = np.dtype([("key", "<u8"), ("machine", "<u4"), ("stored", "<u4"), ("raw", "<u4"), ("spare", "<u4")])
"""A chunk that a machine needs. ``key``: the first 8 bytes of its id; ``machine``: its number, from 0 on; ``raw``, ``stored``:
bytes of the chunk, and those that it takes in its pack."""


@dataclass(slots=True)
class Uses:
    """Bytes of chunks that are needed, each once, by number of the machine, and of all: ``unique`` as they are, ``compressed``
    as they are stored, ``exclusive``: of these, what one machine alone needs."""

    unique: NDArray[np.int64]
    compressed: NDArray[np.int64]
    exclusive: NDArray[np.int64]
    unique_of_all: int = 0
    compressed_of_all: int = 0


class ChunkCounter(Closeable):
    """Takes records (``RECORD``), and counts. Raises ``RepositoryFull`` when the cache directory is.

    ``count``: chunks to expect; ``used``: by what keys were divided already by whoever cut what comes here."""

    def __init__(self, scratch: Path, count: int, used: int = 1) -> None:
        self._scratch = scratch
        self._used = used
        self._parts = [Scratch(scratch) for _ in range(min(count // _PARTITION + 1, _PARTS))]
        self._filled = [False] * len(self._parts)

    def add(self, records: NDArray[np.void]) -> None:
        """Chunks of one segment of one machine's disk; those that are there many times count once."""
        self._spread(records[np.unique(records["key"], return_index=True)[1]])

    def count(self, machines: int) -> Uses:
        """Of machines from 0 on. Nothing may be added any more."""
        uses = Uses(np.zeros(machines, np.int64), np.zeros(machines, np.int64), np.zeros(machines, np.int64))
        self._count(uses)
        return uses

    def close(self) -> None:
        for part in self._parts:
            part.close()

    def _spread(self, records: NDArray[np.void]) -> None:
        count = len(self._parts)
        parts = records["key"] // np.uint64(self._used) % np.uint64(count)
        for part in np.unique(parts).tolist():
            self._parts[part].write(records[parts == part].tobytes())
            self._filled[part] = True

    def _count(self, uses: Uses) -> None:
        for part, filled in zip(self._parts, self._filled, strict=True):
            if not filled:
                continue
            view = part.mapped("chunks of a report")
            records = np.frombuffer(view, RECORD)
            used = self._used * len(self._parts)
            if len(records) <= _PARTITION or used > _SPENT:
                _tally(records, uses)
                continue
            with ChunkCounter(self._scratch, len(records), used) as finer:
                for start in range(0, len(records), BLOCK):
                    finer._spread(records[start : start + BLOCK])
                    forget(view)
                finer._count(uses)


def _tally(records: NDArray[np.void], uses: Uses) -> None:
    order = np.lexsort((records["machine"], records["key"]))
    key, machine = records["key"][order], records["machine"][order]
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (key[1:] != key[:-1]) | (machine[1:] != machine[:-1])
    order, key, machine = order[fresh], key[fresh], machine[fresh]
    stored, raw = records["stored"][order], records["raw"][order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = key[1:] != key[:-1]
    alone = first.copy()
    alone[:-1] &= first[1:]
    count = len(uses.unique)
    uses.unique += _sums(machine, raw, count)
    uses.compressed += _sums(machine, stored, count)
    uses.exclusive += _sums(machine[alone], stored[alone], count)
    uses.unique_of_all += int(raw[first].sum(dtype=np.int64))
    uses.compressed_of_all += int(stored[first].sum(dtype=np.int64))


def _sums(machine: NDArray[np.uint32], values: NDArray[np.uint32], count: int) -> NDArray[np.int64]:
    # Floats have 53 bits: exact to 8 PiB.
    return np.bincount(machine, values, count).astype(np.int64)
