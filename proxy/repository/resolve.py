"""Where many chunks are, by their ids, at once: what collection and relocation ask the lookup with numpy.

One id costs about a microsecond (``ChunkLookup.find``: some ten), so that even the references of a whole disk are looked up
in seconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proxy.repository.format import ID_BYTES
from proxy.repository.lookup import ChunkLookup
from proxy.repository.packset import PackSet
from proxy.repository.packset_arrays import Ranks
from proxy.repository.runs import Run
from proxy.repository.runs_arrays import BLOCK, Records, check_words, records_of

_ID = np.dtype({"names": ["high", "middle", "low"], "formats": [">u8", ">u8", ">u4"]})

# Pack number and offset in one word: both have 32 bits.
_OFFSET_BITS = np.uint64(32)


@dataclass(frozen=True, slots=True)
class Found:
    """For each id asked for: number of a pack, or -1; offset in it and codec with stored length (0 where it is -1)."""

    packs: Ranks
    offsets: NDArray[np.uint32]
    words: NDArray[np.uint32]


class Resolver:
    """Finds chunks in packs that may be counted on: there, neither doomed nor damaged, and not ``avoided``.

    Knows what the lookup knew when this was made, and raises what ``ChunkLookup.snapshot`` raises if it cannot know all;
    with ``partial`` it may know less. ``packs`` gives the numbering.
    """

    def __init__(self, lookup: ChunkLookup, packs: PackSet, *, partial: bool = False) -> None:
        runs = lookup.snapshot(partial=partial)
        self._runs: list[tuple[Run, Ranks]] = [
            (run, packs.numbers(run.pack_table())) for run in runs if run.count and len(packs)
        ]
        self.usable = np.ones(len(packs), dtype=bool)
        self.avoid(packs, lookup.doomed())
        self.avoid(packs, lookup.damaged.packs())
        offsets = lookup.damaged.offsets()
        bad = packs.numbers(b"".join(offsets)).tolist()
        keys = [
            number << 32 | at for number, pack in zip(bad, offsets, strict=True) for at in offsets[pack] if number >= 0
        ]
        self._damaged = np.array(sorted(keys), dtype=np.uint64)

    def avoid(self, packs: PackSet, names: frozenset[bytes]) -> None:
        """Count on these packs no more."""
        numbers = packs.numbers(b"".join(names))
        self.usable[numbers[numbers >= 0]] = False

    def is_damaged(self, packs: Ranks, offsets: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Whether each place is known to be damaged, as one of its pack's."""
        if not len(self._damaged):
            return np.zeros(len(packs), dtype=bool)
        keys = packs.astype(np.uint64) << _OFFSET_BITS | offsets.astype(np.uint64)
        bad: NDArray[np.bool_] = np.isin(keys, self._damaged)
        return bad

    def find(self, ids: NDArray[np.uint8]) -> Found:
        """One good place for each id. Ids as rows of ``ID_BYTES`` bytes."""
        keys = _keys(ids)
        found = Found(
            np.full(len(keys), -1, dtype=np.int64), np.zeros(len(keys), np.uint32), np.zeros(len(keys), np.uint32)
        )
        for run, table in self._runs:
            wanted = np.nonzero(found.packs < 0)[0]
            for which, record in _search(run, keys, wanted):
                packs = _packs(record, table)
                there = np.where(packs >= 0, packs, 0)
                good = (packs >= 0) & self.usable[there] & ~self.is_damaged(there, record["offset"])
                good &= found.packs[which] < 0
                hit = which[good]
                found.packs[hit] = packs[good]
                found.offsets[hit] = record["offset"][good]
                found.words[hit] = record["word"][good]
        return found

    def everywhere(self, ids: NDArray[np.uint8]) -> Iterator[tuple[Ranks, Ranks, NDArray[np.uint32]]]:
        """All places of all ids, doomed and damaged ones too: which id, number of the pack, offset."""
        keys = _keys(ids)
        for run, table in self._runs:
            for which, record in _search(run, keys, np.arange(len(keys))):
                packs = _packs(record, table)
                there = packs >= 0
                yield which[there], packs[there], record["offset"][there]

    def blocks(self) -> Iterator[tuple[Ranks, NDArray[np.uint32], NDArray[np.uint32]]]:
        """Everything known, block by block: number of the pack, offset, stored length. What two runs know comes twice."""
        for run, table in self._runs:
            for start in range(0, run.count, BLOCK):
                records = np.array(records_of(run)[start : start + BLOCK])
                records = records[records["check"] == check_words(records)]
                ranks = table[records["pack"]]
                there = ranks >= 0
                yield ranks[there], records["offset"][there], records["word"][there] & np.uint32(0xFFFFFF)


def _keys(ids: NDArray[np.uint8]) -> Records:
    return np.ascontiguousarray(ids).reshape(-1, ID_BYTES).view(_ID).reshape(-1)


def _search(run: Run, keys: Records, wanted: Ranks) -> Iterator[tuple[Ranks, Records]]:
    """Records of the wanted keys: which key, record. A key that has several comes several times, one a step."""
    records = records_of(run)
    high = keys["high"][wanted].astype(np.uint64)
    order = np.argsort(high)  # so that a mapped run is read from front to back
    wanted, high = wanted[order], high[order]
    at = _lower_bound(records, high)
    while True:
        # Records whose ids begin alike are looked at one after the other: mostly one, or copies of the same chunk.
        inside = at < len(records)
        wanted, high, at = wanted[inside], high[inside], at[inside]
        record = np.array(records[at])
        alike = record["high"] == high
        wanted, high, at, record = wanted[alike], high[alike], at[alike], record[alike]
        if not len(wanted):
            return
        key = keys[wanted]
        same = (record["middle"] == key["middle"]) & (record["low"] == key["low"])
        yield wanted[same], record[same]
        at = at + 1


def _packs(records: Records, table: Ranks) -> Ranks:
    """Numbers of the packs of records, -1 for records that are damaged and packs that are not there."""
    if not len(records):
        return np.zeros(0, dtype=np.int64)
    numbers = records["pack"].astype(np.int64)
    good = (records["check"] == check_words(records)) & (numbers < len(table))
    return np.where(good, table[np.where(good, numbers, 0)], -1)


def _lower_bound(records: Records, wanted: NDArray[np.uint64]) -> Ranks:
    """First record whose id does not begin below each wanted beginning."""
    high = records["high"]
    low = np.zeros(len(wanted), dtype=np.int64)
    end = np.full(len(wanted), len(records), dtype=np.int64)
    while (open_ := low < end).any():
        middle = np.where(open_, (low + end) >> 1, 0)
        below = open_ & (high[middle] < wanted)
        low = np.where(below, middle + 1, low)
        end = np.where(open_ & ~below, middle, end)
    return low
