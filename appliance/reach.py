"""Which fabrics this proxy reaches: SAN targets that take its login, and shared directories that are there.

A task that can be read over a fabric is taken by a proxy that reaches it before any other one (``catalog.jobs``). Portals are
tried once a minute by a TCP connection, which costs an array nothing; a target is logged in to when it answers for the first
time or again, which also tells its LUNs' names.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance import probes
from appliance.selecting import path_of_directory
from proxy.errors import LanfreeError

if TYPE_CHECKING:
    from appliance.config import Target
    from appliance.wiring import Services

FRESH_SECONDS = 60.0
"""How long an answer counts. A fabric that broke costs the tasks begun meanwhile a fall-back to the LAN, no more."""

LOGIN_AGAIN_SECONDS = 600.0
"""A target that refused the login is not asked each minute: arrays log that, and lock initiators out for it."""

PORTAL_SECONDS = 2.0
"""For a TCP connection. A portal in the same building answers in milliseconds; one that needs longer is no SAN path."""

TRIED_AT_ONCE = 16
"""Targets looked at side by side; a silent one keeps the others from being known by its seconds."""


@dataclass(frozen=True, slots=True)
class Fabric:
    """``why``: why it is not reached, empty when it is."""

    name: str
    why: str = ""

    @property
    def reached(self) -> bool:
        """Whether this proxy can read over it now."""
        return not self.why


class Reach:
    """May be asked from any thread. ``login``: raises ``LanfreeError`` when the target refuses."""

    def __init__(
        self,
        targets: Sequence["Target"],
        directories: Sequence[Path],
        login: "Callable[[Target], object]",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._targets = [target for target in targets if target.access == "backup"]
        self._directories = tuple(directories)
        self._login = login
        self._clock = clock
        self._lock = threading.Lock()
        self._found: tuple[Fabric, ...] = ()
        self._at: float | None = None
        self._refused: dict[str, tuple[float, str]] = {}
        self._in: set[str] = set()

    def paths(self) -> tuple[Fabric, ...]:
        """All configured ones; looked at anew when the last look is older than ``FRESH_SECONDS``. Seven seconds at most."""
        with self._lock:
            if self._at is None or self._clock() - self._at >= FRESH_SECONDS:
                self._found = self._look()
                self._at = self._clock()
            return self._found

    def _look(self) -> tuple[Fabric, ...]:
        directories = [Fabric(path_of_directory(d), why_not_there(d)) for d in self._directories]
        if not self._targets:
            return tuple(directories)
        with ThreadPoolExecutor(min(TRIED_AT_ONCE, len(self._targets)), "reach") as pool:
            return (*pool.map(self._target, self._targets), *directories)

    def _target(self, target: "Target") -> Fabric:
        found = [probes.portal(portal, PORTAL_SECONDS) for portal in target.portals]
        if not any(finding.outcome is probes.Outcome.OK for finding in found):
            self._in.discard(target.iqn)
            return Fabric(target.iqn, "; ".join(finding.detail for finding in found))
        if target.iqn in self._in:
            return Fabric(target.iqn)
        at, why = self._refused.get(target.iqn, (0.0, ""))
        if why and self._clock() - at < LOGIN_AGAIN_SECONDS:
            return Fabric(target.iqn, why)
        try:
            self._login(target)
        except LanfreeError as error:
            self._refused[target.iqn] = self._clock(), error.message
            return Fabric(target.iqn, error.message)
        self._in.add(target.iqn)
        return Fabric(target.iqn)


def why_not_there(directory: Path) -> str:
    """Empty when it is. A share that is not mounted leaves an empty directory."""
    try:
        empty = next(directory.iterdir(), None) is None
    except OSError as error:
        return error.strerror or "cannot be read"
    return "is empty: not mounted?" if empty else ""


def reach_of(services: "Services") -> Reach:
    """Of this process, by the configuration; logs in through its fabric, which remembers the LUNs."""
    from appliance.wiring import san_target  # noqa: PLC0415  # wiring imports this module

    settings = services.settings
    return Reach(
        settings.san.target,
        settings.raw.shared_directories,
        lambda target: services.fabric.units(san_target(target), newer_than=time.monotonic()),
    )


def reaches(services: "Services") -> frozenset[str]:
    """Names of the fabrics that this proxy reaches now, for its record (``ProxyFacts.paths``)."""
    return frozenset(path.name for path in services.reach.paths() if path.reached)


def shown(paths: Sequence[Fabric]) -> Mapping[str, str]:
    """Name -> ``reached``, or why not."""
    return {path.name: path.why or "reached" for path in paths}
