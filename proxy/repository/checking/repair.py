"""Repair from a copy: what verification found damaged is fetched from another repository that has the same machines.

The other repository may have other keys, another chunk size, another store. Nothing of it is believed: what comes from it
counts only if it is, by our own keyed ids and digests, exactly what was lost.

====================  ==============================================================================================
what is damaged       what is done
====================  ==============================================================================================
a chunk               the bytes of the same place of the disk are read from the copy, of the same restore point or of
                      another one near it; if they have our chunk's id they are stored in a new pack, where readers of
                      all restore points find them by that id
an index              the copy's image is written anew, with what is here already; if its digest is the manifest's, the new
                      index takes the damaged one's name
a manifest            stays damaged: it is signed, and nothing that is left proves what it said. ``Ledger.forget`` takes
                      it away, and ``copy.py`` may bring the restore point to another machine's or repository's chain
====================  ==============================================================================================

Nothing is deleted. The records of damaged places stay, so nobody refers to them; a later verification finds the restore
points whole and calls them good again. From the live machine the next backup repairs without being asked (``damaged.py``).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice

from proxy.errors import ConfigurationError, FormatError, IntegrityError, ObjectRetained, RestorePointNotFound
from proxy.extents import aligned
from proxy.model import ImageInfo, MachineId, RestorePoint
from proxy.repository import format as layout
from proxy.repository.checking.verify import Damage
from proxy.repository.index import IndexBuilder
from proxy.repository.packs import PackWriter, Place
from proxy.repository.reader import RepositoryImageReader
from proxy.repository.repository import Repository
from proxy.transfer import copy as transfer
from proxy.units import MiB

LEASE = "repair"
"""Kind of the lease that is held: what is found here must not be collected before the repaired index refers to it."""

# Restore points of the copy that are asked for a chunk: what did not change lies at the same place in all of them. More
# would cost time for each chunk that the copy does not have.
DONORS = 16

# Read from the copy at once.
_RANGE = 4 * MiB

# Damage that is mended before anything is told: what is told is durable, and each time ends a pack.
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Repaired:
    """What became of a damage. ``mended``: bytes of the disk that can be read again; ``why``: why the rest cannot, or empty.
    A restore point's health changes with its next verification."""

    damage: Damage
    mended: int
    why: str = ""


def repair(repository: Repository, other: Repository, damages: Iterable[Damage]) -> Iterator[Repaired]:
    """Mend what ``verify`` found, with a copy; what is told is durable. Closing the generator ends the work, and loses
    nothing. Raises ``ConfigurationError`` if the other repository is this one, and what keeps one of both from being used."""
    if repository.settings.id == other.settings.id:
        raise ConfigurationError("repair", "the other repository is this one")
    repository.lookup.refresh()
    with repository.leases.held(LEASE), closing(_Repair(repository, other)) as work:
        left = iter(damages)
        while batch := list(islice(left, _BATCH)):
            yield from work.mend(batch)


