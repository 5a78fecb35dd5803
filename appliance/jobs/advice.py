"""What to change so that a night fits better: proposals, each with its effect as the planner recomputes it. Pure.

The classic advice is to measure, then to move jobs around. What can be moved:

=========  ==========================================================================================================
start      a job begins some hours earlier or later; its window still ends when it did
machine    a machine is taken from one job to another one that runs in this time
limit      one more at once, where a limit holds up the most
=========  ==========================================================================================================

A proposal is made only when it helps: fewer machines without a place; or as many and a clearly earlier end (by more than what
the begin was moved), or fewer at once on the busiest host at no later end. Without one that helps there is none.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice

from appliance.jobs.planner import SLOTS, Item, Plan, Running, plan
from appliance.jobs.window import Span
from catalog.jobs.limits import Limits

TRIES = 80
"""Plans that are computed for one advice. Each takes half a second at most with 10,000 machines."""

WORK = 80_000
"""Machines in all these plans together; so that an advice takes seconds also for many machines."""

WORTH = 900.0
"""Seconds by which the end has to come earlier: less is no reason to change anything."""

HOURS = (-1, 1, -2, 2, -3, 3, -4, 4)


class Change(StrEnum):
    """See above."""

    START = "start"
    MACHINE = "machine"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class Night:
    """All that a plan is made from."""

    items: tuple[Item, ...]
    limits: Limits
    now: datetime
    slots: int | None = None
    running: tuple[Running, ...] = ()

    def plan(self) -> Plan:
        """Its timetable."""
        return plan(self.items, self.limits, self.now, slots=self.slots, running=self.running)


@dataclass(frozen=True, slots=True)
class Effect:
    """What a plan comes to. ``unfit``: machines without a place; ``waited``: seconds that machines wait for limits, all
    together; ``peak``: most tasks at once on any one host, which is ``host``."""

    unfit: int
    end: datetime | None
    waited: float
    peak: int
    host: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """``what``: for people. ``job``, ``machine`` (its name), ``key``: what is changed; ``value``: its new begin, job or
    limit."""

    change: Change
    what: str
    value: str
    before: Effect
    after: Effect
    job: str = ""
    machine: str = ""
    key: str = ""
    shift: float = 0.0
    """Seconds by which something begins earlier than now."""


def effect(made: Plan) -> Effect:
    """Of a plan."""
    peaks = host_peaks(made)
    host, peak = max(peaks.items(), key=lambda pair: (pair[1], pair[0]), default=("", 0))
    return Effect(len(made.unfit), made.end, sum(entry.waited for entry in made.entries), peak, host)


def host_peaks(made: Plan) -> Counter[str]:
    """Host -> most tasks at once."""
    # What ends at a moment makes room before what begins then.
    events = [(entry.begin, 1, entry.item.host) for entry in made.entries]
    events += [(entry.end, 0, entry.item.host) for entry in made.entries]
    now, peaks = Counter[str](), Counter[str]()
    for _, begins, host in sorted(events):
        now[host] += 1 if begins else -1
        peaks[host] = max(peaks[host], now[host])
    return peaks


def advise(night: Night, made: Plan | None = None, *, most: int = 5) -> list[Proposal]:
    """The best ``most`` of what helps, best first. ``made``: the night's plan, if it is at hand."""
    made = made or night.plan()
    before = effect(made)
    if not before.unfit and before.waited <= 0:
        return []
    tries = max(6, min(TRIES, WORK // max(len(night.items), 1)))
    found: list[Proposal] = []
    for other, proposal in islice(_changes(night, made, before), tries):
        after = effect(other.plan())
        if _helps(before, after, proposal.shift):
            found.append(replace(proposal, after=after))
    return _best(found)[:most]


def _helps(before: Effect, after: Effect, shift: float) -> bool:
    if after.unfit != before.unfit:
        return after.unfit < before.unfit
    if before.end is None or after.end is None:
        return False
    sooner = (before.end - after.end).total_seconds()
    return sooner - shift >= WORTH or (sooner >= 0 and after.peak < before.peak)


def _best(found: Sequence[Proposal]) -> list[Proposal]:
    """Best first; of several for the same job, machine or key only the best."""

    def order(one: Proposal) -> tuple[int, float, float]:
        return one.after.unfit, one.after.end.timestamp() if one.after.end else 0.0, one.after.waited

    best: dict[tuple[str, str, str, str], Proposal] = {}
    for one in sorted(found, key=order):
        subject = (one.change.value, one.job if not one.machine else "", one.machine, one.key)
        best.setdefault(subject, one)
    return list(best.values())


def _changes(night: Night, made: Plan, before: Effect) -> Iterator[tuple[Night, Proposal]]:
    """Of each kind in turn, so that all have their share of the tries."""
    kinds = [_limits(night, made, before), _starts(night, made, before), _machines(night, made, before)]
    while kinds:
        for kind in list(kinds):
            change = next(kind, None)
            if change is None:
                kinds.remove(kind)
            else:
                yield change


def _waiting(made: Plan) -> Counter[str]:
    """Key -> seconds for which machines waited for it last; one without a place counts as a night."""
    waited: Counter[str] = Counter()
    for entry in made.entries:
        if entry.waited_for:
            waited[entry.waited_for] += round(entry.waited)
    for unfit in made.unfit:
        if unfit.waited_for:
            waited[unfit.waited_for] += 86400
    return waited


def _limits(night: Night, made: Plan, before: Effect) -> Iterator[tuple[Night, Proposal]]:
    for key, _ in _waiting(made).most_common(8):
        if key == SLOTS:
            slots = (night.slots or 0) + 1
            other, value, what = replace(night, slots=slots), slots, f"{slots} slots of all proxies together"
        else:
            value = (night.limits.of(key) or 0) + 1
            if key.startswith("machine:"):
                continue
            raised = Limits(night.limits.kinds, {**night.limits.keys, key: value})
            other, what = replace(night, limits=raised), f"{value} at once for {key}"
        yield other, Proposal(Change.LIMIT, what, str(value), before, before, key=key)


def _starts(night: Night, made: Plan, before: Effect) -> Iterator[tuple[Night, Proposal]]:
    """Runs whose machines wait longest, or find no place, first."""
    waited: Counter[str] = Counter({item.run: 0 for item in night.items})
    for entry in made.entries:
        waited[entry.item.run] += round(entry.waited)
    for unfit in made.unfit:
        waited[unfit.item.run] += 86400
    for run, _ in waited.most_common(6):
        items = [item for item in night.items if item.run == run and item.spans]
        if not items:
            continue
        begin = min(item.spans[0].begin for item in items)
        for hours in HOURS:
            shift = timedelta(hours=hours)
            if begin + shift < night.now or not all(_shifted(item, shift).spans for item in items):
                continue
            moved = tuple(_shifted(item, shift) if item.run == run else item for item in night.items)
            way = f"{abs(hours)} h {'earlier' if hours < 0 else 'later'}"
            text = f"begin job {items[0].job} {way}"
            start = (begin + shift).isoformat()
            yield (
                replace(night, items=moved),
                Proposal(
                    Change.START, text, start, before, before, job=items[0].job, shift=max(-shift.total_seconds(), 0.0)
                ),
            )


def _shifted(item: Item, shift: timedelta) -> Item:
    """It may begin so much earlier or later; its last stretch still ends when it did."""
    if not item.spans:
        return item
    first, *others = item.spans
    begin = first.begin + shift
    if first.end is not None and begin >= first.end:
        return replace(item, spans=tuple(others))
    return replace(item, spans=(Span(begin, first.end), *others))


def _machines(night: Night, made: Plan, before: Effect) -> Iterator[tuple[Night, Proposal]]:
    """Those without a place, and those that are done last, the largest first; to each other job."""
    jobs: dict[str, Item] = {}
    for item in night.items:
        jobs.setdefault(item.run, item)
    candidates = sorted((unfit.item for unfit in made.unfit), key=lambda item: -item.estimate.seconds)[:6]
    candidates += [entry.item for entry in sorted(made.entries, key=lambda entry: entry.end)[-3:]]
    for item in candidates:
        for other in list(jobs.values())[:6]:
            if other.job == item.job or not other.spans or _has(night, other.job, item.machine):
                continue
            keys = tuple(key for key in item.keys if not key.startswith("job:"))
            keys += tuple(key for key in other.keys if key.startswith("job:"))
            taken = replace(item, job=other.job, run=other.run, spans=other.spans, priority=other.priority, keys=keys)
            items = tuple(taken if one.id == item.id else one for one in night.items)
            text = f"take machine {item.name} from job {item.job} to job {other.job}"
            made_of = Proposal(Change.MACHINE, text, other.job, before, before, job=item.job, machine=item.name)
            yield replace(night, items=items), made_of


def _has(night: Night, job: str, machine: str) -> bool:
    return any(item.job == job and item.machine == machine for item in night.items)
