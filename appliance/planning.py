"""From chosen machines to work: what each will occupy, how long it will take, who is due for a full, who comes when.

The same steps make the tasks of a job run that begins (``tasks_of``) and the items of a night to come (``appliance.night``).
"""

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance.jobs import planner, schedule
from appliance.jobs.estimating import Estimates
from appliance.jobs.planner import Item, Plan, Running, Unfit
from appliance.jobs.staggering import Candidate, due_tonight
from appliance.jobs.window import Span
from appliance.selecting import Chosen, Facts
from appliance.wiring import Services
from catalog import database
from catalog.jobs import limits
from catalog.jobs.limits import Limits
from catalog.jobs.policy import Policy
from catalog.jobs.values import JobRun, Task, TaskKind, TaskState
from catalog.restore_points import Recency
from proxy.model import MachineId, Reason, ReasonCode

FEW = 200
"""Machines without a restore point in the catalog for which the repository is asked, each with a listing of its own. More are
a new site, or a catalog that was lost: then they count as heavy, and nobody asks for what may not be needed."""


@dataclass(frozen=True)
class Knowledge:
    """What decisions about machines are based on, at one moment. ``repository``: its id; ``points``: of the machines that the
    catalog knows; ``new``: those without any restore point, for certain; ``slots``: of all living proxies, ``None`` when
    none lives."""

    repository: str
    limits: Limits
    estimates: Estimates
    points: Mapping[MachineId, Recency]
    new: frozenset[MachineId] = frozenset()
    running: tuple[Task, ...] = ()
    slots: int | None = None

    def busy(self, now: datetime) -> list[Running]:
        """What runs now, until it is presumably done."""
        return [
            Running(
                (*task.keys, limits.key(limits.JOB, task.job_run)),
                max(now, (task.claimed_at or now) + timedelta(seconds=task.expected_seconds)),
            )
            for task in self.running
        ]


@dataclass(frozen=True)
class Work:
    """One chosen machine in one run of a job. ``due``: its active full is due; ``full``: everything is read, for that or
    another reason that is certain (``item.full`` also holds for what will presumably be)."""

    chosen: Chosen
    host: str
    keys: tuple[str, ...]
    paths: frozenset[str]
    item: Item
    full: bool
    due: bool


def known(services: Services, chosen: Sequence[Chosen]) -> Knowledge:
    """Ask catalog, job store and repository. Raises what they raise."""
    with services.catalog.transaction(write=False) as unit:
        points = unit.restore_points.recency()
    with services.jobs.transaction(write=False) as jobs:
        durations, running = jobs.tasks.durations(), tuple(jobs.tasks.running())
        living = jobs.proxies.living()
    return Knowledge(
        repository=services.repository.settings.id.hex(),
        limits=services.limits,
        estimates=Estimates(durations, [one.machine for one in chosen]),
        points=points,
        new=_new(services, {one.machine.id for one in chosen} - points.keys()),
        running=running,
        slots=sum(proxy.slots for proxy in living) or None,
    )


def _new(services: Services, unknown: Collection[MachineId]) -> frozenset[MachineId]:
    if not unknown:
        return frozenset()
    repository = services.repository
    if len(unknown) <= FEW:
        return frozenset(machine for machine in unknown if not repository.manifests(machine))
    return frozenset() if repository.manifests() else frozenset(unknown)


def tasks_of(
    services: Services, run: JobRun, chosen: Sequence[Chosen], facts: Facts, now: datetime, *, full: bool = False
) -> list[Task]:
    """One a machine, in the order in which they are to begin. ``full``: everything of every machine is read."""
    # A run that begins while the database restarts waits for it, as every other step of it does.
    knowledge = database.patient(threading.Event())(known)(services, chosen)
    spans = (Span(now, run.deadline),) if run.deadline is None or now < run.deadline else ()
    works = works_of(run.policy, chosen, facts, knowledge, now, run=run.id, spans=spans, full=full)
    bounds = with_parallel(knowledge.limits, {run.id: run.policy})
    made = planner.plan(
        [work.item for work in works.values()],
        bounds,
        now,
        slots=knowledge.slots,
        running=knowledge.busy(now),
    )
    begins = _begins(made, now)
    ordered = sorted(works.values(), key=lambda work: (begins[work.item.id], work.chosen.machine.name))
    return [_task(run, number, work, begins[work.item.id]) for number, work in enumerate(ordered)]


