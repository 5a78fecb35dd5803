"""How the deduplication lookup scales: a synthetic index of very many chunks, merged, opened and searched at random.

    python -m tests.bench.repository.lookup_scale [--chunks 10000000] [--finds 100000] [--directory DIR]

100 million chunks of 256 KiB are 24 TiB stored once. The runs are made as a lookup would have written them (random ids, in
order; packs of ``IN_A_PACK`` chunks); building is then the lookup's own merge of ``RUNS`` equal runs, which is the largest
merge that such a lookup ever does. Cold: none of the file is in the page cache; each search reads its pages from disk.
"""

import argparse
import json
import os
import resource
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from proxy import repository as repositories
from proxy.repository import format as layout
from proxy.repository import runs
from proxy.repository.lookup import ChunkLookup
from proxy.repository.packset import PackSet
from proxy.repository.runs import Run
from proxy.repository.runs_arrays import BLOCK, RECORD, Records, checked
from proxy.units import KiB, MiB

RUNS = 4
IN_A_PACK = 220
"""Chunks of 256 KiB that compress to 0.55 fill 32 MiB."""

COLD_FINDS = 2000


class Listed(repositories.MemoryStore):
    """A store whose packs are only names: all that the lookup asks for when it knows them already."""

    def __init__(self, packs: PackSet) -> None:
        super().__init__()
        self._packs = packs

    def list(self, prefix: str) -> Iterator[str]:
        return (layout.pack_name(pack) for pack in self._packs) if prefix == "packs/" else super().list(prefix)


class Watch(threading.Thread):
    """Peak of the memory that is the process's own (not pages of mapped files), looked at every 20 ms; MiB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._ended = threading.Event()
        self.peak = own_memory()

    def run(self) -> None:
        while not self._ended.wait(0.02):
            self.peak = max(self.peak, own_memory())

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def own_memory() -> float:
    """RssAnon in MiB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / KiB


