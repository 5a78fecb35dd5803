"""What goes on now, at one glance: a few plain SELECTs, for a command that is asked every few seconds and by monitoring.

Read without the object mapper and its migrations: to load those takes twice as long as all the rest. It knows the tables as
``catalog.jobs.tables`` has them, and a test reads both ways and compares. It never writes.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from catalog.jobs import limits
from catalog.jobs.limits import Limits
from catalog.jobs.values import JobRunState, TaskState
from proxy.errors import DatabaseAway, JobStoreFailed

# Seconds since its last heartbeat for which a proxy's word counts of what is closed: as ``proxies.LIVING``, whose libraries
# take too long to load here.
LIVING = 60.0

NOBODY: Mapping[TaskState, int] = {}


@dataclass(frozen=True, slots=True)
class RunSeen:
    """A job run. ``tasks``: how many are in which state; ``reasons``: why it is as it is, as ``code: detail``."""

    id: str
    job: str
    job_name: str
    state: JobRunState
    cause: str
    started_at: datetime
    ended_at: datetime | None
    deadline: datetime | None
    stop_at: datetime | None
    tasks: Mapping[TaskState, int] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobSeen:
    """A job. ``policy``: as it is stored; ``last``: its newest run that has ended, ``now``: the one that goes on."""

    id: str
    name: str
    enabled: bool
    policy: Mapping[str, Any]
    seen: datetime
    last: RunSeen | None = None
    now: RunSeen | None = None


@dataclass(frozen=True, slots=True)
class Doing:
    """A task that runs. ``run``: its job run, empty for what a person asked for (``asked_by``) or started by hand. ``done`` of
    ``total`` bytes; ``phase``: what it does now, for people."""

    id: str
    run: str
    kind: str
    machine: str
    host: str
    proxy: str
    since: datetime | None
    attempt: int
    full: bool
    done: int
    total: int
    asked_by: str = ""
    phase: str = ""

    @property
    def share(self) -> float | None:
        """From 0 to 1; ``None`` while nobody knows."""
        return min(1.0, self.done / self.total) if self.total else None


@dataclass(frozen=True, slots=True)
class Waiting:
    """``total`` tasks wait. ``held_up``: full key -> how many wait for it (one task may wait for several); ``jobs``: job run at
    its own ``parallel`` -> how many; ``again``: for another attempt, the next of them at ``next``; ``free``: for nothing but a
    proxy with a free slot."""

    total: int
    held_up: Mapping[str, int]
    jobs: Mapping[str, int]
    again: int
    next: datetime | None
    free: int


@dataclass(frozen=True, slots=True)
class ProxySeen:
    """``silent_for``: seconds since its last heartbeat, by the database's clock. ``closed``: see ``ProxyFacts``."""

    name: str
    machine: str
    started_at: datetime
    silent_for: float
    paths: tuple[str, ...]
    version: str
    slots: int
    closed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Glance:
    """All of it at one time. ``at``: the database's clock."""

    at: datetime
    jobs: tuple[JobSeen, ...]
    doing: tuple[Doing, ...]
    waiting: Waiting
    proxies: tuple[ProxySeen, ...]


@dataclass(frozen=True, slots=True)
class Reader:
    """Where to look. ``url``: of the catalog; ``password``: asked when a server is connected to."""

    url: str
    password: Callable[[], str] | None = None

    def look(self, limits: Limits) -> Glance | None:
        """``None``: there are no tables yet that it could read, or older ones; ``JobStore`` makes them. Raises
        ``DatabaseAway``, ``JobStoreFailed``."""
        if not self.url.startswith("sqlite:"):
            return self._look_at_server(limits)
        file = Path(unquote(urlsplit(self.url).path)[1:]).with_name("jobs.db")
        if not file.exists():
            return None
        try:
            with closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, isolation_level=None)) as connection:
                connection.execute("PRAGMA query_only = ON")
                connection.execute("BEGIN")
                return _seen(_Rows(connection.execute, "?"), limits)
        except sqlite3.OperationalError as error:
            if "no such" in str(error):
                return None
            raise JobStoreFailed(str(file), str(error)) from error
        except sqlite3.Error as error:
            raise JobStoreFailed(str(file), str(error)) from error

    def _look_at_server(self, limits: Limits) -> Glance | None:
        import psycopg  # noqa: PLC0415  # only where a server is configured

        place = f"postgresql://{urlsplit(self.url).netloc}{urlsplit(self.url).path}"
        password = None if self.password is None else self.password()
        uri = self.url.replace("+psycopg", "", 1)
        try:
            with psycopg.connect(
                psycopg.conninfo.make_conninfo(uri, connect_timeout=10, password=password)
            ) as connection:
                connection.read_only = True
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                return _seen(_Rows(connection.execute, "%s"), limits)
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
            return None
        except psycopg.OperationalError as error:
            raise DatabaseAway(place, str(error).splitlines()[0]) from error
        except psycopg.Error as error:
            raise JobStoreFailed(place, str(error).splitlines()[0]) from error


