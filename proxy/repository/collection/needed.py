"""What the restore points of a repository need: one look at all manifests and indexes, for collection."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Self

from proxy.errors import FormatError, IntegrityError
from proxy.model import RestorePoint
from proxy.repository import format as layout
from proxy.repository import manifest
from proxy.repository.checking.chain import Chain, Merge, Node, merge
from proxy.repository.collection.marks import Marks, Slots
from proxy.repository.index import IndexView
from proxy.repository.manifest import Manifest
from proxy.repository.repository import Repository
from proxy.repository.resolve import Resolver


@dataclass(slots=True)
class Needed:
    """``indexes``: object names that restore points refer to. ``finished``: manifests of points that were deleted and whose
    deletion was not finished. ``merges``: tombstones that become fewer, by machine (``chain.py``)."""

    marks: Marks
    resolver: Resolver
    points: int = 0
    indexes: set[str] = field(default_factory=set)
    finished: list[str] = field(default_factory=list)
    merges: list[Merge] = field(default_factory=list)

    def pack_name(self, number: int) -> str:
        """Object name of a pack, by its number in the marks."""
        return layout.pack_name(self.marks.packs.name(number))


class Survey:
    """``settled``: seconds after which a deletion counts whose manifest is still there; before, it may yet be taken back.
    ``progress`` is told how many machines and how many restore points were looked at."""

    def __init__(
        self, repository: Repository, settled: float, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self._repository = repository
        self._store = repository.store
        self._settled = settled
        self._progress = progress

    def run(self) -> Needed:
        """Raises ``FormatError`` or ``IntegrityError`` if a manifest or an index cannot be read: what they refer to is not
        known then, and nothing may be deleted.

        The order matters. Dooms are listed before packs (``ChunkLookup.refresh``): a doom that is done with by then, its
        packs are gone when packs are listed. Both before manifests: what these refer to and is not among the packs came
        later, or is gone.
        """
        repository = self._repository
        repository.lookup.refresh()
        packs = repository.lookup.packs()
        resolver = Resolver(repository.lookup, packs)
        marks = Marks(packs, resolver, repository.settings, repository.lookup.doomed(), self._exists)
        needed = Needed(marks, resolver)
        repository.ledger.names()  # raises if the repository is not there: a vanished mount must never look empty
        listed = set(self._store.list(manifest.PREFIX))
        buried = repository.ledger.tombstones.names()
        for done, (_, names) in enumerate(groupby(sorted(listed | buried), key=_folder), 1):
            self._machine(list(names), listed, buried, needed)
            if self._progress is not None:
                self._progress(done, needed.points)
        return needed

    def _machine(self, names: Sequence[str], listed: set[str], buried: set[str], needed: Needed) -> None:
        """All restore points of one machine, oldest first."""
        alive: list[Manifest] = []
        with _Previous() as previous:
            for name in names:
                if name not in listed:
                    continue
                if name in buried and self._is_settled(name) and self._repository.ledger.tombstones.opens(name):
                    needed.finished.append(name)
                    continue
                with suppress(FileNotFoundError):  # deleted meanwhile
                    found = self._repository.ledger.read(name)
                    alive.append(found)
                    self._point(name, found.point, previous, needed)
        needed.points += len(alive)
        tombstones = self._merge(names, listed, buried, alive)
        if tombstones.drop:
            needed.merges.append(tombstones)

    def _point(self, name: str, point: RestorePoint, previous: "_Previous", needed: Needed) -> None:
        for image in point.images:
            try:
                where = f"restore point {point.id} of {point.machine_name}, disk {image.key}"
                view = self._repository.open_view(where, image)
            except IntegrityError:
                if self._is_there(name):
                    raise
                return  # deleted meanwhile
            previous.keep(image.key, view, needed.marks.add(view, previous.slots(image.key)))
            needed.indexes.add(image.index)

    def _is_there(self, name: str) -> bool:
        try:
            self._store.size(name)
        except FileNotFoundError:
            return False
        return self._repository.ledger.tombstones.get(name) is None

    def _is_settled(self, name: str) -> bool:
        try:
            return self._store.age(self._repository.ledger.tombstones.name(name)) >= self._settled
        except FileNotFoundError:
            return False  # taken back

    def _merge(self, names: Sequence[str], listed: set[str], buried: set[str], alive: Sequence[Manifest]) -> Merge:
        """How the machine's tombstones become fewer. Those that may still be taken back stay as they are."""
        nodes = {
            found.point.id: Node(found.point.id, found.link.number, "", found.link.previous, found.link.previous_hash)
            for found in alive
        }
        for name in names:
            if name not in buried:
                continue
            try:
                stone = self._repository.ledger.tombstones.get(name)
            except FormatError:
                return Merge({}, [])  # an audit tells
            if stone is not None:
                left = "" if name in listed else None
                nodes[stone.point] = Node(stone.point, stone.number, stone.hash, stone.previous, stone=stone, left=left)
        chain = Chain(names[0].split("/")[1], nodes)
        possible = merge(chain)
        young = frozenset(name for name in (*possible.replace, *possible.drop) if not self._is_settled(name))
        return merge(chain, young) if young else possible

    def _exists(self, pack: bytes) -> bool:
        try:
            self._store.size(layout.pack_name(pack))
        except FileNotFoundError:
            return False
        return True


class _Previous:
    """The last index of each disk of a machine, kept open for comparison."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[IndexView, Slots]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for disk in list(self._open):
            self._close(disk)

    def slots(self, disk: str) -> Slots | None:
        found = self._open.get(disk)
        return None if found is None else found[1]

    def keep(self, disk: str, view: IndexView, slots: Slots) -> None:
        self._close(disk)
        self._open[disk] = (view, slots)

    def _close(self, disk: str) -> None:
        found = self._open.pop(disk, None)
        if found is not None:
            view, slots = found
            slots.release()
            view.close()


def _folder(name: str) -> str:
    return name.rpartition("/")[0]
