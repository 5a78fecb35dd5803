"""Tasks: work that goes on, waits or has ended; of a job run, or asked for by a person. They outlive the process that serves
the API, and any proxy that works on them."""

from datetime import datetime

from pydantic import Field

from api.schemas.common import Answer, MachineRef, Reason
from catalog.jobs.values import TaskKind, TaskState


class Failure(Answer):
    """Why it failed, or what its last attempt failed for. ``code``: as of problems; ``message`` ends with what to do."""

    code: str
    message: str


class TaskProgress(Answer):
    """How far the attempt that runs is, as it was told last. ``total`` grows while disks are found; 0 as long as nobody
    knows. ``phase``: what it does now, for people. ``rate``: mean bytes/s since it began; ``ends_at``: by that rate."""

    done: int = 0
    total: int = 0
    share: float | None = Field(None, description="From 0 to 1; null while nobody knows.")
    phase: str = ""
    rate: float | None = None
    ends_at: datetime | None = None


class Task(Answer):
    """One piece of work, of any kind: what it is, how it is, what it brought. Those of a job run come as rows of its table, too
    (``RunTask``, the same ``id``): figures of backups in columns, without what kinds differ in.

    ``job_run``: null for what a person asked for (``asked_by``) or began by hand on a proxy's command line. ``started_at``:
    of the attempt that runs or was the last. ``proxy``: as people call it. ``waits_for``: keys of limits that are full now.
    ``result``: what it brought, by kind; where that is many things they are its ``lines``, and ``more`` says how many there
    are beside them (lists of tasks leave out all that is long). ``measures``: bytes, seconds, bottleneck, impact of a backup.
    ``problems``: what needs a person though it is done. ``stoppable``: whether ``POST …/stop`` would do anything.
    """

    id: str
    kind: TaskKind
    state: TaskState
    title: str = Field(description="For people: what it is about.")
    machine: MachineRef | None = None
    job_run: str | None = None
    job: str = Field("", description="Name of the job, if it is a job run's.")
    asked_by: str = ""
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    not_before: datetime | None = None
    deadline: datetime | None = None
    attempt: int = 1
    run: str = ""
    proxy: str = ""
    host: str = ""
    repository: str = Field("", description="Name of the repository that it is about; empty for our own.")
    full: bool = False
    expected_seconds: float = 0.0
    point: str | None = Field(None, description="The restore point that it made or is about.")
    progress: TaskProgress = TaskProgress()
    error: Failure | None = None
    reasons: tuple[Reason, ...] = ()
    problems: tuple[str, ...] = ()
    waits_for: tuple[str, ...] = ()
    stopping: bool = False
    stoppable: bool = False
    result: dict[str, object] = Field(default_factory=dict)
    measures: dict[str, object] = Field(default_factory=dict)
