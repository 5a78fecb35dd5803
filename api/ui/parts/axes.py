"""Time from left to right: lanes with bars, and restore points on an axis. Everything on them is a link with a full name."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from api.ui.markup import Markup, join, tag
from api.ui.words import Clock

_STEPS = tuple(timedelta(hours=hours) for hours in (0.25, 0.5, 1, 2, 3, 6, 12, 24, 48, 168, 720, 2160))
_MOST_TICKS = 9

_DENSE = 45
"""Restore points that stand beside each other on a wide page; more are drawn smaller."""

_EDGE = 3.0
"""Per cent of the width within which a label would stick out."""


@dataclass(frozen=True, slots=True)
class Bar:
    """``title``: all of it in words, for pointing at and for screen readers. ``tone``: ``ok``, ``warn``, ``bad``, ``run``."""

    begin: datetime
    end: datetime
    title: str
    tone: str = ""
    href: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """A restore point. ``square``: it was a full."""

    at: datetime
    title: str
    href: str
    tone: str = ""
    square: bool = False
    current: bool = False


def ticks(begin: datetime, end: datetime) -> list[datetime]:
    """Round moments between them, not too many, on the clock that the moments are of."""
    span = end - begin
    step = next((step for step in _STEPS if span / step <= _MOST_TICKS), span / _MOST_TICKS)
    first = begin.replace(minute=0, second=0, microsecond=0)
    if step >= timedelta(days=1):
        first = first.replace(hour=0)
    elif step >= timedelta(hours=1):
        hours = int(step.total_seconds() // 3600)
        first = first.replace(hour=first.hour - first.hour % hours)
    found = []
    while first <= end:
        if first >= begin:
            found.append(first)
        first += step
    return found


def _place(moment: datetime, begin: datetime, end: datetime) -> float:
    return round(min(1.0, max(0.0, (moment - begin) / (end - begin))) * 100, 2)


def lanes(clock: Clock, begin: datetime, end: datetime, named: Sequence[tuple[Markup | str, Sequence[Bar]]]) -> Markup:
    """A lane for each name, with its bars."""
    if end <= begin:
        end = begin + timedelta(hours=1)
    places = [(at, _place(at, begin, end)) for at in ticks(clock.here(begin), clock.here(end))]
    lines = join(*(tag("i", style=f"left:{place}%") for _, place in places))
    rows = [join(tag("div", name, cls="name"), _lane(bars, begin, end, lines)) for name, bars in named]
    scale = [tag("span", f"{at:%H:%M}", style=f"left:{place}%") for at, place in places if _EDGE < place < 100 - _EDGE]
    axis = join(tag("div"), tag("div", *scale, cls="lf-scale", aria_hidden="true"))
    return tag("div", *rows, axis, cls="lf-lanes")


def _lane(bars: Sequence[Bar], begin: datetime, end: datetime, lines: Markup) -> Markup:
    drawn = []
    for bar in bars:
        left = _place(bar.begin, begin, end)
        width = max(0.4, _place(bar.end, begin, end) - left)
        style = f"left:{left}%;width:{width}%"
        name = tag("span", bar.title, cls="lf-hidden")
        if bar.href:
            drawn.append(tag("a", name, href=bar.href, cls=bar.tone or None, style=style, title=bar.title))
        else:
            drawn.append(tag("span", name, cls=bar.tone or None, style=style, title=bar.title))
    return tag("div", lines, *drawn, cls="lf-lane")


def axis(clock: Clock, marks: Sequence[Mark], *, until: datetime) -> Markup:
    """Restore points from the oldest until now."""
    if not marks:
        return tag("p", "No restore point yet.", cls="lf-dim")
    end = max(until, *(mark.at for mark in marks))
    begin = min(*(mark.at for mark in marks), end - timedelta(hours=1))  # nothing of it is in the future
    points = [
        tag(
            "a",
            tag("span", mark.title, cls="lf-hidden"),
            href=mark.href,
            cls=f"{mark.tone} {'full' if mark.square else ''}".strip() or None,
            style=f"left:{_place(mark.at, begin, end)}%",
            title=mark.title,
            aria_current="true" if mark.current else None,
        )
        for mark in sorted(marks, key=lambda mark: mark.at)
    ]
    cls = "lf-axis dense" if len(points) > _DENSE else "lf-axis"
    return tag("div", *points, *_days(clock, begin, end), cls=cls, role="group", aria_label="Restore points by time")


def _days(clock: Clock, begin: datetime, end: datetime) -> list[Markup]:
    short = end - begin < timedelta(days=2)
    moments = ticks(clock.here(begin), clock.here(end)) or [clock.here(begin)]
    return [
        tag("span", f"{at:%H:%M}" if short else f"{at.day} {at:%b}", style=f"left:{_place(at, begin, end)}%")
        for at in moments
    ]
