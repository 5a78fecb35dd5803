"""Tables of very many pack names (``packset.py``), as arrays of numpy."""

import numpy as np
from numpy.typing import NDArray

from proxy.repository.format import NAME_BYTES

Ranks = NDArray[np.int64]

Halves = tuple[NDArray[np.uint64], NDArray[np.uint64]]
"""Names in two numbers each, the first half in the first array."""


def halves(table: bytes | memoryview) -> Halves:
    """Of a table of names back to back."""
    words = np.frombuffer(table, dtype=">u8").reshape(-1, NAME_BYTES // 8)
    return words[:, 0].astype(np.uint64), words[:, 1].astype(np.uint64)


def in_order(table: bytes | memoryview) -> bytes:
    """The table sorted, each name once."""
    high, low = halves(table)
    order = np.lexsort((low, high))
    high, low = high[order], low[order]
    first = np.ones(len(high), dtype=bool)
    first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return np.stack((high[first], low[first]), axis=1).astype(">u8").tobytes()


def numbers(known: Halves, table: bytes | memoryview) -> Ranks:
    """Which of the known names, which are in order, each name of the table is; -1 for none."""
    known_high, known_low = known
    high, low = halves(table)
    found = np.full(len(high), -1, dtype=np.int64)
    if not len(known_high):
        return found
    at = np.searchsorted(known_high, high)
    for step in range(_ties(known_high)):
        here = np.minimum(at + step, len(known_high) - 1)
        hit = (known_high[here] == high) & (known_low[here] == low)
        found[hit] = here[hit]
    return found


def _ties(high: NDArray[np.uint64]) -> int:
    """How many names begin alike at most. Names are random, so their first halves differ; a repository made to be nasty
    costs time, not correctness."""
    if not (high[1:] == high[:-1]).any():
        return 1
    return int(np.unique(high, return_counts=True)[1].max())
