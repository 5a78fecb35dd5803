"""How much each caller does at once, so that no one takes all there is."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from api.refusals import TooMany


class AtOnce:
    """Counts, by caller. ``most``: of one; ``what``: for people, in the plural; ``after``: seconds to wait that a refusal
    tells. From any thread."""

    def __init__(self, most: int, what: str, *, after: float = 1.0) -> None:
        self._most = most
        self._what = what
        self._after = after
        self._lock = threading.Lock()
        self._now: Counter[str] = Counter()

    @contextmanager
    def one_more(self, caller: str) -> Iterator[None]:
        """While it lasts. Raises ``TooMany``."""
        with self._lock:
            if self._now[caller] >= self._most:
                raise TooMany(f"{self._what} of one caller at once", after=self._after)
            self._now[caller] += 1
        try:
            yield
        finally:
            with self._lock:
                self._now[caller] -= 1
                if not self._now[caller]:
                    del self._now[caller]

    def all(self) -> int:
        """Of all callers together, now."""
        with self._lock:
            return sum(self._now.values())
