"""Job runs as a person commands them: begun and stopped in the job store, where any proxy that serves sees it. Needs no engine,
so that what only asks for work does not load one."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from appliance import operations
from appliance.jobs import window
from appliance.wiring import Services
from catalog.jobs.policy import Selection
from catalog.jobs.store import Unit
from catalog.jobs.values import Cause, Job, JobRun, JobRunState, TaskState
from proxy.errors import JobBusy, JobRunNotFound
from proxy.model import MachineId, Reason, ReasonCode


def new(
    job: Job, cause: Cause, scheduled_for: datetime, now: datetime, *, skipped: bool, reasons: Sequence[Reason]
) -> JobRun:
    """A run of this job, not recorded yet. ``skipped``: one that does not take place."""
    return JobRun(
        id=operations.new_run("j"),
        job=job.id,
        job_name=job.name,
        policy=job.policy,
        cause=cause,
        scheduled_for=scheduled_for,
        state=JobRunState.SKIPPED if skipped else JobRunState.RUNNING,
        started_at=now,
        ended_at=now if skipped else None,
        deadline=None if skipped or cause is Cause.MANUAL else window.closes_at(job.policy, now),
        reasons=tuple(reasons),
    )


def begin_now(services: Services, job: Job, *, full: bool = False, machines: Collection[MachineId] = ()) -> JobRun:
    """A person's command: the run is there, and any proxy that serves goes on with it. Windows do not bind it. ``machines``:
    only these, by identity. Raises ``JobBusy`` when a run of the job is under way, ``JobNotFound``."""
    now = services.clock.now()
    with services.jobs.transaction() as unit:
        known = unit.jobs.get(job.id)
        under_way = unit.runs.active(known.id)
        if under_way is not None and not (under_way.stop_at and _end_alone(services, unit, under_way, now)):
            raise JobBusy(known.name, under_way.id)
        reasons = [Reason(ReasonCode.FULL_REQUESTED, "by command")] if full else []
        run = new(known, Cause.MANUAL, now, now, skipped=False, reasons=reasons)
        if machines:
            only = Selection(
                include=tuple(f"machine={machine}" for machine in sorted(machines)),
                exclude_disks=known.policy.select.exclude_disks,
            )
            run = replace(run, policy=known.policy.model_copy(update={"select": only}))
        if not unit.runs.begin(run):
            raise JobBusy(known.name, "of this very moment")
    return run


@dataclass(frozen=True, slots=True)
class Stopping:
    """What became of a person's wish to end a run. ``stopped``: it went on until then; ``served``: a proxy lives, that does
    what is left to do. A run that still goes on although nobody serves waits for a proxy that takes over its tasks."""

    run: JobRun
    stopped: bool
    served: bool


def stop(services: Services, run_id: str) -> Stopping:
    """A person's command: whoever works on it sees it; where nobody does, the run ends here. Raises ``JobRunNotFound``."""
    now, takeover = services.clock.now(), services.settings.proxy.takeover
    with services.jobs.transaction() as unit:
        stopped = unit.runs.stop(run_id, now, (Reason(ReasonCode.STOPPED_BY_PERSON),))
        found = unit.runs.get(run_id)
        if found is None:
            raise JobRunNotFound(run_id)
        if stopped:
            _end_alone(services, unit, found, now)
        return Stopping(unit.runs.get(run_id) or found, stopped, bool(unit.proxies.living(takeover)))


def _end_alone(services: Services, unit: Unit, run: JobRun, now: datetime) -> bool:
    """End a run that is being stopped when no proxy lives that could, and none of its tasks runs: what a dead proxy left in
    the middle wants a living one to tidy up. Nobody is told but who asked: what tells lives in the proxies."""
    counted = unit.tasks.counts([run.id]).get(run.id, {})
    if counted.get(TaskState.RUNNING, 0) or unit.proxies.living(services.settings.proxy.takeover):
        return False
    unit.tasks.stop(run.id, now, (Reason(ReasonCode.STOPPED_BY_PERSON),))
    left = ["its hooks of the end were not run: no proxy served"] if counted and run.policy.after else []
    return unit.runs.end(run.id, JobRunState.STOPPED, now, (Reason(ReasonCode.STOPPED_BY_PERSON),), left)
