"""What the sites showed a moment ago, for pages that ask at each key press: no vCenter is asked that often.

Within ``FRESH`` an earlier look is good enough, and the answer says when it was. Several that ask at the same time wait for
one look. The process keeps it; nothing of it is written."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from appliance import night
from appliance.night import Known
from appliance.selecting import Sight, look
from appliance.wiring import Services

FRESH = 120.0
"""Seconds. A machine that was made meanwhile is missed by a preview for so long at most; a run looks for itself."""

KNOWN = 20.0
"""Seconds. What databases and repository say is asked more often: it changes with each run, and costs a second with many
machines."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Looked(Generic[T]):
    """``found`` at ``at``; ``live``: for whoever asks just now."""

    found: T
    at: datetime
    live: bool


class Once(Generic[T]):
    """One value that is made again when it is too old, by one of those who ask."""

    def __init__(self, make: Callable[[], T], now: Callable[[], datetime]) -> None:
        self._make = make
        self._now = now
        self._lock = threading.Lock()
        self._found: tuple[T, datetime] | None = None

    def get(self, age: float) -> Looked[T]:
        """Not older than ``age`` seconds. What making it raises is raised to whoever asked, and forgotten."""
        with self._lock:
            known, now = self._found, self._now()
            if known is not None and 0 <= (now - known[1]).total_seconds() < age:
                return Looked(*known, live=False)
            made = self._make()
            self._found = (made, now)
            return Looked(made, now, live=True)


class Sights:
    """Of one process; may be asked by many threads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._sight = Once(lambda: look(services), services.clock.now)
        self._known = Once(self._look_around, services.clock.now)

    def sight(self, age: float = FRESH) -> Looked[Sight]:
        """Raises ``ConfigurationError`` where no hypervisor is configured."""
        return self._sight.get(age)

    def anew(self) -> Looked[Sight]:
        """Ask now, and keep it."""
        return self.sight(0.0)

    def known(self) -> Looked[Known]:
        """What a plan is made from. Raises what the stores raise, too."""
        found = self._known.get(KNOWN)
        return Looked(found.found[0], found.found[1], found.live)

    def _look_around(self) -> tuple[Known, datetime]:
        seen = self.sight()
        return night.known(self._services, seen.found), seen.at
