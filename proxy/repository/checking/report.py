"""What a repository holds, by machine and in all, and how well it shares and compresses. Reads manifests and indexes, no chunk.

::

    logical      virtual sizes of all disks in all restore points       what would be restored
    referenced   of these, chunks that are not zero                     / unique     = deduplication
    unique       the same chunks, each once                             / compressed = compression
    compressed   what they take in packs                                + dead       = in packs
    dead         chunks that no restore point needs, or that are there twice: collection's work
    stored       all objects: packs, indexes, manifests, …

Time goes to what changed: of an index only what differs from the machine's index before it is looked at. Chunks are counted by
the first 8 bytes of their ids (``counting.py``: 24 bytes on disk for each chunk of each machine), so that memory stays below
some 300 MiB whatever the repository holds; two chunks are taken for one once in 2**64 / n**2 / 2.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from proxy.errors import FormatError, IntegrityError
from proxy.model import RestorePoint
from proxy.repository import format as layout
from proxy.repository.checking.counting import RECORD, ChunkCounter, Uses
from proxy.repository.format import ID_BYTES, PLACE, SEGMENT_CHUNKS
from proxy.repository.index import IndexView
from proxy.repository.repository import Repository
from proxy.repository.runs_arrays import BLOCK, records_of

_LENGTH = np.uint32(0xFFFFFF)


class _Ratios:
    """What bytes say of each other; see the module."""

    __slots__ = ()
    referenced: int
    unique: int
    compressed: int

    @property
    def deduplication(self) -> float:
        """How many times a chunk is used on average; 0.0 without any."""
        return self.referenced / self.unique if self.unique else 0.0

    @property
    def compression(self) -> float:
        """Bytes of chunks over bytes stored for them; 0.0 without any."""
        return self.unique / self.compressed if self.compressed else 0.0


@dataclass(frozen=True, slots=True)
class MachineReport(_Ratios):
    """Bytes, unless it says otherwise; see the module. ``unique``, ``compressed``: of chunks that this machine needs, each
    once; ``exclusive``: of ``compressed``, what no other machine needs: without this machine so much would be free.
    ``machine_name``: as of its newest restore point, which was made at ``newest``."""

    machine: str
    machine_name: str
    points: int
    images: int
    oldest: datetime
    newest: datetime
    logical: int
    referenced: int
    unique: int
    compressed: int
    exclusive: int


@dataclass(frozen=True, slots=True)
class Statistics(_Ratios):
    """Of the whole repository. Bytes, unless it says otherwise; see the module.

    ``damaged_points``: manifests that cannot be read, ``damaged_images``: indexes; the other figures know nothing of them, so
    that what they need looks dead. ``chunks`` and ``in_packs``: all that are in packs, needed or not.
    """

    machines: int
    points: int
    damaged_points: int
    images: int
    damaged_images: int
    packs: int
    chunks: int
    logical: int
    referenced: int
    unique: int
    compressed: int
    in_packs: int
    stored: int

    @property
    def dead(self) -> int:
        """Bytes in packs that no restore point needs."""
        return max(self.in_packs - self.compressed, 0)


@dataclass(frozen=True, slots=True)
class Report:
    """``machines``: those that take most for themselves first."""

    total: Statistics
    machines: tuple[MachineReport, ...]


@dataclass(frozen=True, slots=True)
class Unreferenced:
    """Objects that no restore point refers to: of runs that were given up, of deleted points, or of runs that go on now. The
    next backup deduplicates against them; ``collect.py`` removes what stays unneeded."""

    packs: tuple[str, ...]
    indexes: tuple[str, ...]
    bytes: int


def make_report(repository: Repository) -> Report:
    """Takes time in proportion to restore points, packs, and what changed between points. Points that are deleted meanwhile
    may be counted or not. Raises ``RepositoryUnavailable``."""
    repository.lookup.refresh()
    packs, chunks, in_packs, stored = _packs(repository)
    damaged = 0
    with ChunkCounter(repository.scratch, chunks) as counted:
        machines: list[_Machine] = []
        for _, names in groupby(repository.ledger.names(), key=lambda name: name.rpartition("/")[0]):
            machine = _Machine(repository, counted, len(machines))
            damaged += machine.read(names)
            if machine.points:
                machines.append(machine)
        uses = counted.count(len(machines))
    made = [machine.report(uses) for machine in machines]
    total = Statistics(
        machines=len(made),
        points=sum(m.points for m in made),
        damaged_points=damaged,
        images=sum(m.images for m in made),
        damaged_images=sum(machine.damaged for machine in machines),
        packs=packs,
        chunks=chunks,
        logical=sum(m.logical for m in made),
        referenced=sum(m.referenced for m in made),
        unique=uses.unique_of_all,
        compressed=uses.compressed_of_all,
        in_packs=in_packs,
        stored=stored + _other_objects(repository),
    )
    return Report(total, tuple(sorted(made, key=lambda m: (-m.exclusive, m.machine))))


def statistics(repository: Repository) -> Statistics:
    """The totals of ``make_report``."""
    return make_report(repository).total


def unreferenced(repository: Repository) -> Unreferenced:
    """Packs and indexes are listed before manifests are, so that what is sealed meanwhile is not called unreferenced.
    Raises rather than guess when a manifest or an index cannot be read."""
    store = repository.store
    packs = list(store.list("packs/"))
    indexes = list(store.list("indexes/"))
    used: set[str] = set()
    points, damaged = repository.survey()
    for unknown in damaged:
        raise FormatError(unknown.object, f"{unknown.why}; nobody knows what it refers to")
    for point in points:
        for image in point.images:
            used.add(image.index)
            with closing(repository.open_view(f"disk {image.key}", image)) as view:
                used.update(layout.pack_name(view.pack(number)) for number in range(1, view.pack_count + 1))
    lost_packs = tuple(name for name in packs if name not in used)
    lost_indexes = tuple(name for name in indexes if name not in used)
    size = sum(store.size(name) for name in (*lost_packs, *lost_indexes))
    return Unreferenced(lost_packs, lost_indexes, size)


class _Machine:
    """Reads the points of one machine, oldest first."""

    def __init__(self, repository: Repository, counter: ChunkCounter, number: int) -> None:
        self._repository = repository
        self._counter = counter
        self._number = number
        self._points: list[tuple[datetime, str, str]] = []
        self.images = self.damaged = self.logical = self.referenced = 0

    @property
    def points(self) -> int:
        return len(self._points)

    def read(self, names: Iterable[str]) -> int:
        """How many manifests cannot be read."""
        damaged = 0
        before: dict[str, IndexView] = {}
        try:
            for name in names:
                try:
                    point = self._repository.read_manifest(name)
                except FileNotFoundError:
                    continue  # deleted meanwhile
                except FormatError:
                    damaged += 1
                    continue
                self._point(point, before)
        finally:
            for view in before.values():
                view.close()
        return damaged

    def _point(self, point: RestorePoint, before: dict[str, IndexView]) -> None:
        self._points.append((point.created_at, point.machine, point.machine_name))
        for image in point.images:
            self.images += 1
            self.logical += image.size
            try:
                view = self._repository.open_view(f"disk {image.key}", image)
            except IntegrityError:
                self.damaged += 1
                continue
            self.referenced += _data(view, self._repository.granularity)
            previous = before.pop(image.key, None)
            for records in _fresh(view, previous, self._repository.granularity):
                records["machine"] = self._number
                self._counter.add(records)
            before[image.key] = view
            if previous is not None:
                previous.close()

    def report(self, uses: Uses) -> MachineReport:
        newest, machine, name = max(self._points)
        return MachineReport(
            machine=machine,
            machine_name=name,
            points=self.points,
            images=self.images,
            oldest=min(self._points)[0],
            newest=newest,
            logical=self.logical,
            referenced=self.referenced,
            unique=int(uses.unique[self._number]),
            compressed=int(uses.compressed[self._number]),
            exclusive=int(uses.exclusive[self._number]),
        )


def _data(view: IndexView, granularity: int) -> int:
    """Bytes of an image's chunks that are not zero."""
    short = view.chunks * granularity - view.size
    return view.data_chunks * granularity - (short if view.reference(view.chunks - 1) is not None else 0)


