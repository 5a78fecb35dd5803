"""The history of jobs for those who look at it: runs and tasks in pages, what ended in a time, figures by day. Reads only."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Numeric, Select, Text, and_, cast, func, or_, select
from sqlalchemy.orm import Session

from catalog.jobs import rows
from catalog.jobs.tables import RUNNING, JobRunRow, TaskRow
from catalog.jobs.values import JobRun, JobRunState, Task, TaskKind, TaskState
from proxy.model import MachineId

BYTES = ("bytes_read", "bytes_new", "bytes_stored")
"""Of ``measures``, summed by day."""


MOVED = (*BYTES, "over_host")
"""Of ``measures``, summed by run."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs. ``job``: its identity; ``since``, ``until``: they began then. Empty or ``None``: any."""

    job: str | None = None
    states: frozenset[JobRunState] = frozenset()
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """A backup that runs or has ended, without what only a page about it shows."""

    task: str
    run: str
    machine: MachineId
    name: str
    host: str
    state: TaskState
    begin: datetime
    end: datetime | None
    error: str | None
    bytes_read: int | None


@dataclass(frozen=True, slots=True)
class Work:
    """A task of a run, as far as sums need it."""

    id: str
    kind: TaskKind
    machine: MachineId
    name: str
    state: TaskState
    attempt: int
    expected_seconds: float
    claimed_at: datetime | None
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Day:
    """Backups that ended on a day (UTC) in one state: how many, their bytes, and their seconds all together."""

    day: date
    state: TaskState
    number: int
    bytes_read: int
    bytes_new: int
    bytes_stored: int
    seconds: float


