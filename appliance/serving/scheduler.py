"""When job runs begin, go on to their next phase, and end. Any number of proxies may look at once: each beginning is one
transaction that only one of them completes, each phase a workflow that runs once.

The clock of the proxy says what is due; ``Job.seen`` keeps a clock that goes back from beginning anything twice
(``appliance.jobs.schedule``).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from appliance.jobs import schedule, window
from appliance.serving.by_command import Stopping, begin_now, new, stop
from appliance.serving.engine import Stage
from appliance.serving.phases import END
from appliance.wiring import Services
from appliance.workflows import Workflows
from catalog.jobs.store import Unit
from catalog.jobs.values import ENDED, JobRun, JobRunState, TaskState
from proxy.errors import LanfreeError
from proxy.model import Reason, ReasonCode

log = logging.getLogger("lanfree.scheduler")

__all__ = ["Begun", "Stopping", "advance", "begin_due", "begin_now", "stop"]


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that this look began, or recorded as one that did not take place."""

    run: JobRun

    def __str__(self) -> str:
        if self.run.state is JobRunState.SKIPPED:
            return f"skipped: {'; '.join(reason.detail or reason.code.value for reason in self.run.reasons)}"
        return f"began, {self.run.cause.value}, for {self.run.scheduled_for:%Y-%m-%d %H:%M} UTC"


def begin_due(services: Services, now: datetime, told: set[str] | None = None) -> list[Begun]:
    """Begin what the schedules say, each in a transaction of its own. A job or a schedule that cannot be read holds up no other
    job. ``told``: what the log has of such ones already; kept up to date."""
    bad: dict[str, LanfreeError] = {}
    with services.jobs.transaction(write=False) as unit:
        jobs = [job for job in unit.jobs.list(bad) if job.enabled and job.policy.schedule is not None]
    begun: list[Begun] = []
    for job in jobs:
        try:
            if schedule.due(job.policy, job.seen, now) is not None:
                with services.jobs.transaction() as unit:
                    run = _begin(unit, job.id, now)
                begun += [Begun(run)] if run is not None else []
        except LanfreeError as error:
            bad[job.name] = error
    _tell(bad, set() if told is None else told)
    return begun


def _tell(bad: Mapping[str, LanfreeError], told: set[str]) -> None:
    """Each once, not with every look, until it is mended."""
    for name, error in bad.items():
        if error.message not in told:
            log.error("job %s: %s", name, error.message, extra={"job": name, "hint": error.hint})
    told.clear()
    told.update(error.message for error in bad.values())


def _begin(unit: Unit, id_: str, now: datetime) -> JobRun | None:
    """In the transaction everything is looked at again: another proxy may have been faster."""
    job = unit.jobs.get(id_)
    due = schedule.due(job.policy, job.seen, now) if job.enabled else None
    if due is None:
        return None
    under_way = unit.runs.active(job.id)
    waits = job.policy.schedule is not None and job.policy.schedule.missed == "run"
    closed = window.why_closed(job.policy, now)
    reasons: list[Reason] = []
    if due.skip:
        reasons.append(
            Reason(ReasonCode.SCHEDULE_MISSED, "nobody was there to begin it, and the job does not catch up")
        )
    elif under_way is not None:
        if waits:
            return None  # it stays due, and begins when the other one has ended
        reasons.append(
            Reason(ReasonCode.PREVIOUS_RUN_UNDER_WAY, f"run {under_way.id} goes on since {under_way.started_at}")
        )
    elif closed is not None:
        if waits:
            return None  # until the window opens
        reasons.append(closed)
    if due.passed:
        detail = f"{due.passed} earlier time(s) passed without a run"
        reasons.append(Reason(ReasonCode.SCHEDULE_MISSED, detail))
    skipped = due.skip or under_way is not None or closed is not None
    run = new(job, due.cause, due.scheduled_for, now, skipped=skipped, reasons=reasons)
    unit.jobs.seen(job.id, due.scheduled_for)
    return run if unit.runs.begin(run) else None


def advance(services: Services, workflows: Workflows, now: datetime, only: str | None = None) -> list[JobRun]:
    """Begin each phase whose time has come; the runs that still go on. ``only``: of this run."""
    with services.jobs.transaction(write=False) as unit:
        runs = [run for run in unit.runs.under_way() if only in (None, run.id)]
    last = workflows.last_phase(run.id for run in runs)
    # Counted after the phases were looked at: of one that had ended by then, all tasks that it added are among them.
    with services.jobs.transaction(write=False) as unit:
        counted = unit.tasks.counts([run.id for run in runs])
    if any(run.deadline is not None and run.deadline <= now and _waits(counted.get(run.id, {})) for run in runs):
        with services.jobs.transaction() as unit:
            unit.tasks.expire(now, (Reason(ReasonCode.WINDOW_CLOSED, "it was not begun when the window closed"),))
    for run_id, (phase, stage) in last.items():
        if phase < 0 or (stage is Stage.ENDED and phase < END and not _left(counted.get(run_id, {}))):
            workflows.phase(run_id, phase + 1)
    return runs


def _left(counted: Mapping[TaskState, int]) -> int:
    """Tasks that wait or run."""
    return sum(number for state, number in counted.items() if state not in ENDED)


def _waits(counted: Mapping[TaskState, int]) -> bool:
    return counted.get(TaskState.WAITING, 0) > 0
