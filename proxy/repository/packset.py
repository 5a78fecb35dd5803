"""Many pack names at 16 bytes each: sorted in an array, where a pack's rank is its number.

A Python set of 3.3 million names (100 TiB in packs of 32 MiB) takes some 330 MiB; this takes 51.
"""

from collections.abc import Iterable, Iterator
from typing import Self

import numpy as np
from numpy.typing import NDArray

from proxy.repository.format import NAME_BYTES

Ranks = NDArray[np.int64]


class PackSet:
    """Immutable. Names are ``NAME_BYTES`` long; numbers count from 0 in the order of names."""

    __slots__ = ("_high", "_low", "_ties")

    def __init__(self, high: NDArray[np.uint64], low: NDArray[np.uint64]) -> None:
        """Halves of names, sorted, each name once; made by ``of`` and ``parse``."""
        self._high = high
        self._low = low
        same = high[1:] == high[:-1]
        # Names are random, so their first halves differ; a repository made to be nasty costs time, not correctness.
        self._ties = 1 if not same.any() else int(np.unique(high, return_counts=True)[1].max())

    @classmethod
    def of(cls, names: Iterable[bytes]) -> Self:
        """From names in any order, any number of times each."""
        return cls.parse(b"".join(names))

    @classmethod
    def parse(cls, table: bytes | memoryview) -> Self:
        """From names back to back, in any order, any number of times each."""
        high, low = _halves(table)
        order = np.lexsort((low, high))
        high, low = high[order], low[order]
        first = np.ones(len(high), dtype=bool)
        first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        return cls(high[first], low[first])

    def __len__(self) -> int:
        return len(self._high)

    def __iter__(self) -> Iterator[bytes]:
        for number in range(len(self)):
            yield self.name(number)

    def __contains__(self, pack: bytes) -> bool:
        return bool(self.numbers(pack)[0] >= 0)

    def name(self, number: int) -> bytes:
        """Of the pack with this number."""
        return int(self._high[number]).to_bytes(8, "big") + int(self._low[number]).to_bytes(8, "big")

    def table(self) -> bytes:
        """All names back to back, in order."""
        return np.stack((self._high, self._low), axis=1).astype(">u8").tobytes()

    def numbers(self, table: bytes | memoryview) -> Ranks:
        """The number of each name in a table of names back to back, -1 for those that are not in the set."""
        high, low = _halves(table)
        found = np.full(len(high), -1, dtype=np.int64)
        if not len(self):
            return found
        at = np.searchsorted(self._high, high)
        for step in range(self._ties):
            here = np.minimum(at + step, len(self) - 1)
            hit = (self._high[here] == high) & (self._low[here] == low)
            found[hit] = here[hit]
        return found

    def union(self, names: Iterable[bytes]) -> "PackSet":
        """With more names."""
        more = b"".join(names)
        return self if not more else PackSet.parse(self.table() + more)

    def minus(self, other: "PackSet") -> list[bytes]:
        """Names that the other set does not have, in order."""
        missing = np.nonzero(other.numbers(self.table()) < 0)[0]
        return [self.name(number) for number in missing.tolist()]


def _halves(table: bytes | memoryview) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    words = np.frombuffer(table, dtype=">u8").reshape(-1, NAME_BYTES // 8)
    return words[:, 0].astype(np.uint64), words[:, 1].astype(np.uint64)