def _begins(made: Plan, now: datetime) -> dict[str, datetime]:
    """Also of those that do not fit. What is too long for any window begins first, since what it copied until it is cut off is
    not copied again in the next; what only lacks room comes last."""
    last = max((entry.begin for entry in made.entries), default=now)

    def instead(unfit: Unfit) -> datetime:
        return last + timedelta(seconds=1) if unfit.waited_for else now

    return {
        **{entry.item.id: entry.begin for entry in made.entries},
        **{one.item.id: instead(one) for one in made.unfit},
    }


def with_parallel(bounds: Limits, runs: Mapping[str, Policy]) -> Limits:
    """The limits with those that policies set for their own runs, under ``job:RUN``."""
    parallel = {limits.key(limits.JOB, run): p.parallel for run, p in runs.items() if p.parallel is not None}
    return Limits(bounds.kinds, {**bounds.keys, **parallel})


def works_of(
    policy: Policy,
    chosen: Sequence[Chosen],
    facts: Facts,
    knowledge: Knowledge,
    now: datetime,
    *,
    run: str,
    spans: tuple[Span, ...],
    full: bool = False,
    job: str = "",
) -> dict[MachineId, Work]:
    """Pure but for what ``facts`` holds. ``run``: names the items; ``spans``: when they may run; ``job``: for people."""
    due = _due(policy, chosen, knowledge, now)
    works: dict[MachineId, Work] = {}
    for one in chosen:
        machine = one.machine
        where = facts.of(machine)
        everything = full or machine.id in due or machine.id in knowledge.new
        heavy = everything or machine.id not in knowledge.points
        host = limits.key(limits.HOST, where.host)
        keys = (
            limits.key(limits.MACHINE, machine.id),
            host,
            *(limits.key(limits.PLACE, place) for place in where.places),
            limits.key(limits.REPOSITORY, knowledge.repository),
            *((limits.key(limits.FULL, host),) if heavy else ()),
        )
        item = Item(
            id=f"{run}/{machine.id}",
            machine=machine.id,
            name=machine.name,
            job=job,
            host=where.host,
            keys=(*keys, limits.key(limits.JOB, run)),
            estimate=knowledge.estimates.of(machine, full=heavy),
            spans=spans,
            full=heavy,
            priority=policy.priority,
            late=_late(knowledge.points.get(machine.id), policy, now),
            run=run,
            why=_why(machine.id, due, knowledge, full=full),
        )
        works[machine.id] = Work(one, where.host, keys, where.paths, item, everything, machine.id in due)
    return works


def _due(policy: Policy, chosen: Sequence[Chosen], knowledge: Knowledge, now: datetime) -> frozenset[MachineId]:
    days = policy.active_full.days
    if not days:
        return frozenset()
    candidates = [
        Candidate(
            one.machine.id,
            one.machine.host,
            point.full or point.oldest if (point := knowledge.points.get(one.machine.id)) else None,
            knowledge.estimates.of(one.machine, full=True).seconds,
        )
        for one in chosen
    ]
    return due_tonight(candidates, days, now, schedule.fires_between(policy, now, now + timedelta(days=days)))


def _late(point: Recency | None, policy: Policy, now: datetime) -> bool:
    return point is None or point.newest + policy.within < now


def _why(machine: MachineId, due: Collection[MachineId], knowledge: Knowledge, *, full: bool) -> tuple[Reason, ...]:
    if machine in knowledge.new or machine not in knowledge.points:
        return (Reason(ReasonCode.FIRST_BACKUP),)
    if full:
        return (Reason(ReasonCode.FULL_REQUESTED),)
    return (Reason(ReasonCode.ACTIVE_FULL_DUE),) if machine in due else ()


def _task(run: JobRun, number: int, work: Work, begin: datetime) -> Task:
    machine = work.chosen.machine
    due = (Reason(ReasonCode.ACTIVE_FULL_DUE, _cadence(run.policy)),) if work.due else ()
    return Task(
        id=f"{run.id}-{number:05d}",
        job_run=run.id,
        kind=TaskKind.BACKUP,
        state=TaskState.WAITING,
        machine=machine.id,
        machine_name=machine.name,
        host=work.host,
        keys=work.keys,
        paths=work.paths,
        full=work.full,
        order=begin,
        deadline=run.deadline,
        expected_seconds=work.item.estimate.seconds,
        reasons=(Reason(ReasonCode.MADE_BY_JOB, run.job_name), Reason(ReasonCode.MADE_BY_JOB_ID, run.job), *due),
        exclude=work.chosen.exclude_disks,
    )


def _cadence(policy: Policy) -> str:
    days = policy.active_full.days
    return "every day" if days == 1 else f"once in {days} days"
