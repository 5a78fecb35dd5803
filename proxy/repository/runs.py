"""Runs: sorted, immutable files of the deduplication lookup (``lookup.py``), mapped, searched and merged.

::

    magic, packs, chunks | pack table (16 bytes each) | record | record | …          records in order of ids

A record has 36 bytes: id (20), number of the pack in this run's table, offset, codec with stored length, check word. Writing
and merging go through numpy in blocks of ``BLOCK`` records: 100 million take a minute or two of one CPU, in some 30 MiB.

The check word is the upper half of the sum of the record's four 64-bit words, each times an odd constant: a flipped bit
is always noticed, any other change but once in 2**32. It takes the place of a CRC because numpy computes it for a
block of records at once; one a record, rather than one a block, lets a search distrust a record without reading its block.
"""

import mmap
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from proxy.errors import FormatError
from proxy.repository.format import ID_BYTES, NAME_BYTES
from proxy.repository.packs import Place
from proxy.repository.packset import PackSet, Ranks

# Records in a block of a merge: some 30 MiB with what sorting needs. Larger costs memory and gains nothing, smaller costs more
# steps of Python a merge.
BLOCK = 1 << 16

_MAGIC = b"LANFRUN2"
_HEAD = Struct("<8sII")  # magic, packs, chunks
_RECORD = Struct("<20sIIII")
_WORDS = Struct("<4Q")
_CHECK_AT = 32
_SIZE = _RECORD.size

RECORD = np.dtype(
    {
        "names": ["high", "middle", "low", "pack", "offset", "word", "check"],
        "formats": [">u8", ">u8", ">u4", "<u4", "<u4", "<u4", "<u4"],
    }
)
"""A record: the id in three big-endian pieces, so that numbers sort as ids do."""

_AS_WORDS = np.dtype({"names": ["words"], "formats": [("<u8", (4,))], "offsets": [0], "itemsize": _SIZE})
# Odd, with bits everywhere: the digits of pi's hexadecimal fraction, made odd.
_ODD = (0x243F6A8885A308D3, 0x13198A2E03707345, 0xA4093822299F31D1, 0x082EFA98EC4E6C89)
_FACTORS = np.array(_ODD, dtype=np.uint64)
_MASK = (1 << 64) - 1

_BARE = np.dtype(f"V{_SIZE}")

Records = NDArray[np.void]


def check_words(records: Records) -> NDArray[np.uint32]:
    """The check word that each record should have."""
    words = records.view(_AS_WORDS)["words"]
    total: NDArray[np.uint64] = (words * _FACTORS).sum(axis=1, dtype=np.uint64)
    return (total >> np.uint64(32)).astype(np.uint32)


def _check_word(record: bytes) -> int:
    words: tuple[int, int, int, int] = _WORDS.unpack_from(record)
    a, b, c, d = words
    return ((a * _ODD[0] + b * _ODD[1] + c * _ODD[2] + d * _ODD[3]) & _MASK) >> 32


