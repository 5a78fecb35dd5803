"""Tasks of job runs as the API shows them: how far, how fast, until when, and why."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from api.schemas.common import Reason
from api.schemas.job_runs import Progress, RunEvent, RunTask
from appliance.jobs.measured import part
from appliance.jobs.task_text import limits_of, named, reason_text, reasons_of
from appliance.telling.text import number, seconds_between
from catalog.jobs.past import Work
from catalog.jobs.values import ENDED, JobRun, JobRunState, Task, TaskState

ALMOST = 0.95
"""Share of a task that goes on for longer than presumed, while nobody knows its bytes: it is not done before it is."""

STAGES = ("seconds", "source", "proxy", "repository", "paced")


@dataclass(frozen=True, slots=True)
class Around:
    """What a task's row does not say. ``people``: what they call proxies; ``full``: limits that are at their most; ``speeds``:
    by id and attempt; ``before``: what the backup before of a machine waited for most."""

    now: datetime
    people: Mapping[str, str] = field(default_factory=dict)
    full: Collection[str] = ()
    speeds: Mapping[tuple[str, int], float] = field(default_factory=dict)
    before: Mapping[str, str] = field(default_factory=dict)


def task_shown(task: Task, around: Around) -> RunTask:
    """One task."""
    measures, stages = task.measures, part(task.measures, "stages")
    running = task.state is TaskState.RUNNING
    speed = around.speeds.get((task.id, task.attempt)) if running else None
    bottleneck = stages.get("bottleneck")
    return RunTask(
        id=task.id,
        job_run=task.job_run,
        kind=task.kind.value,
        target=task.target,
        state=task.state.value,
        machine=task.machine or None,
        name=named(task),
        host=task.host,
        proxy=around.people.get(task.proxy, task.proxy),
        attempt=task.attempt,
        full=task.full,
        planned_begin=task.order if task.state is TaskState.WAITING else None,
        not_before=task.not_before,
        deadline=task.deadline,
        claimed_at=task.claimed_at,
        ended_at=task.ended_at,
        seconds=seconds_between(task.claimed_at, task.ended_at or (around.now if running else None)),
        expected_seconds=task.expected_seconds,
        expected_end=_end_of(task, speed, around.now) if running else None,
        done_bytes=task.done_bytes,
        total_bytes=task.total_bytes,
        share=_share_shown(task),
        bytes_per_second=_pace(task, around.now, speed) if running else None,
        bytes_read=_whole(measures, "bytes_read"),
        bytes_new=_whole(measures, "bytes_new"),
        bytes_stored=_whole(measures, "bytes_stored"),
        over_host=_whole(measures, "over_host"),
        frozen_seconds=number(measures, "frozen_seconds"),
        level=_word(measures, "level"),
        consistency=_word(measures, "consistency"),
        transports=_words(measures, "transports"),
        bottleneck=bottleneck if isinstance(bottleneck, str) and bottleneck else None,
        bottleneck_before=around.before.get(task.machine) if running else None,
        stages={name: value for name in STAGES if (value := number(stages, name)) is not None},
        waits_for=limits_of(task, around.full),
        point=task.point,
        error=task.error,
        message=task.message,
        reasons=Reason.all_of(reasons_of(task)),
        problems=list(task.problems),
    )


def progress(
    work: Sequence[Work], speeds: Mapping[tuple[str, int], float], now: datetime, before: str | None
) -> Progress:
    """Of a run. ``before``: what most of the time of the backups before went into."""
    running = [one for one in work if one.state is TaskState.RUNNING]
    waiting = [one for one in work if one.state is TaskState.WAITING]
    if not (running or waiting):
        return Progress(
            share=1.0 if work else None, done_bytes=0, total_bytes=0, bytes_per_second=None, bottleneck=None,
            expected_end=None,
        )  # fmt: skip
    weights = [(max(one.expected_seconds, 1.0), _share_of(one, now)) for one in work]
    whole = sum(weight for weight, _ in weights)
    left = sum(weight * (1.0 - share) for weight, share in weights)
    ends = [now + timedelta(seconds=left / max(1, len(running)))]
    for one in running:
        speed = speeds.get((one.id, one.attempt))
        if speed and one.total_bytes > one.done_bytes:
            ends.append(now + timedelta(seconds=min((one.total_bytes - one.done_bytes) / speed, _LONGEST)))
    known = [speeds[one.id, one.attempt] for one in running if (one.id, one.attempt) in speeds]
    return Progress(
        share=round(1.0 - left / whole, 4),
        done_bytes=sum(one.done_bytes for one in running),
        total_bytes=sum(one.total_bytes for one in running),
        bytes_per_second=sum(known) if known else None,
        bottleneck=before,
        expected_end=max(ends) if running else None,
    )


_LONGEST = 365 * 86400.0
"""Seconds: an end that is further away is none, and may be no date."""


def events(run: JobRun, tasks: Sequence[Task], *, whole: bool) -> list[RunEvent]:
    """What happened, oldest first, as far as rows tell it. ``whole``: the caller may see all of the run's machines."""
    found = [_of_run(run, run.started_at, "run-began", f"job {run.job_name} begins: {run.cause.value}")]
    if whole:
        found += [_of_run(run, run.started_at, "note", note, "warning") for note in run.notes]
        at = run.ended_at or run.started_at
        found += [_of_run(run, at, "decision", reason_text(reason), "info") for reason in run.reasons]
    if run.stop_at is not None:
        found.append(_of_run(run, run.stop_at, "stop-asked", "a person asked for its end", "warning"))
    for task in tasks:
        found += _of_task(task)
    if run.ended_at is not None:
        found.append(_of_run(run, run.ended_at, "run-ended", run.state.value, _GRAVITY.get(run.state, "warning")))
    return sorted(found, key=lambda event: event.at)


