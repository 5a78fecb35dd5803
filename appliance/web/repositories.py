"""Repositories for the API. What takes long to find out is kept: of other repositories for some minutes, of indexes until
they are measured again."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar

from api.auth.roles import Caller, Permission
from api.refusals import NotFound
from api.schemas import repositories as schemas
from api.schemas.common import MachineRef
from api.schemas.repositories import Growth, Repository, RepositoryKind, RepositoryRole
from appliance import config
from appliance.keeping import forecast, measuring
from appliance.keeping.maintenance import copy_repository, source_repository
from appliance.keeping.measuring import Measured
from appliance.wiring import Services
from catalog.growth import Day, Totals, Verified
from catalog.jobs.values import ENDED, TaskKind
from proxy.errors import LanfreeError
from proxy.repository import Repository as Opened
from proxy.repository import keys

MAIN = "main"

_KEPT_SECONDS = 300.0
"""To open another repository costs a derivation of its key, and maybe a timeout."""

_LOOKED_AT = 20
"""Tasks of one kind, of which some were only asked what they would do."""

_LAST = (TaskKind.VERIFY, TaskKind.PRUNE, TaskKind.COLLECT, TaskKind.COPY, TaskKind.MEASURE)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Facts:
    """What an opened repository says of itself."""

    id: str = ""
    chunk_size: int | None = None
    slots: tuple[schemas.KeySlot, ...] = ()
    error: str = ""


class WebRepositories:
    """See ``api.ports.repositories.Repositories``."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, object]] = {}

    def list(self, caller: Caller) -> Sequence[Repository]:
        """See the port."""
        return [self._shown(caller, name, role, section) for name, role, section in self._known()]

    def get(self, caller: Caller, name: str) -> Repository:
        """See the port."""
        for known, role, section in self._known():
            if known == name:
                return self._shown(caller, name, role, section)
        raise NotFound("repository", name)

    def growth(self, caller: Caller, name: str, days: int) -> Growth:
        """See the port."""
        shown = self.get(caller, name)
        if shown.role is not RepositoryRole.MAIN:
            return Growth(
                repository=name, days=[], why_not="only what comes into our own repository is recorded by day"
            )
        today = datetime.now(UTC).date()
        # With the day before, so that all of these count for a forecast where they are not the first ones there are.
        found = self._sometimes(f"growth {days} {today}", lambda: self._days(today, days + 1))
        rate = forecast.rate({one.day: one.stored for one in found}, today, days)
        listed = [
            schemas.GrowthDay(day=one.day, stored=one.stored, read=one.read, restore_points=one.points)
            for one in found
            if one.day >= today - timedelta(days=days)
        ]
        if rate is None:
            why = f"a forecast needs {forecast.LEAST_DAYS} whole days after the first backups"
            return Growth(repository=name, days=listed, why_not=why)
        full = None if shown.space is None else forecast.full_on(rate, shown.space.free, today)
        return Growth(
            repository=name,
            days=listed,
            forecast=schemas.Forecast(
                bytes_per_day=rate.mean,
                low=rate.low,
                high=rate.high,
                days=rate.days,
                full_on=full.expected if full else None,
                earliest=full.earliest if full else None,
                latest=full.latest if full else None,
            ),
            why_not="" if full else "nobody tells how much room an object store has",
        )

    def _days(self, today: date, days: int) -> Sequence[Day]:
        since = datetime(today.year, today.month, today.day, tzinfo=UTC) - timedelta(days=days)
        with self._services.catalog.transaction(write=False) as unit:
            return unit.growth.days(since)

    def _known(self) -> Iterator[tuple[str, RepositoryRole, config.Repository]]:
        settings = self._services.settings
        yield MAIN, RepositoryRole.MAIN, settings.repository
        for copy in settings.copy_to:
            yield copy.name, RepositoryRole.COPY_TO, copy
        for source in settings.copy_from:
            yield source.name, RepositoryRole.COPY_FROM, source

    def _shown(self, caller: Caller, name: str, role: RepositoryRole, section: config.Repository) -> Repository:
        facts = self._facts(name, role)
        main = role is RepositoryRole.MAIN
        totals = self._totals() if main else None
        measured = measuring.last_measured(self._services, facts.id) if facts.id else None
        return Repository(
            name=name,
            role=role,
            kind=RepositoryKind.DIRECTORY if section.s3 is None else RepositoryKind.S3,
            place=section.place,
            id=facts.id,
            encrypted=not section.unencrypted,
            immutable_days=section.immutable_days,
            chunk_size=facts.chunk_size,
            error=facts.error,
            points=totals.points if totals else measured.total.points if measured else None,
            machines=totals.machines if totals else measured.total.machines if measured else None,
            logical=measured.total.logical if measured else None,
            stored=totals.stored if totals else measured.total.stored if measured else None,
            space=space_of(section),
            measured=None if measured is None else _measured(measured, caller),
            key_slots=facts.slots if caller.may(Permission.CONFIGURE) else (),
            verified=self._verified() if main else None,
            last=self._last("" if main else name, whole=caller.sees_all),
        )

    def _facts(self, name: str, role: RepositoryRole) -> _Facts:
        services = self._services

        def look() -> _Facts:
            try:
                if role is RepositoryRole.MAIN:
                    return _facts_of(services.repository)
                opened = copy_repository if role is RepositoryRole.COPY_TO else source_repository
                with opened(services, name) as place:
                    return _facts_of(place)
            except LanfreeError as error:
                return _Facts(error=error.message)

        return self._sometimes(f"facts {role.value} {name}", look)

    def _totals(self) -> Totals:
        with self._services.catalog.transaction(write=False) as unit:
            return unit.growth.totals()

    def _verified(self) -> schemas.Verified:
        def look() -> Verified:
            with self._services.catalog.transaction(write=False) as unit:
                return unit.growth.verified()

        known = self._sometimes("verified", look)
        return schemas.Verified(
            newest=known.newest,
            oldest=known.oldest,
            points=known.points,
            never=known.never,
            damaged=known.damaged,
        )

    def _last(self, target: str, *, whole: bool) -> Mapping[str, schemas.LastWork]:
        """``whole``: whether the caller may know of all machines, which messages and problems name."""
        found: dict[str, schemas.LastWork] = {}
        with self._services.jobs.transaction(write=False) as unit:
            for kind in _LAST:
                if kind is TaskKind.COPY and not target:
                    continue  # it is about the other one
                ended = unit.tasks.newest(kinds=[kind], states=sorted(ENDED), target=target, limit=_LOOKED_AT)
                task = next((task for task in ended if not task.parameters.get("dry_run")), None)
                if task is not None and task.ended_at is not None:
                    found[kind.value] = schemas.LastWork(
                        task=task.id,
                        state=task.state.value,
                        ended_at=task.ended_at,
                        message=task.message if whole else "",
                        problems=task.problems if whole else (),
                    )
        return found

    def _sometimes(self, name: str, look: Callable[[], T]) -> T:
        """What was found out not too long ago, else looked at now. Two that ask at once may both look."""
        with self._lock:
            at, kept = self._kept.get(name, (0.0, None))
        if kept is not None and time.monotonic() - at < _KEPT_SECONDS:
            return kept  # type: ignore[return-value]  # of this name it is what this look gives
        found, now = look(), time.monotonic()
        with self._lock:  # a new day has names of its own
            self._kept = {each: known for each, known in self._kept.items() if now - known[0] < _KEPT_SECONDS}
            self._kept[name] = (now, found)
        return found


