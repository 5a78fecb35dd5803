"""The first phase of collection: packs that hold little are rewritten, and what is not needed is doomed."""

from functools import partial

import numpy as np

from proxy.repository import format as layout
from proxy.repository.collection.collected import Item, Tally
from proxy.repository.collection.compact import Candidate, Mover, candidates
from proxy.repository.collection.needed import Needed
from proxy.repository.collection.sweep import SKEW
from proxy.repository.leases import COLLECT, Leases
from proxy.repository.parallel import each
from proxy.repository.repository import Repository

# Packs that are rewritten before the old ones are doomed: 8 GiB, which is what a kill costs at most.
BATCH = 256


class Condemner:
    """``young``: seconds, see ``collect``. ``made``: names of the dooms that it made. With
    ``dry_run`` in the tally it only tells."""

    def __init__(self, repository: Repository, leases: Leases, *, young: float) -> None:
        self.made: list[str] = []
        self._repository = repository
        self._store = repository.store
        self._dooms = repository.dooms
        self._leases = leases
        self._young = young

    def compact(self, needed: Needed, threshold: float, limit: int | None, tally: Tally) -> None:
        """Rewrite the packs whose dead share is above the threshold, emptiest first, until ``limit`` bytes were moved. Young
        ones are left alone: what looks dead in them may be of a run that shares them and goes on."""
        worth = candidates(needed.marks, needed.resolver, threshold) if threshold < 1 else []
        while worth and (limit is None or tally.moved < limit):
            batch, worth = worth[:BATCH], worth[BATCH:]
            old = {item.object: item.bytes for item in self._old([needed.pack_name(c.number) for c in batch])}
            batch = [c for c in batch if needed.pack_name(c.number) in old]
            if tally.dry_run:
                moved, size = batch, sum(c.live for c in batch)
            else:
                moved, size = self._rewrite(needed, batch)
            tally.moved += size
            for c in moved:
                name = needed.pack_name(c.number)
                tally.compacted.append(Item(name, old[name], f"{c.dead} of {c.dead + c.live} bytes are dead"))

    def doom(self, needed: Needed, tally: Tally) -> None:
        """Doom packs and indexes that nobody needs, unless they are young, or younger than a run that goes on."""
        marks = needed.marks
        dead = [needed.pack_name(n) for n in np.nonzero(~marks.marked() & ~marks.doomed)[0].tolist()]
        # What cannot be read and nobody refers to: if it held a chunk that is nowhere else, chunks would be missing.
        referred = {layout.pack_name(pack) for pack in marks.strangers()}
        dead += [name for name in self._repository.lookup.unreadable if name not in referred]
        known = {layout.pack_name(pack) for pack in self._dooms.packs}
        packs = self._old([name for name in dead if name not in known])
        doomed = self._dooms.indexes()
        listed = [name for name in self._store.list("indexes/") if name not in needed.indexes and name not in doomed]
        indexes = self._old(listed)
        tally.doomed += [*packs, *indexes]
        if not tally.dry_run:
            self._add([item.object for item in packs], [item.object for item in indexes])

    def _rewrite(self, needed: Needed, batch: list[Candidate]) -> tuple[list[Candidate], int]:
        """Those that were moved and doomed, and the bytes that were written for it."""
        names = {c.number: needed.marks.packs.name(c.number) for c in batch}
        needed.resolver.avoid(needed.marks.packs, frozenset(names.values()))
        mover = Mover(self._repository, needed.marks)
        moved = [c for c in batch if mover.move(names[c.number], needed.resolver)]
        mover.finish()
        self._add([needed.pack_name(c.number) for c in moved], [])
        return moved, mover.bytes

    def _old(self, names: list[str]) -> list[Item]:
        """Those that are old enough, and there. Safety does not need it (``collect.py``): with ``young`` 0 all are."""
        if not names or not self._young:
            return [item for item in each(partial(self._old_one, least=0), names) if item is not None]
        working = [lease.age + SKEW for lease in self._leases.present() if lease.kind != COLLECT]
        least = max([self._young, *working])
        return [item for item in each(partial(self._old_one, least=least), names) if item is not None]

    def _old_one(self, name: str, least: float) -> Item | None:
        try:
            if self._store.age(name) >= least:
                return Item(name, self._store.size(name), "nobody needs it")
        except FileNotFoundError:
            pass
        return None

    def _add(self, packs: list[str], indexes: list[str]) -> None:
        self.made += self._dooms.add(packs, indexes, self._repository.clock.now())
