"""The second phase of collection: dooms whose time has come are carried out, and small things are cleaned up.

Why this is safe stands in ``collect.py``; the order of calls here is part of it.
"""

from functools import partial

from proxy.errors import ObjectRetained
from proxy.repository import format as layout
from proxy.repository import manifest
from proxy.repository.checking.chain import Merge
from proxy.repository.collection.collected import Item, Tally, Waiting
from proxy.repository.collection.compact import Mover
from proxy.repository.collection.needed import Needed
from proxy.repository.dooms import Doom
from proxy.repository.leases import COLLECT, Leases
from proxy.repository.parallel import each
from proxy.repository.repository import Repository

# For how long a listing may be out of date: ``acdirmax`` of NFS is 60 s unless mounted
# otherwise. 0 is right for S3 and local disks.
SETTLE = 65.0

# Last-Modified and Date of S3 have whole seconds: two ages may be off by one each.
SKEW = 2.0


class Sweeper:
    """``grace``, ``settle``: seconds, see ``collect``. With ``dry_run`` in the tally it only tells."""

    def __init__(self, repository: Repository, leases: Leases, *, grace: float, settle: float) -> None:
        self._repository = repository
        self._store = repository.store
        self._dooms = repository.dooms
        self._leases = leases
        self._grace = grace
        self._settle = settle

    def expire(self, tally: Tally) -> None:
        """Delete leases that nobody renewed: only then may anybody act on their expiry. And dooms that nobody can read."""
        tally.cleaned += [Item(name, 0, "lease expired") for name in self._leases.remove_expired()]
        if sum(lease.kind == COLLECT for lease in self._leases.present()) == 1:  # this one's: nobody else acts on them
            unreadable = self._dooms.remove_unreadable(self._leases.expiry)
            tally.cleaned += [Item(name, 0, "doom that cannot be read") for name in unreadable]

    def ready(self, tally: Tally) -> list[str]:
        """Dooms on which no writer may count any more; the others are tallied as waiting, with the reason."""
        self._dooms.refresh()
        ages: dict[str, float] = {}
        for name in sorted(self._dooms.known):
            try:
                ages[name] = self._store.age(name)
            except FileNotFoundError:
                continue  # carried out by another collector
        # After the ages of dooms, so that a lease never looks younger, compared with a doom, than it is.
        present = self._leases.living() if tally.dry_run else self._leases.present()
        working = [lease for lease in present if lease.kind != COLLECT]
        tally.waiting.clear()
        ready: list[str] = []
        for name, age in ages.items():
            before = [lease for lease in working if lease.age > age - 2 * self._settle - SKEW]
            if age < self._grace:
                why = f"made {age:.0f} s ago, which is less than {self._grace:.0f} s"
            elif before:
                why = f"for {len(before)} that were at work before: {', '.join(map(str, before[:3]))}"
            else:
                ready.append(name)
                continue
            tally.waiting.append(Waiting(name, why))
        return ready

    def sweep(self, ready: list[str], needed: Needed, tally: Tally) -> None:
        """Delete what the dooms name and nobody needs. What is needed of packs is copied, and their doom stays until the
        next look finds the copies."""
        known = self._dooms.known
        marked = needed.marks.marked()
        strangers = needed.marks.strangers()

        def is_needed(name: str) -> bool:
            pack = layout.pack_of(name) or b""
            number = int(needed.marks.packs.numbers(pack)[0])
            # One that cannot be read is not among the packs, and is needed if an index refers to it; most are just gone.
            return bool(marked[number]) if number >= 0 else pack in strangers and self._is_there(name)

        again: list[str] = []
        for doom in ready:
            if doom not in known:
                continue
            wanted = [name for name in known[doom].packs if is_needed(name)]
            unneeded = sorted(set(known[doom].packs).difference(wanted))
            left = len(wanted) + self._indexes(known[doom], needed, tally) + self._delete(unneeded, tally)
            again += wanted
            if not left and not tally.dry_run:
                self._dooms.remove(doom)
        self._rescue(again, needed, tally)

    def clean(self, needed: Needed, tally: Tally) -> None:
        """What belonged to restore points and packs that are gone."""
        ledger = self._repository.ledger
        for name in needed.finished:
            self._clean(name, "restore point was deleted, and its deletion was interrupted", tally)
        for merge in needed.merges:
            self._merge(merge, tally)
        for kind, what in ((ledger.verifications, "state"), (ledger.holds, "hold")):
            for name in kind.names(manifest.PREFIX):
                if not self._is_there(name):
                    self._clean(kind.name(name), f"{what} of a restore point that is gone", tally)
        damaged = self._repository.lookup.damaged
        for pack in {*damaged.packs(), *damaged.offsets()}:
            if not self._repository.lookup.has_pack(pack) and not self._is_there(layout.pack_name(pack)):
                tally.cleaned.append(Item(f"damaged/{pack.hex()}", 0, "marks of a pack that is gone"))
                if not tally.dry_run:
                    damaged.forget(pack)

    def _merge(self, merge: Merge, tally: Tally) -> None:
        """The tombstone that stays is signed again first: killed in between, nothing is covered that is not there too."""
        stones = self._repository.ledger.tombstones
        if not tally.dry_run:
            try:
                for name, stone in merge.replace.items():
                    stones.put(name, stone)
            except ObjectRetained:
                return  # when the store lets go of it
        for name in merge.drop:
            self._clean(stones.name(name), "the next tombstone of its chain speaks for it", tally)

    def _indexes(self, doom: Doom, needed: Needed, tally: Tally) -> int:
        """How many are left, to be deleted later."""
        spared = [name for name in doom.indexes if name in needed.indexes]
        tally.kept += [Item(name, self._size(name), "a restore point needs this index") for name in spared]
        return self._delete([name for name in doom.indexes if name not in needed.indexes], tally)

    def _rescue(self, packs: list[str], needed: Needed, tally: Tally) -> None:
        """Copy what is needed of doomed packs."""
        if not packs:
            return
        tally.kept += [Item(name, self._size(name), "needed again: copied, then it goes") for name in packs]
        if tally.dry_run:
            return
        mover = Mover(self._repository, needed.marks)
        for name in packs:
            mover.move(layout.pack_of(name) or b"", needed.resolver)
        mover.finish()
        tally.moved += mover.bytes

    def _delete(self, names: list[str], tally: Tally) -> int:
        """Delete several at a time; how many could not be."""
        results = each(partial(self._delete_one, dry_run=tally.dry_run), names)
        tally.deleted += [item for item, gone in results if gone and item.bytes >= 0]
        tally.kept += [item for item, gone in results if not gone]
        return sum(not gone for _, gone in results)

    def _delete_one(self, name: str, dry_run: bool) -> tuple[Item, bool]:
        """What it was (bytes -1: it was gone already), and whether it is gone (or would be)."""
        size = self._size(name)
        if size >= 0 and not dry_run:
            try:
                self._store.delete(name)
            except ObjectRetained as error:
                return Item(name, size, error.message), False
        return Item(name, size, "nobody needs it"), True

    def _clean(self, name: str, why: str, tally: Tally) -> None:
        size = self._size(name)
        if size < 0:
            return
        if not tally.dry_run:
            try:
                self._store.delete(name)
            except ObjectRetained:
                return
        tally.cleaned.append(Item(name, size, why))

    def _size(self, name: str) -> int:
        """Bytes, -1 for what is gone."""
        try:
            return self._store.size(name)
        except FileNotFoundError:
            return -1

    def _is_there(self, name: str) -> bool:
        return self._size(name) >= 0
