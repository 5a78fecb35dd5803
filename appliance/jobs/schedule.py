"""When jobs begin: the moments that a policy's schedule means. Pure; moments are aware and given in UTC.

Each time of day that a schedule names is a moment by the one rule of ``appliance.jobs.zones``: what the clock skips comes once,
right after the gap, and what it shows twice comes once. A schedule of every hour therefore has no fire in the repeated hour;
whoever wants one says ``zone: UTC``.

``Job.seen`` is the mark up to which a schedule was acted on, and with it nothing begins twice, wherever the clock jumps::

    ----|seen---------F1--------F2------|now--->      F1 and F2 are due, as one: F2, and F1 is counted
    ----|now------F---------|seen-------------->      the clock went back: F has been
    ----|now-----------...years...------|seen-->      the clock had been wrong: the mark is not believed
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from appliance.jobs.window import is_open
from appliance.jobs.zones import first_moment, wall
from catalog.jobs.policy import EVERY_DAY, Policy, Schedule
from catalog.jobs.values import Cause
from proxy.errors import ConfigurationError

GRACE = timedelta(minutes=5)
"""A fire that is noticed so much later still began in time: a restart of the service takes a minute or two. Longer would call
a run punctual that met other conditions than it was planned for."""

BELIEVED = timedelta(hours=25)
"""How far ahead of now a mark may lie: clocks go back by an hour for daylight saving and by up to 24 when a zone was set wrong.
A mark further ahead was made by a wrong clock; to believe it would keep the job from running until then."""

HORIZON = timedelta(days=366 * 9)
"""Where the search for a fire ends: the 29th of February is up to eight years away (1896 to 1904)."""


@dataclass(frozen=True, slots=True)
class Due:
    """What the scheduler has to do now for one job. ``skip``: begin nothing, and record that the time passed. ``passed``: how
    many earlier fires, unnoticed too, this one stands for."""

    scheduled_for: datetime
    cause: Cause
    skip: bool = False
    passed: int = 0


def next_fire(policy: Policy, after: datetime) -> datetime | None:
    """The first fire later than ``after``; ``None`` when none will come."""
    return next(_fires(policy, after, after + HORIZON), None)


def fires_between(policy: Policy, after: datetime, until: datetime) -> list[datetime]:
    """All fires later than ``after`` and not later than ``until``, in order, without doubles."""
    return list(_fires(policy, after, until))


def due(policy: Policy, seen: datetime, now: datetime) -> Due | None:
    """What became due since the mark. Whoever acts on it sets the mark to ``scheduled_for``, also where that is earlier.

    Of several fires the last one counts. One that was missed and is to run waits until the window is open.
    """
    if seen > now + BELIEVED:
        seen = now - GRACE
    last: datetime | None = None
    passed = 0
    for fire in _fires(policy, _late_enough(policy, seen, now), now):
        passed += last is not None
        last = fire
    if last is None or policy.schedule is None:
        return None
    if now - last <= GRACE:
        return Due(last, Cause.SCHEDULE, passed=passed)
    if policy.schedule.missed == "skip":
        return Due(last, Cause.MISSED, skip=True, passed=passed)
    return Due(last, Cause.MISSED, passed=passed) if is_open(policy, now) else None


def check(policy: Policy) -> None:
    """Raises ``ConfigurationError`` for a schedule that can never fire or is not understood."""
    line = policy.schedule.cron if policy.schedule else None
    if line is None:
        return
    # Other columns and random or hashed fields would run, but not as anybody here expects.
    words = line.split()
    if len(words) != 5 or any(word[0] in "RrHh" for word in words):
        raise _not_understood(line, "five fields are needed: minute hour day-of-month month day-of-week")
    if next(_cron(line, datetime(2024, 1, 1), datetime(2024, 1, 1) + HORIZON), None) is None:
        raise _not_understood(line, "no day ever fits it")


def _late_enough(policy: Policy, seen: datetime, now: datetime) -> datetime:
    """The mark, or a later moment with a fire between it and now: after months of absence one run is due, and the
    days before the last week are not counted."""
    for days in (8, 35):
        moment = now - timedelta(days=days)
        if seen < moment and next(_fires(policy, moment, now), None) is not None:
            return moment
    return seen


def _fires(policy: Policy, after: datetime, until: datetime) -> Iterator[datetime]:
    if policy.schedule is None:
        return
    zone = ZoneInfo(policy.zone)
    # What comes after a moment was never shown before it. The clock may have gone back since it showed the last ones.
    begin, end = wall(after, zone), wall(until, zone) + BELIEVED
    last: datetime | None = None
    for shown in _times(policy.schedule, begin, end):
        fire = first_moment(shown, zone)
        if fire > until:
            return
        if fire > after and fire != last:
            last = fire
            yield fire


def _times(schedule: Schedule, begin: datetime, end: datetime) -> Iterator[datetime]:
    """Times of the clock on the wall later than ``begin`` and not later than ``end``, ascending."""
    if schedule.cron is not None:
        yield from _cron(schedule.cron, begin, end)
        return
    days = {EVERY_DAY.index(day) for day in schedule.days}
    day = begin.date()
    while day <= end.date():
        if day.weekday() in days:
            moments = (datetime.combine(day, at.replace(tzinfo=None)) for at in sorted(set(schedule.at)))
            yield from (moment for moment in moments if begin < moment <= end)
        day += timedelta(days=1)


def _cron(line: str, begin: datetime, end: datetime) -> Iterator[datetime]:
    """The library is asked for a clock without jumps: what it makes of jumps differs with the field that names the hour."""
    from croniter import CroniterBadDateError, CroniterError, croniter  # noqa: PLC0415

    try:
        times = croniter(line, begin, ret_type=datetime, max_years_between_matches=10)
        while (shown := times.get_next(datetime)) <= end:
            yield shown
    except CroniterBadDateError:
        return
    except CroniterError as error:
        raise _not_understood(line, str(error)) from None


def _not_understood(line: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"schedule {line!r}", why, hint="for 22:00 from Monday to Friday: '0 22 * * mon-fri'")