_RUNNING = """
    SELECT id, job_run, kind, machine, machine_name, host, proxy, claimed_at, attempt, keys, done_bytes, total_bytes,
        "full" AS read_all, asked_by, phase
    FROM tasks WHERE state = 'running'"""
_UNDER_WAY = """
    SELECT id, job, job_name, state, cause, started_at, ended_at, deadline, stop_at, reasons, notes, parallel
    FROM job_runs WHERE state = 'running'"""
_LAST = """
    SELECT id, r.job AS job, job_name, state, cause, started_at, ended_at, deadline, stop_at, reasons, notes
    FROM job_runs r
    JOIN (SELECT job, max(scheduled_for) AS moment FROM job_runs WHERE state <> 'running' GROUP BY job) newest
    ON newest.job = r.job AND newest.moment = r.scheduled_for"""
_COUNTS = "SELECT state, count(*) AS number FROM tasks WHERE job_run = ? GROUP BY state"
_JOBS = "SELECT id, name, enabled, policy, seen FROM jobs ORDER BY name"
_DUE = """
    SELECT keys, job_run, count(*) AS number FROM tasks
    WHERE state = 'waiting' AND (not_before IS NULL OR not_before <= ?) GROUP BY keys, job_run"""
_DUE_OF_MACHINE = """
    SELECT count(*) AS number FROM tasks
    WHERE state = 'waiting' AND (not_before IS NULL OR not_before <= ?) AND machine = ? AND kind <> 'files'"""
_AGAIN = "SELECT count(*) AS number, min(not_before) AS next FROM tasks WHERE state = 'waiting' AND not_before > ?"
_PROXIES = """
    SELECT name, machine, started_at, seen_at, paths, version, slots, closed FROM proxies
    WHERE gone_at IS NULL ORDER BY machine, name"""


class _Rows:
    """Rows of a statement whose parameters are written ``?``, as names to values."""

    def __init__(self, execute: Callable[..., Any], mark: str) -> None:
        self._execute = execute
        self._mark = mark
        self.sqlite = mark == "?"

    def __call__(self, statement: str, *parameters: object) -> Iterator[dict[str, Any]]:
        cursor = self._execute(statement.replace("?", self._mark), parameters)
        names = [column[0] for column in cursor.description]
        return (dict(zip(names, row, strict=True)) for row in cursor)

    def plain(self, statement: str, *parameters: object) -> Iterator[tuple[Any, ...]]:
        """Without names, for very many of them."""
        return iter(self._execute(statement.replace("?", self._mark), parameters))


def _seen(rows: _Rows, limits: Limits) -> Glance:
    clock = "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now') AS now" if rows.sqlite else "SELECT clock_timestamp() AS now"
    now = _moment(next(rows(clock))["now"])
    running = list(rows(_RUNNING))
    under_way = list(rows(_UNDER_WAY))
    doing = [_doing(row) for row in running]
    proxies = tuple(_proxies(rows, now))
    living = [proxy.closed for proxy in proxies if proxy.silent_for <= LIVING]
    closed = frozenset.intersection(*living) if living else frozenset()
    return Glance(
        at=now,
        jobs=_jobs(rows, under_way),
        doing=tuple(sorted(doing, key=lambda one: (one.since or now, one.id))),
        waiting=_waiting(rows, running, {row["id"]: row["parallel"] for row in under_way}, limits, now, closed=closed),
        proxies=proxies,
    )


def _doing(row: Mapping[str, Any]) -> Doing:
    return Doing(
        id=row["id"],
        run=row["job_run"] or "",
        kind=row["kind"],
        machine=row["machine_name"] or row["machine"],
        host=row["host"],
        proxy=row["proxy"],
        since=_moment_or_none(row["claimed_at"]),
        attempt=row["attempt"],
        full=bool(row["read_all"]),
        done=row["done_bytes"],
        total=row["total_bytes"],
        asked_by=row["asked_by"],
        phase=row["phase"],
    )


