"""Retention: which restore points are kept, and by which rules; a pure function, decided one machine at a time.

::

    keep last 2, daily 3           Mon          Tue          Wed      Thu
                                 a      b     c      d        e      f  g
    last                                                             1  2       (2 = newest)
    daily                               .            3        2         1       the newest of each of the three newest days
    removed                      a      b     c                                 d e f g stay

Of each period the **newest** point is kept, as restic and Proxmox Backup do: the newest of a period that is over stays the
newest for ever, so what is kept today was kept yesterday; keeping the oldest would keep a point of the period that still
goes on and let yesterday's last state, which people ask for, go. Periods without points do not count: "daily 7" are the
seven newest days *that have points*, so a machine that was off for a month loses nothing by it.

A point is removed only if no rule keeps it, and these do besides the policy:

* it is held; it is in use (mounted, restored, copied);
* it is the machine's newest point that is not known to be damaged (the last that may be good);
* it is the newest that verification found good, if there is one: what was not verified may prove bad. (A machine that has only
  damaged points keeps the newest of them: parts of it may be all that is left.)
* the machine's list is incomplete (a manifest cannot be read): nothing of it is removed, since the unreadable may be the one
  that was counted on;
* its policy has no rule at all: it then says nothing, rather than "nothing"; or nobody knows its policy;
* it is dated in the future, by more than ``AHEAD``: a clock was wrong when it was made, or is now. It is kept until its time
  has come, and nothing counts on it: it takes no place in any rule and is nobody's last good point, so that tonight's point
  and all that is real stay as if it were not there.

Points of one machine may follow different rules (``PointFacts.rules``: those of the job that made them, those of a copy). Each
policy then counts its own points only, so that an hourly job's points do not fill the places of a nightly one's. What is the
machine's matter stays the machine's: its last good points, its incomplete list. Points whose rules nobody knows are kept.

A policy is applied twice: to all of its points, and to those that are not known to be damaged; what either keeps is kept. So
a good older point stands in for a damaged one, and a verification that saw damage where only a cable was bad removes nothing
early.
``days`` are counted back from now, or from the newest point of these rules that is not known to be damaged, if that is earlier:
a machine that was off, a job that ended, a clock that jumped ahead cost nothing until there is a new point.
Periods are calendar periods of the policy's time zone (weeks: ISO, from Monday).
A day of 23 or 25 hours is a day; an hour that comes twice in autumn is two hours, as the points in it are an hour apart.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby
from zoneinfo import ZoneInfo

from proxy.errors import ConfigurationError
from proxy.model import MachineId, RestorePointId
from proxy.repository.records import Health


class Rule(StrEnum):
    """Why a point is kept."""

    LAST = "last"
    DAYS = "days"
    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    YEARLY = "yearly"
    HELD = "held"
    IN_USE = "in-use"
    LAST_GOOD = "last-good"
    INCOMPLETE = "incomplete"
    NO_POLICY = "no-policy"
    UNKNOWN_POLICY = "unknown-policy"
    FUTURE = "future"


COUNTED = (Rule.LAST, Rule.DAYS, Rule.HOURLY, Rule.DAILY, Rule.WEEKLY, Rule.MONTHLY, Rule.YEARLY)

AHEAD = timedelta(hours=1)
"""Clocks that are set by hand differ by minutes; a time zone that was taken for another is an hour and more."""


@dataclass(frozen=True, slots=True)
class Policy:
    """``last``: so many newest; ``days``: everything that is not older than so many days, see above; the others: the newest of
    so many newest periods. 0 is "no such rule". ``zone``: IANA name of the time zone in which periods are counted."""

    last: int = 0
    days: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    zone: str = "UTC"

    def __post_init__(self) -> None:
        for rule in COUNTED:
            if self.count(rule) < 0:
                raise ConfigurationError("retention", f"{rule} is {self.count(rule)}; it counts from 0")
        try:
            ZoneInfo(self.zone)
        except (KeyError, OSError, ValueError):  # not found is a KeyError; "" and directories are the others
            raise ConfigurationError("retention", f"unknown time zone {self.zone!r}") from None

    @property
    def is_empty(self) -> bool:
        """Whether no rule is set."""
        return not any(self.count(rule) for rule in COUNTED)

    def count(self, rule: Rule) -> int:
        """The number of a rule that has one."""
        number: int = getattr(self, rule.value)
        return number

    def __str__(self) -> str:
        """``last 3, daily 7``."""
        return ", ".join(f"{rule.value} {self.count(rule)}" for rule in COUNTED if self.count(rule)) or "no rule"


@dataclass(frozen=True, slots=True)
class Policies:
    """Which policy applies to which points: ``default`` to those that name none, ``named`` by ``PointFacts.rules``."""

    default: Policy = Policy()
    named: Mapping[str, Policy] = field(default_factory=dict)

    def of(self, rules: str) -> Policy | None:
        """``None``: nobody knows them."""
        return self.named.get(rules) if rules else self.default


@dataclass(frozen=True, slots=True)
class PointFacts:
    """What retention knows of a restore point. ``created_at`` with its offset from UTC; ``listed_whole``: whether every
    manifest of the machine could be read (the same for all points of a machine; one that says no is enough). ``rules``: name
    of the policy that it follows, in ``Policies.named``, for people too (``job nightly``); empty: the default's."""

    id: RestorePointId
    machine: MachineId
    created_at: datetime
    held: bool = False
    in_use: bool = False
    health: Health = Health.UNKNOWN
    listed_whole: bool = True
    rules: str = ""

    def __post_init__(self) -> None:
        if self.created_at.tzinfo is None:
            raise ValueError(f"restore point {self.id}: a time without its offset from UTC")


