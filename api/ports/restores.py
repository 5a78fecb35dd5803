"""Whole machines back."""

from typing import Protocol

from api.auth.roles import Caller
from api.schemas.restores import RestoreOrder, RestorePlan, RestorePreview, RestoreTargets
from api.schemas.tasks import Task


class Restores(Protocol):
    """Of restore points within the caller's reach, onto machines within it."""

    def preview(self, caller: Caller, plan: RestorePlan) -> RestorePreview:
        """What would happen; nothing is written. What stands against it is in the answer. Raises ``RestorePointNotFound``."""
        ...

    def order(self, caller: Caller, order: RestoreOrder) -> Task:
        """It waits for a proxy, an hour at most. Raises ``RestorePointNotFound``; ``RestoreRefused`` for what stands against
        it; ``Conflict`` when it is not any more what was shown, or that was too long ago."""
        ...

    def targets(self, caller: Caller) -> RestoreTargets:
        """Where a restore can go, as it was seen a minute ago at most."""
        ...
