"""Which chunks two indexes refer to differently, a segment at a time: equal ones cost a comparison of memory."""

from collections.abc import Iterator

import numpy as np

from proxy.repository.format import ID_BYTES, SEGMENT_CHUNKS
from proxy.repository.index import IndexView

# Segments after which the pages that were looked at are given up: 4 MiB of each index.
_FORGET = 32


def differing_chunks(one: IndexView, other: IndexView) -> Iterator[tuple[int, int]]:
    """Ranges ``[a, b)`` of chunk numbers with other ids, in order, as far as both indexes go. A TiB takes about 0.1 s."""
    last = min(one.chunks, other.chunks)
    for number in range(min(len(one.table), len(other.table))):
        slots = one.table[number], other.table[number]
        if not any(slots):
            continue
        ids = [
            np.frombuffer(view.segment_ids(slot), dtype=np.uint8)
            for view, slot in zip((one, other), slots, strict=True)
        ]
        if not np.array_equal(ids[0], ids[1]):
            rows = [column.reshape(SEGMENT_CHUNKS, ID_BYTES) for column in ids]
            unlike = np.concatenate([[False], (rows[0] != rows[1]).any(axis=1), [False]])
            edges = np.flatnonzero(unlike[1:] != unlike[:-1]).reshape(-1, 2) + number * SEGMENT_CHUNKS
            yield from ((int(a), min(int(b), last)) for a, b in edges if a < last)
        del ids
        if number % _FORGET == _FORGET - 1:
            one.forget()
            other.forget()