_GRAVITY = {JobRunState.DONE: "info", JobRunState.FAILED: "error"}


def _of_run(run: JobRun, at: datetime, what: str, text: str, gravity: str = "info") -> RunEvent:
    return RunEvent(at=at, gravity=gravity, what=what, task=None, machine=None, name=run.job_name, text=text)


def _of_task(task: Task) -> list[RunEvent]:
    def event(at: datetime, what: str, text: str, gravity: str = "info") -> RunEvent:
        machine = task.machine or None
        return RunEvent(at=at, gravity=gravity, what=what, task=task.id, machine=machine, name=named(task), text=text)

    found: list[RunEvent] = []
    if task.claimed_at is not None:
        attempt = f", attempt {task.attempt}" if task.attempt > 1 else ""
        found.append(event(task.claimed_at, "task-began", f"{task.kind.value} begins{attempt}"))
    at = task.ended_at or task.claimed_at
    if at is None:
        return found
    said = f"{task.error}: {task.message}" if task.error else task.message
    if task.ended_at is None and said:
        found.append(event(at, "problem", f"attempt {task.attempt} ended: {said}", "warning"))
    found += [event(at, "decision", reason_text(reason)) for reason in reasons_of(task)]
    found += [event(at, "problem", problem, "warning") for problem in task.problems]
    if task.ended_at is not None:
        gravity = {TaskState.DONE: "info", TaskState.FAILED: "error"}.get(task.state, "warning")
        found.append(event(at, "task-ended", f"{task.state.value}{f': {said}' if said else ''}", gravity))
    return found


def _share_of(one: Work, now: datetime) -> float:
    if one.state in ENDED:
        return 1.0
    if one.state is TaskState.WAITING:
        return 0.0
    if one.total_bytes > 0:
        return min(1.0, one.done_bytes / one.total_bytes)
    passed = seconds_between(one.claimed_at, now) or 0.0
    return min(ALMOST, passed / max(one.expected_seconds, 1.0))


def _share_shown(task: Task) -> float | None:
    if task.state is TaskState.DONE:
        return 1.0
    if task.state is not TaskState.RUNNING or task.total_bytes <= 0:
        return None
    return min(1.0, task.done_bytes / task.total_bytes)


def _pace(task: Task, now: datetime, speed: float | None) -> float | None:
    """Its mean since it began, until two looks tell more."""
    passed = seconds_between(task.claimed_at, now)
    return speed if speed is not None else task.done_bytes / passed if passed else None


def _end_of(task: Task, speed: float | None, now: datetime) -> datetime | None:
    left, pace = task.total_bytes - task.done_bytes, _pace(task, now, speed)
    if task.total_bytes > 0 and pace:
        return now + timedelta(seconds=min(left / pace, _LONGEST))
    if task.claimed_at is None or not task.expected_seconds:
        return None
    return max(now, task.claimed_at + timedelta(seconds=task.expected_seconds))


def _whole(measures: Mapping[str, object], name: str) -> int | None:
    found = number(measures, name)
    return None if found is None else int(found)


def _word(measures: Mapping[str, object], name: str) -> str | None:
    found = measures.get(name)
    return found if isinstance(found, str) else None


def _words(measures: Mapping[str, object], name: str) -> list[str]:
    found = measures.get(name)
    return [str(each) for each in found] if isinstance(found, list | tuple) else []
