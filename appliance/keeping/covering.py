"""Looks everywhere that coverage is told from: sites, jobs, repository, second repositories, catalog. Each is asked few
questions, however many machines there are: the repository for two lists and about one manifest a machine.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

from appliance.jobs.coverage import Coverage, Failure, Former, Held, Known, assess
from appliance.keeping.maintenance import copy_repository
from appliance.selecting import Sight, look
from appliance.wiring import Services
from catalog.jobs.policy import Policy
from catalog.jobs.values import Task
from catalog.runs import Run, RunState
from catalog.values import LookedInto
from proxy.errors import FormatError, LanfreeError
from proxy.model import MachineId, RestorePoint, VirtualMachine
from proxy.repository import Repository
from proxy.repository.collection.retention import of_future
from proxy.repository.ledger import machine_of
from proxy.repository.manifest import machine_name
from proxy.repository.parallel import each
from proxy.repository.records import Health

# Failures that are older say nothing of what keeps a machine from being backed up today.
_RUNS = timedelta(days=31)


@dataclass(slots=True)
class _Seen:
    """``problems``: what could not be looked at."""

    sight: Sight
    jobs: dict[MachineId, dict[str, Policy]] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)
    copies: dict[MachineId, dict[str, bool | None]] = field(default_factory=dict)
    looked_into: Mapping[MachineId, LookedInto] = field(default_factory=dict)
    runs: Mapping[MachineId, Run] = field(default_factory=dict)
    short: Mapping[MachineId, Task] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def coverage(services: Services, objective: float | None = None) -> Coverage:
    """Of every machine that a site shows, and of those that only the repository knows. ``objective``: hours, instead of those
    of jobs and configuration. Raises ``RepositoryUnavailable``, ``ConfigurationError``, and what the job store says; what is
    silent beside these is in the result."""
    seen = _Seen(look(services))
    _jobs(services, seen)
    _repository(services.repository, seen, services.clock.now())
    _copies(services, seen)
    _catalog(services, seen)
    settings, now = services.settings.coverage, services.clock.now()
    folders = {machine.id: machine_name(services.repository.keys, machine.id) for machine in seen.sight.machines}
    machines = tuple(
        assess(
            _known(machine, folders[machine.id], seen, indexed=services.settings.files.index),
            now,
            objective=settings.objective,
            asked=objective,
            accepted=settings.accept,
        )
        for machine in seen.sight.machines
    )
    former = _former(seen, set(folders.values()))
    whole = not seen.sight.silent
    if whole and former and not machines:
        seen.problems.append(f"no host shows any machine, and the repository has restore points of {len(former)}")
    return Coverage(
        machines=machines,
        former=former if whole else (),
        unseen=() if whole else former,
        silent=seen.sight.silent,
        problems=tuple(seen.problems),
    )


def _known(machine: VirtualMachine, folder: str, seen: _Seen, *, indexed: bool) -> Known:
    run, into = seen.runs.get(machine.id), seen.looked_into.get(machine.id)
    volumes = into.network_volumes if into is not None else None if indexed else ()
    return Known(
        machine=machine,
        jobs=seen.jobs.get(machine.id, {}),
        held=seen.held.get(folder, Held()),
        index_reasons=into.reasons if into else (),
        network_volumes=None
        if volumes is None
        else [f"{v.kind} {v.source} ({v.mountpoint or 'mounted nowhere'})" for v in volumes],
        failure=_failure(run, seen.short.get(machine.id)),
        copies=seen.copies.get(machine.id),
    )


def _failure(run: Run | None, task: Task | None) -> Failure | None:
    """The later one: of a run, or of a task that a window or a person ended, perhaps before it began a run."""
    found: list[Failure] = []
    if run is not None and run.state is RunState.FAILED:
        found.append(Failure(run.started_at, run.error or "unknown", run.message or ""))
    if task is not None and task.ended_at is not None:
        why = task.message or ", ".join(reason.code.value for reason in task.reasons)
        found.append(Failure(task.ended_at, task.error or task.state.value, why))
    return max(found, key=lambda failure: failure.at, default=None)


def _jobs(services: Services, seen: _Seen) -> None:
    """Which enabled job selects which machine."""
    with services.jobs.transaction(write=False) as unit:
        jobs = [job for job in unit.jobs.list() if job.enabled]
        seen.short = unit.tasks.fell_short(services.clock.now() - _RUNS)
    repositories = {section.name for section in services.settings.copy_to}
    for job in jobs:
        absent = sorted({copy.name for copy in job.policy.copy_to} - repositories)
        seen.problems += [
            f"job {job.name}: it copies to {name}, and there is no [[copy_to]] of this name" for name in absent
        ]
        try:
            selected = seen.sight.choose(job.policy.select)
        except LanfreeError as error:
            seen.problems.append(f"job {job.name}: {error.message}")
            continue
        blind = {site: why for site, why in selected.silent.items() if site not in seen.sight.silent}
        seen.problems += [
            f"job {job.name}: nobody knows what it selects of {site}: {why}" for site, why in blind.items()
        ]
        for chosen in selected.machines:
            seen.jobs.setdefault(chosen.machine.id, {})[job.name] = job.policy


def _repository(repository: Repository, seen: _Seen, now: datetime) -> None:
    """The newest restore points, by the machines' folders; newest first, until one is good. One of the future is none."""
    ledger = repository.ledger
    judged = ledger.verifications.names()
    folders = [(folder, list(names)) for folder, names in groupby(ledger.names(), key=machine_of)]

    def newest(names: Sequence[str]) -> Held:
        held = Held()
        for name in reversed(names):
            try:
                point = ledger.read(name).point
            except FormatError:
                held = Held(held.newest, None, held.why_not, held.unreadable + 1)
                continue
            except FileNotFoundError:
                continue  # deleted meanwhile
            known = ledger.health(point) if name in judged else None
            if of_future(point.created_at, now):
                why = f"it is dated in the future ({point.created_at:%Y-%m-%d %H:%M} UTC)"
            elif known is None or known.health.trusted:
                return Held(held.newest or point, point, held.why_not, held.unreadable)
            else:
                why = known.doubt if known.health is Health.SUSPECT else "verification found damage in it"
            held = Held(held.newest or point, None, held.why_not or why, held.unreadable)
        return held

    found = each(lambda item: newest(item[1]), folders)
    seen.held = {folder: held for (folder, _), held in zip(folders, found, strict=True)}


