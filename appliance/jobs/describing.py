"""A job in words: which machines, when, what comes, and what of it is perhaps not meant. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from appliance.jobs import editing, schedule, window
from appliance.jobs.task_text import reason_text
from catalog.jobs.policy import EVERY_DAY, Policy, Weekday

if TYPE_CHECKING:
    from appliance.config import Settings

SHOWN_FIRES = 3
"""Coming runs that are shown with a job: enough to see the rhythm."""


def rules(policy: Policy) -> str:
    """Which machines, in one line."""
    chosen = "; ".join(rule or "every machine" for rule in policy.select.include) or "none"
    return f"{chosen}; not {'; '.join(policy.select.exclude)}" if policy.select.exclude else chosen


def timing(policy: Policy) -> str:
    """When, in one line."""
    if policy.schedule is None:
        return "by hand"
    if policy.schedule.cron is not None:
        return f"cron {policy.schedule.cron}"
    at = ", ".join(f"{moment:%H:%M}" for moment in policy.schedule.at)
    days = _days_text([day for day in EVERY_DAY if day in policy.schedule.days])
    return f"{at} {days}".rstrip()


def _days_text(days: Sequence[Weekday]) -> str:
    """``mon-fri``; nothing for all."""
    if len(days) == len(EVERY_DAY):
        return ""
    first, last = EVERY_DAY.index(days[0]), EVERY_DAY.index(days[-1])
    unbroken = len(days) > 2 and last - first + 1 == len(days)
    return f"{days[0]}-{days[-1]}" if unbroken else ",".join(days)


def coming(policy: Policy, now: datetime, count: int = SHOWN_FIRES) -> list[datetime]:
    """Its next fires, fewer where no more come."""
    fires: list[datetime] = []
    after = now
    while len(fires) < count and (fire := schedule.next_fire(policy, after)) is not None:
        fires.append(fire)
        after = fire
    return fires


def in_zone(moment: datetime, zone: str) -> str:
    """With the weekday and the name of the zone then."""
    return f"{moment.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M %Z}"


def window_of(policy: Policy, now: datetime) -> list[str]:
    """Until when its window is open, or when it opens; nothing where it always is."""
    why, opens = window.why_closed(policy, now), window.next_open(policy, now)
    if why is None:
        closes = window.closes_at(policy, now)
        return [] if closes is None else [f"its window is open until {in_zone(closes, policy.zone)}"]
    return [f"closed now ({reason_text(why)}), opens {in_zone(opens, policy.zone) if opens else 'never again'}"]


def gaps(settings: "Settings", policy: Policy) -> list[str]:
    """See ``editing.gaps``; they are among the remarks, too."""
    return editing.gaps(policy, {copy.name for copy in settings.copy_to}, vcenters=bool(settings.vcenter))


def remarks(settings: "Settings", policy: Policy, now: datetime) -> list[str]:
    """See ``editing.gaps`` and ``editing.remarks``."""
    rules_of_file = settings.retention.model_dump(exclude={"zone"})
    kept = any(isinstance(value, int) and value > 0 for value in rules_of_file.values())
    return [*gaps(settings, policy), *editing.remarks(policy, now, kept=kept)]
