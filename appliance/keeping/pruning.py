"""Retention carried out, and collection: in our own repository, or in a second one."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance import operations
from appliance.jobs.retention import is_copy, rules_of
from appliance.keeping.maintenance import opened, standings_in
from appliance.wiring import Services
from catalog.jobs.values import PastJob
from proxy.errors import Cancelled, CollectorBusy, DeleteRefused, ObjectRetained, RestorePointNotFound
from proxy.model import RestorePoint, RestorePointId
from proxy.ports import Progress, ProgressSink
from proxy.repository import Repository
from proxy.repository.collection.retention import Decision, PointFacts, decide
from proxy.repository.leases import READ
from proxy.repository.ledger import machine_of

if TYPE_CHECKING:
    from proxy.repository.collection.collected import CollectReport

# How long what leases say is believed while points are deleted: each look lists and reads them all, and a deletion takes some
# ten milliseconds. Whoever begins to read a point within it reads on all the same: collection waits for him.
_LEASES_SECONDS = 5.0

# How long a collection that pauses does not look whether it is to end.
_PATIENCE = 0.5


@dataclass(frozen=True, slots=True)
class Pruned:
    """What retention says of one restore point. ``removed``: it is gone; ``why``: the rules that keep it, those that do not, or
    what kept it from being deleted. ``rules``: whose they are (``job nightly``), empty for those of the configuration."""

    point: RestorePointId
    machine: str
    machine_name: str
    keep: bool
    removed: bool
    why: str
    rules: str = ""

    @property
    def verdict(self) -> str:
        """``keep``, ``remove`` (it goes, or should have gone), ``removed``."""
        return "keep" if self.keep else "removed" if self.removed else "remove"


@dataclass(frozen=True, slots=True)
class PruneRun:
    """``lines``: every restore point; ``collected``: what collection did, ``None`` if it could not begin; ``problems``: what
    was to be done and was not, and why."""

    lines: tuple[Pruned, ...]
    collected: "CollectReport | None"
    problems: tuple[str, ...] = ()


def delete_point(services: Services, name: RestorePointId, why: str, repository: str = "") -> tuple[RestorePoint, str]:
    """Delete one restore point, of our own repository or of the ``[[copy_to]]`` of this name; also what went wrong with the
    catalog. Raises ``DeleteRefused`` for a machine's last good one and for what is held."""
    with opened(services, repository) as place:
        found = place.point(name)
        return found, _Deletion(services, place, own=not repository).delete(found, why)


