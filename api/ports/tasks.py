"""Tasks, and the work that a person asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from api.auth.roles import Caller
from api.paging import Page
from api.schemas import work
from api.schemas.tasks import Task
from catalog.jobs.values import TaskKind, TaskState


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """All where nothing is said. ``machine``: by identity. ``asked``: for by a person, or part of a job run. ``since``: made
    since then."""

    states: Sequence[TaskState] = ()
    kinds: Sequence[TaskKind] = ()
    machine: str | None = None
    job_run: str | None = None
    asked: bool | None = None
    since: datetime | None = None


class Tasks(Protocol):
    """What callers see: tasks of machines within their reach, and what they asked for themselves; all others who see all."""

    def page(self, caller: Caller, wanted: TaskFilter, limit: int, cursor: str | None) -> Page[Task]:
        """Those that were made last first. Raises ``ConfigurationError`` for a cursor of another list."""
        ...

    def get(self, caller: Caller, task: str) -> Task:
        """Raises ``NotFound``."""
        ...

    def stop(self, caller: Caller, task: str) -> Task:
        """As it is then: what waits has ended, what runs ends at its next step. One that has ended stays as it is. Raises
        ``NotFound``, ``NotAllowed`` where neither a permission nor the wish itself is the caller's."""
        ...


class Work(Protocol):
    """Each is written down in the access log, then asked for; it begins when a proxy is free. Raises ``BeyondReach`` for what
    would concern machines out of the caller's reach, ``ConfigurationError`` for what is not there."""

    def back_up(self, caller: Caller, machine: str, order: work.BackupOrder) -> Task:
        """By identity. Raises ``MachineNotFound``, ``HostUnreachable``."""
        ...

    def verify(self, caller: Caller, order: work.VerificationOrder) -> Task:
        """Raises ``RestorePointNotFound``, ``MachineNotFound``."""
        ...

    def prune(self, caller: Caller, order: work.PruneOrder) -> Task:
        """Raises ``NotAllowed``: to show what would go is maintenance, to delete it needs ``DELETE_POINTS``."""
        ...

    def repair(self, caller: Caller, order: work.RepairOrder) -> Task:
        """Raises ``RestorePointNotFound``."""
        ...

    def audit(self, caller: Caller, order: work.AuditOrder) -> Task: ...

    def protect(self, caller: Caller) -> Task: ...

    def rebuild_catalog(self, caller: Caller, order: work.CatalogRebuildOrder) -> Task: ...

    def collect(self, caller: Caller, order: work.CollectionOrder) -> Task: ...

    def copy(self, caller: Caller, order: work.CopyOrder) -> Task:
        """Raises ``RestorePointNotFound``, ``MachineNotFound``."""
        ...

    def sweep(self, caller: Caller) -> Task: ...

    def index(self, caller: Caller, order: work.IndexingOrder) -> Task:
        """Raises ``RestorePointNotFound``."""
        ...

    def measure(self, caller: Caller, order: work.MeasurementOrder) -> Task: ...
