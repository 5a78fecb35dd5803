"""What a task does, as the steps of its durable workflow (``appliance.workflows``), and what becomes of it.

::

    claimed ── task ── (the work) ── end ──┬── done
                                           ├── waiting again: another attempt is worth it, or this process ended
                                           ├── stopped: the window closed, or a person said so
                                           └── failed

Every step may run twice: what it writes is written only while the task is still this run's, in one transaction that frees the
task's slots too.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from appliance.jobs import measures
from appliance.serving.controls import StopCause
from appliance.wiring import Services
from catalog import database
from catalog.jobs import limits
from catalog.jobs.policy import Policy, Retries, RetryOn
from catalog.jobs.values import JobRun, Task, TaskKind, TaskState
from proxy.backup import BackupRequest, BackupResult
from proxy.errors import (
    Cancelled,
    HostUnreachable,
    LanfreeError,
    RepositoryFull,
    RepositoryUnavailable,
    RunFailed,
    StopAll,
    TransportError,
    TryAgain,
)
from proxy.model import Reason, ReasonCode, RestorePointId, RunId
from proxy.units import format_size

_BRANCHES: tuple[tuple[type[LanfreeError], RetryOn], ...] = (
    (TryAgain, RetryOn.TRY_AGAIN),
    (TransportError, RetryOn.TRANSPORT),
    (RunFailed, RetryOn.RUN_FAILED),
    (StopAll, RetryOn.STOP_ALL),
)

_CLOSED_BY: tuple[tuple[type[LanfreeError], str], ...] = (
    (RepositoryFull, limits.REPOSITORY),
    (RepositoryUnavailable, limits.REPOSITORY),
    (HostUnreachable, limits.HOST),
)
"""Of what every other task of the same key would fail too."""


patient = database.patient(threading.Event())
"""For what has to be written down, however long the database is away: the engine waits for its own in the same way."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """A task and the policy by which it is done. ``taken_from``: the proxy that had begun it, where another one goes on."""

    task: Task
    job_run: JobRun
    taken_from: str = ""

    @property
    def policy(self) -> Policy:
        """As it was when the job run began."""
        return self.job_run.policy


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a task. ``problems``: what needs a person though it is done; ``measures``: JSON."""

    point: RestorePointId | None = None
    reasons: tuple[Reason, ...] = ()
    problems: tuple[str, ...] = ()
    measures: Mapping[str, object] = field(default_factory=dict)


@patient
def load(services: Services, task: str, run: RunId) -> Assigned | None:
    """The task, if it is still this run's to do."""
    with services.jobs.transaction(write=False) as unit:
        found = unit.tasks.get(task)
        if found is None or found.run != run or found.state is not TaskState.RUNNING:
            return None
        job_run = unit.runs.get(found.job_run)
    return None if job_run is None else Assigned(found, job_run)


@patient
def here(services: Services, assigned: Assigned, proxy: str) -> Assigned:
    """Write down that this process works on it, when another one claimed it."""
    if assigned.task.proxy == proxy:
        return assigned
    with services.jobs.transaction() as unit:
        unit.tasks.moved(assigned.task.id, proxy)
    return replace(assigned, taken_from=assigned.task.proxy)


def request(services: Services, assigned: Assigned) -> BackupRequest:
    """The backup that the task means."""
    task, policy = assigned.task, assigned.policy
    made_by = Reason(ReasonCode.MADE_BY_JOB, assigned.job_run.job_name)
    return BackupRequest(
        run=task.run,
        machine=task.machine,
        quiesce=policy.quiesce or services.settings.backup.quiesce,
        full=task.full,
        exclude=task.exclude,
        notes=(made_by, *(reason for reason in task.reasons if reason.code is not ReasonCode.MADE_BY_JOB)),
    )


def indexes(services: Services, policy: Policy) -> bool:
    """Whether files are recorded after a backup."""
    return services.settings.files.index if policy.index is None else policy.index


def backed_up(result: BackupResult, remarks: tuple[str, ...]) -> Done:
    """What is to be known of a restore point. ``remarks``: about its files."""
    return Done(result.point.id, (), (*result.problems, *remarks), measures.of_backup(result))


def retry_at(
    retries: Retries, task: Task, error: Exception, now: datetime, closed_seconds: float = 0.0
) -> datetime | None:
    """When another attempt is worth it; ``None``: never, or not before the window closes. Pure. ``closed_seconds``: for which
    nothing of its kind may begin in any case."""
    branch = next((branch for kind, branch in _BRANCHES if isinstance(error, kind)), None)
    if branch is None or branch not in retries.on or task.attempt >= retries.attempts:
        return None
    moment = now + timedelta(seconds=max(retries.wait * 2 ** (task.attempt - 1), closed_seconds))
    return moment if task.deadline is None or moment < task.deadline else None


def summary(assigned: Assigned, done: Done) -> str:
    """One line for the log."""
    task = assigned.task
    read, stored = done.measures.get("bytes_read"), done.measures.get("bytes_stored")
    said = f"{task.kind.value} {task.machine_name or task.target} is done"
    if not isinstance(read, int) or not isinstance(stored, int):
        return said
    return f"{said}, {format_size(read)} read, {format_size(stored)} stored"