@dataclass(frozen=True, slots=True)
class Keep:
    """One rule that keeps a point. ``number`` of ``of``: its place, from 1 on, 0 where there is none. ``period``: which."""

    rule: Rule
    number: int = 0
    of: int = 0
    period: str = ""

    def __str__(self) -> str:
        place = f" {self.number} of {self.of}" if self.of else ""
        return f"{_TEXTS.get(self.rule, self.rule.value)}{place}{f' ({self.period})' if self.period else ''}"


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to a point: it is kept by all of these rules, or removed if there are none. ``policy``: that was applied."""

    point: PointFacts
    kept_by: tuple[Keep, ...] = ()
    policy: Policy | None = None

    @property
    def keep(self) -> bool:
        """Whether any rule keeps it."""
        return bool(self.kept_by)

    def __str__(self) -> str:
        if self.kept_by:
            return ", ".join(map(str, self.kept_by))
        return f"no rule{f' of {self.point.rules}' if self.point.rules else ''} keeps it: {self.policy}"


def of_future(created_at: datetime, now: datetime) -> bool:
    """Whether a restore point says that it was made later than any clock is believed to be ahead: nothing counts on it."""
    return created_at > now + AHEAD


def decide(points: Iterable[PointFacts], policies: Policy | Policies, now: datetime) -> list[Decision]:
    """A decision for every point, by machine and time. ``policies``: a single one applies to all points, whatever rules they
    name. ``now``: for ``days``, and to tell points of the future."""
    ordered = sorted(points, key=lambda p: (p.machine, p.created_at, p.id))
    decisions: list[Decision] = []
    for _, group in groupby(ordered, key=lambda p: p.machine):
        decisions += _machine(list(group), policies, now)
    return decisions


def _machine(points: Sequence[PointFacts], policies: Policy | Policies, now: datetime) -> list[Decision]:
    """``points``: of one machine, oldest first."""
    kept: dict[RestorePointId, list[Keep]] = {point.id: [] for point in points}
    whole = all(point.listed_whole for point in points)
    for point in points:
        for applies, rule in ((point.held, Rule.HELD), (point.in_use, Rule.IN_USE), (not whole, Rule.INCOMPLETE)):
            if applies:
                kept[point.id].append(Keep(rule))
    real = [point for point in points if not of_future(point.created_at, now)]
    for point in points[len(real) :]:
        kept[point.id].append(Keep(Rule.FUTURE))
    for point in _last_good(real):
        kept[point.id].append(Keep(Rule.LAST_GOOD))
    applied: dict[RestorePointId, Policy | None] = dict.fromkeys(kept)
    for group, policy in _groups(real, policies):
        applied |= {point.id: policy for point in group}
        for point, keep in _keeps(group, policy, now):
            kept[point.id].append(keep)
    return [Decision(point, tuple(kept[point.id]), applied[point.id]) for point in points]


def _groups(points: Sequence[PointFacts], policies: Policy | Policies) -> list[tuple[list[PointFacts], Policy | None]]:
    """Points that are counted together, and by what."""
    if isinstance(policies, Policy):
        return [(list(points), policies)] if points else []
    groups: dict[str, list[PointFacts]] = {}
    for point in points:
        groups.setdefault(point.rules, []).append(point)
    return [(group, policies.of(rules)) for rules, group in groups.items()]


def _keeps(points: Sequence[PointFacts], policy: Policy | None, now: datetime) -> Iterator[tuple[PointFacts, Keep]]:
    """What a policy keeps of its points, which are given oldest first."""
    if policy is None or policy.is_empty:
        rule = Rule.UNKNOWN_POLICY if policy is None else Rule.NO_POLICY
        yield from ((point, Keep(rule)) for point in points)
        return
    newest = list(reversed(points))
    good = [point for point in newest if point.health.trusted]
    end = min(now, (good or newest)[0].created_at)
    for rule in COUNTED:
        named: set[RestorePointId] = set()
        for point, keep in (*_apply(rule, good, policy, end), *_apply(rule, newest, policy, end)):
            if point.id not in named:
                named.add(point.id)
                yield point, keep


def _last_good(points: Sequence[PointFacts]) -> list[PointFacts]:
    """The newest that is neither damaged nor suspect, and the newest that was proven good; a machine that has only such ones
    keeps the newest of these: parts of it may be all that is left."""
    newest = list(reversed(points))
    proven = [point for point in newest if point.health is Health.GOOD]
    likely = [point for point in newest if point.health.trusted]
    chosen = [*likely[:1], *proven[:1]] or newest[:1]
    return list(dict.fromkeys(chosen))


def _apply(
    rule: Rule, newest_first: Sequence[PointFacts], policy: Policy, end: datetime
) -> list[tuple[PointFacts, Keep]]:
    """``end``: from where ``days`` are counted back."""
    count = policy.count(rule)
    if not count:
        return []
    if rule is Rule.LAST:
        return [(point, Keep(rule, n, count)) for n, point in enumerate(newest_first[:count], 1)]
    if rule is Rule.DAYS:
        oldest = end - timedelta(days=count)
        return [(point, Keep(rule, period=f"{count}")) for point in newest_first if point.created_at >= oldest]
    zone = ZoneInfo(policy.zone)
    chosen: dict[str, PointFacts] = {}
    for point in newest_first:
        chosen.setdefault(_PERIODS[rule](point.created_at.astimezone(zone)), point)
    first = list(chosen.items())[:count]
    return [(point, Keep(rule, n, count, period)) for n, (period, point) in enumerate(first, 1)]


def _hour(moment: datetime) -> str:
    # With the offset: an hour that comes twice is two periods.
    return f"{moment:%Y-%m-%d %H}:00{moment:%z}"


def _week(moment: datetime) -> str:
    year, week, _ = moment.isocalendar()
    return f"{year}-W{week:02}"


_PERIODS: dict[Rule, Callable[[datetime], str]] = {
    Rule.HOURLY: _hour,
    Rule.DAILY: lambda moment: f"{moment:%Y-%m-%d}",
    Rule.WEEKLY: _week,
    Rule.MONTHLY: lambda moment: f"{moment:%Y-%m}",
    Rule.YEARLY: lambda moment: f"{moment:%Y}",
}

_TEXTS = {
    Rule.DAYS: "within days",
    Rule.IN_USE: "in use",
    Rule.LAST_GOOD: "last good point",
    Rule.INCOMPLETE: "a restore point of the machine cannot be read",
    Rule.NO_POLICY: "the policy has no rule",
    Rule.UNKNOWN_POLICY: "nobody knows the rules that it follows",
    Rule.FUTURE: "dated in the future",
}
