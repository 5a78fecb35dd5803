"""Latency control: two thresholds a place. Above ``hold`` nothing begins there; above ``slow`` what runs there is paced. Pure.

::

    latency of the place, as its guests feel it
          │            ┌─┐
    slow ─┼────────────┘ └──┬──────────────────  above: copies there get a pace, lower with each look
          │        │        └─────────┐
    hold ─┼────────┘                  └───┬────  above: the key place:NAME is closed for new tasks
          │                               │ ...  open again once it was below 0.8 x hold for a while
          └────────────────────────────────────→

Why it does not oscillate. A change of the pace is judged by samples that were taken after it alone, and by their median.
Between 0.8 and 1 of ``slow`` nothing is changed. The lowest pace that was too fast is remembered, and a raise goes at most
halfway towards it, so that both ends close in on each other; only after ``FORGET`` seconds is it tried whether the array can do
more by now. A place that is closed again soon after it was opened stays closed twice as long the next time.
"""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from catalog.jobs import limits
from proxy.model import Reason, ReasonCode
from proxy.ports import Load, PlaceLoad
from proxy.units import MiB, format_rate

# Requests a second below which a latency says little: one request that met a busy disk would close the place.
FEW = 2.0

# Samples by which a pace is judged: their median withstands two odd ones of five. Far above the threshold three are enough,
# since the guests suffer meanwhile.
JUDGED_BY, URGENT_BY = 5, 3

# Times ``slow`` that is far above.
URGENT = 1.2

# Shares of ``slow``: what is aimed at, and below which more is allowed. In between all is well.
AIM, ENOUGH = 0.9, 0.8

# A step changes a pace by these factors at most: the latency of a busy array grows much faster than its load.
LEAST, MOST = 0.4, 1.5

# A pace this close below one that was too fast is not raised any more.
CLOSE = 1.1

# Seconds after which it is tried whether the array bears more than it did, at first; twice as long after each time in vain.
FORGET, LONGEST_FORGET = 1800.0, 14400.0

# Share of ``hold`` below which a closed place may open, and for how many seconds it has to stay there: first, and at most.
REOPEN, SETTLE, LONGEST_SETTLE = 0.8, 60.0, 960.0

# Seconds within which closing a place again counts as "soon".
SOON = 600.0

