"""Which chunks the repository has: the deduplication lookup, a local cache that is made from the packs' footers.

Sorted, immutable **runs** (``runs.py``) in a cache directory, mapped and searched by interpolation (ids are evenly spread).
What is newer than the runs is a dictionary of at most ``RECENT`` chunks, which becomes a run when it is full; runs of
similar size are merged. Several processes may share the directory: runs appear by rename and only ever vanish after the
run that holds their content has appeared. Losing the directory loses time, never data.

What it costs, on paper, for 100 TiB of chunks (420 million of 256 KiB; some 3.3 million packs of 32 MiB, half as many if they
compress to a half) and 10,000 machines:

* disk: 36 bytes a chunk (and 16 a pack), 15 GB; twice that while the largest runs are merged, which happens once in the
  time in which everything doubles;
* heap: 16 bytes a pack for its name, 51 MiB, and 10 MiB for recent chunks; machines and restore points cost nothing;
* while ``refresh`` compares with the store, the list of packs that the store gives: some 110 bytes a pack;
* time of the first refresh: two requests a pack, eight packs at once: at 10 ms a request 500 packs in 1.7 s (measured);
* page cache: a search touches two or three pages of each run, and there are some ten runs;
* a merge: some 30 MiB whatever its size (``runs.py``).

The seam: ``ChunkLookup`` is all that writers know (``find``, ``add``, ``refresh``). Places that are known to be damaged
(``damaged.py``) and packs that are doomed (``dooms.py``) are never found; readers get both (``recover``).
"""

import errno
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from time import time

from proxy.errors import FormatError, IntegrityError, RepositoryFull, RepositoryUnavailable
from proxy.ports import ObjectStore
from proxy.repository import format as layout
from proxy.repository import runs as files
from proxy.repository.chunks import Chunker
from proxy.repository.damaged import DamagedPlaces
from proxy.repository.dooms import Dooms
from proxy.repository.format import Entry
from proxy.repository.packs import Place, read_chunk, read_footer
from proxy.repository.packset import PackSet, split
from proxy.repository.parallel import each
from proxy.repository.runs import Run
from proxy.repository.settings import Settings

# 64 Ki chunks are 16 GiB of disk at 256 KiB chunks: some 10 MiB of heap, and a run of 2.3 MiB when it is full.
RECENT = 64 * 1024

# A run is written in minutes at most; what is a day old was left by a process that was killed.
_LEFTOVER_SECONDS = 24 * 3600.0

# A run is rewritten without the packs that are gone when they are this share of it: less often wastes disk, more often time.
_GONE_SHARE = 0.25

# Footers that are read before their chunks are added: 7 MiB of heap if packs hold 128 chunks. Fewer leave threads idle more
# often at the end of a slice, which with eight threads is 3 % of the time here; more cost memory.
_SLICE = 256


