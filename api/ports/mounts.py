"""Mount sessions that callers open, list and close."""

from typing import Protocol

from api.auth.roles import Caller
from api.schemas.mounts import Mount, MountRequest


class Mounts(Protocol):
    """Callers see their own sessions; who may configure sees all of machines within their reach. What is not theirs, or not
    within reach, is not there. Opening is recorded in the audit log before it is done."""

    def open(self, caller: Caller, request: MountRequest) -> Mount:
        """Returns when it is open, and after a moment in any case: then it is ``opening``. Raises
        ``RestorePointNotFound``, ``TooMany``."""
        ...

    def list(self, caller: Caller) -> list[Mount]:
        """Oldest first."""
        ...

    def get(self, caller: Caller, session: str) -> Mount:
        """Raises ``NotFound``."""
        ...

    def end(self, caller: Caller, session: str) -> None:
        """Close it and forget its keys; uses that go on end. Raises ``NotFound``."""
        ...

    def close(self) -> None:
        """The process ends: close everything."""
        ...
