"""What is closed for a while: a repository that is full, a host that is silent. One task found it out; the others wait for it
to be mended rather than to fail one by one, and then one after the other finds out anew."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

FIRST_SECONDS = 30.0
"""The first wait. A hiccup of a host is over by then; less would let a whole job knock at a full repository."""

LONGEST_SECONDS = 900.0
"""Waits double up to this: somebody who made room sees work go on within a quarter of an hour."""


HOPELESS = 7
"""Closed so often in a row, with no success in between, it is three quarters of an hour and needs a person."""


class Closures:
    """By key (``catalog.jobs.limits``), of this process. Calls may come from any thread. ``clock``: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._closed: dict[str, tuple[float, float]] = {}
        self._times: Counter[str] = Counter()

    def close(self, keys: Iterable[str]) -> float:
        """For twice as long as the last time, unless something succeeded since. How long, in seconds; one that is closed stays
        as it is: what was under way when it closed fails with it and says nothing new."""
        with self._lock:
            now, longest = self._clock(), 0.0
            for key in keys:
                until, wait = self._closed.get(key, (0.0, 0.0))
                if until <= now:
                    wait = min(2 * wait, LONGEST_SECONDS) if wait else FIRST_SECONDS
                    until = now + wait
                    self._closed[key] = (until, wait)
                    self._times[key] += 1
                longest = max(longest, until - now)
            return longest

    def succeeded(self, keys: Iterable[str]) -> None:
        """Whatever was wrong with these is mended."""
        with self._lock:
            for key in keys:
                self._closed.pop(key, None)
                self._times.pop(key, None)

    def hopeless(self, keys: Iterable[str]) -> bool:
        """Whether any of these was closed too often to count on it."""
        with self._lock:
            return any(self._times[key] >= HOPELESS for key in keys)

    def closed(self) -> frozenset[str]:
        """Keys under which nothing should begin now."""
        with self._lock:
            now = self._clock()
            return frozenset(key for key, (until, _) in self._closed.items() if until > now)
