"""When a repository will be full, by what it got each day. Pure.

What a day brings differs from the next one's by much, and the sums of days are what is known: so the rate is their mean, and
its uncertainty that of a mean. A line through the growing total would look more certain than it is, since each of its points
has all days before in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from math import sqrt
from statistics import fmean, stdev

LEAST_DAYS = 7
"""Fewer do not show a week, and weekends are unlike other days."""

_FAR = 3650
"""Days. What is farther away is not known."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Bytes a day: the mean of so many ``days``, and the range that holds the true one in 95 of 100 cases."""

    mean: float
    low: float
    high: float
    days: int


@dataclass(frozen=True, slots=True)
class Full:
    """The day on which free space is used up; ``None``: not within ten years."""

    expected: date | None
    earliest: date | None
    latest: date | None


def rate(sums: Mapping[date, int], today: date, days: int) -> Rate | None:
    """By the last whole ``days`` before ``today``; a day that is not in ``sums`` brought nothing. The first day that brought
    anything is left out, since every machine's first backup is a full one. ``None``: too few days."""
    first = min(sums, default=today)
    begin = max(today - timedelta(days=days), first + timedelta(days=1))
    number = (today - begin).days
    if number < LEAST_DAYS:
        return None
    brought = [float(sums.get(begin + timedelta(days=n), 0)) for n in range(number)]
    mean = fmean(brought)
    # Student's factor for 95 %, to a hundredth from seven days on.
    half = (1.96 + 2.9 / (number - 1)) * stdev(brought, mean) / sqrt(number)
    return Rate(mean, max(mean - half, 0.0), mean + half, number)


def full_on(known: Rate, free: int, today: date) -> Full:
    """``free``: bytes."""

    def when(per_day: float) -> date | None:
        left = free / per_day if per_day > 0 else _FAR + 1
        return today + timedelta(days=int(left)) if left <= _FAR else None

    return Full(when(known.mean), when(known.high), when(known.low))
