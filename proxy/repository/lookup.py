"""Which chunks the repository has: the deduplication lookup, a local cache that is made from the packs' footers.

Sorted, immutable **runs** in a cache directory, mapped and searched by interpolation (ids are evenly spread): 36 bytes of
disk a chunk and no heap. What is newer than the runs is a dictionary of at most ``RECENT`` chunks, which becomes a run
when it is full; runs of similar size are merged. Several processes may share the directory: runs appear by rename and
only ever vanish after the run that holds their content has appeared. Losing the directory loses time, never data.

Figures: 36 B of disk a chunk (147 MiB a TiB stored at 256 KiB chunks); heap: some 150 B a pack (32 MiB) for its name, plus
up to 10 MiB for recent chunks. The seam: ``ChunkLookup`` is all that writers know (``find``, ``add``, ``refresh``). Places
that are known to be damaged (``damaged.py``) are never found.
"""

import mmap
import os
import secrets
import threading
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from heapq import merge
from itertools import groupby
from pathlib import Path
from struct import Struct
from time import time

from proxy.errors import FormatError, IntegrityError
from proxy.ports import ObjectStore
from proxy.repository import format as layout
from proxy.repository.chunks import Chunker
from proxy.repository.damaged import DamagedPlaces
from proxy.repository.format import ID_BYTES, NAME_BYTES, Entry
from proxy.repository.packs import Place, read_chunk, read_footer
from proxy.repository.settings import Settings

# 64 Ki chunks are 16 GiB of disk at 256 KiB chunks: some 10 MiB of heap, and a run of 2.3 MiB when it is full.
RECENT = 64 * 1024

# A run is written in seconds; what is an hour old was left by a process that was killed.
_LEFTOVER_SECONDS = 3600.0

_MAGIC = b"LANFRUN1"
_HEAD = Struct("<8sII")  # magic, packs, chunks
_RECORD = Struct("<20sIII")  # id, number of the pack in this run's table, offset, codec and stored length
_NUMBER = Struct("<I")
_CHECK = Struct("<I")  # CRC-32 of the record: a flipped bit in a cache must never become a dangling reference
_SIZE = _RECORD.size + _CHECK.size


class ChunkLookup:
    """Chunk id -> place in a durable pack. ``find`` and ``add`` may be called from any thread."""

    def __init__(self, store: ObjectStore, settings: Settings, chunker: Chunker, directory: Path) -> None:
        self._store = store
        self._settings = settings
        self._chunker = chunker
        self._directory = directory
        self._lock = threading.Lock()
        self._refreshing = threading.Lock()
        self._runs: tuple[_Run, ...] = ()
        self._recent: dict[bytes, Place] = {}
        self._recent_packs: set[bytes] = set()
        self._spare: list[tuple[bytes, Place]] = []
        self._known: set[bytes] = set()
        self._gone: frozenset[bytes] = frozenset()
        self._room = RECENT
        self.unreadable: dict[str, str] = {}
        self.damaged = DamagedPlaces(store)
        directory.mkdir(parents=True, exist_ok=True)
        self._load()

    def find(self, chunk: bytes) -> Place | None:
        """Where a durable copy is, as far as anybody knows."""
        return next((place for place in self._places(chunk) if self._usable(place)), None)

    def recover(self, chunk: bytes, raw: int, *, distrusted: bool = True) -> bytes | memoryview | None:
        """The chunk's ``raw`` bytes from the first place where they are whole; bad ones on the way are recorded.
        ``distrusted``: places that are known to be bad are tried too, last: the id decides."""
        places = [place for place in self._places(chunk) if distrusted or self._usable(place)]
        for place in sorted(places, key=self.damaged.__contains__):
            try:
                return read_chunk(self._store, self._chunker, chunk, place, raw)
            except FileNotFoundError:
                continue
            except (FormatError, IntegrityError) as error:
                self.damaged.add(place.pack, place.offset, error.message)
        return None

    def has_pack(self, pack: bytes) -> bool:
        """Whether a pack was there at the last refresh or was put since."""
        return pack in self._known and pack not in self._gone

    def add(self, pack: bytes, entries: Sequence[Entry]) -> None:
        """A pack is durable now."""
        with self._lock:
            for e in entries:
                before = self._recent.get(e.id)
                if before is not None and before.pack != pack:
                    self._spare.append((e.id, before))
                self._recent[e.id] = Place(pack, e.offset, layout.stored_word(e.codec, e.stored))
            self._recent_packs.add(pack)
            self._known.add(pack)
            if len(self._recent) >= self._room:
                self._flush()

    def refresh(self) -> None:
        """Learn which packs others have put or removed. Reads the footers of new packs only; one that cannot be read is
        noted in ``unreadable`` and simply not deduplicated against (verify reports it)."""
        with self._refreshing:
            self.damaged.refresh()
            before = frozenset(self._known)
            listed = {pack for name in self._store.list("packs/") if (pack := layout.pack_of(name))}
            for pack in sorted(listed - before):
                with suppress(FileNotFoundError):
                    try:
                        self.add(pack, read_footer(self._store, self._settings, self._chunker, pack))
                    except (FormatError, IntegrityError) as error:
                        self.unreadable[layout.pack_name(pack)] = error.message
            self._gone = before - listed
            self._compact()

    def close(self) -> None:
        """Keep what was learnt for the next process."""
        with self._lock:
            if self._recent:
                self._flush()
            for run in self._runs:
                run.close()
            self._runs = ()

    def _places(self, chunk: bytes) -> Iterator[Place]:
        place = self._recent.get(chunk)
        if place is not None:
            yield place
        for run in self._runs:
            yield from run.find(chunk)
        # A second copy whose first went away before it became part of a run: rare enough for a walk through a short list.
        if self._spare:
            yield from [place for known, place in self._spare if known == chunk]

    def _usable(self, place: Place) -> bool:
        return place.pack not in self._gone and place not in self.damaged

    def _load(self) -> None:
        for leftover in self._directory.glob("*.new"):
            with suppress(FileNotFoundError):
                if time() - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
                    leftover.unlink()
        for path in sorted(self._directory.glob("*.run")):
            try:
                run = _Run(path)
            except FileNotFoundError:
                continue  # another process merged it; what it held is read from the packs if need be
            except FormatError:
                path.unlink(missing_ok=True)
                continue
            self._runs = (*self._runs, run)
            self._known.update(run.packs)

    def _flush(self) -> None:
        """Make a run of the recent chunks. The lock is held. A full cache file system costs memory, not a backup."""
        packs = sorted(self._recent_packs)
        numbers = {pack: number for number, pack in enumerate(packs)}
        records = (
            _RECORD.pack(chunk, numbers[place.pack], place.offset, place.word)
            for chunk, place in sorted([*self._recent.items(), *self._spare], key=lambda item: item[0])
        )
        try:
            run = _Run(_write(self._directory, packs, records))
        except OSError:
            self._room *= 2
            return
        self._runs = (run, *self._runs)
        self._recent, self._spare = {}, []
        self._recent_packs = set()

    def _compact(self) -> None:
        """Merge runs until each is at least twice as large as all smaller ones together: a search meets few runs, and a
        record is copied a logarithmic number of times in its life."""
        while (group := _alike(sorted(self._runs, key=lambda run: run.count))) is not None:
            try:
                merged = _merge(self._directory, group, self._gone)
            except OSError:
                return  # a full cache file system: searching more runs is slower, and right
            with self._lock:
                self._runs = (*(run for run in self._runs if run not in group), merged)
            for run in group:
                run.path.unlink(missing_ok=True)


