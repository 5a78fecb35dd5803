"""Machines of all hypervisors, and those of which only restore points are left."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from api.auth.roles import Caller
from api.paging import Page
from api.schemas.machines import (
    Machine,
    MachineDetail,
    MachineFilter,
    MachineQuery,
    ProtectionCounts,
    TimelinePoint,
)
from proxy.model import MachineId


class Machines(Protocol):
    """As the inventory has them; asks no hypervisor. What the caller does not reach is not there."""

    def page(self, caller: Caller, query: MachineQuery) -> Page[Machine]:
        """Raises ``ConfigurationError`` for a cursor that this list did not give."""
        ...

    def counts(self, caller: Caller, which: MachineFilter) -> ProtectionCounts:
        """By protection."""
        ...

    def get(self, caller: Caller, machine: MachineId) -> MachineDetail:
        """Raises ``NoSuchMachine``."""
        ...

    def timeline(
        self, caller: Caller, machine: MachineId, since: datetime | None, until: datetime | None
    ) -> Sequence[TimelinePoint]:
        """Its restore points, oldest first; of very many, the newest. Raises ``NoSuchMachine``."""
        ...
