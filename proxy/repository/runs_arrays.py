"""Many records of runs (``runs.py``) at once, as arrays of numpy: checking and merging them.

In blocks of ``BLOCK`` records: 100 million take a minute or two of one CPU, in some 30 MiB. A module of its own because a
small repository does without, and numpy is a tenth of a small backup's time.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proxy.repository.packset import PackSet
from proxy.repository.packset_arrays import Ranks
from proxy.repository.runs import ODD, SIZE, Run, write

# Records in a block of a merge: some 30 MiB with what sorting needs. Larger costs memory and gains nothing, smaller costs more
# steps of Python a merge.
BLOCK = 1 << 16

RECORD = np.dtype(
    {
        "names": ["high", "middle", "low", "pack", "offset", "word", "check"],
        "formats": [">u8", ">u8", ">u4", "<u4", "<u4", "<u4", "<u4"],
    }
)
"""A record: the id in three big-endian pieces, so that numbers sort as ids do."""

_AS_WORDS = np.dtype({"names": ["words"], "formats": [("<u8", (4,))], "offsets": [0], "itemsize": SIZE})
_FACTORS = np.array(ODD, dtype=np.uint64)
_BARE = np.dtype(f"V{SIZE}")

Records = NDArray[np.void]


def check_words(records: Records) -> NDArray[np.uint32]:
    """The check word that each record should have."""
    words = records.view(_AS_WORDS)["words"]
    total: NDArray[np.uint64] = (words * _FACTORS).sum(axis=1, dtype=np.uint64)
    return (total >> np.uint64(32)).astype(np.uint32)


def records_of(run: Run) -> Records:
    """All records of a run, mapped."""
    return np.frombuffer(run.map, dtype=RECORD, count=run.count, offset=run.base)


def checked(blocks: Iterator[Records]) -> Iterator[memoryview]:
    """Blocks with their check words, to be written."""
    for block in blocks:
        block["check"] = check_words(block)
        yield block.view(np.uint8).data


def merge(directory: Path, group: Sequence[Run], gone: PackSet) -> Path:
    """One run with what all know, without packs that are gone. Copies of a chunk in several packs all stay."""
    packs = PackSet.of(PackSet.parse(b"".join(run.pack_table() for run in group)).minus(gone))
    tables = [packs.numbers(run.pack_table()) for run in group]
    return write(directory, packs, checked(_merged(group, tables)))


def _merged(group: Sequence[Run], tables: Sequence[Ranks]) -> Iterator[Records]:
    """The runs cut at the same ids, so that each step sorts a bounded part: the largest gives the cuts, as many as there are
    blocks in all runs together (ids are evenly spread)."""
    largest = max(group, key=lambda run: run.count)
    step = max(BLOCK * largest.count // max(sum(run.count for run in group), 1), 1)
    starts = [0] * len(group)
    for cut in range(step, largest.count + step, step):
        bound = largest.id(cut) if cut < largest.count else None
        ends = [run.count if bound is None else run.lower_bound(bound) for run in group]
        # Copied one after the other: what is mapped of them need not be in memory.
        parts = [_renumbered(run, a, b, t) for run, a, b, t in zip(group, starts, ends, tables, strict=True)]
        starts = ends
        for run in group:
            run.forget_pages()
        # As bare bytes: concatenating numbers would turn them into the machine's own byte order.
        yield _sorted(np.concatenate([part.view(_BARE) for part in parts]).view(RECORD))


def _renumbered(run: Run, start: int, end: int, table: Ranks) -> Records:
    """Whole records of packs that stay, with the numbers that these have in the merged run."""
    part = np.array(records_of(run)[start:end])
    numbers = part["pack"].astype(np.int64)
    good = (part["check"] == check_words(part)) & (numbers < run.pack_count)
    numbers = table[np.where(good, numbers, 0)] if len(table) else np.full(len(part), -1)
    good &= numbers >= 0
    part["pack"] = np.where(good, numbers, 0)
    part["check"] = 0  # of the old number; equal records shall be equal
    return part if good.all() else part[good]


def _sorted(part: Records) -> Records:
    """In order of ids, equal records once. The parts are sorted each, which the stable sort makes use of."""
    high = part["high"].astype(np.uint64)
    order = np.argsort(high, kind="stable")
    high = high[order]
    tied = np.zeros(len(high), dtype=bool)
    same = high[1:] == high[:-1]
    if not same.any():
        return part[order]
    # Rare for chunks in one pack: only those whose ids begin alike are compared to the end.
    tied[1:] |= same
    tied[:-1] |= same
    part = part[order]
    ties = part[tied]
    keys = [ties[name].astype(np.uint64) for name in ("word", "offset", "pack", "low", "middle", "high")]
    ties = ties[np.lexsort(keys)]
    part[tied] = ties
    once = np.ones(len(ties), dtype=bool)
    once[1:] = ties[1:] != ties[:-1]
    keep = np.ones(len(part), dtype=bool)
    keep[tied] = once
    return part[keep]
