"""Job runs: what went on, what goes on, and how it is ended."""

from collections.abc import Collection
from datetime import datetime
from typing import Protocol

from api.auth.roles import Caller
from api.paging import Page
from api.schemas.job_runs import JobRun, JobRunDetail, RunEvent, RunNews, RunTask, StopResult
from catalog.jobs.values import JobRunState, TaskState


class JobRuns(Protocol):
    """Tasks of machines beyond the caller's reach are not there, in lists as in sums.

    All raise ``JobRunNotFound``, ``JobStoreFailed``, ``DatabaseAway``.
    """

    def page(
        self,
        caller: Caller,
        *,
        limit: int,
        cursor: str | None = None,
        sort: str = "-started_at",
        job: str | None = None,
        states: Collection[JobRunState] = (),
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Page[JobRun]:
        """By ``started_at`` or ``-started_at``. ``job``: by name or identity; ``since``, ``until``: they began then."""
        ...

    def get(self, caller: Caller, run: str) -> JobRunDetail:
        """With its progress."""
        ...

    def tasks(
        self, caller: Caller, run: str, *, limit: int, cursor: str | None = None, states: Collection[TaskState] = ()
    ) -> Page[RunTask]:
        """In planned order."""
        ...

    def news(self, caller: Caller, run: str) -> RunNews:
        """The run, and what it does now."""
        ...

    def log(self, caller: Caller, run: str, *, limit: int) -> list[RunEvent]:
        """The newest lines, oldest first."""
        ...

    def report(self, caller: Caller, run: str) -> str:
        """A single HTML page. Raises ``BeyondReach`` for who does not reach all of its machines."""
        ...

    def stop(self, caller: Caller, run: str) -> StopResult:
        """What is copied now ends at its next chunk and stays stored, the rest is not begun. Raises ``BeyondReach``,
        ``AuditFailed``."""
        ...
