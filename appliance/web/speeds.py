"""How fast running tasks are now: bytes a second between the looks of this process at their rows. Nothing is written."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

WINDOW = 20.0
"""Seconds that are looked back: shorter would jump with each segment, longer would still show what was long ago."""

APART = 1.0
"""Seconds between two looks that are kept: proxies write progress about as often."""

FORGOTTEN = 120.0
"""Seconds after which a task that nobody looks at is forgotten."""


class Speeds:
    """May be asked by many threads. ``clock``: seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, int], deque[tuple[float, int]]] = {}

    def seen(self, done: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], float]:
        """``done``: bytes that each running task has done, by its id and attempt. Bytes/s of those that were looked at before;
        an attempt that began anew is another one."""
        now = self._clock()
        with self._lock:
            for key in [key for key, looks in self._seen.items() if now - looks[-1][0] > FORGOTTEN]:
                del self._seen[key]
            return {key: rate for key, count in done.items() if (rate := self._rate(key, now, count)) is not None}

    def _rate(self, key: tuple[str, int], now: float, count: int) -> float | None:
        looks = self._seen.setdefault(key, deque())
        if looks and count < looks[-1][1]:
            looks.clear()
        if not looks or now - looks[-1][0] >= APART:
            looks.append((now, count))
        while len(looks) > 2 and now - looks[0][0] > WINDOW:
            looks.popleft()
        first, base = looks[0]
        passed = now - first
        return (count - base) / passed if passed >= APART else None
