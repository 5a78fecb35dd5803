"""The job store's tables, typed. SCHEMA.md draws them; ``migrations/`` makes them. Columns are named as in ``values``.

They are no part of the catalog: nothing makes them again.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    desc,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from catalog.tables import NAMES, UtcTime

# ``order`` of a task without one: before all that have one. Databases disagree where nothing sorts.
FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_TEXT = "1970-01-01 00:00:00.000000+00"

# Conditions of partial indexes, also said literally in the queries that shall use them: a history of millions of ended tasks
# costs those queries nothing.
WAITING = text("state = 'waiting'")
RUNNING = text("state = 'running'")
UNFINISHED = text("state IN ('waiting', 'running')")
ASKED = text("asked_by <> ''")


class Base(DeclarativeBase):
    """The job store's tables."""

    metadata = MetaData(naming_convention=NAMES)


class JobRow(Base):
    """A policy under a name."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    policy: Mapped[dict[str, Any]] = mapped_column(JSON)
    revision: Mapped[int] = mapped_column(Integer)
    enabled: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    updated_at: Mapped[datetime] = mapped_column(UtcTime)
    seen: Mapped[datetime] = mapped_column(UtcTime)


class JobNameRow(Base):
    """A name that a job has or had, with that job's newest policy: restore points carry identity and name for years, and
    retention asks. ``updated_at``: when it was last seen to be the job's name."""

    __tablename__ = "job_names"
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    job: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
    policy: Mapped[dict[str, Any]] = mapped_column(JSON)
    updated_at: Mapped[datetime] = mapped_column(UtcTime)


class JobRunRow(Base):
    """One execution of a job; it outlives the job. ``parallel``, ``priority``: from its policy, for claims."""

    __tablename__ = "job_runs"
    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    job: Mapped[str] = mapped_column(String(64))
    job_name: Mapped[str] = mapped_column(Text)
    policy: Mapped[dict[str, Any]] = mapped_column(JSON)
    parallel: Mapped[int | None] = mapped_column(Integer)
    priority: Mapped[int] = mapped_column(Integer)
    cause: Mapped[str] = mapped_column(String(16))
    scheduled_for: Mapped[datetime] = mapped_column(UtcTime)
    state: Mapped[str] = mapped_column(String(16))
    started_at: Mapped[datetime] = mapped_column(UtcTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcTime)
    deadline: Mapped[datetime | None] = mapped_column(UtcTime)
    stop_at: Mapped[datetime | None] = mapped_column(UtcTime)
    selected: Mapped[int] = mapped_column(Integer)
    reasons: Mapped[list[dict[str, str]]] = mapped_column(JSON)
    notes: Mapped[list[str]] = mapped_column(JSON)
    __table_args__ = (
        UniqueConstraint("job", "scheduled_for"),
        Index(None, "started_at"),
        Index(None, "ended_at"),
        Index("ix_job_runs_running", "job", sqlite_where=RUNNING, postgresql_where=RUNNING),
    )