def _fresh(view: IndexView, previous: IndexView | None, granularity: int) -> Iterator[NDArray[np.void]]:
    """Records of the chunks that are not zero, and are not the same in the image before."""
    old = previous.table if previous is not None else ()
    for segment, slot in enumerate(view.table):
        if not slot:
            continue
        ids, places = _segment(view, slot)
        wanted = places[:, 0] != 0
        if previous is not None and segment < len(old) and old[segment]:
            before = np.frombuffer(previous.segment_ids(old[segment]), np.uint8).reshape(ids.shape)
            wanted &= (ids != before).any(axis=1)
        records = np.zeros(int(wanted.sum()), dtype=RECORD)
        records["key"] = np.ascontiguousarray(ids[wanted, :8]).view("<u8")[:, 0]
        records["stored"] = places[wanted, 2] & _LENGTH
        records["raw"] = granularity
        if segment == len(view.table) - 1 and len(records) and wanted[(view.chunks - 1) % SEGMENT_CHUNKS]:
            records["raw"][-1] = view.size - (view.chunks - 1) * granularity
        yield records


def _segment(view: IndexView, slot: int) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """Ids and places of a segment, as rows over the mapped index."""
    ids = np.frombuffer(view.segment_ids(slot), np.uint8).reshape(SEGMENT_CHUNKS, ID_BYTES)
    return ids, np.frombuffer(view.segment_places(slot), "<u4").reshape(SEGMENT_CHUNKS, PLACE.size // 4)


def _packs(repository: Repository) -> tuple[int, int, int, int]:
    """Packs, chunks in them, their bytes, and bytes of the packs: as the lookup knows them, which costs no request a pack."""
    packs = repository.lookup.packs()
    seen = np.zeros(len(packs), dtype=bool)
    chunks = inside = 0
    for run in repository.lookup.snapshot():
        table = packs.numbers(run.pack_table())
        fresh = np.zeros(len(table), dtype=bool)
        fresh[table >= 0] = ~seen[table[table >= 0]]
        seen[table[fresh]] = True
        for start in range(0, run.count if fresh.any() else 0, BLOCK):
            records = records_of(run)[start : start + BLOCK]
            number = records["pack"].astype(np.int64)
            counts = (number < len(table)) & fresh[np.minimum(number, len(table) - 1)]
            chunks += int(counts.sum())
            inside += int((records["word"][counts] & _LENGTH).sum(dtype=np.int64))
    seal = layout.SEAL_BYTES if repository.settings.sealed else 0
    frame = layout.HEADER.size + seal + layout.PACK_TRAILER.size
    known = int(seen.sum())
    stored = inside + chunks * layout.PACK_ENTRY.size + known * frame
    for unread in np.nonzero(~seen)[0].tolist():
        with suppress(FileNotFoundError):
            stored += repository.store.size(layout.pack_name(packs.name(unread)))
    return len(packs), chunks, inside, stored


def _other_objects(repository: Repository) -> int:
    """Bytes of everything but packs."""
    total = 0
    for name in repository.store.list(""):
        if layout.pack_of(name) is None or not name.startswith("packs/"):
            with suppress(FileNotFoundError):
                total += repository.store.size(name)
    return total
