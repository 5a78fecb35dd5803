"""How the appliance is: see ``api.ports.vitals``."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from hashlib import blake2b
from typing import Generic, TypeVar

from api.schemas.vitals import Changes, Readiness, Version
from appliance import release
from appliance.wiring import Services
from catalog.jobs.changed import marks
from catalog.point_list import PointQuery
from proxy.errors import LanfreeError, RepositoryUnavailable

T = TypeVar("T")

_RECENT = 1.0
"""Seconds for which an answer is given again: however many ask, databases are asked once a second."""


class _Recently(Generic[T]):
    """Asks at most once a second; who comes meanwhile waits for that answer, or is given the last one."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._known: tuple[float, T] | None = None

    def __call__(self) -> T:
        with self._lock:
            if self._known is None or time.monotonic() - self._known[0] >= _RECENT:
                self._known = (time.monotonic(), self._ask())
            return self._known[1]


class WebVitals:
    """See ``api.ports.vitals.Vitals``."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._readiness = _Recently(self._look)
        self._changes = _Recently(self._marks)
        self._seen: Mapping[tuple[str, str, str], Sequence[float]] = {}
        self._registry_lock = threading.Lock()
        self._registry: Callable[[], str] | None = None

    def readiness(self) -> Readiness:
        """See the port."""
        return self._readiness()

    def version(self) -> Version:
        """See the port."""
        return Version(version=release.version() or "unknown")

    def metrics(self, latencies: Mapping[tuple[str, str, str], Sequence[float]], bounds: Sequence[float]) -> str:
        """See the port."""
        from appliance.telling import metrics  # noqa: PLC0415  # its library is loaded by who is scraped

        with self._registry_lock:
            self._seen = latencies
            if self._registry is None:
                collector = metrics.Latencies(lambda: self._seen, bounds)
                registry = metrics.registry_of(self._services, self._services.closed, collector)
                self._registry = lambda: metrics.text_of(registry)
            return self._registry()

    def changes(self) -> Changes:
        """See the port."""
        return self._changes()

    def _look(self) -> Readiness:
        parts: tuple[tuple[str, Callable[[], object]], ...] = (
            ("catalog", self._newest_point),
            ("jobs", self._job_marks),
            ("access", self._users),
            ("repository", self._repository),
        )
        away = [name for name, ask in parts if not _answers(ask)]
        return Readiness(status="not-ready" if away else "ready", away=away)

    def _marks(self) -> Changes:
        jobs, job_runs, tasks, proxies = (_mark(said) for said in self._job_marks())
        points = _mark(repr(self._newest_point()))
        return Changes(jobs=jobs, job_runs=job_runs, tasks=tasks, proxies=proxies, restore_points=points)

    def _job_marks(self) -> tuple[str, ...]:
        with self._services.jobs.transaction(write=False) as unit:
            return astuple(marks(unit.session))

    def _newest_point(self) -> object:
        with self._services.catalog.transaction(write=False) as unit:
            return unit.points.page(PointQuery(), limit=1)[0]

    def _users(self) -> bool:
        with self._services.access.transaction(write=False) as unit:
            return unit.users.any()

    def _repository(self) -> object:
        section = self._services.settings.repository
        if section.s3 is None and not section.path.is_dir():
            raise RepositoryUnavailable(str(section.path), "no such directory")
        return self._services.repository


def _answers(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except (LanfreeError, OSError):
        return False
    return True


def _mark(said: str) -> str:
    """Short, and nothing can be read in it."""
    return blake2b(said.encode(), digest_size=8).hexdigest()
