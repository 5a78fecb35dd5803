"""Rows of the job store as values and back."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Session

from catalog.jobs import limits
from catalog.jobs.policy import Policy
from catalog.jobs.tables import FIRST, JobRow, JobRunRow, ProxyRow, TaskRow
from catalog.jobs.values import Cause, Job, JobRun, JobRunState, ProxyFacts, Task, TaskKind, TaskState
from proxy.errors import JobUnreadable
from proxy.model import Reason, ReasonCode

_TASK = frozenset(field.name for field in fields(Task))


def job(row: JobRow) -> Job:
    """A job as a value. Raises ``JobUnreadable``."""
    facts = (row.id, row.name, _policy(row.name, row.policy), row.revision, row.enabled)
    return Job(*facts, row.created_at, row.updated_at, row.seen)


def job_run(row: JobRunRow) -> JobRun:
    """A job run as a value. Raises ``JobUnreadable``."""
    return JobRun(
        id=row.id,
        job=row.job,
        job_name=row.job_name,
        policy=_policy(row.job_name, row.policy),
        cause=Cause(row.cause),
        scheduled_for=row.scheduled_for,
        state=JobRunState(row.state),
        started_at=row.started_at,
        ended_at=row.ended_at,
        deadline=row.deadline,
        selected=row.selected,
        reasons=reasons(row.reasons),
        notes=tuple(row.notes),
        stop_at=row.stop_at,
    )


def _policy(job: str, stored: Mapping[str, Any]) -> Policy:
    try:
        return Policy.model_validate(stored)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise JobUnreadable(job, f"{'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']}") from None


def of_job_run(run: JobRun) -> dict[str, Any]:
    """A job run as columns."""
    return {
        **{field.name: getattr(run, field.name) for field in fields(JobRun)},
        "policy": run.policy.model_dump(mode="json"),
        "parallel": run.policy.parallel,
        "priority": run.policy.priority,
        "cause": run.cause.value,
        "state": run.state.value,
        "reasons": of_reasons(run.reasons),
        "notes": list(run.notes),
    }


def task(row: TaskRow) -> Task:
    """A task as a value. Its keys: the machine's own, then the others in order."""
    same = {name: getattr(row, name) for name in _TASK}
    return Task(
        **{
            **same,
            "job_run": row.job_run or "",
            "kind": TaskKind(row.kind),
            "state": TaskState(row.state),
            "keys": (*limits.own_key(row.machine, row.kind), *json.loads(row.keys)),
            "paths": frozenset(json.loads(row.paths)),
            "exclude": frozenset(json.loads(row.exclude)),
            "order": None if row.order == FIRST else row.order,
            "created_at": None if row.created_at == FIRST else row.created_at,
            "reasons": reasons(row.reasons),
            "problems": tuple(row.problems),
        }
    )


def of_task(value: Task, priority: int = 0) -> dict[str, Any]:
    """A task as columns."""
    return {
        **{name: getattr(value, name) for name in _TASK},
        "job_run": value.job_run or None,
        "kind": value.kind.value,
        "state": value.state.value,
        "priority": priority,
        "order": value.order or FIRST,
        "created_at": value.created_at or FIRST,
        "keys": texts(set(value.keys) - {*limits.own_key(value.machine)}),
        "paths": texts(value.paths),
        "exclude": texts(value.exclude),
        "reasons": of_reasons(value.reasons),
        "problems": list(value.problems),
        "measures": dict(value.measures),
        "parameters": dict(value.parameters),
        "result": dict(value.result),
    }


def proxy(row: ProxyRow) -> ProxyFacts:
    """A proxy as a value."""
    facts = (row.name, row.machine, row.started_at, row.seen_at, frozenset(row.paths), row.version, row.slots)
    return ProxyFacts(*facts, closed=frozenset(row.closed))


def texts(values: Iterable[str]) -> str:
    """Sorted, as JSON."""
    return json.dumps(sorted(values), separators=(",", ":"))


def reasons(stored: Sequence[Mapping[str, str]]) -> tuple[Reason, ...]:
    """Out of JSON."""
    return tuple(Reason(ReasonCode(each["code"]), each["detail"]) for each in stored)


def of_reasons(values: Iterable[Reason]) -> list[dict[str, str]]:
    """Into JSON."""
    return [{"code": each.code.value, "detail": each.detail} for each in values]


def database_now(session: Session) -> datetime:
    """The database's clock: the one that all proxies share."""
    if session.get_bind().dialect.name == "sqlite":
        text: str = session.scalar(select(func.strftime("%Y-%m-%dT%H:%M:%f+00:00", "now"))) or ""
        return datetime.fromisoformat(text)
    moment: datetime = session.scalars(select(func.clock_timestamp())).one()
    return moment


def insert_new(session: Session, table: type[DeclarativeBase], values: Mapping[str, Any]) -> bool:
    """Insert unless a row of that key, or of another unique one, is there; whether it was inserted."""
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table).values(**values).on_conflict_do_nothing().returning(1)
    return session.scalar(statement) is not None


def insert_all(session: Session, table: type[DeclarativeBase], values: Sequence[Mapping[str, Any]]) -> None:
    """Insert many at once."""
    if values:
        session.execute(insert(table), values)