class TaskRow(Base):
    """One machine's work in a job run; ``job_run`` is empty for what a person asked for (``asked_by``) or began by hand.

    ``keys``, ``paths``, ``exclude``: sorted JSON lists as text: equal ones are equal texts, looked at once. The machine's
    own key is not among ``keys``: ``machine`` says it. ``ask_key``: the same wish, sent twice, has the same one.
    """

    __tablename__ = "tasks"
    id: Mapped[str] = mapped_column(String(160), primary_key=True)
    job_run: Mapped[str | None] = mapped_column(ForeignKey("job_runs.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    priority: Mapped[int] = mapped_column(Integer)
    order: Mapped[datetime] = mapped_column(UtcTime)
    machine: Mapped[str] = mapped_column(String(64))
    machine_name: Mapped[str] = mapped_column(Text)
    host: Mapped[str] = mapped_column(Text)
    keys: Mapped[str] = mapped_column(Text)
    paths: Mapped[str] = mapped_column(Text)
    exclude: Mapped[str] = mapped_column(Text)
    full: Mapped[bool] = mapped_column(Boolean)
    target: Mapped[str] = mapped_column(Text)
    not_before: Mapped[datetime | None] = mapped_column(UtcTime)
    deadline: Mapped[datetime | None] = mapped_column(UtcTime)
    expected_seconds: Mapped[float] = mapped_column(Float)
    attempt: Mapped[int] = mapped_column(Integer)
    run: Mapped[str] = mapped_column(String(128))
    proxy: Mapped[str] = mapped_column(String(128))
    claimed_at: Mapped[datetime | None] = mapped_column(UtcTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcTime)
    point: Mapped[str | None] = mapped_column(String(128))
    error: Mapped[str | None] = mapped_column(String(64))
    message: Mapped[str] = mapped_column(Text)
    reasons: Mapped[list[dict[str, str]]] = mapped_column(JSON)
    problems: Mapped[list[str]] = mapped_column(JSON)
    measures: Mapped[dict[str, Any]] = mapped_column(JSON)
    done_bytes: Mapped[int] = mapped_column(BigInteger)
    total_bytes: Mapped[int] = mapped_column(BigInteger)
    # With defaults in the database: proxies of the version before add tasks, too, while they are upgraded one by one.
    phase: Mapped[str] = mapped_column(Text, server_default="")
    asked_by: Mapped[str] = mapped_column(Text, server_default="")
    ask_key: Mapped[str | None] = mapped_column(String(400))
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON, server_default="{}")
    result: Mapped[dict[str, Any]] = mapped_column(JSON, server_default="{}")
    created_at: Mapped[datetime] = mapped_column(UtcTime, server_default=_FIRST_TEXT)
    stop_at: Mapped[datetime | None] = mapped_column(UtcTime)
    __table_args__ = (
        Index("ix_tasks_waiting", desc("priority"), "order", "id", sqlite_where=WAITING, postgresql_where=WAITING),
        Index("ix_tasks_running", "proxy", sqlite_where=RUNNING, postgresql_where=RUNNING),
        Index(None, "job_run", "state"),
        Index(None, "machine", "ended_at"),
        Index(None, "run"),
        Index(None, "ended_at"),
        Index(None, "created_at", "id"),
        Index(None, "kind", "created_at", "id"),
        Index("ix_tasks_unfinished", "created_at", "id", sqlite_where=UNFINISHED, postgresql_where=UNFINISHED),
        Index("ix_tasks_asked", "created_at", "id", sqlite_where=ASKED, postgresql_where=ASKED),
        Index("uq_tasks_ask_key", "ask_key", unique=True),
    )


class DurationRow(Base):
    """How long a machine's work took, kept when tasks end, so that a plan reads as many rows as there are machines.

    ``seconds``: of the newest few, oldest first. ``ended_at``: of the newest.
    """

    __tablename__ = "machine_durations"
    machine: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    full: Mapped[bool] = mapped_column(Boolean, primary_key=True)
    machine_name: Mapped[str] = mapped_column(Text)
    seconds: Mapped[list[float]] = mapped_column(JSON)
    ended_at: Mapped[datetime] = mapped_column(UtcTime)


class ProxyRow(Base):
    """A process that works on tasks. ``gone_at``: since when the others do not count on it any more."""

    __tablename__ = "proxies"
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    machine: Mapped[str] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(UtcTime)
    seen_at: Mapped[datetime] = mapped_column(UtcTime)
    gone_at: Mapped[datetime | None] = mapped_column(UtcTime)
    paths: Mapped[list[str]] = mapped_column(JSON)
    version: Mapped[str] = mapped_column(Text)
    slots: Mapped[int] = mapped_column(Integer)
    closed: Mapped[list[str]] = mapped_column(JSON)


class SharedStateRow(Base):
    """What the drivers of several proxies note for each other."""

    __tablename__ = "shared_state"
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)
    updated_at: Mapped[datetime] = mapped_column(UtcTime)