def make_runs(directory: Path, chunks: int) -> PackSet:
    """``RUNS`` runs with ``chunks`` in all; gives the names of their packs."""
    every: list[bytes] = []
    each = chunks // RUNS
    for number in range(RUNS):
        packs = PackSet.of(secrets.token_bytes(layout.NAME_BYTES) for _ in range(max(each // IN_A_PACK, 1)))
        runs.write(directory, packs, checked(_records(np.random.default_rng(number), each, len(packs))))
        every.extend(packs)
    return PackSet.of(every)


def _records(chance: np.random.Generator, count: int, packs: int) -> Iterator[Records]:
    """In order: each block draws its ids from its own part of the range."""
    blocks = -(-count // BLOCK)
    for number in range(blocks):
        length = min(BLOCK, count - number * BLOCK)
        low, high = ((1 << 64) * n // blocks for n in (number, number + 1))
        records = np.zeros(length, dtype=RECORD)
        records["high"] = np.sort(chance.integers(low, high - 1, length, dtype=np.uint64, endpoint=True))
        records["middle"] = chance.integers(0, 1 << 64, length, dtype=np.uint64)
        records["low"] = chance.integers(0, 1 << 32, length, dtype=np.uint32)
        records["pack"] = chance.integers(0, packs, length, dtype=np.uint32)
        records["offset"] = chance.integers(64, 32 * MiB, length, dtype=np.uint32)
        records["word"] = layout.stored_word(layout.codec_byte(1, layout.CODEC_ZSTD), 140 * KiB)
        yield records


def some_ids(path: Path, count: int) -> list[bytes]:
    """Ids of chunks that are there, at random."""
    run = Run(path)
    places = np.random.default_rng(7).integers(0, run.count, count)
    ids = [run.id(int(place)) for place in places]
    run.close()
    return ids


def rate(lookup: ChunkLookup, ids: Sequence[bytes], *, there: bool) -> float:
    """Searches a second; checks that each chunk is found, or is not."""
    begin = time.perf_counter()
    found = sum(lookup.find(chunk) is not None for chunk in ids)
    seconds = time.perf_counter() - begin
    if found != (len(ids) if there else 0):
        raise SystemExit(f"found {found} of {len(ids)}")
    return len(ids) / seconds


def forget_pages(path: Path) -> None:
    """Nothing of the file stays in the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(directory: Path, chunks: int, finds: int) -> dict[str, float]:
    """All figures: seconds, bytes, MiB, searches a second."""
    clear = repositories.create(repositories.MemoryStore(), secret=None, cache=directory / "none")
    settings, chunker = clear.settings, clear.chunker
    clear.close()
    figures: dict[str, float] = {"chunks": chunks}
    begin = time.perf_counter()
    packs = make_runs(directory, chunks)
    figures["generated_s"] = time.perf_counter() - begin
    store = Listed(packs)

    before, begin = own_memory(), time.perf_counter()
    with Watch() as watch:
        lookup = ChunkLookup(store, settings, chunker, directory)
        lookup.refresh()
    figures["merge_s"] = time.perf_counter() - begin
    figures["merge_own_mib"] = watch.peak - before
    lookup.close()

    (path,) = directory.glob("*.run")
    figures["disk_bytes"] = path.stat().st_size
    hits = some_ids(path, finds)
    misses = [secrets.token_bytes(layout.ID_BYTES) for _ in hits]
    forget_pages(path)
    before, begin = own_memory(), time.perf_counter()
    lookup = ChunkLookup(store, settings, chunker, directory)
    figures["open_s"] = time.perf_counter() - begin
    figures["open_own_mib"] = own_memory() - before
    figures["cold_s"] = rate(lookup, hits[:COLD_FINDS], there=True)
    begin = time.perf_counter()
    with Watch() as watch:
        lookup.refresh()
    figures["refresh_s"] = time.perf_counter() - begin
    figures["refresh_own_mib"] = watch.peak - before
    rate(lookup, hits, there=True)  # warms the pages up
    figures["hits_s"] = rate(lookup, hits, there=True)
    rate(lookup, misses, there=False)
    figures["misses_s"] = rate(lookup, misses, there=False)
    figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KiB
    lookup.close()
    return figures


def show(figures: dict[str, float]) -> Iterator[str]:
    """The figures as people read them."""
    chunks, disk, merge = figures["chunks"], figures["disk_bytes"], figures["merge_s"]
    yield f"\nlookup of {chunks / 1e6:.0f} million chunks ({chunks * 256 / (1 << 30):.1f} TiB of 256 KiB chunks)"
    yield f"  disk {disk / MiB:.0f} MiB, {disk / chunks:.1f} bytes a chunk"
    yield (
        f"  merge of {RUNS} runs into one {merge:.1f} s ({chunks / merge / 1e6:.1f} million chunks a second), "
        f"{figures['merge_own_mib']:.0f} MiB of memory"
    )
    yield f"  open {figures['open_s']:.2f} s, {figures['open_own_mib']:.0f} MiB of memory that stays"
    yield (
        f"  refresh against the list of {chunks // IN_A_PACK:,.0f} packs {figures['refresh_s']:.2f} s, "
        f"{figures['refresh_own_mib']:.0f} MiB of memory"
    )
    yield (
        f"  searches a second at random, one thread: {figures['hits_s']:,.0f} hits, {figures['misses_s']:,.0f} misses, "
        f"{figures['cold_s']:,.0f} hits with nothing in the page cache"
    )
    yield f"  memory is the process's own, without pages of mapped files; peak with those {figures['peak_mib']:.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=10_000_000)
    parser.add_argument("--finds", type=int, default=100_000)
    parser.add_argument("--directory", type=Path, help="where to work: 72 bytes a chunk are needed")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lanfree-bench-", dir=given.directory) as scratch:
        figures = measure(Path(scratch), given.chunks, given.finds)
    if given.json:
        json.dump(figures, sys.stdout)
        return
    print(*show(figures), sep="\n")


if __name__ == "__main__":
    main()