class _Repair:
    def __init__(self, repository: Repository, other: Repository) -> None:
        self.chunker = repository.chunker
        self._repository = repository
        self._donors = _Donors(other)
        self._lookup = repository.lookup
        self._packs = PackWriter(repository.store, repository.settings, self.chunker, self._lookup.add)
        self._points: dict[MachineId, dict[str, RestorePoint]] = {}
        self._made: set[bytes] = set()

    def close(self) -> None:
        self._donors.close()

    def mend(self, damages: Sequence[Damage]) -> list[Repaired]:
        """Everything that was mended is durable when this returns."""
        done = [self._mend(damage) for damage in damages]
        self._packs.flush(self._made)
        return done

    def _mend(self, damage: Damage) -> Repaired:
        if damage.disk is None:
            return Repaired(damage, 0, "a manifest is signed, and is not taken from a copy")
        try:
            point = self._point(damage)
            image = point.image(damage.disk)
            if image is None:
                return Repaired(damage, 0, "the restore point does not hold this disk any more")
            if damage.offset is None or damage.length is None:
                return self._index(damage, point, image)
            return self._chunks(damage, point, image, range(damage.offset, damage.offset + damage.length))
        except (FormatError, IntegrityError, RestorePointNotFound, ObjectRetained) as error:
            return Repaired(damage, 0, error.message)

    def _point(self, damage: Damage) -> RestorePoint:
        known = self._points.get(damage.machine)
        if known is None:
            known = self._points[damage.machine] = {p.id: p for p in self._repository.points(damage.machine)}
        if damage.point not in known:
            raise RestorePointNotFound(damage.point)
        return known[damage.point]

    def _chunks(self, damage: Damage, point: RestorePoint, image: ImageInfo, area: range) -> Repaired:
        lost = self._lost(image, area)
        for donor in self._donors.of(point, image):
            if not lost:
                break
            self._fetch(donor, image.size, lost)
        left = sum(self._raw(image.size, number) for number in lost)
        why = f"the copy does not hold {left} bytes of it" if lost else ""
        return Repaired(damage, len(area) - left, why)

    def _lost(self, image: ImageInfo, area: range) -> dict[int, bytes]:
        """Number and id of the chunks that are nowhere yet; one that was found for another damage is there by now."""
        lost: dict[int, bytes] = {}
        size = self.chunker.size
        with closing(self._repository.open_view(f"disk {image.key}", image)) as view:
            for number in range(area.start // size, layout.chunk_count(area.stop, size)):
                reference = view.reference(number)
                if reference is None or self._packs.pending(reference[0]) or self._lookup.find(reference[0]):
                    continue
                lost[number] = reference[0]
        return lost

    def _fetch(self, donor: RepositoryImageReader, size: int, lost: dict[int, bytes]) -> None:
        """Take out of ``lost`` what the donor has at the same place."""
        for numbers in _neighbours(sorted(lost), max(_RANGE // self.chunker.size, 1)):
            start = numbers[0] * self.chunker.size
            end = min((numbers[-1] + 1) * self.chunker.size, size)
            buffer = memoryview(bytearray(end - start))
            if end > donor.size:
                continue
            try:
                donor.read_into(start, buffer)
            except (FormatError, IntegrityError):
                if len(numbers) > 1:
                    for number in numbers:
                        self._fetch_one(donor, size, number, lost)
                continue
            for number in numbers:
                self._keep(number, buffer[number * self.chunker.size - start :][: self._raw(size, number)], lost)

    def _fetch_one(self, donor: RepositoryImageReader, size: int, number: int, lost: dict[int, bytes]) -> None:
        buffer = memoryview(bytearray(self._raw(size, number)))
        with suppress(FormatError, IntegrityError):
            donor.read_into(number * self.chunker.size, buffer)
            self._keep(number, buffer, lost)

    def _keep(self, number: int, data: memoryview, lost: dict[int, bytes]) -> None:
        """Store a chunk, if it is the one that was lost."""
        digest = self.chunker.id(data)
        if lost[number] == digest:
            self.place(digest, data)
            del lost[number]

    def place(self, digest: bytes, data: memoryview) -> Place:
        """Where a chunk is; it is stored if it is nowhere. May be called from any thread."""
        place = self._packs.pending(digest) or self._lookup.find(digest)
        if place is None:
            place, _ = self._packs.store(digest, data)
            self._made.add(place.pack)
        return place

    def _index(self, damage: Damage, point: RestorePoint, image: ImageInfo) -> Repaired:
        """Write the index again from the copy's image of the same restore point."""
        donor = next(iter(self._donors.of(point, image, exact=True)), None)
        if donor is None:
            return Repaired(damage, 0, "the copy does not hold this disk of this restore point")
        name = bytes.fromhex(image.index.rpartition("/")[2])
        builder = IndexBuilder(image.size, self._repository.settings, self._repository.scratch)
        try:
            whole = max(donor.granularity, self.chunker.size)
            areas = aligned(donor.extents(), whole, image.size)
            transfer(donor, _Sink(self, builder), areas, disk=image.key, granularity=whole)
            self._packs.flush(builder.packs())
            data, digest = builder.finish(name, self.chunker)
            with data:
                if digest != image.digest:
                    return Repaired(damage, 0, "the copy's disk is not the one that the restore point holds")
                self._repository.store.put(image.index, data, new=False)
        finally:
            builder.close()
        return Repaired(damage, image.size)

    def _raw(self, size: int, number: int) -> int:
        return min(self.chunker.size, size - number * self.chunker.size)


class _Sink:
    """Where an image goes that is written to get its index."""

    def __init__(self, work: _Repair, builder: IndexBuilder) -> None:
        self._work = work
        self._builder = builder

    def write(self, offset: int, data: memoryview) -> None:
        chunker = self._work.chunker
        for start in range(0, len(data), chunker.size):
            number, chunk = (offset + start) // chunker.size, data[start : start + chunker.size]
            if not chunker.is_zero(chunk):
                digest = chunker.id(chunk)
                self._builder.set(number, digest, self._work.place(digest, chunk))

    def zero(self, offset: int, length: int) -> None:
        """Nothing was there before."""


class _Donors:
    """Images of the copy, opened once; a machine's are closed when the next machine's are asked for."""

    def __init__(self, other: Repository) -> None:
        self._other = other
        self._machine: MachineId | None = None
        self._points: Sequence[RestorePoint] = ()
        self._open: dict[tuple[str, str], RepositoryImageReader | None] = {}

    def close(self) -> None:
        for reader in self._open.values():
            if reader is not None:
                reader.close()
        self._open.clear()

    def of(self, point: RestorePoint, image: ImageInfo, *, exact: bool = False) -> Iterator[RepositoryImageReader]:
        """Of the same disk, of the same size: of the same restore point first, then (unless ``exact``) of those that were
        made soonest before and after it."""
        if point.machine != self._machine:
            self.close()
            self._machine, self._points = point.machine, self._other.points(point.machine)

        def distance(other: RestorePoint) -> tuple[bool, float]:
            return other.id != point.id, abs((other.created_at - point.created_at).total_seconds())

        for donor in sorted(self._points, key=distance)[:DONORS]:
            if donor.id != point.id and exact:
                return
            held = donor.image(image.key)
            reader = self._reader(donor, image.key) if held is not None and held.size == image.size else None
            if reader is not None:
                yield reader

    def _reader(self, donor: RestorePoint, key: str) -> RepositoryImageReader | None:
        if (donor.id, key) not in self._open:
            self._open[donor.id, key] = None
            with suppress(FormatError, IntegrityError):
                self._open[donor.id, key] = self._other.open_image(donor, key)
        return self._open[donor.id, key]


def _neighbours(numbers: Sequence[int], most: int) -> Iterator[list[int]]:
    """Runs of following numbers."""
    run: list[int] = []
    for number in numbers:
        if run and (run[-1] + 1 != number or len(run) == most):
            yield run
            run = []
        run.append(number)
    if run:
        yield run
