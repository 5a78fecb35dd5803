"""What the job store takes and gives: frozen values, good after the transaction's end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from catalog.jobs.policy import Policy
from proxy.model import MachineId, Reason, RestorePointId, RunId


class Cause(StrEnum):
    """Why a job run began. ``MISSED``: its time passed while nobody could begin it."""

    SCHEDULE = "schedule"
    MISSED = "missed"
    MANUAL = "manual"


class JobRunState(StrEnum):
    """``ATTENTION``: all machines have their restore points, something needs a person. ``STOPPED``: the window closed or a
    person ended it; the next run goes on. ``SKIPPED``: it never began, for the recorded reason."""

    RUNNING = "running"
    DONE = "done"
    ATTENTION = "attention"
    FAILED = "failed"
    STOPPED = "stopped"
    SKIPPED = "skipped"


class TaskState(StrEnum):
    """``WAITING``: for its turn, a slot, or another attempt. ``STOPPED``: cut off cleanly, or not begun when it closed."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


class TaskKind(StrEnum):
    """What is done. ``RESTORE``: a whole machine; ``FILES``: files of a machine, to a directory of the proxy or into the guest.
    The others but ``BACKUP`` are about the repository or the site and have no machine."""

    BACKUP = "backup"
    VERIFY = "verify"
    PRUNE = "prune"
    COPY = "copy"
    PROTECT = "protect"
    RESTORE = "restore"
    FILES = "files"
    INDEX = "index"
    COLLECT = "collect"
    SWEEP = "sweep"
    INVENTORY = "inventory"
    MEASURE = "measure"
    REPAIR = "repair"
    AUDIT = "audit"
    REBUILD = "rebuild"


ENDED = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.STOPPED})


@dataclass(frozen=True, slots=True)
class Job:
    """A policy under a name. ``revision``: counts changes, from 1 (an edit names the one that it changes). ``seen``: up to
    which moment its schedule has been acted on."""

    id: str
    name: str
    policy: Policy
    revision: int
    enabled: bool
    created_at: datetime
    updated_at: datetime
    seen: datetime


@dataclass(frozen=True, slots=True)
class PastJob:
    """A job that there is or was. ``names``: all that it has or had, the newest first; ``policy``: its own, or its last."""

    id: str
    names: tuple[str, ...]
    policy: Policy


@dataclass(frozen=True, slots=True)
class JobRun:
    """One execution of a job. ``policy`` is that of its beginning. ``scheduled_for``: the moment of the schedule, or of the
    command; at most one run a job and moment. ``deadline``: end of the backup window, if there is one. ``selected``: machines
    that the rules chose; ``notes``: what a person has to know of the run as a whole (a host that was silent, idle rules)."""

    id: str
    job: str
    job_name: str
    policy: Policy
    cause: Cause
    scheduled_for: datetime
    state: JobRunState
    started_at: datetime
    ended_at: datetime | None = None
    deadline: datetime | None = None
    selected: int = 0
    reasons: tuple[Reason, ...] = ()
    notes: tuple[str, ...] = ()
    stop_at: datetime | None = None
    """Since when it shall end: a person asked for it."""


@dataclass(frozen=True, slots=True)
class Task:
    """One machine's work in a job run (or the repository's), or what a person asked for: ``asked_by`` says who, and there is
    no ``job_run``. Without either it goes on in the process of whoever began it by hand, and nobody else does it
    (``by_hand``).

    ``keys``: what it occupies while it is ``RUNNING``: ``machine:ID``, ``host:NAME``, ``place:NAME`` (datastore or LUN),
    ``repository:ID``, ``full:host:NAME`` for heavy ones; each key has a limit (``catalog.jobs.limits.Limits``). ``paths``:
    fabrics over which a proxy can read it without the hosts. ``order``: planned begin, smaller ones first; ``not_before``:
    for another attempt. ``attempt``: from 1. ``run``: id of the attempt's run, as in snapshots and the catalog's ``runs``.
    ``measures``: JSON, see ``appliance.jobs.measures``. ``parameters``: JSON, what exactly was asked for; its ``version``
    counts the shapes of its kind. ``result``: JSON, what it brought. ``deadline``: of what was asked for, by when it must
    have begun.
    """

    id: str
    job_run: str
    kind: TaskKind
    state: TaskState
    machine: MachineId = ""
    machine_name: str = ""
    host: str = ""
    keys: tuple[str, ...] = ()
    paths: frozenset[str] = frozenset()
    full: bool = False
    target: str = ""
    """For ``COPY``: name of the second repository."""
    order: datetime | None = None
    not_before: datetime | None = None
    deadline: datetime | None = None
    expected_seconds: float = 0.0
    attempt: int = 1
    run: RunId = ""
    proxy: str = ""
    claimed_at: datetime | None = None
    ended_at: datetime | None = None
    point: RestorePointId | None = None
    error: str | None = None
    message: str = ""
    reasons: tuple[Reason, ...] = ()
    problems: tuple[str, ...] = ()
    measures: Mapping[str, object] = field(default_factory=dict)
    exclude: frozenset[str] = frozenset()
    """Keys of disks that are left out."""
    done_bytes: int = 0
    """Of the attempt that runs, as it was told last; so are ``total_bytes`` and ``phase``."""
    total_bytes: int = 0
    phase: str = ""
    """What it does now, for people."""
    asked_by: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)
    result: Mapping[str, object] = field(default_factory=dict)
    created_at: datetime | None = None
    stop_at: datetime | None = None
    """Since when it shall end: a person asked for it. Of what belongs to a job run, the run says it too."""

    @property
    def by_hand(self) -> bool:
        """Whether it is done by the process that began it, and by no other."""
        return not (self.job_run or self.asked_by)


@dataclass(frozen=True, slots=True)
class ProxyFacts:
    """A process that works on tasks. ``name``: the engine's executor name, new at each start; ``machine``: where it runs, as
    people call it. ``paths``: fabrics that it reaches (probed). ``seen_at``: its last heartbeat, by the database's clock."""

    name: str
    machine: str
    started_at: datetime
    seen_at: datetime
    paths: frozenset[str] = frozenset()
    version: str = ""
    slots: int = 2
    closed: frozenset[str] = frozenset()
    """Keys under which it begins nothing now: guests wait too long there (latency), or something is broken."""
