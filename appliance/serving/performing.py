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
from appliance.serving import wishes
from appliance.serving.controls import StopCause
from appliance.wiring import Services
from catalog import database
from catalog.jobs import limits
from catalog.jobs.policy import Policy, Retries, RetryOn
from catalog.jobs.store import Unit
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
from proxy.restore import RestoreResult
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


ELSEWHERE = frozenset({TaskKind.COPY, TaskKind.REPAIR, TaskKind.SWEEP, TaskKind.INVENTORY})
"""Kinds whose success or failure says nothing of our own repository."""


patient = database.patient(threading.Event())
"""For what has to be written down, however long the database is away: the engine waits for its own in the same way."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """A task and the policy by which it is done. ``job_run``: ``None`` for what a person asked for. ``taken_from``: the
    proxy that had begun it, where another one goes on."""

    task: Task
    job_run: JobRun | None
    taken_from: str = ""

    @property
    def policy(self) -> Policy:
        """As it was when the job run began. What a person asked for follows the configuration, and its own wishes."""
        return wishes.policy_of(self.task) if self.job_run is None else self.job_run.policy

    @property
    def retries(self) -> Retries:
        """When another attempt is worth it."""
        return wishes.retries_of(self.task.kind) if self.job_run is None else self.job_run.policy.retries

    @property
    def job_name(self) -> str:
        """Empty for what a person asked for."""
        return "" if self.job_run is None else self.job_run.job_name


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a task. ``problems``: what needs a person though it is done; ``measures``, ``result``: JSON."""

    point: RestorePointId | None = None
    reasons: tuple[Reason, ...] = ()
    problems: tuple[str, ...] = ()
    measures: Mapping[str, object] = field(default_factory=dict)
    result: Mapping[str, object] = field(default_factory=dict)


@patient
def load(services: Services, task: str, run: RunId) -> Assigned | None:
    """The task, if it is still this run's to do."""
    with services.jobs.transaction(write=False) as unit:
        found = unit.tasks.get(task)
        if found is None or found.run != run or found.state is not TaskState.RUNNING:
            return None
        job_run = unit.runs.get(found.job_run) if found.job_run else None
    return None if found.job_run and job_run is None else Assigned(found, job_run)


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
    made_by = (Reason(ReasonCode.MADE_BY_JOB, assigned.job_name),) if assigned.job_run is not None else ()
    return BackupRequest(
        run=task.run,
        machine=task.machine,
        quiesce=policy.quiesce or services.settings.backup.quiesce,
        full=task.full,
        exclude=task.exclude,
        notes=(*made_by, *(reason for reason in task.reasons if reason.code is not ReasonCode.MADE_BY_JOB)),
    )


def indexes(services: Services, policy: Policy) -> bool:
    """Whether files are recorded after a backup."""
    return services.settings.files.index if policy.index is None else policy.index


def backed_up(result: BackupResult, remarks: tuple[str, ...]) -> Done:
    """What is to be known of a restore point. ``remarks``: about its files."""
    return Done(result.point.id, (), (*result.problems, *remarks), measures.of_backup(result))


def restored(result: RestoreResult) -> Done:
    """What is to be known of a machine that was restored."""
    machine = result.machine
    disks = [
        {
            "key": disk.key,
            "device": disk.device,
            "size": disk.size,
            "bytes_written": disk.bytes_written,
            "seconds": round(disk.seconds, 3),
            "compared": disk.compared,
            "reasons": [{"code": reason.code.value, "detail": reason.detail} for reason in disk.reasons],
        }
        for disk in result.disks
    ]
    made = None if machine is None else {"id": machine.id, "name": machine.name, "host": machine.host}
    known: dict[str, object] = {"machine": made, "disks": disks, "attached": result.attached}
    written = sum(disk.bytes_written for disk in result.disks)
    return Done(result.point.id, measures={"bytes_written": written}, result=known)


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
    if task.kind not in ELSEWHERE:
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
                result=done.result,
            )
    return TaskState.DONE


@patient
def end_failed(services: Services, assigned: Assigned, error: Exception) -> TaskState:
    """It could not be done: stopped, waiting for another attempt, or failed."""
    task, now = assigned.task, services.clock.now()
    cause = services.controls.of(task.run).cause if isinstance(error, Cancelled) else None
    if isinstance(error, Cancelled):
        return _end_cancelled(services, task, error, cause, now)
    code, message = _told(error)
    closed = _closed_by(error, task)
    seconds = services.closures.close(closed) if closed else 0.0
    if task.kind not in ELSEWHERE:
        services.telling.repository(services.settings.repository.place, error)
    # Without a window nobody would ever end waiting for a repository that nobody mends.
    hopeless = task.deadline is None and services.closures.hopeless(closed)
    when = None if hopeless else retry_at(assigned.retries, task, error, now, seconds)
    with services.jobs.transaction() as unit:
        found = unit.tasks.get(task.id)
        if not _still_ours(found, task):
            return TaskState.FAILED
        if when is not None and told_to_end(unit, found):
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


def _end_cancelled(
    services: Services, task: Task, error: Cancelled, cause: StopCause | None, now: datetime
) -> TaskState:
    """Nothing is wrong. What was stored before is found by the next run, which reads it again and stores only the rest."""
    with services.jobs.transaction() as unit:
        found = unit.tasks.get(task.id)
        if not _still_ours(found, task):
            return TaskState.STOPPED
        if cause not in _STOPPED_BY and told_to_end(unit, found):
            cause = StopCause.PERSON  # who ends it with the service has not seen that yet
        if cause not in _STOPPED_BY and task.kind in wishes.NEVER_AGAIN:
            why, message = _told(wishes.cut_off(task))
            unit.tasks.end(task.id, TaskState.FAILED, now, error=why, message=_with_notes(message, error))
            return TaskState.FAILED
        if cause in _STOPPED_BY:
            reason = _STOPPED_BY[cause]
            message = _with_notes(reason.detail, error)
            unit.tasks.end(task.id, TaskState.STOPPED, now, reasons=(reason,), message=message)
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


def told_to_end(unit: Unit, task: Task | None) -> bool:
    """Whether a person ended the task, or the run that it is of."""
    return task is not None and (task.stop_at is not None or stopped(unit.runs.get(task.job_run)))


def _still_ours(found: Task | None, task: Task) -> bool:
    """Whether the record is still of this attempt: a step that runs twice writes once."""
    return found is not None and found.run == task.run and found.state is TaskState.RUNNING


def _told(error: Exception) -> tuple[str, str]:
    """Code and words for people, with what went wrong while it was tidied up."""
    known = error if isinstance(error, LanfreeError) else LanfreeError(f"a fault in Lanfree: {error!r}")
    hint = f" ({known.hint})" if known.hint else ""
    return known.code, _with_notes(f"{known.message}{hint}", error)


def _with_notes(message: str, error: Exception) -> str:
    return "; ".join([message, *getattr(error, "__notes__", ())])


def _closed_by(error: Exception, task: Task) -> list[str]:
    kind = next((kind for which, kind in _CLOSED_BY if isinstance(error, which)), None)
    return [key for key in task.keys if kind is not None and key.startswith(f"{kind}:")]
