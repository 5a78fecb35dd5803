"""Verification: reads what restore points need, and names whatever is not as it was stored.

1. every manifest, tombstone and hold is read;
2. packs are read as a whole, several at a time: digest of header and chunks, footer, every chunk unsealed, decompressed and
   compared with its id;
3. every index is read and compared with its digest and the manifest's, and every reference is looked up: a chunk that is
   damaged in one place and whole in another, because a later backup brought it again, is no damage: readers find it by its id.

Step 3 makes a damaged chunk known by all the machines, restore points, disks and offsets that need it, and records the health
of each restore point (``records.Verification``).

Which packs are read: for one restore point those that it needs; else all that are not doomed. ``max_age`` leaves out those
that were found right not longer ago: a verification that was stopped goes on where it was. ``share`` reads a part of them,
those first that were not read for the longest time: after ``1 / share`` calls everything was read. Packs that are
recorded as damaged are read each time, and deeply. What a sample did not read counts as right, and ``coverage`` tells how
much that was.

Damaged places are recorded in the repository (``damaged.py``): the next backup stores anew what the disk still has. Records
of packs that turn out to be right, every chunk by its id, are dropped.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from math import ceil

import numpy as np

from proxy.errors import FormatError, IntegrityError, RepositoryFull, RepositoryUnavailable
from proxy.model import ImageInfo, RestorePoint, RestorePointId
from proxy.repository import manifest
from proxy.repository.checking import journal
from proxy.repository.checking.imagecheck import Checked, ImageChecker, Places, all_packs
from proxy.repository.checking.journal import Journal
from proxy.repository.checking.packcheck import PackChecker, Verdict
from proxy.repository.packset import PackSet
from proxy.repository.records import Health, Verification
from proxy.repository.repository import Repository

# Two packs are in memory (64 MiB at the default size): two cores decompress, and one request is always under way.
WORKERS = 2

_NOTHING = timedelta(0)


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong, and who needs it. ``offset`` and ``length`` in bytes of the disk, ``None`` when a whole image
    (``disk`` given) or a whole restore point is concerned. ``object``: the stored object; ``why``: what was seen."""

    machine: str
    machine_name: str
    point: RestorePointId
    disk: str | None
    offset: int | None
    length: int | None
    object: str
    why: str


@dataclass(frozen=True, slots=True)
class VerifyProgress:
    """Bytes of packs that were read, and that shall be (until the last one is read, about). Then ``points`` of
    ``points_total`` restore points are through."""

    done: int
    total: int
    points: int = 0
    points_total: int = 0


@dataclass(frozen=True, slots=True)
class Due:
    """A restore point that should be verified, and how its last verification went."""

    point: RestorePoint
    last: Verification | None


def verify(
    repository: Repository,
    point: RestorePointId | None = None,
    *,
    progress: Callable[[VerifyProgress], None] | None = None,
    share: float = 1.0,
    max_age: timedelta = _NOTHING,
    deep: bool = True,
    workers: int = WORKERS,
) -> Iterator[Damage]:
    """All damage of one restore point, or of all.

    ``deep``: chunks are decompressed and compared with their ids. Without it their seals (in a repository in the clear, the
    packs' digests) are compared: that finds every byte that changed since it was written, some ten times as fast, and
    misses what was wrong when it was written, unless that is recorded. ``workers``: packs that are read at once, each of
    which is in memory.

    Closing the generator, or an error out of ``progress``, ends the work; what was read is remembered in the repository's
    cache directory. Restore points that are deleted meanwhile are left out; those that are made meanwhile are not looked at.
    Other errors than damage are raised."""
    if not 0 < share <= 1:
        raise ValueError(f"a share of {share} is not above 0 and at most 1")
    with closing(
        _Verification(repository, PackChecker(repository, workers, deep=deep), share, max_age, progress)
    ) as work:
        yield from work.run(point)


