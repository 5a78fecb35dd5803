"""Repositories."""

from collections.abc import Sequence
from typing import Protocol

from api.auth.roles import Caller
from api.schemas.repositories import Growth, Repository


class Repositories(Protocol):
    """Shares of single machines are left out where the caller does not see them."""

    def list(self, caller: Caller) -> Sequence[Repository]:
        """Our own first, then those that copies go to, then those that copies are taken from. One that cannot be opened says
        why."""
        ...

    def get(self, caller: Caller, name: str) -> Repository:
        """Raises ``NotFound``."""
        ...

    def growth(self, caller: Caller, name: str, days: int) -> Growth:
        """Of so many days. Raises ``NotFound``."""
        ...
