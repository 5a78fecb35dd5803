"""Jobs: policies under names, and what one would mean."""

from typing import Protocol

from api.auth.roles import Caller
from api.paging import Page
from api.schemas.jobs import (
    AskedRun,
    ChangedJob,
    ImportRequest,
    ImportResult,
    Job,
    JobLine,
    JobPreview,
    NewJob,
    PreviewRequest,
    RunBegun,
)
from catalog.jobs.policy import Policy


class Jobs(Protocol):
    """A policy is about machines by rule, also about those that come later: who reaches only some machines changes none.
    Names and policies may be seen by all who may see anything.

    All raise ``JobNotFound``, ``JobStoreFailed``, ``DatabaseAway``; what changes something ``AuditFailed``, ``BeyondReach``.
    """

    def page(
        self, *, limit: int, cursor: str | None = None, sort: str = "name", like: str = "", enabled: bool | None = None
    ) -> Page[JobLine]:
        """By ``name`` or ``-name``. ``like``: part of the name or the description."""
        ...

    def get(self, name: str) -> Job:
        """By its name or identity."""
        ...

    def add(self, caller: Caller, new: NewJob) -> Job:
        """Raises ``JobConflict``: the name is taken; ``ConfigurationError``: the policy could not do what it says."""
        ...

    def shortened(self, name: str, policy: Policy, revision: int) -> str:
        """What a change would let go earlier, in words; empty for nothing. Raises ``Outdated``."""
        ...

    def shortened_by(self, request: ImportRequest) -> str:
        """The same of all jobs of a text. Raises as ``take``."""
        ...

    def change(self, caller: Caller, name: str, changed: ChangedJob, revision: int) -> Job:
        """Runs under way go on as they began. Raises ``Outdated``: it is at another revision; as ``add``."""
        ...

    def remove(self, caller: Caller, name: str, revision: int | None) -> None:
        """Its restore points stay. Raises ``JobBusy``, ``Outdated``."""
        ...

    def enable(self, caller: Caller, name: str, *, enabled: bool) -> Job:
        """Let its schedule begin runs, or not."""
        ...

    def preview(self, caller: Caller, request: PreviewRequest) -> JobPreview:
        """Raises ``ConfigurationError`` for rules that are none, a schedule that never fires, or where no hypervisor is
        configured."""
        ...

    def preview_of(self, caller: Caller, name: str, hours: float, limit: int) -> JobPreview:
        """Of a job that there is."""
        ...

    def written(self, names: list[str]) -> str:
        """As YAML; all jobs without names."""
        ...

    def take(self, caller: Caller, request: ImportRequest) -> ImportResult:
        """The jobs of a text: all of them, or none where one thing is wrong. Raises ``ConfigurationError``, ``JobConflict``,
        ``JobBusy``."""
        ...

    def begin(self, caller: Caller, name: str, asked: AskedRun) -> RunBegun:
        """A run now, whatever schedule and window say. Raises ``JobBusy``, ``NoSuchMachine``."""
        ...