def _jobs(rows: _Rows, under_way: Sequence[Mapping[str, Any]]) -> tuple[JobSeen, ...]:
    last = {row["job"]: row for row in rows(_LAST)}
    now = {row["job"]: row for row in under_way}

    def run(row: Mapping[str, Any] | None) -> RunSeen | None:
        if row is None:
            return None
        return _run(row, {TaskState(each["state"]): each["number"] for each in rows(_COUNTS, row["id"])})

    return tuple(
        JobSeen(
            row["id"], row["name"], bool(row["enabled"]), _json(row["policy"]), _moment(row["seen"]),
            run(last.get(row["id"])), run(now.get(row["id"])),
        )
        for row in list(rows(_JOBS))
    )  # fmt: skip


def _run(row: Mapping[str, Any], tasks: Mapping[TaskState, int]) -> RunSeen:
    reasons = [f"{each['code']}: {each['detail']}".removesuffix(": ") for each in _json(row["reasons"])]
    return RunSeen(
        id=row["id"],
        job=row["job"],
        job_name=row["job_name"],
        state=JobRunState(row["state"]),
        cause=row["cause"],
        started_at=_moment(row["started_at"]),
        ended_at=_moment_or_none(row["ended_at"]),
        deadline=_moment_or_none(row["deadline"]),
        stop_at=_moment_or_none(row["stop_at"]),
        tasks=tasks,
        reasons=tuple(reasons),
        notes=tuple(_json(row["notes"])),
    )


def _waiting(
    rows: _Rows,
    running: Sequence[Mapping[str, Any]],
    parallel: Mapping[str, int | None],
    limited: Limits,
    now: datetime,
    *,
    closed: frozenset[str],
) -> Waiting:
    """By the rules of ``catalog.jobs.claims``. ``closed``: keys under which no living proxy begins anything."""
    held: Counter[str] = Counter()
    for row in running:
        held.update((*limits.own_key(row["machine"], row["kind"]), *json.loads(row["keys"])))
    full = {key for key, number in held.items() if _is_full(number, limited.of(key))} | closed
    by_run = Counter(row["job_run"] for row in running)
    moment = now.strftime("%Y-%m-%d %H:%M:%S.%f") if rows.sqlite else now
    held_up: Counter[str] = Counter()
    jobs: Counter[str] = Counter()
    total = free = 0
    for keys, run, number in rows.plain(_DUE, moment):  # as many as there are combinations of keys: thousands
        total += number
        waits_for = full.intersection(_texts(keys))
        for key in waits_for:
            held_up[key] += number
        room = parallel.get(run)
        at_limit = room is not None and by_run[run] >= room
        if at_limit:
            jobs[run] += number
        free += 0 if waits_for or at_limit else number
    for key in sorted(key for key in held if key.startswith(f"{limits.MACHINE}:")):  # as many as run, which is few
        also = next(rows(_DUE_OF_MACHINE, moment, key.partition(":")[2]))["number"]
        if also:
            held_up[key] += also
            free = max(0, free - also)
    again = next(rows(_AGAIN, moment))
    return Waiting(total + again["number"], held_up, jobs, again["number"], _moment_or_none(again["next"]), free)


def _is_full(held: int, limit: int | None) -> bool:
    return limit is not None and held >= limit


def _texts(written: str) -> list[str]:
    """A JSON list of texts, as ``rows.texts`` writes it; a text without escapes is read ten times as quickly without JSON."""
    plain = "\\" not in written and len(written) > 2
    return written[2:-2].split('","') if plain else json.loads(written)


def _proxies(rows: _Rows, now: datetime) -> Iterator[ProxySeen]:
    for row in rows(_PROXIES):
        silent = max(0.0, (now - _moment(row["seen_at"])).total_seconds())
        facts = (tuple(_json(row["paths"])), row["version"], row["slots"], frozenset(_json(row["closed"])))
        yield ProxySeen(row["name"], row["machine"], _moment(row["started_at"]), silent, *facts)


def _json(value: Any) -> Any:
    """SQLite gives the text, PostgreSQL what it means."""
    return json.loads(value) if isinstance(value, str) else value


def _moment(value: str | datetime) -> datetime:
    """SQLite's text has no zone and means UTC."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _moment_or_none(value: str | datetime | None) -> datetime | None:
    return None if value is None else _moment(value)