@patient
def end_done(services: Services, assigned: Assigned, done: Done) -> TaskState:
    """It is done."""
    task = assigned.task
    services.closures.succeeded(task.keys)
    if task.kind is not TaskKind.COPY:  # that is about another repository
        services.telling.repository(services.settings.repository.place, None)
    with services.jobs.transaction() as unit:
        if _still_ours(unit.tasks.get(task.id), task):
            unit.tasks.end(
                task.id,
                TaskState.DONE,
                services.clock.now(),
                point=done.point,
                reasons=(*done.reasons, *_taken(assigned)),
                problems=done.problems,
                measures=done.measures,
            )
    return TaskState.DONE


@patient
def end_failed(services: Services, assigned: Assigned, error: Exception) -> TaskState:
    """It could not be done: stopped, waiting for another attempt, or failed."""
    task, now = assigned.task, services.clock.now()
    cause = services.controls.of(task.run).cause if isinstance(error, Cancelled) else None
    if isinstance(error, Cancelled):
        return _end_cancelled(services, task, cause, now)
    code, message = _told(error)
    closed = _closed_by(error, task)
    seconds = services.closures.close(closed) if closed else 0.0
    if task.kind is not TaskKind.COPY:
        services.telling.repository(services.settings.repository.place, error)
    # Without a window nobody would ever end waiting for a repository that nobody mends.
    hopeless = task.deadline is None and services.closures.hopeless(closed)
    when = None if hopeless else retry_at(assigned.policy.retries, task, error, now, seconds)
    with services.jobs.transaction() as unit:
        if not _still_ours(unit.tasks.get(task.id), task):
            return TaskState.FAILED
        if when is not None and stopped(unit.runs.get(task.job_run)):
            reasons = (_STOPPED_BY[StopCause.PERSON], *_taken(assigned))
            unit.tasks.end(task.id, TaskState.STOPPED, now, error=code, message=message, reasons=reasons)
            return TaskState.STOPPED
        if when is not None:
            unit.tasks.again(task.id, when, code, message, reasons=(Reason(ReasonCode.RETRIED, f"{code}: {message}"),))
            return TaskState.WAITING
        unit.tasks.end(task.id, TaskState.FAILED, now, error=code, message=message, reasons=_taken(assigned))
        if hopeless:
            unit.tasks.give_up(task.job_run, closed, now, error=code, message=message)
    return TaskState.FAILED


def _taken(assigned: Assigned) -> tuple[Reason, ...]:
    return (Reason(ReasonCode.TAKEN_OVER, f"from {assigned.taken_from}"),) if assigned.taken_from else ()


def _end_cancelled(services: Services, task: Task, cause: StopCause | None, now: datetime) -> TaskState:
    """Nothing is wrong. What was stored before is found by the next run, which reads it again and stores only the rest."""
    with services.jobs.transaction() as unit:
        if not _still_ours(unit.tasks.get(task.id), task):
            return TaskState.STOPPED
        if cause not in _STOPPED_BY and stopped(unit.runs.get(task.job_run)):
            cause = StopCause.PERSON  # who ends it with the service has not seen that yet
        if cause in _STOPPED_BY:
            reason = _STOPPED_BY[cause]
            unit.tasks.end(task.id, TaskState.STOPPED, now, reasons=(reason,), message=reason.detail)
            return TaskState.STOPPED
        unit.tasks.again(task.id, now, "cancelled", "the service ended meanwhile", count=False)
    return TaskState.WAITING


_STOPPED_BY: Mapping[StopCause | None, Reason] = {
    StopCause.WINDOW: Reason(ReasonCode.WINDOW_CLOSED, "it was under way when the window closed; the next run goes on"),
    StopCause.PERSON: Reason(ReasonCode.STOPPED_BY_PERSON, "it was under way"),
}


def stopped(run: JobRun | None) -> bool:
    """Whether nothing of it may wait any more: a person ended it, or it has ended. Nobody would end what is put back then."""
    return run is not None and (run.stop_at is not None or run.ended_at is not None)


def _still_ours(found: Task | None, task: Task) -> bool:
    """Whether the record is still of this attempt: a step that runs twice writes once."""
    return found is not None and found.run == task.run and found.state is TaskState.RUNNING


def _told(error: Exception) -> tuple[str, str]:
    """Code and words for people, with what went wrong while it was tidied up."""
    known = error if isinstance(error, LanfreeError) else LanfreeError(f"a fault in Lanfree: {error!r}")
    hint = f" ({known.hint})" if known.hint else ""
    return known.code, "; ".join([f"{known.message}{hint}", *getattr(error, "__notes__", ())])


def _closed_by(error: Exception, task: Task) -> list[str]:
    kind = next((kind for which, kind in _CLOSED_BY if isinstance(error, which)), None)
    return [key for key in task.keys if kind is not None and key.startswith(f"{kind}:")]
