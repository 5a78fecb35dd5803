"""Copies of restore points between sites: pushed to a ``[[copy_to]]``, or pulled from a ``[[copy_from]]``.

Whatever is killed leaves whole restore points and chunks that the next run finds: to run again is to go on. Each repository
has its own key, so that whoever holds one site's key reads that site alone.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from appliance import operations
from appliance.jobs.retention import job_id, made_by
from appliance.keeping.maintenance import copy_repository, source_repository
from appliance.wiring import Services
from proxy.errors import Cancelled, FormatError
from proxy.model import Reason, ReasonCode, RestorePoint, RestorePointId
from proxy.ports import Progress, ProgressSink
from proxy.repository import Repository
from proxy.repository.collection.retention import of_future
from proxy.repository.manifest import manifest_name
from proxy.repository.selection import Selection

if TYPE_CHECKING:
    from proxy.repository.copy import Copied

Wanted = Sequence[RestorePointId] | Selection | None
"""Ids (of which those that are gone are told), what a person selected (which must be there), or everything."""


@dataclass(frozen=True, slots=True)
class CopyRun:
    """What became of each restore point. ``repository``: name of the other one. ``problems``: what was not copied, and why;
    what is there and cannot be counted on; empty if everything that was wanted is in the target now, or was deleted there on
    purpose."""

    repository: str
    copied: "tuple[Copied, ...]"
    problems: tuple[str, ...] = ()


def copy_run(
    services: Services,
    name: str,
    wanted: Wanted = None,
    *,
    read_back: bool = False,
    make: bool = False,
    cancelled: Callable[[], bool] | None = None,
    progress: ProgressSink | None = None,
) -> CopyRun:
    """Copy restore points to the ``[[copy_to]]`` of this name; those that are there already cost next to nothing. A point that
    cannot be copied is told, and the others go on. Raises what stops all of them (``RepositoryFull``,
    ``RepositoryUnavailable``, ``ConfigurationError``), and ``Cancelled``: what was copied until then stays."""
    with copy_repository(services, name, make=make) as target:
        between = _Copy(services.repository, target, (), read_back, cancelled, progress)
        return between.run(name, wanted)


def pull_run(
    services: Services,
    name: str,
    wanted: Wanted = None,
    *,
    read_back: bool = False,
    cancelled: Callable[[], bool] | None = None,
    progress: ProgressSink | None = None,
) -> CopyRun:
    """Copy restore points of the ``[[copy_from]]`` of this name into our own repository, as ``copy_run``. The other site's is
    only read. What was copied carries the name (``ReasonCode.PULLED``): retention goes by it."""
    with source_repository(services, name) as source:
        remarks = (Reason(ReasonCode.PULLED, name),)
        between = _Copy(
            source, services.repository, remarks, read_back, cancelled, progress, partial(_listed, services)
        )
        return between.run(name, wanted)


def job_points(services: Services, job: str, name: str, newest: int | None = None) -> list[RestorePointId]:
    """The restore points that a job made, oldest first: what is to be copied after its runs, so that what could not be copied
    last night is caught up with. ``job``: its identity, which stays when it is renamed; ``name``: for points that note no
    more. ``newest``: so many of each machine; what is dated in the future comes besides."""
    made = [
        point
        for point in services.repository.points()
        if (job_id(point) == job if job_id(point) else made_by(point) == name)
    ]
    if newest is not None:
        now = services.clock.now()
        later = [point for point in made if of_future(point.created_at, now)]
        made = sorted((point for point in made if point not in later), key=_by_machine)
        made = [point for _, group in groupby(made, key=lambda p: p.machine) for point in list(group)[-newest:]]
        made += later
    return sorted(point.id for point in made)


@dataclass(frozen=True, slots=True)
class _Copy:
    """From one repository to another."""

    source: Repository
    target: Repository
    remarks: tuple[Reason, ...]
    read_back: bool
    cancelled: Callable[[], bool] | None
    progress: ProgressSink | None
    sealed: "Callable[[Copied], str] | None" = None
    """What else is to be done with each copy; gives what went wrong."""

    def run(self, name: str, wanted: Wanted) -> CopyRun:
        from proxy.repository.copy import Copied, Outcome, copy_points  # noqa: PLC0415  # brings numpy

        done: list[Copied] = []
        problems: list[str] = []
        if not isinstance(wanted, Selection | None):
            there, absent, gone = self._sorted(wanted)
            done += [Copied(each.id, each.machine, each.machine_name, Outcome.PRESENT) for each in there]
            problems += [f"restore point {point} is gone, it was not copied" for point in gone]
            wanted = Selection(points=tuple(point.id for point in absent))
            if not absent:
                return self._judged(name, done, problems)
        outcomes = copy_points(
            self.source,
            self.target,
            wanted,
            read_back=self.read_back,
            remarks=self.remarks,
            progress=None if self.progress is None else lambda event: self._told(event.machine_name, event.disk),
            cancelled=self.cancelled,
        )
        for copied in outcomes:
            done.append(copied)
            if copied.outcome is Outcome.COPIED and self.sealed is not None:
                problems += filter(None, [self.sealed(copied)])
            if copied.outcome is Outcome.FAILED:
                problems.append(f"{copied.machine_name or 'a machine'}, restore point {copied.point}: {copied.why}")
            if self.cancelled is not None and self.cancelled():
                raise Cancelled(f"the copy to or from {name}")
        return self._judged(name, done, problems)

    def _judged(self, name: str, done: "Sequence[Copied]", problems: Sequence[str]) -> CopyRun:
        """With what verification knows of those that were there already."""
        from proxy.repository.copy import Outcome  # noqa: PLC0415  # brings numpy

        verifications = self.target.ledger.verifications
        judged = verifications.names()
        told, doubts = list(done), list(problems)
        for number, copied in enumerate(done):
            manifest = manifest_name(self.target.keys, copied.machine, copied.point)
            if copied.outcome is not Outcome.PRESENT or manifest not in judged:
                continue
            with suppress(FormatError):
                known = verifications.get(manifest)
                if known is not None and not known.health.trusted:
                    why = known.doubt or "verification found damage in it"
                    told[number] = replace(copied, why=why)
                    where = f"{copied.machine_name}, restore point {copied.point}"
                    doubts.append(f"{where}: the copy is there and cannot be counted on: {why}")
        return CopyRun(name, tuple(told), tuple(doubts))

    def _sorted(
        self, wanted: Iterable[RestorePointId]
    ) -> tuple[list[RestorePoint], list[RestorePoint], list[RestorePointId]]:
        """Those that the target has, those that it lacks, and those that are not in the source. By the names of its manifests:
        that each of a long history is there must not cost that each is read; that it is whole, verification tells."""
        known = {point.id: point for point in self.source.points()}
        names = set(self.target.ledger.names())
        found = [known[point] for point in dict.fromkeys(wanted) if point in known]
        there = [point for point in found if self.target.ledger.name(point) in names]
        absent = [point for point in found if self.target.ledger.name(point) not in names]
        return there, absent, [point for point in dict.fromkeys(wanted) if point not in known]

    def _told(self, machine: str, disk: Progress) -> None:
        if self.progress is not None:
            self.progress(Progress(f"{machine} {disk.disk}", disk.done, disk.total, disk.read))


def _listed(services: Services, copied: "Copied") -> str:
    """Write a restore point of our own repository to the catalog, which has none of the appliance's."""
    repository = services.repository
    try:
        point = repository.read_manifest(manifest_name(repository.keys, copied.machine, copied.point))
    except FileNotFoundError:
        return ""  # deleted meanwhile
    return "" if point.of_appliance else operations.record(services, point)


def _by_machine(point: RestorePoint) -> tuple[str, RestorePointId]:
    return point.machine, point.id
