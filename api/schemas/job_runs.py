"""Job runs and what each machine's backup in them does: progress, speed, what slows it, its end, and why."""

from datetime import datetime

from api.schemas.common import Answer, Reason
from catalog.jobs.policy import Policy


class TaskCounts(Answer):
    """Tasks by state; only those of machines within the caller's reach."""

    total: int = 0
    waiting: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    stopped: int = 0


class JobRun(Answer):
    """One execution of a job. ``cause``: ``schedule``, ``missed``, ``manual``. ``deadline``: the end of its window.
    ``stop_at``: since when it is being stopped. ``selected``: machines that the rules chose. ``notes``: what a person has to
    know of the whole."""

    id: str
    job: str
    job_id: str
    state: str
    cause: str
    scheduled_for: datetime
    started_at: datetime
    ended_at: datetime | None
    seconds: float
    deadline: datetime | None
    stop_at: datetime | None
    selected: int
    tasks: TaskCounts
    reasons: list[Reason]
    notes: list[str]


class Progress(Answer):
    """Of what runs and waits. ``share``: from 0 to 1 of the presumed work, null while nobody knows. ``done_bytes`` of
    ``total_bytes``: of the backups that run now. ``bytes_per_second``: over the last seconds, of all of them.
    ``bottleneck``: what most of the time went into: ``source``, ``proxy``, ``repository``, ``pace``. ``expected_end``: as
    the plan and the speed say."""

    share: float | None
    done_bytes: int
    total_bytes: int
    bytes_per_second: float | None
    bottleneck: str | None
    expected_end: datetime | None


class RunFigures(Answer):
    """Sums over what has ended. ``over_host``: bytes that hypervisors' hosts had to send."""

    machines: int
    failed: int
    bytes_read: int
    bytes_new: int
    bytes_stored: int
    over_host: int
    bytes_per_second: float | None


class AttentionItem(Answer):
    """What a person should look at. ``gravity``: ``error``, ``warning``, ``info``; ``machines``: whom it concerns."""

    gravity: str
    what: str
    machines: list[str]
    detail: str


class JobRunDetail(JobRun):
    """``policy``: that of its beginning. ``attention``: gravest first."""

    policy: Policy
    progress: Progress
    figures: RunFigures
    attention: list[AttentionItem]


class RunTask(Answer):
    """One machine's work in a run, or the repository's (``machine`` is null then), as a row of the run's table: figures of
    backups in columns, so that ten thousand are compared and summed. ``GET /tasks/{id}`` has the same task as a resource of
    its own (``Task``), with whatever is peculiar to its kind. ``kind``: ``backup``, ``verify``,
    ``prune``, ``copy``, ...; ``state``: ``waiting``, ``running``, ``done``, ``failed``, ``stopped``. ``seconds``: from its
    claim until now or its end. ``share``: from 0 to 1. ``bottleneck``: of this backup once it has ended; while it runs
    ``bottleneck_before``, of the machine's backup before. ``waits_for``: limits that are full. ``planned_begin``: for what
    waits."""

    id: str
    job_run: str
    kind: str
    target: str
    state: str
    machine: str | None
    name: str
    host: str
    proxy: str
    attempt: int
    full: bool
    planned_begin: datetime | None
    not_before: datetime | None
    deadline: datetime | None
    claimed_at: datetime | None
    ended_at: datetime | None
    seconds: float | None
    expected_seconds: float
    expected_end: datetime | None
    done_bytes: int
    total_bytes: int
    share: float | None
    bytes_per_second: float | None
    bytes_read: int | None
    bytes_new: int | None
    bytes_stored: int | None
    over_host: int | None
    frozen_seconds: float | None
    level: str | None
    consistency: str | None
    transports: list[str]
    bottleneck: str | None
    bottleneck_before: str | None
    stages: dict[str, float]
    waits_for: list[str]
    point: str | None
    error: str | None
    message: str
    reasons: list[Reason]
    problems: list[str]


class RunEvent(Answer):
    """A line of a run's log. ``gravity``: ``error``, ``warning``, ``info``. ``what``: ``run-began``, ``run-ended``,
    ``stop-asked``, ``task-began``, ``task-ended``, ``decision``, ``problem``, ``note``."""

    at: datetime
    gravity: str
    what: str
    task: str | None
    machine: str | None
    name: str
    text: str


class StopResult(Answer):
    """``stopped``: it went on until now. ``served``: a proxy lives that ends what it works on; without one what was cut off
    waits for 'lanfree serve'."""

    id: str
    state: str
    stopped: bool
    served: bool


class RunNews(Answer):
    """What the event stream of a run tells: the run as it is now, and its tasks that run."""

    run: JobRunDetail
    running: list[RunTask]
