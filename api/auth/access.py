"""What signing in works with: the store, and what the site's configuration says about it at this moment."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from api.auth.oidc import Documents, OidcSettings
from api.auth.passwords import COST, Cost
from catalog.access.store import AccessStore


@dataclass(frozen=True, slots=True)
class Rules:
    """``idle``: a session ends after so long without use; ``longest``: whatever is done with it. ``four_eyes``: whether what
    cannot be undone waits for a second person. ``oidc``: the provider, if people sign in with one."""

    idle: timedelta = timedelta(hours=1)
    longest: timedelta = timedelta(hours=12)
    four_eyes: bool = False
    oidc: OidcSettings | None = None


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Access:
    """``opened``: the store, opened when it is first asked for; ``rules``: asked each time, since configurations change.
    ``cost``: of new hashes of passwords. ``documents``: what providers publish."""

    opened: Callable[[], AccessStore] = field(repr=False)
    rules: Callable[[], Rules] = Rules
    cost: Cost = COST
    now: Callable[[], datetime] = _now
    documents: Documents = field(default_factory=Documents, repr=False)

    @property
    def store(self) -> AccessStore:
        """Users, tokens, sessions. Raises ``AccessStoreFailed``, ``DatabaseAway``."""
        return self.opened()
