"""The access log, as the API writes and reads it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from api.schemas.audit import AuditCheck, AuditEntry
from proxy.model import MachineId, RestorePoint


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries; ``None`` for any. ``who``: beginning of the name; ``since``, ``until``: half-open."""

    who: str | None = None
    action: str | None = None
    machine: str | None = None
    point: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class AuditLog(Protocol):
    """Entries cannot be changed or taken out unseen. From any thread."""

    def record(
        self,
        who: str,
        action: str,
        *,
        point: RestorePoint | None = None,
        about: MachineId | None = None,
        **detail: object,
    ) -> None:
        """Write down what is about to be done; it is on disk when this returns. ``who``: ``caller.who``. ``action``: words
        joined by dashes (``user-add``). ``about``: the machine, where there is no ``point``. ``detail``: what JSON can hold,
        never a secret; of long lists the beginning is kept. Raises ``AuditFailed``: then it must not be done."""
        ...

    def entries(self, wanted: AuditFilter, *, before: int | None, limit: int) -> Sequence[AuditEntry]:
        """The newest first; those of numbers below ``before``. Raises ``AuditFailed``."""
        ...

    def check(self) -> AuditCheck:
        """Follow the chain from its beginning: reads all of it. Raises ``AuditFailed``."""
        ...