def prune_run(
    services: Services,
    repository: str = "",
    *,
    cancelled: Callable[[], bool] | None = None,
    progress: ProgressSink | None = None,
) -> PruneRun:
    """Retention, then collection, in our own repository or in the ``[[copy_to]]`` of this name. To run it again is to go on.
    Raises ``Cancelled``, ``RepositoryUnavailable`` and what else stops all; that a collector works elsewhere is a problem that
    is told: it does what this one would."""
    from proxy.repository.collection.collect import collect  # noqa: PLC0415  # brings numpy

    def check() -> None:
        if cancelled is not None and cancelled():
            raise Cancelled("the collection")

    def pause(seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            check()
            time.sleep(min(left, _PATIENCE))

    def told(machines: int, points: int) -> None:
        check()
        if progress is not None:
            progress(Progress(f"{machines} machines", points, 0, points))

    problems: list[str] = []
    with opened(services, repository) as place:
        lines = _prune(services, place, repository, apply=True, told=problems.append, cancelled=cancelled)
        problems += [f"{p.machine_name}, restore point {p.point}: {p.why}" for p in lines if not (p.keep or p.removed)]
        try:
            collected = collect(place, progress=told, pause=pause)
        except CollectorBusy as error:
            return PruneRun(tuple(lines), None, (*problems, error.message))
    if collected.missing:
        problems.append(f"{len(collected.missing)} chunks that restore points need are in no pack: nothing is deleted")
    return PruneRun(tuple(lines), collected, tuple(problems))


def prune(
    services: Services,
    *,
    apply: bool,
    told: Callable[[str], None],
    repository: str = "",
    cancelled: Callable[[], bool] | None = None,
) -> list[Pruned]:
    """Decide by the rules of jobs and of the configuration, and delete with ``apply`` what none keeps, oldest first. What
    cannot be deleted is told and stays; the others go on. Raises ``Cancelled``."""
    with opened(services, repository) as place:
        return _prune(services, place, repository, apply=apply, told=told, cancelled=cancelled)


def _prune(
    services: Services,
    place: Repository,
    name: str,
    *,
    apply: bool,
    told: Callable[[str], None],
    cancelled: Callable[[], bool] | None,
) -> list[Pruned]:
    lines: list[Pruned] = []
    deletion = _Deletion(services, place, own=not name)
    for point, decision in retention(services, place, name):
        if cancelled is not None and cancelled():
            raise Cancelled("the deletion of restore points")
        removed, why = False, str(decision)
        if apply and not decision.keep:
            removed, why = deletion.attempt(point, why, told)
        rules = decision.point.rules
        lines.append(Pruned(point.id, point.machine, point.machine_name, decision.keep, removed, why, rules))
    return lines


def retention(services: Services, place: Repository, name: str = "") -> Sequence[tuple[RestorePoint, Decision]]:
    """What the rules say of each restore point now; the same for the preview and for the deed. ``name``: of the ``[[copy_to]]``
    that the repository is. The appliance's own points are not among them: it keeps and removes them by itself."""
    points, damaged = place.survey()
    points = [point for point in points if not point.of_appliance or is_copy(point)]
    incomplete = {machine_of(each.object) for each in damaged}
    stand = standings_in(place, points)
    own = services.repository.settings.id.hex()
    rules = rules_of(points, services.settings, known_jobs(services), own=own, repository=name)
    reading = _Reading(place)

    def facts(point: RestorePoint) -> PointFacts:
        return PointFacts(
            id=point.id,
            machine=point.machine,
            created_at=point.created_at,
            held=stand[point.id].held,
            in_use=reading.uses(point.id),
            health=stand[point.id].health,
            listed_whole=machine_of(place.ledger.name(point)) not in incomplete,
            rules=rules.names[point.id],
        )

    decided = decide([facts(point) for point in points], rules.policies, services.clock.now())
    by_id = {point.id: point for point in points}
    return [(by_id[decision.point.id], decision) for decision in decided]


def known_jobs(services: Services) -> Sequence[PastJob]:
    """All that there are or were. Raises what the database says: where jobs cannot be read, nothing is decided."""
    with services.jobs.transaction(write=False) as unit:
        return unit.jobs.past()


class _Reading:
    """Which restore points are being read, as the leases of the repository tell."""

    def __init__(self, repository: Repository) -> None:
        self._leases = repository.leases
        self._looked: float | None = None
        self._details: list[str] = []
        self._unknown = False

    def uses(self, point: RestorePointId) -> bool:
        """Mounted, restored, copied; any point while somebody reads who knows what: his lease cannot be read."""
        now = time.monotonic()
        if self._looked is None or now >= self._looked + _LEASES_SECONDS:
            living = self._leases.living()
            self._details = [lease.holder.detail for lease in living if lease.holder]
            self._unknown = any(lease.holder is None and lease.kind == READ for lease in living)
            self._looked = now
        return self._unknown or any(point in detail for detail in self._details)


class _Deletion:
    """Deletes points of one repository. ``own``: the one that the catalog lists."""

    def __init__(self, services: Services, repository: Repository, *, own: bool) -> None:
        self._services = services
        self._repository = repository
        self._own = own
        self._reading = _Reading(repository)

    def attempt(self, point: RestorePoint, rule: str, told: Callable[[str], None]) -> tuple[bool, str]:
        """Whether it is gone now, and why, or why not."""
        if self._reading.uses(point.id):
            return False, "in use since a moment ago"
        try:
            remark = self.delete(point, f"retention: {rule}")
        except (DeleteRefused, ObjectRetained, RestorePointNotFound) as error:
            return False, error.message
        if remark:
            told(remark)
        return True, rule

    def delete(self, point: RestorePoint, why: str) -> str:
        """What went wrong with the catalog."""
        self._repository.ledger.delete(point, why)
        if not self._own:
            return ""
        return operations.in_catalog(self._services, lambda unit: unit.restore_points.remove(point.id))
