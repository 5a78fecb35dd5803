"""Who comes when: a timetable for the machines of all jobs under all limits at once. Pure.

List scheduling. Whenever a slot is free, the first in the list of those that fit begins. The list: larger job priority first,
then who has to begin soonest to be done when his window closes, which among machines of one window is the longest first.
Nothing begins that would not be done in time: it waits for its next open stretch, or is named as unfit. Where not all have
room, the longest first would keep the most machines from their backup: then those that are late come first, and after them
the shortest, if that leaves fewer without.

::

    host:a (1)   |####### big #######|== c ==|           e would not be done when the window closes:
    host:b (1)   |==== d ====|== b ==|                   it is unfit, and the limit that it waited for is named
                 22:00                 01:00 close

A machine waits in the queue of *one* key that is at its limit, and is looked at again when that key is let go: so a pass over
10,000 machines looks at each a few times, not at each with every event.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from heapq import heapify, heappop, heappush
from math import inf

from appliance.jobs.estimating import Estimate
from appliance.jobs.window import Span
from catalog.jobs.limits import Limits
from proxy.model import MachineId, Reason, ReasonCode

SLOTS = "proxy:*"
"""Stands for the slots of all proxies together: which of them will take a task is not known before it does."""


@dataclass(frozen=True, slots=True)
class Item:
    """A machine's work to be planned. ``id``: unique in the plan; ``run``: of the job run that it is part of; ``spans``: when
    it may run, in order, apart; ``keys``: what it occupies meanwhile; ``late``: its newest restore point is older than its
    objective allows; ``why``: what decided its kind (an active full is due)."""

    id: str
    machine: MachineId
    name: str
    job: str
    host: str
    keys: tuple[str, ...]
    estimate: Estimate
    spans: tuple[Span, ...]
    full: bool = False
    priority: int = 0
    late: bool = False
    run: str = ""
    why: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Running:
    """What is under way already, and until when presumably."""

    keys: tuple[str, ...]
    until: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """``waited_for``: the key for which it waited last, empty when it began as soon as its window allowed."""

    item: Item
    begin: datetime
    end: datetime
    waited_for: str = ""
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class Unfit:
    """What has no place in the plan, and why. ``waited_for`` as in ``Entry``."""

    item: Item
    reason: Reason
    waited_for: str = ""


@dataclass(frozen=True)
class Plan:
    """``entries`` by their begin."""

    entries: tuple[Entry, ...] = ()
    unfit: tuple[Unfit, ...] = ()

    @cached_property
    def _begins(self) -> Mapping[str, datetime]:
        return {entry.item.id: entry.begin for entry in self.entries}

    def begin_of(self, item: str) -> datetime | None:
        """When the item of this id is to begin; ``None`` when it has no place."""
        return self._begins.get(item)

    @cached_property
    def end(self) -> datetime | None:
        """When the last one is done."""
        return max((entry.end for entry in self.entries), default=None)


def plan(
    items: Sequence[Item], limits: Limits, now: datetime, *, slots: int | None = None, running: Sequence[Running] = ()
) -> Plan:
    """``slots``: how many tasks all proxies together take at once, ``None`` for any number."""
    made = _Planning(items, limits, now.timestamp(), slots, running, order=_soonest).made()
    if any(unfit.waited_for for unfit in made.unfit):
        shortest = _Planning(items, limits, now.timestamp(), slots, running, order=_shortest).made()
        made = min(made, shortest, key=lambda one: len(one.unfit))
    return made


_Rank = tuple[float, float, float, str]


@dataclass(slots=True)
class _Waiting:
    """One item on its way into the plan. Seconds since the epoch."""

    item: Item
    keys: tuple[str, ...]
    seconds: float
    spans: list[tuple[float, float]]
    since: float = 0.0
    waited_for: str = ""


@dataclass(slots=True)
class _Key:
    """``queue``: ranks of those that wait for it."""

    limit: int
    used: int = 0
    queue: list[int] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return self.used >= self.limit


class _Planning:
    """One pass. Waiting ones are named by their rank, their place in the list."""

    def __init__(
        self,
        items: Sequence[Item],
        limits: Limits,
        now: float,
        slots: int | None,
        running: Sequence[Running],
        *,
        order: Callable[[_Waiting], _Rank],
    ) -> None:
        self._limits = limits
        self._slots = slots
        self._keys: dict[str, _Key] = {}
        self._entries: list[tuple[float, float, _Waiting]] = []
        self._unfit: list[Unfit] = []
        waiting = [_Waiting(i, self._limited(i.keys), i.estimate.seconds, _after(i.spans, now)) for i in items]
        self._list = sorted(waiting, key=order)
        # (moment, keys that are let go) and (moment, rank that may begin from then on)
        self._ends: list[tuple[float, int, tuple[str, ...]]] = []
        self._openings: list[tuple[float, int]] = []
        for one in running:
            self._occupy(self._limited(one.keys), max(one.until.timestamp(), now))
        for rank in range(len(self._list)):
            self._next_span(rank, now)

    def made(self) -> Plan:
        while self._openings or self._ends:
            moment = min(queue[0][0] for queue in (self._openings, self._ends) if queue)
            self._let_in(moment, self._due(moment))
        for key in self._keys.values():
            for rank in key.queue:  # a limit of 0: nothing ever lets it go
                self._refuse(self._list[rank])
        entries = (
            Entry(one.item, _moment(begin), _moment(end), one.waited_for, begin - one.since)
            for begin, end, one in self._entries
        )
        return Plan(tuple(sorted(entries, key=lambda entry: entry.begin)), tuple(self._unfit))

    def _due(self, moment: float) -> list[_Key]:
        """What happens at a moment: those in whose queues somebody may have his turn."""
        freed: dict[str, None] = {}
        while self._ends and self._ends[0][0] <= moment:
            for name in heappop(self._ends)[2]:
                self._keys[name].used -= 1
                freed[name] = None
        opened: list[int] = []
        while self._openings and self._openings[0][0] <= moment:
            opened.append(heappop(self._openings)[1])
        heapify(opened)
        return [_Key(1, queue=opened), *(self._keys[name] for name in freed)]

    def _let_in(self, moment: float, turns: list[_Key]) -> None:
        """The first of all these queues' heads, again and again, until each is empty or its key at its limit."""
        while turns := [key for key in turns if key.queue and not key.full]:
            self._try(heappop(min(turns, key=_head).queue), moment)

    def _try(self, rank: int, moment: float) -> None:
        """It begins, or waits for a key, or for its next open stretch."""
        one = self._list[rank]
        if moment + one.seconds > one.spans[0][1]:
            one.spans.pop(0)
            self._next_span(rank, moment)
            return
        for name in one.keys:
            key = self._keys[name]
            if key.full:
                one.waited_for = name
                heappush(key.queue, rank)
                return
        self._occupy(one.keys, moment + one.seconds)
        self._entries.append((moment, moment + one.seconds, one))

    def _next_span(self, rank: int, moment: float) -> None:
        """Whoever waited for a key while his stretch closed may find himself in the middle of the next one."""
        one = self._list[rank]
        while one.spans and max(one.spans[0][0], moment) + one.seconds > one.spans[0][1]:
            one.spans.pop(0)
        if not one.spans:
            self._refuse(one)
            return
        one.since = one.spans[0][0]
        heappush(self._openings, (max(one.since, moment), rank))

    def _refuse(self, one: _Waiting) -> None:
        item, longest = one.item, max((_length(span) for span in one.item.spans), default=0.0)
        if not item.spans:
            reason = Reason(ReasonCode.WINDOW_CLOSED, "its window does not open in this time")
        elif one.waited_for:
            limit = self._keys[one.waited_for].limit
            reason = Reason(ReasonCode.NOT_PLANNED_IN_WINDOW, f"{one.waited_for} is at its limit of {limit} too long")
        else:
            needs, has = _hours(one.seconds), _hours(longest)
            reason = Reason(ReasonCode.NOT_PLANNED_IN_WINDOW, f"it needs about {needs}, its window has {has}")
        self._unfit.append(Unfit(item, reason, one.waited_for))

    def _limited(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those that have a limit, smallest first: they are full longest, so that nobody is looked at in vain."""
        found = dict.fromkeys(names if self._slots is None else (*names, SLOTS))
        for name in found:
            if name not in self._keys:
                limit = self._slots if name == SLOTS else self._limits.of(name)
                if limit is not None:
                    self._keys[name] = _Key(limit)
        return tuple(sorted((name for name in found if name in self._keys), key=lambda name: self._keys[name].limit))

    def _occupy(self, keys: tuple[str, ...], until: float) -> None:
        for name in keys:
            self._keys[name].used += 1
        heappush(self._ends, (until, len(self._entries), keys))


def _soonest(one: _Waiting) -> _Rank:
    latest = next((end - one.seconds for begin, end in one.spans if end - begin >= one.seconds), inf)
    return (-one.item.priority, latest, -one.seconds, one.item.id)


def _shortest(one: _Waiting) -> _Rank:
    return (-one.item.priority, not one.item.late, one.seconds, one.item.id)


def _head(key: _Key) -> int:
    return key.queue[0]


def _after(spans: Iterable[Span], now: float) -> list[tuple[float, float]]:
    """What is left of them from now on."""
    left = [(max(s.begin.timestamp(), now), inf if s.end is None else s.end.timestamp()) for s in spans]
    return [(begin, end) for begin, end in left if begin < end]


def _length(span: Span) -> float:
    return inf if span.end is None else (span.end - span.begin).total_seconds()


def _hours(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
