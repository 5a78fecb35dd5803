"""Which message goes which way, and when."""

from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from zoneinfo import ZoneInfo

from appliance.telling.events import Event
from appliance.telling.kinds import EventKind
from appliance.telling.settings import Notify


def wanted(section: Notify, event: Event) -> bool:
    """Whether it goes this way."""
    if event.kind is EventKind.TEST:
        return True
    if event.kind not in section.events:
        return False
    return not section.jobs or not event.job or any(fnmatchcase(event.job, pattern) for pattern in section.jobs)


def held_until(section: Notify, event: Event, now: datetime) -> datetime:
    """The moment from which on it may be told: ``now``, or the end of the quiet hours."""
    begin, end = section.quiet_from, section.quiet_to
    if begin is None or end is None or begin == end or event.kind in {*section.urgent, EventKind.TEST}:
        return now
    zone = ZoneInfo(section.zone)
    local = now.astimezone(zone)
    clock = local.time()
    quiet = begin <= clock < end if begin < end else clock >= begin or clock < end
    if not quiet:
        return now
    day = local.date() + timedelta(days=1 if clock >= end else 0)
    return max(now, datetime.combine(day, end, zone).astimezone(UTC))
