"""The hours to come: which jobs begin when, with which machines, and how they fit together. Nothing is begun or written.

Also what is not in it: machines that no job means, jobs that never begin by themselves, sites that did not answer.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from appliance import planning
from appliance.jobs import schedule, window
from appliance.jobs.advice import Night
from appliance.jobs.estimating import Basis, Estimate
from appliance.jobs.planner import Item, Plan
from appliance.jobs.window import Span
from appliance.planning import Knowledge
from appliance.selecting import Chosen, Facts, Sight, facts_of, look
from catalog.jobs.policy import Policy
from catalog.jobs.values import Job, JobRun, Task, TaskKind, TaskState
from catalog.restore_points import Recency
from proxy.model import MachineId, VirtualMachine

if TYPE_CHECKING:
    from appliance.wiring import Services


@dataclass(frozen=True, slots=True)
class Coming:
    """A run of a job in these hours. ``begin``: by its schedule; in the past when it is under way. ``end``: of its window, if
    there is one. ``under_way``: its id then."""

    job: str
    begin: datetime
    end: datetime | None
    machines: int
    under_way: str = ""


@dataclass(frozen=True)
class Preview:
    """``plan`` is that of ``night``. ``in_no_job``: of all that the sites show, those that no job means; ``unscheduled``: those
    that only jobs mean which never begin by themselves. ``notes``: what else a person has to know."""

    now: datetime
    until: datetime
    night: Night
    plan: Plan
    runs: tuple[Coming, ...]
    in_no_job: tuple[VirtualMachine, ...]
    unscheduled: tuple[VirtualMachine, ...]
    silent: Mapping[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Known:
    """What previews are made from, at one moment. ``under_way``: runs with their waiting tasks."""

    sight: Sight
    facts: Facts
    knowledge: Knowledge
    jobs: tuple[Job, ...]
    under_way: tuple[tuple[JobRun, Sequence[Task]], ...]


def known(services: "Services", sight: Sight) -> Known:
    """``sight``: what the sites showed. Raises what the stores raise."""
    everything = [Chosen(machine, "") for machine in sight.machines]
    knowledge = planning.known(services, everything)
    with services.jobs.transaction(write=False) as unit:
        jobs = tuple(job for job in unit.jobs.list() if job.enabled)
        under_way = tuple((run, unit.tasks.of_run(run.id, TaskState.WAITING)) for run in unit.runs.under_way())
    return Known(sight, facts_of(services), knowledge, jobs, under_way)


def preview_of(around: Known, hours: float, now: datetime, jobs: Sequence[Job] | None = None) -> Preview:
    """Pure. ``jobs``: instead of those that there are."""
    until = now + timedelta(hours=hours)
    previewing = _Previewing(around.sight, around.facts, around.knowledge, now, until)
    return previewing.made(around.jobs if jobs is None else jobs, around.under_way)


def preview(services: "Services", hours: float, now: datetime) -> Preview:
    """What will happen in the next ``hours``, as far as is known now. Raises what the stores raise, and
    ``ConfigurationError`` where no hypervisor is configured."""
    return preview_of(known(services, look(services)), hours, now)


class _Previewing:
    """Collects what is to be planned."""

    def __init__(self, sight: Sight, facts: Facts, knowledge: Knowledge, now: datetime, until: datetime) -> None:
        self._sight, self._facts, self._knowledge = sight, facts, knowledge
        self._now, self._until = now, until
        self._items: list[Item] = []
        self._runs: list[Coming] = []
        self._policies: dict[str, Policy] = {}
        self._notes: list[str] = []
        self._meant: set[MachineId] = set()
        self._scheduled: set[MachineId] = set()
        self._silent: dict[str, str] = dict(sight.silent)

    def made(self, jobs: Sequence[Job], under_way: Sequence[tuple[JobRun, Sequence[Task]]]) -> Preview:
        for run, tasks in under_way:
            self._going_on(run, tasks)
        for job in jobs:
            self._job(job)
        night = Night(
            tuple(self._items),
            planning.with_parallel(self._knowledge.limits, self._policies),
            self._now,
            self._knowledge.slots,
            tuple(self._knowledge.busy(self._now)),
        )
        return Preview(
            self._now,
            self._until,
            night,
            night.plan(),
            tuple(sorted(self._runs, key=lambda run: (run.begin, run.job))),
            tuple(machine for machine in self._sight.machines if machine.id not in self._meant),
            tuple(m for m in self._sight.machines if m.id in self._meant and m.id not in self._scheduled),
            self._silent,
            tuple(self._notes),
        )

    def _going_on(self, run: JobRun, tasks: Sequence[Task]) -> None:
        """The rest of a run that is under way, as it was planned when it began."""
        rest = [task for task in tasks if task.kind is TaskKind.BACKUP]
        self._policies[run.id] = run.policy
        self._runs.append(Coming(run.job_name, run.started_at, run.deadline, len(rest), run.id))
        for task in rest:
            begin = max(self._now, task.not_before or self._now)
            spans = (Span(begin, task.deadline),) if task.deadline is None or begin < task.deadline else ()
            self._items.append(
                Item(
                    id=task.id,
                    machine=task.machine,
                    name=task.machine_name,
                    job=run.job_name,
                    host=task.host,
                    keys=(*task.keys, f"job:{run.id}"),
                    estimate=Estimate(task.expected_seconds or 1.0, Basis.MEASURED, "as planned when its run began"),
                    spans=spans,
                    full=task.full,
                    priority=run.policy.priority,
                    run=run.id,
                    why=tuple(task.reasons),
                )
            )

    def _job(self, job: Job) -> None:
        selected = self._sight.choose(job.policy.select)
        chosen = {one.machine.id for one in selected.machines}
        self._meant |= chosen
        self._silent.update(selected.silent)
        self._notes += [f"job {job.name}: {text}" for text in selected.idle]
        if job.policy.schedule is None:
            self._notes.append(f"job {job.name} has no schedule: it begins only by command")
            return
        self._scheduled |= chosen
        fires = self._fires(job)
        if not fires:
            coming = schedule.next_fire(job.policy, self._now)
            when = f"next {coming:%Y-%m-%d %H:%M} UTC" if coming else "never"
            self._notes.append(f"job {job.name} does not begin in this time ({when})")
        points = dict(self._knowledge.points)
        for fire in fires:
            if job.policy.schedule.missed == "skip" and (closed := window.why_closed(job.policy, fire)) is not None:
                self._notes.append(f"job {job.name} skips {fire:%Y-%m-%d %H:%M} UTC: {closed.code.value}")
            else:
                self._fire(job, fire, selected.machines, points)

    def _fires(self, job: Job) -> list[datetime]:
        """Those of the schedule, and at once what is due and was not begun."""
        fires = schedule.fires_between(job.policy, self._now, self._until)
        due = schedule.due(job.policy, job.seen, self._now)
        return [self._now, *fires] if due is not None and not due.skip else fires

    def _fire(self, job: Job, fire: datetime, chosen: Sequence[Chosen], points: dict[MachineId, Recency]) -> None:
        run = f"{job.name}@{fire:%Y-%m-%dT%H:%M}"
        end = window.closes_at(job.policy, fire)
        begin = window.next_open(job.policy, fire)
        spans = (Span(begin, end),) if begin is not None and begin < self._until else ()
        works = planning.works_of(
            job.policy,
            chosen,
            self._facts,
            replace(self._knowledge, points=points, new=self._knowledge.new - points.keys()),
            fire,
            run=run,
            spans=spans,
            job=job.name,
        )
        self._policies[run] = job.policy
        self._items += [work.item for work in works.values()]
        self._runs.append(Coming(job.name, fire, end, len(works)))
        # The later runs of these hours find what this one will have made.
        self._expect(points, fire, {work.item.machine for work in works.values() if work.item.full}, works.keys())

    def _expect(
        self,
        points: dict[MachineId, Recency],
        fire: datetime,
        full: Collection[MachineId],
        all_of_them: Collection[MachineId],
    ) -> None:
        for machine in all_of_them:
            known = points.get(machine)
            last_full = fire if machine in full else known.full if known else None
            points[machine] = Recency(fire, known.oldest if known else fire, last_full)
