"""What rules of retention would keep of a history that looks like what a schedule makes. Pure but for the moment."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from api.schemas.jobs import KeptPoint, RetentionPreview
from appliance import config
from appliance.jobs import schedule
from appliance.jobs.retention import policy_of
from catalog.jobs.policy import Policy
from proxy.repository.collection.retention import PointFacts, Rule, decide
from proxy.repository.collection.retention import Policy as Rules

LONGEST = 3660
"""Days looked back at most: what is kept for ten years shows how it would go on."""

EXACT = timedelta(days=100)
"""For so long the runs of a schedule are taken as they are, before that at the same pace: a line of cron takes some hundred
microseconds a run, and whoever types waits for it."""

OFTEN = 12
"""Runs in the newest eight days above which a schedule fires several times a day. Then all of its runs are looked at for
``DENSE``, one an hour for as long as rules count hours, and one a day before."""

DENSE = timedelta(hours=6)

NAMED = 400
"""Kept points that are named, the newest."""

_DAYS = {
    Rule.LAST: 1, Rule.DAYS: 1, Rule.HOURLY: 1, Rule.DAILY: 1, Rule.WEEKLY: 7, Rule.MONTHLY: 31, Rule.YEARLY: 366,
}  # fmt: skip


def retention_preview(policy: Policy, section: config.Retention, now: datetime) -> RetentionPreview:
    """``section``: the configuration's, which a policy without rules follows."""
    rules, of = rules_of(policy, section)
    runs = sorted(_runs(policy, rules, now))
    facts = [PointFacts(f"{moment:%Y%m%d%H%M%S}", "m", moment) for moment in runs]
    kept = [one for one in decide(facts, rules, now) if one.keep]
    return RetentionPreview(
        rules=str(rules),
        of=of,
        since=runs[0] if runs else now,
        runs=len(runs),
        kept_count=len(kept),
        kept=[
            KeptPoint(at=one.point.created_at, by=[str(keep) for keep in one.kept_by])
            for one in reversed(kept[-NAMED:])
        ],
    )


def rules_of(policy: Policy, section: config.Retention) -> tuple[Rules, str]:
    """What its points follow, and who says so: ``job``, ``configuration``, ``none``."""
    if policy.retention is not None:
        own = Rules(**policy.retention.model_dump(), zone=policy.zone)
        return own, "none" if own.is_empty else "job"
    default = policy_of(section)
    return default, "none" if default.is_empty else "configuration"


def _runs(policy: Policy, rules: Rules, now: datetime) -> set[datetime]:
    """Moments of the past, about as the schedule would have had them; one a day where there is none."""
    days = min(max((rules.count(rule) * size for rule, size in _DAYS.items()), default=0) + 35, LONGEST)
    begin = now - timedelta(days=days)
    if policy.schedule is None:
        return set(_steps(now - timedelta(days=1), begin, timedelta(days=1)))
    if _is_dense(policy, now):
        hours = timedelta(hours=min(rules.count(Rule.HOURLY), 24 * 31))
        found = {
            *schedule.fires_between(policy, now - DENSE, now),
            *_steps(now - DENSE, now - hours, timedelta(hours=1)),
        }
    else:
        found = set(schedule.fires_between(policy, max(begin, now - EXACT), now))
    oldest = min(found, default=now)
    pace = timedelta(days=1) if len(found) < 2 else (max(found) - oldest) / (len(found) - 1)
    step = timedelta(days=max(1, round(pace / timedelta(days=1))))
    return {*found, *_steps(oldest - step, begin, step)}


def _is_dense(policy: Policy, now: datetime) -> bool:
    moment: datetime | None = now - timedelta(days=8)
    for _ in range(OFTEN):
        moment = schedule.next_fire(policy, moment) if moment is not None else None
        if moment is None or moment > now:
            return False
    return True


def _steps(newest: datetime, begin: datetime, step: timedelta) -> Iterator[datetime]:
    """Back to ``begin``."""
    moment = newest
    while moment >= begin:
        yield moment
        moment -= step