def due(repository: Repository, every: timedelta) -> list[Due]:
    """Restore points that were not verified for so long, or never, longest first; those that are known to be damaged come
    before all others. Manifests that cannot be read are not among them: they are in ``repository.damaged_points()``."""
    oldest = datetime.min.replace(tzinfo=UTC)
    found = [Due(each, repository.ledger.health(each)) for each in repository.points()]
    late = repository.clock.now() - every
    found = [each for each in found if each.last is None or each.last.verified_at <= late or _damaged(each.last)]
    return sorted(found, key=lambda d: (not _damaged(d.last), d.last.verified_at if d.last else oldest, d.point.id))


def _damaged(last: Verification | None) -> bool:
    return last is not None and last.health is Health.DAMAGED


class _Verification:
    """One call of ``verify``."""

    def __init__(
        self,
        repository: Repository,
        checker: PackChecker,
        share: float,
        max_age: timedelta,
        progress: Callable[[VerifyProgress], None] | None,
    ) -> None:
        self._repository = repository
        self._share = share
        self._max_age = max_age
        self._progress = progress
        self._checker = checker
        self._journal = Journal(repository.scratch)
        self._verdicts: dict[bytes, Verdict] = {}
        self._seen = VerifyProgress(0, 0)

    def close(self) -> None:
        self._journal.close()

    def run(self, wanted: RestorePointId | None) -> Iterator[Damage]:
        points, broken = _manifests(self._repository, wanted)
        yield from broken
        self._repository.lookup.refresh()
        packs = all_packs(self._repository) if wanted is None else self._needed(points)
        read = self._read(packs)
        places = Places(self._repository, self._checker, self._verdicts, thorough=self._share == 1)
        places.call_read(read)
        checker = ImageChecker(places, self._repository.granularity)
        done = 0
        for _, machine in groupby(points, key=lambda p: p.machine):
            for damage in self._machine(list(machine), checker):
                if isinstance(damage, Damage):
                    yield damage
                    continue
                done += 1
                self._tell(self._seen.done, self._seen.total, done, len(points))

    def _needed(self, points: Sequence[RestorePoint]) -> PackSet:
        """Packs from which these points are read, as far as the lookup knows."""
        places = Places(self._repository, self._checker, {}, thorough=False)
        checker = ImageChecker(places, self._repository.granularity)
        needed = np.zeros(len(places.packs), dtype=bool)
        for image in (image for point in points for image in point.images):
            with suppress(IntegrityError), closing(self._repository.open_view("index", image)) as view:
                checked = checker.check(view, None)
                needed |= checker.used(checked) | checker.named(view)
                checked.slots = None
        return PackSet.of(places.packs.name(number) for number in np.nonzero(needed)[0].tolist())

    def _read(self, packs: PackSet) -> PackSet:
        """Read packs; returns those that were read now or are young enough."""
        now = self._repository.clock.now()
        times = self._journal.times(packs, now, deep=self._checker.deep)
        lookup = self._repository.lookup
        suspects = lookup.damaged.packs() | lookup.damaged.offsets().keys()
        suspect = np.zeros(len(packs), dtype=bool)
        numbers = packs.numbers(b"".join(suspects))
        suspect[numbers[numbers >= 0]] = True
        fresh = (times > (now - self._max_age).timestamp()) & ~suspect
        if self._max_age <= _NOTHING:
            fresh[:] = False
        left = ~fresh
        numbers = packs.numbers(b"".join(lookup.doomed()))
        left[numbers[numbers >= 0]] = False
        chosen = np.nonzero(left & suspect)[0].tolist()
        others = np.nonzero(left & ~suspect)[0]
        others = others[np.argsort(times[others], kind="stable")]
        chosen += others[: ceil(self._share * len(packs))].tolist()
        self._check([packs.name(number) for number in chosen])
        fresh[chosen] = True
        return PackSet.of(packs.name(number) for number in np.nonzero(fresh)[0].tolist())

    def _check(self, chosen: Sequence[bytes]) -> None:
        done = 0
        with closing(self._checker.check_all(chosen)) as verdicts:
            for count, (pack, verdict) in enumerate(verdicts, 1):
                if not verdict.right:
                    self._verdicts[pack] = verdict
                how = journal.CONTENT if verdict.deep else journal.SEALS
                self._journal.note(pack, self._repository.clock.now(), how if verdict.right else journal.DAMAGED)
                done += verdict.size
                self._tell(done, done + (len(chosen) - count) * done // count, 0, 0)

    def _machine(self, points: Sequence[RestorePoint], checker: ImageChecker) -> Iterator[Damage | RestorePoint]:
        """Damage of a machine's restore points, and each point when it is through."""
        open_images: dict[str, Checked] = {}
        try:
            for point in points:
                lost, used = 0, np.zeros(len(checker.places.packs), dtype=bool)
                for image in point.images:
                    found, checked = self._image(point, image, checker, open_images.get(image.key))
                    if found and not _still_there(self._repository, point):
                        found = []
                    yield from found
                    lost += sum(image.size if d.length is None else d.length for d in found)
                    if checked is not None:
                        used |= checker.used(checked)
                        if image.key in open_images:
                            open_images[image.key].close()
                        open_images[image.key] = checked
                read = int((used & checker.places.read).sum())
                self._note(point, lost, read / int(used.sum()) if used.any() else 1.0)
                yield point
        finally:
            for checked in open_images.values():
                checked.close()

    def _image(
        self, point: RestorePoint, image: ImageInfo, checker: ImageChecker, previous: Checked | None
    ) -> tuple[list[Damage], Checked | None]:
        who = (point.machine, point.machine_name, point.id, image.key)
        try:
            view = self._repository.open_view("index", image)
        except IntegrityError as error:
            return [Damage(*who, None, None, image.index, error.message.removeprefix("index: "))], None
        try:
            checked = checker.check(view, previous)
        except BaseException:
            view.close()
            raise
        return [Damage(*who, *found) for found in checker.damaged(checked)], checked

    def _note(self, point: RestorePoint, lost: int, coverage: float) -> None:
        """Record a restore point's health. One that was damaged is good again only when all of it was read."""
        ledger = self._repository.ledger
        if not lost and coverage < 1 and _damaged(ledger.health(point)):
            return
        if not _still_there(self._repository, point):
            return
        health = Health.DAMAGED if lost else Health.GOOD
        with suppress(RepositoryFull, RepositoryUnavailable):  # it is told; a full or read-only store takes no records
            ledger.note_health(point, health, coverage=coverage, damaged=lost)

    def _tell(self, done: int, total: int, points: int, points_total: int) -> None:
        self._seen = VerifyProgress(done, total, points, points_total)
        if self._progress is not None:
            self._progress(self._seen)


def _manifests(repository: Repository, wanted: RestorePointId | None) -> tuple[list[RestorePoint], list[Damage]]:
    """The restore points to look at, by machine and time, and what is wrong with manifests, tombstones and holds."""
    found: list[RestorePoint] = []
    broken: list[tuple[str, str]] = []
    names = repository.manifests()
    for name in _of(wanted, names):
        try:
            found.append(repository.read_manifest(name))
        except FileNotFoundError:
            continue
        except (FormatError, IntegrityError) as error:
            broken.append((name, error.message))
    for records in (repository.ledger.tombstones, repository.ledger.holds):
        for name in _of(wanted, sorted(records.names())):
            try:
                records.get(name)
            except (FormatError, IntegrityError) as error:
                broken.append((records.name(name), error.message))
    return found, [_of_record(repository, name, why, names) for name, why in broken]


def _of(wanted: RestorePointId | None, names: Sequence[str]) -> list[str]:
    """Names of manifests, of one restore point or of all."""
    return [name for name in names if wanted is None or name.rpartition("/")[2].startswith(wanted)]


def _of_record(repository: Repository, name: str, why: str, names: Sequence[str]) -> Damage:
    """The object cannot say whose it is; a manifest of the same machine can."""
    _, folder, point = name.split("/")
    for sibling in names:
        if sibling != name and sibling.startswith(f"{manifest.PREFIX}{folder}/"):
            with suppress(FormatError, IntegrityError, FileNotFoundError):
                found = repository.read_manifest(sibling)
                return Damage(found.machine, found.machine_name, point, None, None, None, name, why)
    return Damage("", "", point, None, None, None, name, why)


def _still_there(repository: Repository, point: RestorePoint) -> bool:
    return repository.ledger.name(point) in repository.manifests(point.machine)