def _copies(services: Services, seen: _Seen) -> None:
    """Which second repository has the newest good point of whom, and no reason to doubt its copy."""
    good = [held.good for held in seen.held.values() if held.good is not None]
    for section in services.settings.copy_to:
        try:
            with copy_repository(services, section.name) as other:
                there = _there(other, good)
        except LanfreeError as error:
            seen.problems.append(f"{section.name} could not be looked at: {error.message}")
            there = {}
        for point in good:
            seen.copies.setdefault(point.machine, {})[section.name] = there.get(point.machine)


def _there(other: Repository, points: Sequence[RestorePoint]) -> dict[MachineId, bool]:
    ledger = other.ledger
    names, judged = set(ledger.names()), ledger.verifications.names()

    def counts(point: RestorePoint) -> bool:
        name = ledger.name(point)
        known = ledger.health(point) if name in judged else None
        return name in names and (known is None or known.health.trusted)

    return {point.machine: counts(point) for point in points}


def _catalog(services: Services, seen: _Seen) -> None:
    """What only the catalog knows. The repository's part of the report does not need it."""
    since = services.clock.now() - _RUNS
    try:
        with services.catalog.transaction(write=False) as unit:
            seen.looked_into = unit.files.looked_into()
            seen.runs = unit.runs.last_of_each("backup", since)
    except LanfreeError as error:
        seen.problems.append(f"the catalog could not be read: {error.message}")


def _former(seen: _Seen, folders: Iterable[str]) -> tuple[Former, ...]:
    """Machines of the repository that no site shows."""
    shown = set(folders)
    left: list[RestorePoint] = []
    for folder, held in seen.held.items():
        point = held.good or held.newest
        if folder not in shown and point is not None and not point.of_appliance:
            left.append(point)
    left.sort(key=lambda point: (point.machine_name, point.machine))
    return tuple(Former(p.machine, p.machine_name, p.host, p.id, p.created_at) for p in left)
