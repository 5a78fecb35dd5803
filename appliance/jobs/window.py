"""When tasks of a job may run: its backup windows without its blackout days. Pure; moments are aware and given in UTC.

Windows are drawn on the wall of the policy's zone and become moments by the rule of ``appliance.jobs.zones``; one that ends
before it begins goes on into the next day. Windows that touch are one::

    22:00-06:00 and 05:00-08:00   ........|######################|........      22:00-08:00
    with a blackout from the next day on    |######|......................      22:00-00:00

Without windows everything is open but the blackout days; then nothing ever closes, and there is no deadline.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from appliance.jobs.zones import first_moment, wall
from catalog.jobs.policy import EVERY_DAY, Blackout, Policy, Window
from proxy.model import Reason, ReasonCode

AHEAD = timedelta(days=16)
"""A rhythm of weeks that is not interrupted for so long never is: one week, one whose window fell into a jump of the clock,
and both ends."""

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Span:
    """From ``begin`` to before ``end``, never empty. ``end`` of ``None``: for ever."""

    begin: datetime
    end: datetime | None

    def __contains__(self, moment: datetime) -> bool:
        return self.begin <= moment and (self.end is None or moment < self.end)


def is_open(policy: Policy, moment: datetime) -> bool:
    """Whether tasks may begin and go on now."""
    return why_closed(policy, moment) is None


def why_closed(policy: Policy, moment: datetime) -> Reason | None:
    """``BLACKOUT`` with its own reason, ``WINDOW_CLOSED``, or ``None``: it is open."""
    zone = ZoneInfo(policy.zone)
    for blackout in policy.blackout:
        begin, end = _blackout(blackout, zone)
        if begin <= moment < end:
            last = f"until {blackout.last:%Y-%m-%d}"
            return Reason(ReasonCode.BLACKOUT, f"{last}: {blackout.why}" if blackout.why else last)
    today = wall(moment, zone).date()
    if not policy.window or any(moment in span for span in _windows(policy, today - DAY * 2, today + DAY)):
        return None
    return Reason(ReasonCode.WINDOW_CLOSED)


def next_open(policy: Policy, moment: datetime) -> datetime | None:
    """The moment itself when it is open, else the next at which it is; ``None`` where none comes."""
    span = _next(policy, moment)
    return None if span is None else max(span.begin, moment)


def closes_at(policy: Policy, moment: datetime) -> datetime | None:
    """The end of the stretch that is open now, else of the next one; ``None`` where nothing closes (or opens) any more."""
    span = _next(policy, moment)
    return None if span is None else span.end


def stretches(policy: Policy, begin: datetime, end: datetime) -> list[Span]:
    """The open times between two moments, cut at them; in order, apart."""
    cut = (
        Span(max(span.begin, begin), end if span.end is None else min(span.end, end))
        for span in _open(policy, begin, end)
        if span.begin < end and (span.end is None or span.end > begin)
    )
    return list(cut)


def _next(policy: Policy, moment: datetime) -> Span | None:
    """The first stretch that is not over. Its end is looked for until the rhythm of weeks is certain to go on."""
    zone = ZoneInfo(policy.zone)
    ends = [_blackout(blackout, zone)[1] for blackout in policy.blackout]
    horizon = max([moment, *ends]) + AHEAD
    for span in _open(policy, moment, horizon):
        if span.end is None or span.end > moment:
            # Open up to where was looked: it closes never.
            return Span(span.begin, None) if span.end is None or span.end >= horizon else span
    return None


def _open(policy: Policy, begin: datetime, end: datetime) -> Iterator[Span]:
    """Open stretches that begin before ``end``, in order, apart; from before ``begin`` on. One may end after ``end``."""
    zone = ZoneInfo(policy.zone)
    if policy.window:
        spans: Iterable[Span] = _windows(policy, wall(begin, zone).date() - DAY * 2, wall(end, zone).date() + DAY)
    else:
        spans = [Span(begin - DAY * 2, None)]
    return _without(_joined(spans), sorted(_blackout(blackout, zone) for blackout in policy.blackout))


def _windows(policy: Policy, first: date, last: date) -> Iterator[Span]:
    """Of all windows of these days, ascending by their beginning."""
    zone = ZoneInfo(policy.zone)
    day = first
    while day <= last:
        weekday = EVERY_DAY[day.weekday()]
        spans = (_window(window, day, zone) for window in policy.window if weekday in window.days)
        # A jump of the clock over all of a window leaves nothing of it.
        yield from sorted((span for span in spans if span.end and span.begin < span.end), key=lambda s: s.begin)
        day += DAY


def _window(window: Window, day: date, zone: ZoneInfo) -> Span:
    start, end = window.start.replace(tzinfo=None), window.end.replace(tzinfo=None)
    ends_on = day if end > start else day + DAY
    return Span(first_moment(datetime.combine(day, start), zone), first_moment(datetime.combine(ends_on, end), zone))


def _blackout(blackout: Blackout, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """From its beginning to before its end."""
    first, after = (datetime.combine(day, time()) for day in (blackout.first, blackout.last + DAY))
    return first_moment(first, zone), first_moment(after, zone)


def _joined(spans: Iterable[Span]) -> Iterator[Span]:
    """Those that touch or overlap are one. Ascending by beginning, in and out."""
    current: Span | None = None
    for span in spans:
        if current is not None and current.end is not None and span.begin > current.end:
            yield current
            current = span
        elif current is None:
            current = span
        elif current.end is not None and (span.end is None or span.end > current.end):
            current = Span(current.begin, span.end)
    if current is not None:
        yield current


def _without(spans: Iterable[Span], closed: Sequence[tuple[datetime, datetime]]) -> Iterator[Span]:
    """``spans`` less ``closed`` (ascending, may overlap)."""
    for span in spans:
        begin = span.begin
        for shut, opened in closed:
            if opened <= begin or (span.end is not None and shut >= span.end):
                continue
            if shut > begin:
                yield Span(begin, shut)
            begin = opened
        if span.end is None or begin < span.end:
            yield Span(begin, span.end)