class ChunkLookup:
    """Chunk id -> place in a durable pack. ``find`` and ``add`` may be called from any thread."""

    def __init__(
        self, store: ObjectStore, settings: Settings, chunker: Chunker, directory: Path, dooms: Dooms | None = None
    ) -> None:
        self._store = store
        self._settings = settings
        self._chunker = chunker
        self._directory = directory
        self._lock = threading.Lock()
        self._refreshing = threading.Lock()
        self._runs: tuple[Run, ...] = ()
        self._recent: dict[bytes, Place] = {}
        self._spare: list[tuple[bytes, Place]] = []
        self._known = PackSet.of(())
        self._new: set[bytes] = set()
        self._gone: frozenset[bytes] = frozenset()
        self._room = RECENT
        self.unreadable: dict[str, str] = {}
        self.damaged = DamagedPlaces(store)
        self.dooms = dooms
        directory.mkdir(parents=True, exist_ok=True)
        self._load()

    def find(self, chunk: bytes) -> Place | None:
        """Where a durable copy is that may be counted on, as far as anybody knows."""
        return next((place for place in self._places(chunk) if self._usable(place)), None)

    def recover(self, chunk: bytes, raw: int, *, distrusted: bool = True) -> bytearray | None:
        """The chunk's ``raw`` bytes from the first place where they are whole; bad ones on the way are recorded.
        ``distrusted``: places that are known to be bad are tried too, last: the id decides."""
        places = [place for place in self._places(chunk) if distrusted or place not in self.damaged]
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
        return pack not in self._gone and (pack in self._new or pack in self._known)

    def doomed(self) -> frozenset[bytes]:
        """Packs that somebody will delete."""
        return frozenset() if self.dooms is None else self.dooms.packs

    def packs(self) -> PackSet:
        """The packs that were there at the last refresh or were put since, doomed or not."""
        with self._lock:
            known, new, gone = self._known, list(self._new), self._gone
        every = known.union(new)
        return PackSet.of(every.minus(PackSet.of(gone))) if gone else every

    def lost(self, table: bytes) -> list[int]:
        """Of a table of packs (``IndexView.pack_table``) the numbers, from 1 on, of those that may not be referred to: gone
        or doomed. Damage is another matter (``IndexView.refers_to``)."""
        bad = set(PackSet.parse(table).minus(self.packs())) | self.doomed()
        return [number for number, pack in enumerate(split(table), 1) if pack in bad] if bad else []

    def add(self, pack: bytes, entries: Sequence[Entry]) -> None:
        """A pack is durable now."""
        with self._lock:
            for e in entries:
                before = self._recent.get(e.id)
                if before is not None and before.pack != pack:
                    self._spare.append((e.id, before))
                self._recent[e.id] = Place(pack, e.offset, layout.stored_word(e.codec, e.stored))
            self._new.add(pack)
            if len(self._recent) >= self._room:
                self._flush()

    def refresh(self) -> None:
        """Learn which packs others have put, doomed or removed. Reads the footers of new packs only; one that cannot be
        read is noted in ``unreadable`` and simply not deduplicated against (verify reports it).

        Dooms come first: a pack whose doom is done with when they are listed is gone when packs are listed.
        """
        with self._refreshing:
            if self.dooms is not None:
                self.dooms.refresh()
            self.damaged.refresh()
            with self._lock:
                before = self._known.union(self._new)
            listed = PackSet.of(pack for name in self._store.list("packs/") if (pack := layout.pack_of(name)))
            self._learn(listed.minus(before))
            self._gone = frozenset(before.minus(listed))
            with self._lock:
                self._known = self._known.union(self._new)
                self._new = set()
            self._compact()

    def snapshot(self, *, partial: bool = False) -> tuple[Run, ...]:
        """Everything that is known, in runs, for ``resolve.py``. They stay readable while they are referred to.

        Whoever takes what is not in them for lost must have all: if the cache file system takes no more, this raises
        ``RepositoryFull`` or ``RepositoryUnavailable``. With ``partial`` it does not, and ``find`` knows more.
        """
        with self._lock:
            error = self._flush() if self._recent else None
            if error is None or partial:
                return self._runs
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RepositoryFull(f"the cache {self._directory}")
        raise RepositoryUnavailable(
            f"cache {self._directory}", f"cannot be written: {error.strerror}", hint="it may be deleted at any time"
        )

    def rebuild(self) -> None:
        """Distrust the cache: forget everything and read all footers again."""
        with self._refreshing, self._lock:
            for run in self._runs:
                run.path.unlink(missing_ok=True)
            self._runs, self._recent, self._spare = (), {}, []
            self._new, self._known = set(), PackSet.of(())
        self.refresh()

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
        return place.pack not in self._gone and place.pack not in self.doomed() and place not in self.damaged

    def _load(self) -> None:
        for leftover in self._directory.glob("*.new"):
            with suppress(FileNotFoundError):
                if time() - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
                    leftover.unlink()
        for path in sorted(self._directory.glob("*.run")):
            try:
                run = Run(path)
            except FileNotFoundError:
                continue  # another process merged it; what it held is read from the packs if need be
            except FormatError:
                path.unlink(missing_ok=True)
                continue
            self._runs = (*self._runs, run)
        self._known = PackSet.parse(b"".join(run.pack_table() for run in self._runs))

    def _learn(self, packs: Sequence[bytes]) -> None:
        """Add what packs of others hold. All that could not be read before are among them."""
        unreadable: dict[str, str] = {}
        left = iter(packs)
        while some := list(islice(left, _SLICE)):
            for pack, found in zip(some, each(self._footer, some), strict=True):
                if isinstance(found, str):
                    unreadable[layout.pack_name(pack)] = found
                elif found is not None:
                    self.add(pack, found)
        self.unreadable = unreadable

    def _footer(self, pack: bytes) -> list[Entry] | str | None:
        """What a pack holds, why it cannot be read, or ``None`` for one that vanished meanwhile."""
        try:
            return read_footer(self._store, self._settings, self._chunker, pack)
        except FileNotFoundError:
            return None
        except (FormatError, IntegrityError) as error:
            return error.message

    def _flush(self) -> OSError | None:
        """Make a run of the recent chunks; why it could not. The lock is held. A full cache file system costs memory, not a
        backup."""
        try:
            run = Run(files.build(self._directory, [*self._recent.items(), *self._spare]))
        except OSError as error:
            self._room *= 2
            return error
        self._runs = (run, *self._runs)
        self._recent, self._spare = {}, []
        return None

    def _compact(self) -> None:
        """Merge runs until each is at least twice as large as all smaller ones together: a search meets few runs, and a
        record is copied a logarithmic number of times in its life. Runs that are full of what is gone are rewritten."""
        gone = PackSet.of(self._gone)
        while (group := _alike(sorted(self._runs, key=_size)) or _stale(self._runs, gone)) is not None:
            from proxy.repository.runs_arrays import merge  # noqa: PLC0415  # it brings numpy

            try:
                merged = Run(merge(self._directory, group, gone))
            except OSError:
                return  # a full cache file system: searching more runs is slower, and right
            with self._lock:
                self._runs = (*(run for run in self._runs if run not in group), merged)
            for run in group:
                run.path.unlink(missing_ok=True)


def _size(run: Run) -> int:
    return run.count


def _alike(runs: Sequence[Run]) -> Sequence[Run] | None:
    """The smallest runs that should become one: up to the last that is not twice as large as all before it."""
    group: Sequence[Run] | None = None
    smaller = 0
    for number, run in enumerate(runs):
        if number and run.count < 2 * smaller:
            group = runs[: number + 1]
        smaller += run.count
    return group


def _stale(runs: Sequence[Run], gone: PackSet) -> Sequence[Run] | None:
    """A run of whose packs too many are gone."""
    for run in runs if len(gone) else ():
        held = PackSet.parse(run.pack_table())
        if len(held) - len(held.minus(gone)) > _GONE_SHARE * run.pack_count:
            return [run]
    return None