# A place that nobody measured for so many seconds is forgotten: neither closed nor paced. Its limits hold all the same.
STALE = 300.0


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Seconds a request. ``hold`` is not above ``slow``."""

    hold: float
    slow: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """``closed``: keys under which nothing may begin (``place:NAME``), and why; ``pace``: bytes/s for all copies together that
    this process reads from a place; ``changed``: what is other than at the last look, for logs and runs."""

    closed: Mapping[str, Reason] = field(default_factory=dict)
    pace: Mapping[str, float] = field(default_factory=dict)
    changed: tuple[Reason, ...] = ()


class Governor:
    """One process's judge of places. ``thresholds``: of a place, ``None`` for one that is not governed. ``slowest``: bytes/s
    below which no pace goes, since a copy that takes for ever holds its snapshot for ever. Several proxies that read from one
    place each judge by the same latency, and each slows its own copies."""

    def __init__(self, thresholds: Callable[[str], Thresholds | None], *, slowest: float = 8 * MiB) -> None:
        self._thresholds = thresholds
        self._slowest = slowest
        self._places: dict[str, _Place] = {}
        self._seen_at: float | None = None

    def observe(self, now: float, load: Load, taken: Mapping[str, int]) -> Verdict:
        """Look once. ``now``: seconds on a clock that only goes forward; ``taken``: bytes that copies of this process read from
        each place since the last look."""
        passed = 0.0 if self._seen_at is None else now - self._seen_at
        self._seen_at = now
        changed: list[Reason] = []
        for name, seen in load.places.items():
            thresholds = self._thresholds(name)
            if thresholds is not None:
                place = self._places.setdefault(name, _Place(name, thresholds, self._slowest))
                rate = taken.get(name, 0) / passed if passed > 0 else 0.0
                changed += place.observe(now, _latency(seen), rate)
        self._places = {name: place for name, place in self._places.items() if now - place.at < STALE}
        return Verdict(
            closed={limits.key(limits.PLACE, name): place.why for name, place in self._places.items() if place.held},
            pace={name: place.pace.now for name, place in self._places.items() if place.pace.now is not None},
            changed=tuple(changed),
        )


def _latency(seen: PlaceLoad) -> float:
    """The worse of reads and writes; 0 for a place that is hardly asked anything: nobody suffers there."""
    known = ((seen.reads, seen.read_latency), (seen.writes, seen.write_latency))
    return max((latency for requests, latency in known if latency is not None and requests >= FEW), default=0.0)


class _Place:
    """What is known of one place."""

    def __init__(self, name: str, thresholds: Thresholds, slowest: float) -> None:
        self.name = name
        self.at = 0.0
        self.held = False
        self.why = Reason(ReasonCode.LATENCY_HOLD)
        self.pace = _PaceOf(name, thresholds.slow, slowest)
        self._hold = thresholds.hold
        self._recent: list[float] = []
        self._calm_since: float | None = None
        self._settle = SETTLE
        self._opened_at: float | None = None

    def observe(self, now: float, latency: float, rate: float) -> list[Reason]:
        """What changed."""
        self.at = now
        self._recent = [*self._recent[-2:], latency]
        level = statistics.median(self._recent)
        changed = self._close(now, level) if not self.held else self._open(now, level)
        return [*changed, *self.pace.observe(now, latency, rate)]

    def _close(self, now: float, level: float) -> list[Reason]:
        if level <= self._hold or len(self._recent) < 2:
            return []
        soon = self._opened_at is not None and now - self._opened_at < SOON
        self._settle = min(LONGEST_SETTLE, self._settle * 2) if soon else SETTLE
        self.held, self._calm_since = True, None
        self.why = Reason(
            ReasonCode.LATENCY_HOLD,
            f"{self.name} takes {_ms(level)} a request; above {_ms(self._hold)} nothing begins there",
        )
        return [self.why]

    def _open(self, now: float, level: float) -> list[Reason]:
        if level >= REOPEN * self._hold:
            self._calm_since = None
            return []
        self._calm_since = now if self._calm_since is None else self._calm_since
        if now - self._calm_since < self._settle:
            return []
        self.held, self._opened_at = False, now
        return [Reason(ReasonCode.LATENCY_HOLD, f"{self.name} takes {_ms(level)} a request: open again")]


class _PaceOf:
    """The pace of all copies of this process at one place. ``now``: bytes/s, ``None`` for none."""

    def __init__(self, name: str, slow: float, slowest: float) -> None:
        self.now: float | None = None
        self._name = name
        self._slow = slow
        self._slowest = slowest
        self._latencies: list[float] = []
        self._rates: list[float] = []
        self._good: float | None = None
        self._too_fast: float | None = None
        self._too_fast_at = 0.0
        self._forget = FORGET
        self._trying = False

    def observe(self, now: float, latency: float, rate: float) -> list[Reason]:
        """What changed."""
        self._latencies = [*self._latencies[1 - JUDGED_BY :], latency]
        self._rates = [*self._rates[1 - JUDGED_BY :], rate]
        judged = len(self._latencies) == JUDGED_BY
        if judged and not any(self._rates):
            return self._lift()
        level = statistics.median(self._latencies)
        urgent = level > URGENT * self._slow and len(self._latencies) >= URGENT_BY
        if urgent or (judged and level > self._slow):
            return self._slow_down(now, level)
        if judged and self.now is not None:
            # Were what runs there slower than it may be anyway, the pace would not have been tried.
            binding = statistics.median(self._rates) >= self.now / 2
            return self._speed_up(now, level, self.now) if binding else []
        return []

    def _slow_down(self, now: float, level: float) -> list[Reason]:
        rate = statistics.median(self._rates)
        current = rate if self.now is None else min(self.now, rate)
        if current <= self._slowest:
            return []
        if self._trying:
            self._forget = min(LONGEST_FORGET, 2 * self._forget)
        self._too_fast, self._too_fast_at, self._trying = current, now, False
        if self._good is not None and self._good >= current * AIM:
            self._good = None  # it was good once: the guests ask for more by now
        wanted = self._good or current * min(max(AIM * self._slow / level, LEAST), AIM)
        return self._set(max(self._slowest, wanted), level)

    def _speed_up(self, now: float, level: float, current: float) -> list[Reason]:
        """The pace was kept for long enough to be judged, and is not too fast."""
        self._good = current
        if level >= ENOUGH * self._slow:
            return []
        if self._too_fast is not None and now - self._too_fast_at > self._forget:
            self._too_fast, self._trying = None, True
            return self._set(current * CLOSE, level)
        wanted = current * min(AIM * self._slow / level if level > 0 else MOST, MOST)
        if self._too_fast is not None:
            if self._too_fast <= current * CLOSE:
                return []
            wanted = min(wanted, (current + self._too_fast) / 2)
        return self._set(wanted, level)

    def _set(self, pace: float, level: float) -> list[Reason]:
        self.now = pace
        self._latencies, self._rates = [], []  # what is judged next comes after this change
        shown = format_rate(int(pace), 1.0)
        why = f"{self._name} takes {_ms(level)} a request ({_ms(self._slow)} are allowed): copies there at {shown}"
        return [Reason(ReasonCode.LATENCY_SLOW, why)]

    def _lift(self) -> list[Reason]:
        if self.now is None:
            return []
        self.now = self._good = self._too_fast = None
        self._forget, self._trying = FORGET, False
        return [Reason(ReasonCode.LATENCY_SLOW, f"{self._name}: nothing reads there now, no pace")]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