class _Run:
    """A mapped run: head, pack table, records in order of ids."""

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
        magic, packs, self.count = head
        self._base = _HEAD.size + packs * NAME_BYTES
        if magic != _MAGIC or self._base + self.count * _SIZE != len(self._map):
            raise FormatError(str(path), "is no run, or not a whole one")
        table = self._map[_HEAD.size : self._base]
        self.packs = [table[at : at + NAME_BYTES] for at in range(0, len(table), NAME_BYTES)]

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

    def records(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Id, pack, and the rest of the record, in order of ids; damaged records are left out."""
        for at in range(self._base, len(self._map), _SIZE):
            record = self._map[at : at + _RECORD.size]
            (number,) = _NUMBER.unpack_from(record, ID_BYTES)
            if self._whole(record, at) and number < len(self.packs):
                yield record[:ID_BYTES], self.packs[number], record[ID_BYTES + _NUMBER.size :]

    def close(self) -> None:
        self._map.close()

    def _place(self, at: int) -> Place | None:
        record = self._map[at : at + _RECORD.size]
        _, number, offset, word = _RECORD.unpack(record)
        if not self._whole(record, at) or number >= len(self.packs):
            return None
        return Place(self.packs[number], offset, word)

    def _whole(self, record: bytes, at: int) -> bool:
        return self._map[at + _RECORD.size : at + _SIZE] == _CHECK.pack(zlib.crc32(record))


def _alike(runs: Sequence[_Run]) -> Sequence[_Run] | None:
    """The smallest runs that should become one: up to the last that is not twice as large as all before it."""
    group: Sequence[_Run] | None = None
    smaller = 0
    for number, run in enumerate(runs):
        if number and run.count < 2 * smaller:
            group = runs[: number + 1]
        smaller += run.count
    return group


def _merge(directory: Path, group: Sequence[_Run], gone: Collection[bytes]) -> _Run:
    """One run with what all know, without packs that are gone. Copies of a chunk in several packs all stay."""
    packs = sorted({pack for run in group for pack in run.packs}.difference(gone))
    numbers = {pack: _NUMBER.pack(number) for number, pack in enumerate(packs)}
    every = (record for record, _ in groupby(merge(*(run.records() for run in group))))
    records = (chunk + numbers[pack] + rest for chunk, pack, rest in every if pack in numbers)
    return _Run(_write(directory, packs, records))


def _write(directory: Path, packs: Sequence[bytes], records: Iterator[bytes]) -> Path:
    """Write a run under a temporary name, sync it, and give it its name."""
    name = secrets.token_hex(8)
    scratch, path = directory / f"{name}.new", directory / f"{name}.run"
    try:
        with scratch.open("wb") as file:
            file.write(_HEAD.pack(_MAGIC, len(packs), 0))
            file.writelines(packs)
            written = 0
            for record in records:
                file.write(record + _CHECK.pack(zlib.crc32(record)))
                written += 1
            file.seek(0)
            file.write(_HEAD.pack(_MAGIC, len(packs), written))
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path
