"""Tasks: one machine's work in a job run, from waiting over claimed to ended."""

import json
import secrets
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from catalog.jobs import claims, limits, rows
from catalog.jobs.limits import Limits
from catalog.jobs.proxies import LIVING
from catalog.jobs.tables import ASKED, RUNNING, UNFINISHED, WAITING, DurationRow, JobRunRow, TaskRow
from catalog.jobs.values import ENDED, ProxyFacts, Task, TaskKind, TaskState
from proxy.errors import MachineBusy
from proxy.model import MachineId, Reason, RestorePointId, RunId

_NOTHING: Mapping[str, object] = MappingProxyType({})

# What this unit of work has read before is not brought up to date: nobody reads progress where it is written.
_UNSEEN = {"synchronize_session": False}

# Priority of what a person asked for, above that of jobs: somebody waits for it.
_ASKED = 1000

# Measured durations that are kept of each machine and kind: the median of seven is not moved by a night in which all was slow,
# and follows a machine that has grown within half a week of daily backups.
_MEASURED = 7


class Tasks:
    """All SQL about tasks. Part of a unit of work."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, tasks: Sequence[Task]) -> None:
        """New ones; their job runs are there already, and give them their priority."""
        of_runs = select(JobRunRow.id, JobRunRow.priority).where(JobRunRow.id.in_({task.job_run for task in tasks}))
        priority: dict[str, int] = {id_: number for (id_, number) in self._session.execute(of_runs)}  # noqa: C416  # rows are no pairs to mypy
        values = [rows.of_task(task, priority.get(task.job_run, 0)) for task in tasks]
        rows.insert_all(self._session, TaskRow, values)

    def ask(self, task: Task, key: str = "") -> Task:
        """A new one that a person asks for (``asked_by``): it waits for a proxy. With a ``key`` that this person used
        before, the one that was made then, whatever became of it; nothing is added. Needs a writing transaction."""
        ask_key = f"{task.asked_by}\n{key}" if key else None
        if ask_key is not None:
            known = self._session.scalars(select(TaskRow).where(TaskRow.ask_key == ask_key)).first()
            if known is not None:
                return rows.task(known)
        values = {**rows.of_task(task, _ASKED), "ask_key": ask_key}
        rows.insert_all(self._session, TaskRow, [values])
        return rows.task(self._session.get_one(TaskRow, task.id))

    def get(self, task: str) -> Task | None:
        """``None`` when it is not known, or forgotten."""
        row = self._session.get(TaskRow, task)
        return None if row is None else rows.task(row)

    def by_run(self, run: RunId) -> Task | None:
        """The task whose present or last attempt is this run."""
        return next(iter(self._found(TaskRow.run == run)), None)

    def of_run(self, job_run: str, state: TaskState | None = None) -> Sequence[Task]:
        """Of a job run, in planned order."""
        states = () if state is None else (TaskRow.state == state.value,)
        return self._found(TaskRow.job_run == job_run, *states)

    def list(
        self, machine: MachineId | None = None, state: TaskState | None = None, limit: int = 100
    ) -> Sequence[Task]:
        """Those that ended last first, before them those that did not end."""
        query = select(TaskRow).order_by(TaskRow.ended_at.desc().nulls_first(), TaskRow.id.desc()).limit(limit)
        if machine is not None:
            query = query.where(TaskRow.machine == machine)
        if state is not None:
            query = query.where(TaskRow.state == state.value)
        return [rows.task(row) for row in self._session.scalars(query)]

    def newest(
        self,
        *,
        before: tuple[datetime, str] | None = None,
        states: Collection[TaskState] = (),
        kinds: Collection[TaskKind] = (),
        machine: MachineId | None = None,
        job_run: str | None = None,
        asked: bool | None = None,
        since: datetime | None = None,
        like: Collection[str] | None = None,
        target: str | None = None,
        limit: int = 100,
    ) -> Sequence[Task]:
        """Those that were made last first; with ``before`` what comes after that one (when it was made, id). ``asked``: for
        by a person, or part of a job run. ``since``: made since then. ``like``: machines by identity or by a pattern of
        LIKE that one of these fits, and all that is about none; upper case may count or not, so ask ``fnmatch``
        afterwards."""
        t = TaskRow
        wanted: list[ColumnElement[bool]] = [t.state.in_([state.value for state in states])] if states else []
        said = [UNFINISHED] if states and ENDED.isdisjoint(states) else []
        said += [ASKED] if asked else []
        wanted += [t.kind.in_([kind.value for kind in kinds])] if kinds else []
        wanted += [] if machine is None else [t.machine == machine]
        wanted += [] if job_run is None else [t.job_run == job_run]
        wanted += [t.asked_by == ""] if asked is False else []
        wanted += [] if since is None else [t.created_at >= since]
        wanted += [] if target is None else [t.target == target]
        if like is not None:
            fits = [or_(t.machine == each, t.machine_name.like(each, escape="\\")) for each in like]
            wanted.append(or_(t.machine == "", *fits))
        if before is not None:
            moment, id_ = before
            wanted.append(or_(t.created_at < moment, and_(t.created_at == moment, t.id < id_)))
        query = select(t).where(*said, *wanted).order_by(t.created_at.desc(), t.id.desc()).limit(limit)
        return [rows.task(row) for row in self._session.scalars(query)]

    def running(self) -> Sequence[Task]:
        """All that run, in planned order."""
        return self._found(RUNNING)

    def orphans(self, living: Collection[str]) -> Sequence[Task]:
        """Running ones whose proxy is none of these."""
        return self._found(RUNNING, TaskRow.proxy.not_in(list(living)))

    def claim(
        self,
        proxy: ProxyFacts,
        now: datetime,
        limits: Limits,
        *,
        closed: Collection[str] = (),
        living: float = LIVING,
        only: str | None = None,
    ) -> Task | None:
        """Take the next waiting task that may run now, if there is one: it is ``RUNNING`` on this proxy then, as a new run.

        ``closed``: keys under which nothing may begin now. ``living``: seconds since its heartbeat for which another proxy
        counts, which reaches what this one does not. ``only``: of this job run. Needs a writing transaction.
        """
        chosen = claims.next_task(self._session, proxy, now, limits, closed, living, only)
        if chosen is None:
            return None
        row = self._session.get_one(TaskRow, chosen)
        row.state, row.proxy, row.claimed_at = TaskState.RUNNING.value, proxy.name, now
        row.run, row.done_bytes, row.total_bytes, row.phase = new_run(TaskKind(row.kind), now), 0, 0, ""
        self._session.flush()
        return rows.task(row)

    def hold(
        self,
        run: RunId,
        machine: MachineId,
        machine_name: str,
        now: datetime,
        *,
        proxy: str,
        keys: Collection[str] = (),
        host: str = "",
        kind: TaskKind = TaskKind.BACKUP,
    ) -> Task:
        """A run that a person starts by hand begins now, whatever other limits say; what runs by schedule sees its keys.
        Said twice for the same run, it is held once. Raises ``MachineBusy``. Needs a writing transaction."""
        known = self.by_run(run)
        if known is not None:
            return known
        wanted = (*limits.own_key(machine, kind.value), *keys)
        alone = {each for each in wanted if each.partition(":")[0] in limits.ALONE}
        holder = next((other for other in self.running() if not alone.isdisjoint(other.keys)), None)
        if holder is not None:
            raise MachineBusy(machine_name, f"run {holder.run} on {holder.proxy}")
        task = Task(run, "", kind, TaskState.RUNNING, machine, machine_name, host, wanted)
        values = {**rows.of_task(task), "run": run, "proxy": proxy, "claimed_at": now, "created_at": now}
        rows.insert_all(self._session, TaskRow, [values])
        return self._found(TaskRow.run == run)[0]

    def again(
        self,
        task: str,
        not_before: datetime | None,
        error: str | None = None,
        message: str = "",
        *,
        reasons: Sequence[Reason] = (),
        count: bool = True,
        proxy: str | None = None,
    ) -> bool:
        """Back to waiting, until ``not_before``; its keys are free. ``count``: another attempt begins. ``proxy``: only while
        it is this one's. ``False``: it was not running (there); nothing was changed."""
        row = self._held(task, proxy)
        if row is None:
            return False
        row.state, row.not_before, row.error, row.message = TaskState.WAITING.value, not_before, error, message
        row.run, row.proxy, row.claimed_at = "", "", None
        row.attempt += count
        row.reasons = [*row.reasons, *rows.of_reasons(reasons)]
        self._session.flush()
        return True

    def end(
        self,
        task: str,
        state: TaskState,
        now: datetime,
        *,
        proxy: str | None = None,
        point: RestorePointId | None = None,
        error: str | None = None,
        message: str = "",
        reasons: Sequence[Reason] = (),
        problems: Sequence[str] = (),
        measures: Mapping[str, object] = _NOTHING,
        result: Mapping[str, object] = _NOTHING,
    ) -> bool:
        """How a running one ended; its keys are free. ``proxy``: only while it is this one's. ``False``: it was not running
        (there), so that it ends exactly once; nothing was changed. Reasons are added to those that it has."""
        row = self._held(task, proxy)
        if row is None:
            return False
        row.state, row.ended_at, row.point = state.value, now, point or row.point
        row.error, row.message = error, message
        row.reasons = [*row.reasons, *rows.of_reasons(reasons)]
        row.problems, row.measures, row.result = list(problems), dict(measures), dict(result)
        self._session.flush()
        if state is TaskState.DONE and row.machine and row.claimed_at is not None:
            self._measured(row, max((now - row.claimed_at).total_seconds(), 0.0), now)
        return True

    def measured(self, task: str, more: Mapping[str, object]) -> None:
        """Add to what was measured of one that has ended, if it is still known."""
        row = self._session.get(TaskRow, task)
        if row is not None and TaskState(row.state) in ENDED:
            row.measures = {**row.measures, **more}
            self._session.flush()

    def give_up(self, job_run: str, keys: Collection[str], now: datetime, *, error: str, message: str) -> int:
        """Waiting ones of a job run that hold any of these keys fail too, for the same error. How many there were."""
        given_up = 0
        for row in self._session.scalars(select(TaskRow).where(WAITING, TaskRow.job_run == job_run)).all():
            if not set(keys).isdisjoint(json.loads(row.keys)):
                row.state, row.ended_at, row.error, row.message = TaskState.FAILED.value, now, error, message
                given_up += 1
        self._session.flush()
        return given_up

    def moved(self, task: str, proxy: str) -> bool:
        """Its run goes on in another proxy. ``False``: it does not run any more."""
        row = self._held(task, None)
        if row is not None:
            row.proxy = proxy
            self._session.flush()
        return row is not None

    def stop(self, job_run: str, now: datetime, reasons: Sequence[Reason] = ()) -> int:
        """Waiting ones of a job run will not run: ``STOPPED``. How many there were."""
        return self._stopped(now, reasons, TaskRow.job_run == job_run)

    def stop_one(self, task: str, now: datetime, reasons: Sequence[Reason] = ()) -> bool:
        """A person wants it to end: ``STOPPED`` at once while it waits; of a running one whoever works on it sees ``stop_at``.
        ``False`` when it has ended, or is not known: nothing was changed."""
        row = self._session.get(TaskRow, task)
        if row is None or TaskState(row.state) in ENDED:
            return False
        row.stop_at = row.stop_at or now
        self._session.flush()
        self._stopped(now, reasons, TaskRow.id == task)
        return True

    def expire(self, now: datetime, reasons: Sequence[Reason] = ()) -> int:
        """Waiting ones of job runs whose deadline is over will not run: ``STOPPED``. How many there were."""
        return self._stopped(now, reasons, TaskRow.deadline <= now, TaskRow.asked_by == "")

    def expire_asked(self, now: datetime, reasons: Sequence[Reason] = ()) -> int:
        """As ``expire``, of those that a person asked for and nobody began in time."""
        return self._stopped(now, reasons, TaskRow.deadline <= now, TaskRow.asked_by != "")

    def is_late(self, now: datetime) -> bool:
        """Whether ``expire_asked`` would end any."""
        late = select(TaskRow.id).where(WAITING, TaskRow.deadline <= now, TaskRow.asked_by != "").limit(1)
        return self._session.scalar(late) is not None

    def progress(self, known: Mapping[str, tuple[int, int]], phases: Mapping[str, str] = MappingProxyType({})) -> None:
        """How far running tasks are: bytes done, and in all; and what those among ``phases`` do now."""
        for task, (done, total) in known.items():
            told = {"phase": phases[task]} if task in phases else {}
            where = update(TaskRow).where(TaskRow.id == task, RUNNING)
            self._session.execute(where.values(done_bytes=done, total_bytes=total, **told), execution_options=_UNSEEN)

    def unfinished(self, job_run: str) -> int:
        """How many of a job run wait or run."""
        counted = self.counts([job_run]).get(job_run, {})
        return sum(number for state, number in counted.items() if state not in ENDED)

    def counts(self, job_runs: Collection[str]) -> Mapping[str, Mapping[TaskState, int]]:
        """Tasks by state for each of these job runs that has any."""
        query = select(TaskRow.job_run, TaskRow.state, func.count()).where(TaskRow.job_run.in_(job_runs))
        counted: dict[str, dict[TaskState, int]] = {}
        for job_run, state, number in self._session.execute(query.group_by(TaskRow.job_run, TaskRow.state)):
            counted.setdefault(job_run or "", {})[TaskState(state)] = number
        return counted

    def waiting_for(self, now: datetime, limits: Limits, closed: Collection[str] = ()) -> Counter[str]:
        """Full and closed keys, with how many waiting tasks each holds up: why nothing more runs now."""
        return claims.waiting_for(self._session, now, limits, closed)

    def durations(self) -> Mapping[tuple[MachineId, TaskKind, bool], Sequence[float]]:
        """Measured seconds of the newest successful tasks, oldest first, by machine, kind and whether it was a full one."""
        columns = select(DurationRow.machine, DurationRow.kind, DurationRow.full, DurationRow.seconds)
        return {
            (machine, TaskKind(kind), full): tuple(seconds)
            for machine, kind, full, seconds in self._session.execute(columns)
        }

    def outcomes(self, job_run: str) -> Iterator[tuple[MachineId, str, TaskState, Mapping[str, object]]]:
        """Of a job run's backups: machine, its name, state and measures alone, for sums over very many."""
        columns = select(TaskRow.machine, TaskRow.machine_name, TaskRow.state, TaskRow.measures)
        query = columns.where(TaskRow.job_run == job_run, TaskRow.kind == TaskKind.BACKUP.value)
        for machine, name, state, measures in self._session.execute(query):
            yield machine, name, TaskState(state), measures

    def last_success(self) -> Mapping[MachineId, tuple[str, datetime]]:
        """Of each machine that was ever backed up by a task: its name then, and when the newest ended."""
        columns = select(DurationRow.machine, DurationRow.machine_name, DurationRow.ended_at)
        query = columns.where(DurationRow.kind == TaskKind.BACKUP.value).order_by(DurationRow.ended_at)
        return {machine: (name, moment) for machine, name, moment in self._session.execute(query)}

    def fell_short(self, since: datetime) -> Mapping[MachineId, Task]:
        """Of each machine whose newest backup that ended since then did not end well: that task."""
        t, backup = TaskRow, TaskRow.kind == TaskKind.BACKUP.value
        last = select(t.machine, func.max(t.ended_at).label("at")).where(backup, t.ended_at >= since)
        newest = last.group_by(t.machine).subquery()
        query = select(t).join(newest, and_(newest.c.machine == t.machine, newest.c.at == t.ended_at))
        short = query.where(backup, t.state != TaskState.DONE.value).order_by(t.id)
        return {row.machine: rows.task(row) for row in self._session.scalars(short)}

    def _found(self, *conditions: Any) -> Sequence[Task]:
        query = select(TaskRow).where(*conditions).order_by(TaskRow.priority.desc(), TaskRow.order, TaskRow.id)
        return [rows.task(row) for row in self._session.scalars(query)]

    def _held(self, task: str, proxy: str | None) -> TaskRow | None:
        row = self._session.get(TaskRow, task)
        running = row is not None and row.state == TaskState.RUNNING.value
        return row if running and (proxy is None or (row and row.proxy == proxy)) else None

    def _stopped(self, now: datetime, reasons: Sequence[Reason], *conditions: Any) -> int:
        found = self._session.scalars(select(TaskRow).where(WAITING, *conditions)).all()
        for row in found:
            row.state, row.ended_at = TaskState.STOPPED.value, now
            row.reasons = [*row.reasons, *rows.of_reasons(reasons)]
        self._session.flush()
        return len(found)

    def _measured(self, row: TaskRow, seconds: float, now: datetime) -> None:
        key = {"machine": row.machine, "kind": row.kind, "full": row.full}
        known = self._session.get(DurationRow, key)
        if known is None:
            known = DurationRow(**key, seconds=[])
            self._session.add(known)
        known.seconds = [*known.seconds, round(seconds, 3)][-_MEASURED:]
        known.machine_name, known.ended_at = row.machine_name, now
        self._session.flush()


def new_run(kind: TaskKind, now: datetime) -> RunId:
    """Id of an attempt: readable, unique, short enough for names of files, bitmaps and locks."""
    return f"{kind.value[0]}{now:%Y%m%d%H%M%S}-{secrets.token_hex(4)}"