class Run:
    """A mapped run. Raises ``FileNotFoundError``, and ``FormatError`` for what is no run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            try:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:
                raise FormatError(str(path), "is empty") from None
        if len(self._map) < _HEAD.size:
            raise FormatError(str(path), "is too short")
        head: tuple[bytes, int, int] = _HEAD.unpack_from(self._map)
        magic, self.pack_count, self.count = head
        self._base = _HEAD.size + self.pack_count * NAME_BYTES
        if magic != _MAGIC or self._base + self.count * _SIZE != len(self._map):
            raise FormatError(str(path), "is no run, or not a whole one")

    def pack_table(self) -> bytes:
        """Names of the packs, back to back, in the order of their numbers."""
        return self._map[_HEAD.size : self._base]

    def records(self) -> Records:
        """All records, mapped."""
        return np.frombuffer(self._map, dtype=RECORD, count=self.count, offset=self._base)

    def find(self, chunk: bytes) -> Iterator[Place]:
        """Every place of a chunk that this run knows."""
        at = self._search(chunk)
        if at is None:
            return
        while at > self._base and self._map[at - _SIZE : at - _SIZE + ID_BYTES] == chunk:
            at -= _SIZE
        while self._map[at : at + ID_BYTES] == chunk:
            place = self._place(at)
            if place is not None:
                yield place
            at += _SIZE

    def lower_bound(self, chunk: bytes) -> int:
        """Number of the first record whose id is not below the chunk's."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            at = self._base + middle * _SIZE
            if self._map[at : at + ID_BYTES] < chunk:
                low = middle + 1
            else:
                high = middle
        return low

    def id(self, number: int) -> bytes:
        """Id in a record."""
        at = self._base + number * _SIZE
        return self._map[at : at + ID_BYTES]

    def forget_pages(self) -> None:
        """What was read of the mapping shall not count as this process's memory: a merge reads all of it once."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Give the mapping up, now or when the last array over it is gone."""
        try:
            self._map.close()
        except BufferError:
            return

    def _search(self, chunk: bytes) -> int | None:
        """Where one of the chunk's records is."""
        low, high = 0, self.count
        low_key, high_key = 0, 1 << 64
        key = int.from_bytes(chunk[:8], "big")
        for step in range(96):
            if low >= high:
                return None
            # Interpolate while that converges (evenly spread ids: a handful of steps), else halve: never slow for long.
            middle = (
                low + (key - low_key) * (high - low) // max(high_key - low_key, 1) if step < 8 else (low + high) // 2
            )
            middle = min(max(middle, low), high - 1)
            at = self._base + middle * _SIZE
            found = self._map[at : at + ID_BYTES]
            if found == chunk:
                return at
            if found < chunk:
                low, low_key = middle + 1, int.from_bytes(found[:8], "big")
            else:
                high, high_key = middle, int.from_bytes(found[:8], "big")
        return None

    def _place(self, at: int) -> Place | None:
        record = self._map[at : at + _SIZE]
        _, number, offset, word, check = _RECORD.unpack(record)
        if check != _check_word(record) or number >= self.pack_count:
            return None
        start = _HEAD.size + number * NAME_BYTES
        return Place(self._map[start : start + NAME_BYTES], offset, word)


def build(directory: Path, places: Sequence[tuple[bytes, Place]]) -> Path:
    """A run of chunks in any order; a chunk may be in several packs."""
    packs = PackSet.of({place.pack for _, place in places})
    numbers = {pack: number for number, pack in enumerate(packs)}
    raw = b"".join(
        _RECORD.pack(chunk, numbers[place.pack], place.offset, place.word, 0)
        for chunk, place in sorted(places, key=_id)
    )
    return write(directory, packs, iter([np.frombuffer(bytearray(raw), dtype=RECORD)]))


def merge(directory: Path, group: Sequence[Run], gone: PackSet) -> Path:
    """One run with what all know, without packs that are gone. Copies of a chunk in several packs all stay."""
    packs = PackSet.of(PackSet.parse(b"".join(run.pack_table() for run in group)).minus(gone))
    tables = [packs.numbers(run.pack_table()) for run in group]
    return write(directory, packs, _merged(group, tables))


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
    part = np.array(run.records()[start:end])
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


def write(directory: Path, packs: PackSet, blocks: Iterator[Records]) -> Path:
    """Write a run under a temporary name, sync it, and give it its name."""
    name = secrets.token_hex(8)
    scratch, path = directory / f"{name}.new", directory / f"{name}.run"
    try:
        with scratch.open("wb") as file:
            file.write(_HEAD.pack(_MAGIC, len(packs), 0))
            file.write(packs.table())
            written = 0
            for block in blocks:
                block["check"] = check_words(block)
                block.tofile(file)
                written += len(block)
            file.seek(0)
            file.write(_HEAD.pack(_MAGIC, len(packs), written))
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path


def _id(item: tuple[bytes, Place]) -> bytes:
    return item[0]
