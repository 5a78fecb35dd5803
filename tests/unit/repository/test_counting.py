"""What machines need is counted in memory that neither machines nor chunks make larger."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from proxy.repository.checking import counting
from proxy.repository.checking.counting import RECORD, ChunkCounter

CHUNK = 4096


@pytest.mark.slow
@pytest.mark.parametrize(("machines", "distinct"), [(48, 1 << 14), (1, 48 << 14), (48, 1)])
def test_memory_is_bounded_however_many_machines_share_a_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machines: int, distinct: int
) -> None:
    """48 times as many records as are counted at once: many machines with the same chunks; or many chunks, of which the
    packs are said to hold fewer; or one chunk that fills every disk."""
    monkeypatch.setattr(counting, "_PARTITION", 1 << 14)
    segment = 1 << 12
    keys = np.random.default_rng(1).integers(0, 1 << 63, distinct, dtype=np.uint64)
    tracemalloc.start()
    try:
        with ChunkCounter(tmp_path, 1 << 14) as counter:
            for number in range((48 << 14) // segment):
                records = np.zeros(segment, RECORD)
                at = number * segment % distinct
                records["key"] = np.resize(keys[at : at + segment], segment)
                records["machine"] = number * segment * machines // (48 << 14)
                records["stored"], records["raw"] = 100, CHUNK
                counter.add(records)
            uses = counter.count(machines)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert uses.unique_of_all == distinct * CHUNK
    assert uses.compressed.tolist() == [distinct * 100] * machines
    assert int(uses.exclusive.sum()) == (distinct * 100 if machines == 1 else 0)
    assert peak < 6_000_000, "to count all records at once takes 20 MB"


def test_one_chunk_of_ever_so_many_machines_is_cut_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_PARTITION", 2)
    with ChunkCounter(tmp_path, 1) as counter:
        for machine in range(30):
            counter.add(np.array([((1 << 64) - 1, machine, 100, CHUNK, 0)], dtype=RECORD))
        uses = counter.count(30)
    assert (uses.unique_of_all, uses.compressed_of_all) == (CHUNK, 100)
    assert uses.unique.tolist() == [CHUNK] * 30
    assert not uses.exclusive.any()
