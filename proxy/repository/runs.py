"""Runs: sorted, immutable files of the deduplication lookup (``lookup.py``), mapped, searched and merged.

::

    magic, packs, chunks | pack table (16 bytes each) | record | record | …          records in order of ids

A record has 36 bytes: id (20), number of the pack in this run's table, offset, codec with stored length, check word. Merging
them, and looking at very many, is for ``runs_arrays.py``.

The check word is the upper half of the sum of the record's four 64-bit words, each times an odd constant: a flipped bit
is always noticed, any other change but once in 2**32. It takes the place of a CRC because numpy computes it for a
block of records at once; one a record, rather than one a block, lets a search distrust a record without reading its block.
"""

import mmap
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from struct import Struct

from proxy.errors import FormatError
from proxy.repository.format import ID_BYTES, NAME_BYTES
from proxy.repository.packs import Place
from proxy.repository.packset import PackSet

MAGIC = b"LANFRUN2"
_HEAD = Struct("<8sII")  # magic, packs, chunks
_RECORD = Struct("<20sIIII")
_BODY = Struct("<20sIII")
_WORDS = Struct("<4Q")
SIZE = _RECORD.size

# Odd, with bits everywhere: the digits of pi's hexadecimal fraction, made odd.
ODD = (0x243F6A8885A308D3, 0x13198A2E03707345, 0xA4093822299F31D1, 0x082EFA98EC4E6C89)
_MASK = (1 << 64) - 1


def _check_word(record: bytes) -> int:
    words: tuple[int, int, int, int] = _WORDS.unpack_from(record)
    a, b, c, d = words
    return ((a * ODD[0] + b * ODD[1] + c * ODD[2] + d * ODD[3]) & _MASK) >> 32


class Run:
    """A mapped run. Raises ``FileNotFoundError``, and ``FormatError`` for what is no run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            try:
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:
                raise FormatError(str(path), "is empty") from None
        if len(self.map) < _HEAD.size:
            raise FormatError(str(path), "is too short")
        head: tuple[bytes, int, int] = _HEAD.unpack_from(self.map)
        magic, self.pack_count, self.count = head
        self.base = _HEAD.size + self.pack_count * NAME_BYTES
        if magic != MAGIC or self.base + self.count * SIZE != len(self.map):
            raise FormatError(str(path), "is no run, or not a whole one")

    def pack_table(self) -> bytes:
        """Names of the packs, back to back, in the order of their numbers."""
        return self.map[_HEAD.size : self.base]

    def find(self, chunk: bytes) -> Iterator[Place]:
        """Every place of a chunk that this run knows."""
        at = self._search(chunk)
        if at is None:
            return
        while at > self.base and self.map[at - SIZE : at - SIZE + ID_BYTES] == chunk:
            at -= SIZE
        while self.map[at : at + ID_BYTES] == chunk:
            place = self._place(at)
            if place is not None:
                yield place
            at += SIZE

    def lower_bound(self, chunk: bytes) -> int:
        """Number of the first record whose id is not below the chunk's."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            at = self.base + middle * SIZE
            if self.map[at : at + ID_BYTES] < chunk:
                low = middle + 1
            else:
                high = middle
        return low

    def id(self, number: int) -> bytes:
        """Id in a record."""
        at = self.base + number * SIZE
        return self.map[at : at + ID_BYTES]

    def forget_pages(self) -> None:
        """What was read of the mapping shall not count as this process's memory: a merge reads all of it once."""
        self.map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Give the mapping up, now or when the last array over it is gone."""
        try:
            self.map.close()
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
            at = self.base + middle * SIZE
            found = self.map[at : at + ID_BYTES]
            if found == chunk:
                return at
            if found < chunk:
                low, low_key = middle + 1, int.from_bytes(found[:8], "big")
            else:
                high, high_key = middle, int.from_bytes(found[:8], "big")
        return None

    def _place(self, at: int) -> Place | None:
        record = self.map[at : at + SIZE]
        _, number, offset, word, check = _RECORD.unpack(record)
        if check != _check_word(record) or number >= self.pack_count:
            return None
        start = _HEAD.size + number * NAME_BYTES
        return Place(self.map[start : start + NAME_BYTES], offset, word)


def build(directory: Path, places: Sequence[tuple[bytes, Place]]) -> Path:
    """A run of chunks in any order; a chunk may be in several packs."""
    packs = PackSet.of({place.pack for _, place in places})
    numbers = {pack: number for number, pack in enumerate(packs)}
    return write(directory, packs, (_record(chunk, numbers[p.pack], p) for chunk, p in sorted(places, key=_id)))


def write(directory: Path, packs: PackSet, blocks: Iterable[bytes | memoryview]) -> Path:
    """Write a run, of blocks of any number of whole records each, under a temporary name, sync it, and give it its name."""
    name = secrets.token_hex(8)
    scratch, path = directory / f"{name}.new", directory / f"{name}.run"
    try:
        with scratch.open("wb") as file:
            file.write(_HEAD.pack(MAGIC, len(packs), 0))
            file.write(packs.table())
            written = 0
            for block in blocks:
                written += file.write(block)
            file.seek(0)
            file.write(_HEAD.pack(MAGIC, len(packs), written // SIZE))
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path


def _record(chunk: bytes, number: int, place: Place) -> bytes:
    body = _BODY.pack(chunk, number, place.offset, place.word)
    return body + _check_word(body).to_bytes(4, "little")


def _id(item: tuple[bytes, Place]) -> bytes:
    return item[0]
