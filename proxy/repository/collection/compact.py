"""Compaction: chunks that are needed move out of packs that hold little else, byte for byte as they are sealed.

A pack is never changed. What it is needed for is copied into new packs; when these are durable, the old one is doomed.
Killed in between, there are two copies of some chunks, and the next collection uses those that are there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from proxy.errors import FormatError, IntegrityError
from proxy.repository import format as layout
from proxy.repository.collection.marks import Marks
from proxy.repository.format import Entry
from proxy.repository.packs import PackWriter, read_footer
from proxy.repository.repository import Repository
from proxy.repository.resolve import Resolver
from proxy.units import MiB

# Neighbours are read in one request of at most this.
RANGE_BYTES = 4 * MiB


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pack worth rewriting. ``live`` and ``dead``: bytes of its stored chunks, as the lookup knows them."""

    number: int
    live: int
    dead: int


def candidates(marks: Marks, resolver: Resolver, threshold: float) -> list[Candidate]:
    """Packs whose dead share is above the threshold, but not one: those need no rewriting. Emptiest first."""
    count = len(marks.packs)
    total, live = np.zeros(count), np.zeros(count)
    for packs, offsets, stored in resolver.blocks():
        needed = marks.live(packs, offsets)
        total += np.bincount(packs, stored, count)
        live += np.bincount(packs[needed], stored[needed], count)
    # What is known to be damaged as a whole cannot be moved.
    worth = marks.marked() & ~marks.doomed & resolver.usable & (total - live > threshold * total)
    found = [
        Candidate(number, int(live[number]), int(total[number] - live[number]))
        for number in np.nonzero(worth)[0].tolist()
    ]
    return sorted(found, key=lambda c: c.live / (c.live + c.dead))


class Mover:
    """Copies what is needed of some packs. One batch: nothing counts before ``finish`` returns."""

    def __init__(self, repository: Repository, marks: Marks) -> None:
        self._repository = repository
        self._marks = marks
        self._writer = PackWriter(repository.store, repository.settings, repository.chunker, repository.lookup.add)
        self._moved: set[bytes] = set()
        self._made: set[bytes] = set()
        self.bytes = 0

    def move(self, pack: bytes, resolver: Resolver) -> bool:
        """Copy what is marked in a pack, unless ``resolver`` finds it elsewhere (then that copy is marked). ``False``: the
        pack, or a chunk that is needed of it, is damaged or gone; it must stay, and is known to be damaged from now on."""
        repository = self._repository
        try:
            entries = read_footer(repository.store, repository.settings, repository.chunker, pack)
        except FileNotFoundError:
            return False
        except (FormatError, IntegrityError) as error:
            repository.lookup.damaged.add(pack, None, error.message)
            return False
        needed = self._without_copies(pack, entries, resolver)
        whole = True
        for part in _neighbours(needed):
            whole &= self._copy(pack, part)
        return whole

    def finish(self) -> None:
        """Everything that was moved is durable when this returns."""
        self._writer.flush(self._made)

    def _without_copies(self, pack: bytes, entries: Sequence[Entry], resolver: Resolver) -> list[Entry]:
        number = self._marks.packs.numbers(pack).repeat(len(entries))
        live = self._marks.live(number, np.array([e.offset for e in entries], dtype=np.uint32))
        needed = [e for e, wanted in zip(entries, live.tolist(), strict=True) if wanted and e.id not in self._moved]
        if not needed:
            return []
        found = resolver.find(np.frombuffer(b"".join(e.id for e in needed), np.uint8))
        there = found.packs >= 0
        self._marks.mark(found.packs[there], found.offsets[there])
        return [e for e, elsewhere in zip(needed, there.tolist(), strict=True) if not elsewhere]

    def _copy(self, pack: bytes, part: Sequence[Entry]) -> bool:
        store, chunker = self._repository.store, self._repository.chunker
        start, end = part[0].offset, part[-1].offset + part[-1].stored
        try:
            data = memoryview(store.get(layout.pack_name(pack), start, end - start))
        except FileNotFoundError:
            return False
        except (FormatError, IntegrityError) as error:
            self._repository.lookup.damaged.add(pack, None, error.message)
            return False
        whole = True
        for e in part:
            stored = data[e.offset - start : e.offset - start + e.stored]
            try:
                # Never a copy of what is not whole: it would look younger, and no better, than what it came from.
                chunker.restore(e.id, e.codec, stored, e.raw)
            except FormatError as error:
                self._repository.lookup.damaged.add(pack, e.offset, error.message)
                whole = False
                continue
            place, new = self._writer.add(e.id, e.codec, stored, e.raw)
            self._made.add(place.pack)
            self._moved.add(e.id)
            self.bytes += e.stored if new else 0
        return whole


def _neighbours(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Cut where there is a gap, and where a range becomes too long."""
    parts: list[list[Entry]] = []
    for e in entries:
        last = parts[-1][-1] if parts else None
        if last is None or last.offset + last.stored != e.offset or e.offset - parts[-1][0].offset >= RANGE_BYTES:
            parts.append([])
        parts[-1].append(e)
    return parts
