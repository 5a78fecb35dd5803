"""Paces of places, for the copies of one process: a token bucket a place, with a debt. Any thread may ask."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from proxy.transfer import Pace

# Seconds of its pace that a place may have saved up: short, or a burst would be felt as one.
SAVED = 0.5

# Seconds after which somebody asks again at the latest.
LONGEST = 1.0


class Paces:
    """How fast each place may be read. ``clock``: seconds that only go forward."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, _Bucket] = {}
        self._taken: dict[str, int] = {}

    def of(self, places: Sequence[str]) -> Pace | None:
        """For a disk that lies on these places: the slowest of them counts. ``None`` when it lies nowhere."""
        names = tuple(sorted({place for place in places if place}))
        return (lambda count: self._ask(names, count)) if names else None

    def set(self, paces: Mapping[str, float]) -> None:
        """Bytes/s by place; what is not named is read as fast as it can be. Counts at once, also for copies that wait."""
        now = self._clock()
        with self._lock:
            self._buckets = {name: self._bucket(name, rate, now) for name, rate in paces.items() if rate > 0}

    def taken(self) -> Mapping[str, int]:
        """Bytes that were let through, by place, since the last time that somebody asked this."""
        with self._lock:
            taken, self._taken = self._taken, {}
        return taken

    def _ask(self, places: Sequence[str], count: int) -> float:
        now = self._clock()
        with self._lock:
            buckets = [bucket for place in places if (bucket := self._buckets.get(place)) is not None]
            wait = max((bucket.wait(now) for bucket in buckets), default=0.0)
            if wait > 0:
                return min(wait, LONGEST)
            for bucket in buckets:
                bucket.left -= count
            for place in places:
                self._taken[place] = self._taken.get(place, 0) + count
        return 0.0

    def _bucket(self, name: str, rate: float, now: float) -> "_Bucket":
        old = self._buckets.get(name)
        if old is None:
            return _Bucket(rate, now)
        old.fill(now)
        old.rate = rate
        return old


class _Bucket:
    """``left``: bytes that may be read now. One segment may go beyond, and is paid for before the next one."""

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.left = 0.0
        self._at = now

    def fill(self, now: float) -> None:
        """Add what the time since brought."""
        self.left = min(self.rate * SAVED, self.left + (now - self._at) * self.rate)
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until something may be read."""
        self.fill(now)
        return 0.0 if self.left >= 0 else -self.left / self.rate