def _facts_of(place: Opened) -> _Facts:
    settings = place.settings
    return _Facts(settings.id.hex(), settings.chunk_size, tuple(map(_slot, keys.slots(place.store))))


def _slot(slot: keys.Slot) -> schemas.KeySlot:
    made = None
    with suppress(ValueError):  # anybody who writes the storage may have put it there
        made = datetime.fromisoformat(slot.created_at)
        made = made if made.tzinfo else made.replace(tzinfo=UTC)
    return schemas.KeySlot(id=slot.id, kind=slot.kind, label=slot.label, created_at=made)


def space_of(section: config.Repository) -> schemas.Space | None:
    """Of the file system of a directory; nobody tells it of an object store."""
    if section.s3 is not None:
        return None
    try:
        status = os.statvfs(section.path)
    except OSError:
        return None
    size = status.f_frsize
    total, free = status.f_blocks * size, status.f_bavail * size
    return schemas.Space(total=total, used=(status.f_blocks - status.f_bfree) * size, free=free)


def _measured(measured: Measured, caller: Caller) -> schemas.Measured:
    total = measured.total
    return schemas.Measured(
        at=measured.at,
        seconds=measured.seconds,
        **total.model_dump(exclude={"machines"}),
        machines=tuple(
            schemas.MachineShare(
                machine=MachineRef(id=one.machine, name=one.machine_name),
                points=one.points,
                logical=one.logical,
                unique=one.unique,
                stored=one.compressed,
                exclusive=one.exclusive,
            )
            for one in measured.machines
            if caller.sees(one.machine, one.machine_name)
        ),
    )
