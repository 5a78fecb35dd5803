"""Jobs and their runs as the API shows them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from api.schemas.common import Reason
from api.schemas.job_runs import JobRun as RunShown
from api.schemas.job_runs import TaskCounts
from api.schemas.jobs import Job, JobLine, Remark, RunBrief
from appliance.config import Settings
from appliance.jobs import describing
from catalog.jobs.policy import Policy
from catalog.jobs.values import Job as Stored
from catalog.jobs.values import JobRun, TaskState


def brief(run: JobRun | None) -> RunBrief | None:
    """A run, in short."""
    if run is None:
        return None
    return RunBrief(id=run.id, state=run.state.value, started_at=run.started_at, ended_at=run.ended_at)


def line(job: Stored, now: datetime, last: JobRun | None, current: JobRun | None) -> JobLine:
    """In a list."""
    return JobLine(**_facts(job, now, last, current))


def detail(job: Stored, now: datetime, last: JobRun | None, current: JobRun | None, settings: Settings) -> Job:
    """With its policy."""
    facts = _facts(job, now, last, current)
    return Job(**facts, policy=job.policy, remarks=remarks(settings, job.policy, now))


def remarks(settings: Settings, policy: Policy, now: datetime) -> list[Remark]:
    """What is to be mended first."""
    gaps = describing.gaps(settings, policy)
    rest = [text for text in describing.remarks(settings, policy, now) if text not in gaps]
    return [*(Remark(kind="gap", text=text) for text in gaps), *(Remark(kind="remark", text=text) for text in rest)]


def _facts(job: Stored, now: datetime, last: JobRun | None, current: JobRun | None) -> dict[str, object]:
    return {
        "id": job.id,
        "name": job.name,
        "description": job.policy.description,
        "enabled": job.enabled,
        "revision": job.revision,
        "machines": describing.rules(job.policy),
        "timing": describing.timing(job.policy),
        "zone": job.policy.zone,
        "next": describing.coming(job.policy, now) if job.enabled else [],
        "last_run": brief(last),
        "current_run": brief(current),
        "created_at": job.created_at,
        "updated_at": job.updated_at,
    }


def run_facts(run: JobRun, tasks: TaskCounts, now: datetime, *, whole: bool) -> dict[str, object]:
    """Fields of ``JobRun`` as the API has them. ``whole``: whoever asks may know of all of its machines."""
    return {
        "id": run.id,
        "job": run.job_name,
        "job_id": run.job,
        "state": run.state.value,
        "cause": run.cause.value,
        "scheduled_for": run.scheduled_for,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "seconds": max(0.0, ((run.ended_at or now) - run.started_at).total_seconds()),
        "deadline": run.deadline,
        "stop_at": run.stop_at,
        "selected": run.selected if whole else tasks.total,
        "tasks": tasks,
        "reasons": Reason.all_of(run.reasons) if whole else [],
        "notes": list(run.notes) if whole else [],
    }


def run_shown(run: JobRun, tasks: TaskCounts, now: datetime, *, whole: bool) -> RunShown:
    """In a list."""
    return RunShown.model_validate(run_facts(run, tasks, now, whole=whole))


def counts(states: Mapping[TaskState, int]) -> TaskCounts:
    """By state."""
    return TaskCounts(total=sum(states.values()), **{state.value: number for state, number in states.items()})


def counted(states: Iterable[TaskState]) -> TaskCounts:
    """Of these tasks."""
    found: dict[TaskState, int] = {}
    for state in states:
        found[state] = found.get(state, 0) + 1
    return counts(found)


def without_notes(run: JobRun) -> JobRun:
    """For who may not know of all machines: notes and reasons of the whole may name them."""
    return replace(run, notes=(), reasons=())
