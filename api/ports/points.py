"""Restore points."""

from typing import Protocol

from api.auth.roles import Caller
from api.paging import Page
from api.schemas.points import PointFilter, RestorePoint, RestorePointDetail
from api.schemas.sizes import SizeExplanation
from proxy.model import MachineId, RestorePointId


class Points(Protocol):
    """Those of machines that the caller reaches; others are not there. Changes are recorded before they are made."""

    def page(self, caller: Caller, query: PointFilter, machine: MachineId = "") -> Page[RestorePoint]:
        """From the catalog. Raises ``ConfigurationError`` for a cursor that this list did not give."""
        ...

    def get(self, caller: Caller, point: RestorePointId, *, copies: bool = False) -> RestorePointDetail:
        """From catalog and repository. ``copies``: look into the second repositories, too, which may take its time. Raises
        ``RestorePointNotFound``."""
        ...

    def why_big(self, caller: Caller, point: RestorePointId, most: int, *, quick: bool) -> SizeExplanation:
        """What its changed chunks are due to; ``most`` files and directories. ``quick``: do not tell changed blocks apart.
        Raises ``RestorePointNotFound``, ``TooMany`` while another one is explained, ``IntegrityError``, ``AuditFailed``."""
        ...

    def hold(self, caller: Caller, point: RestorePointId, why: str) -> None:
        """Keep it from being deleted. Raises ``RestorePointNotFound``, ``RepositoryUnavailable``, ``AuditFailed``."""
        ...

    def release(self, caller: Caller, point: RestorePointId) -> None:
        """Let it be deleted again. Raises as ``hold``."""
        ...

    def check_deletable(self, caller: Caller, point: RestorePointId) -> None:
        """Raises what ``delete`` would, as things are now: before a second person is asked."""
        ...

    def delete(self, caller: Caller, point: RestorePointId, why: str) -> None:
        """Raises ``DeleteRefused`` for one that is held, and for a machine's last good one; ``ObjectRetained``; as ``hold``."""
        ...
