"""From the clock on the wall to moments. A zone's clock jumps: daylight saving, or a country that changes sides.

One rule for all of it: what is set for a time of day happens at the first moment at which the zone's clock shows that time
*or a later one*.

::

    clock goes forward   01:59 | 03:00        02:30 is never shown: its moment is that of 03:00
    clock goes back      02:00 .. 02:59 | 02:00 .. 02:59       02:30 comes twice: the first one counts
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo


def wall(moment: datetime, zone: ZoneInfo) -> datetime:
    """What the zone's clock shows at a moment; naive."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def first_moment(shown: datetime, zone: ZoneInfo) -> datetime:
    """The first moment, in UTC, at which the zone's clock shows this (naive) time or a later one. Never decreases as
    ``shown`` grows."""
    moment = shown.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if wall(moment, zone) == shown:
        return moment
    # In a gap: PEP 495 gives one moment on each side of it, and between them is the jump.
    before = shown.replace(tzinfo=zone, fold=1).astimezone(UTC)
    while moment - before > timedelta(seconds=1):
        middle = before + (moment - before) // 2
        if wall(middle, zone) < shown:
            before = middle
        else:
            moment = middle
    return moment.replace(microsecond=0)