class Past:
    """All SQL about lists of what was. Part of a unit of work."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sqlite = session.get_bind().dialect.name == "sqlite"

    def runs(
        self, wanted: Wanted, limit: int, after: tuple[datetime, str] | None = None, *, newest_first: bool = True
    ) -> Sequence[JobRun]:
        """By their begin. ``after``: begin and id of the last one of the page before."""
        query = select(JobRunRow).limit(limit)
        if wanted.job is not None:
            query = query.where(JobRunRow.job == wanted.job)
        if wanted.states:
            query = query.where(JobRunRow.state.in_(sorted(state.value for state in wanted.states)))
        if wanted.since is not None:
            query = query.where(JobRunRow.started_at >= wanted.since)
        if wanted.until is not None:
            query = query.where(JobRunRow.started_at < wanted.until)
        moment, name = JobRunRow.started_at, JobRunRow.id
        if newest_first:
            query = query.order_by(moment.desc(), name.desc())
            if after is not None:
                query = query.where(or_(moment < after[0], and_(moment == after[0], name < after[1])))
        else:
            query = query.order_by(moment, name)
            if after is not None:
                query = query.where(or_(moment > after[0], and_(moment == after[0], name > after[1])))
        return [rows.job_run(row) for row in self._session.scalars(query)]

    def last_of_each(self) -> Mapping[str, JobRun]:
        """The newest run that has ended of each job, by the job's identity."""
        r = JobRunRow
        newest = (
            select(r.job, func.max(r.scheduled_for).label("moment"))
            .where(r.state != JobRunState.RUNNING.value)
            .group_by(r.job)
            .subquery()
        )
        query = select(r).join(newest, and_(newest.c.job == r.job, newest.c.moment == r.scheduled_for))
        return {row.job: rows.job_run(row) for row in self._session.scalars(query)}

    def took_place(self, since: datetime, until: datetime, limit: int) -> Sequence[JobRun]:
        """Runs of which a part lies in this time, the newest of them, oldest first."""
        touched = and_(JobRunRow.started_at < until, or_(JobRunRow.ended_at >= since, RUNNING))
        query = select(JobRunRow).where(touched).order_by(JobRunRow.started_at.desc()).limit(limit)
        return [rows.job_run(row) for row in reversed(self._session.scalars(query).all())]

    def tasks(
        self,
        job_run: str,
        limit: int,
        *,
        states: Collection[TaskState] = (),
        after: tuple[datetime, str] | None = None,
    ) -> Sequence[tuple[datetime, Task]]:
        """Of a run in planned order, each with its place. ``after``: place and id of the last one of the page before."""
        query = select(TaskRow).where(TaskRow.job_run == job_run).order_by(TaskRow.order, TaskRow.id).limit(limit)
        if states:
            query = query.where(TaskRow.state.in_(sorted(state.value for state in states)))
        if after is not None:
            place, name = TaskRow.order, TaskRow.id
            query = query.where(or_(place > after[0], and_(place == after[0], name > after[1])))
        return [(row.order, rows.task(row)) for row in self._session.scalars(query)]

    def work(self, job_run: str) -> Sequence[Work]:
        """All tasks of a run, without what sums do not need: a dashboard asks each few seconds, and there may be ten
        thousand."""
        t = TaskRow
        columns = (t.id, t.kind, t.machine, t.machine_name, t.state, t.attempt, t.expected_seconds, t.claimed_at)
        query = select(*columns, t.done_bytes, t.total_bytes).where(t.job_run == job_run)
        return [
            Work(id_, TaskKind(kind), machine, name, TaskState(state), *rest)
            for id_, kind, machine, name, state, *rest in self._session.execute(query)
        ]

    def notable(self, job_run: str, codes: Collection[str], limit: int) -> Sequence[Task]:
        """Tasks of a run that did not end well, have problems, or reasons with any of these codes; in planned order."""
        t = TaskRow
        said = [cast(t.reasons, Text).contains(f'"{code}"', autoescape=True) for code in sorted(codes)]
        ends = (TaskState.FAILED.value, TaskState.STOPPED.value)
        notable = or_(t.state.in_(ends), cast(t.problems, Text) != "[]", *said)
        query = select(t).where(t.job_run == job_run, notable).order_by(t.order, t.id).limit(limit)
        return [rows.task(row) for row in self._session.scalars(query)]

    def lately(self, job_run: str, limit: int) -> Sequence[Task]:
        """Tasks of a run that began, those to which something happened last, first."""
        t = TaskRow
        last = func.coalesce(t.ended_at, t.claimed_at)
        query = select(t).where(t.job_run == job_run, last.is_not(None)).order_by(last.desc(), t.id.desc()).limit(limit)
        return [rows.task(row) for row in self._session.scalars(query)]

    def moved(self, job_run: str) -> Iterator[tuple[MachineId, str, TaskState, Sequence[int]]]:
        """Of each backup of a run: machine, its name, state, and the bytes of ``MOVED``, nothing where they are not known."""
        t = TaskRow
        sums = [func.coalesce(self._measure(name), 0) for name in MOVED]
        query = select(t.machine, t.machine_name, t.state, *sums).where(
            t.job_run == job_run, t.kind == TaskKind.BACKUP.value
        )
        for machine, name, state, *counts in self._session.execute(query):
            yield machine, name, TaskState(state), [int(count) for count in counts]

    def ended(self, since: datetime, until: datetime) -> Sequence[Ended]:
        """Backups of which a part lies in this time, also those that run; oldest first."""
        t = TaskRow
        columns = (t.id, t.job_run, t.machine, t.machine_name, t.host, t.state, t.claimed_at, t.ended_at, t.error)
        read = self._measure("bytes_read")
        backup = and_(t.kind == TaskKind.BACKUP.value, t.claimed_at.is_not(None), t.claimed_at < until)
        found: list[Ended] = []
        for which in (and_(t.ended_at >= since, backup), and_(RUNNING, backup)):
            for id_, run, machine, name, host, state, begin, end, error, count in self._session.execute(
                select(*columns, read).where(which)
            ):
                size = None if count is None else int(count)
                found.append(Ended(id_, run or "", machine, name, host, TaskState(state), begin, end, error, size))
        return sorted(found, key=lambda one: (one.begin, one.task))

    def days(self, since: datetime, until: datetime, machines: Collection[MachineId] | None = None) -> Sequence[Day]:
        """Of all backups that ended in this time, or of these machines' alone; by day and state."""
        t = TaskRow
        day = func.date(t.ended_at) if self._sqlite else func.date(func.timezone("UTC", t.ended_at))
        sums = [func.coalesce(func.sum(self._measure(name)), 0) for name in BYTES]
        query: Select[Any] = (
            select(day, t.state, func.count(), *sums, func.coalesce(func.sum(self._seconds()), 0.0))
            .where(t.kind == TaskKind.BACKUP.value, t.ended_at >= since, t.ended_at < until)
            .group_by(day, t.state)
            .order_by(day, t.state)
        )
        if machines is not None:
            query = query.where(t.machine.in_(sorted(machines)))
        return [
            Day(
                date.fromisoformat(found) if isinstance(found, str) else found,
                TaskState(state), number, int(read), int(new), int(stored), float(seconds),
            )
            for found, state, number, read, new, stored, seconds in self._session.execute(query)
        ]  # fmt: skip

    def machines(self, since: datetime) -> Mapping[MachineId, str]:
        """Those that any backup ended of since then, by identity, with a name of them."""
        t = TaskRow
        query = select(t.machine, func.max(t.machine_name)).where(
            t.kind == TaskKind.BACKUP.value, t.ended_at >= since, t.machine != ""
        )
        return {machine: name for machine, name in self._session.execute(query.group_by(t.machine))}  # noqa: C416  # rows

    def bottlenecks(self, machines: Collection[MachineId], since: datetime) -> Mapping[MachineId, str]:
        """What most of the time went into in the newest backup of each of these machines that ended since then, where that was
        measured."""
        t = TaskRow
        query = select(t.machine, t.measures).where(
            t.machine.in_(sorted(machines)), t.ended_at >= since, t.state == TaskState.DONE.value
        )
        found: dict[MachineId, str] = {}
        for machine, measures in self._session.execute(query.order_by(t.ended_at)):
            stages = measures.get("stages") if isinstance(measures, dict) else None
            if isinstance(stages, dict) and isinstance(stages.get("bottleneck"), str) and stages["bottleneck"]:
                found[machine] = stages["bottleneck"]
        return found

    def _measure(self, name: str) -> Any:
        """A number out of ``measures``; NULL where it was not measured."""
        if self._sqlite:
            return func.json_extract(TaskRow.measures, f"$.{name}")
        return cast(func.json_extract_path_text(TaskRow.measures, name), Numeric)

    def _seconds(self) -> Any:
        """From its claim to its end."""
        if self._sqlite:
            return (func.julianday(TaskRow.ended_at) - func.julianday(TaskRow.claimed_at)) * 86400.0
        return func.extract("epoch", TaskRow.ended_at - TaskRow.claimed_at)
