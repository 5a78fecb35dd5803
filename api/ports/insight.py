"""What is put together from many places: dashboard, plan, coverage, impact, proxies."""

from typing import Protocol

from api.auth.roles import Caller
from api.schemas.coverage import Coverage
from api.schemas.impact import Impact, ImpactNow
from api.schemas.overview import Overview
from api.schemas.plan import Plan
from api.schemas.proxies import Proxies


class Overviews(Protocol):
    """The dashboard."""

    def overview(self, caller: Caller, *, hours: float, days: int) -> Overview:
        """``hours``: of the time line; ``days``: of the figures. Raises ``JobStoreFailed``, ``DatabaseAway``."""
        ...


class Plans(Protocol):
    """The hours to come."""

    def plan(self, caller: Caller, *, hours: float, job: str | None, limit: int, columns: int, advice: bool) -> Plan:
        """``job``: show only this one, the others are planned all the same. Raises ``JobNotFound``, ``ConfigurationError``."""
        ...


class Coverages(Protocol):
    """What is protected."""

    def coverage(self, caller: Caller, *, objective: float | None, gaps: bool, fresh: bool) -> Coverage:
        """``objective``: hours, instead of all others; ``gaps``: only machines that are not covered; ``fresh``: look again."""
        ...

    def as_csv(self, caller: Caller, *, objective: float | None, gaps: bool) -> str:
        """A line a machine."""
        ...


class Impacts(Protocol):
    """What backups cost."""

    def backups(self, caller: Caller, *, machine: str, run: str, last: int) -> Impact:
        """Raises ``NoSuchMachine``, ``JobRunNotFound``."""
        ...

    def now(self) -> ImpactNow:
        """Asks the hosts, for some seconds. Raises ``HostUnreachable``, ``ConfigurationError``."""
        ...


class ProxyList(Protocol):
    """Who works on tasks."""

    def proxies(self) -> Proxies:
        """Raises ``JobStoreFailed``, ``DatabaseAway``."""
        ...
