"""Whose turn it is tonight: active fulls and verifications, each machine once in so many days, spread so that no night carries
all. Pure: what is known is when each machine had it last, and nothing else is kept.

Each machine has a deadline, the last opportunity within its days. What has to be done by the k-th opportunity from now takes at
least so much of each of them, and the greatest of these shares is tonight's load (the rate of Yao, Demers and Shenker, 1995)::

    deadlines of machines    tonight  +1  +2  +3        work until then / opportunities until then
                               2       0   1   9          2/1  2/2  3/3  12/4   ->  3 tonight: the 9 are begun early
                               2       0   1   1          2/1  2/2  3/3   4/4   ->  2 tonight: nobody else needs to be

So a thousand machines that were all set up on one day drift apart within their first period and stay apart, and nobody has his
turn early whose deadline is behind the greatest share. Among machines of one deadline the larger come first, then a stable hash
decides; a host gets no second one early that is beyond its own share.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b

from proxy.model import MachineId

TOLERANCE = timedelta(hours=12)
"""Runs of one night begin hours apart: a machine that had its turn at 03:00 has had it a whole day before 22:00. Half a day
either way is the same night."""

HOST_SHARE = 1.5
"""How much of its mean share one host may take early: less would leave it idle for want of small machines."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """``last``: when it had it last; for a machine that never had it, its first restore point; ``None`` when it has none: its
    next backup is a full one anyway, and there is nothing to verify. ``cost``: seconds it takes, > 0."""

    machine: MachineId
    host: str
    last: datetime | None
    cost: float


def due_tonight(
    candidates: Sequence[Candidate], days: int, now: datetime, following: Sequence[datetime] = ()
) -> frozenset[MachineId]:
    """Who is to have it in the run that begins now. ``days``: the cadence, 0 for never. ``following``: when the job's later
    runs within these days begin; once a day where none is known.

    Never later than the first run after ``days`` days; nobody who had it in this same night.
    """
    if days <= 0:
        return frozenset()
    runs = [now, *(following or (now + timedelta(days=day) for day in range(1, days + 1)))]
    waiting = [_Turn(one, _runs_left(one.last, days, runs)) for one in candidates if _may(one, now)]
    share, until = _share((turn.left, turn.one.cost) for turn in waiting)
    waiting = [turn for turn in waiting if turn.left <= until]
    by_host: dict[str, list[tuple[int, float]]] = {}
    for turn in waiting:
        by_host.setdefault(turn.one.host, []).append((turn.left, turn.one.cost))
    shares = {host: _share(turns)[0] * HOST_SHARE for host, turns in by_host.items()}
    return frozenset(_chosen(sorted(waiting, key=_order), share, shares))


@dataclass(frozen=True, slots=True)
class _Turn:
    """``left``: how many runs come after this one that are not too late; 0: it is now or too late."""

    one: Candidate
    left: int


def _chosen(turns: Iterable[_Turn], share: float, shares: Mapping[str, float]) -> Iterable[MachineId]:
    load, loads = 0.0, defaultdict[str, float](float)
    for turn in turns:
        cost, host = turn.one.cost, turn.one.host
        beyond = load + cost > share * (1 + 1e-9) or (loads[host] > 0 and loads[host] + cost > shares[host])
        if turn.left == 0 or not beyond:
            load += cost
            loads[host] += cost
            yield turn.one.machine


def _may(one: Candidate, now: datetime) -> bool:
    return one.last is not None and now - one.last >= TOLERANCE


def _runs_left(last: datetime | None, days: int, runs: Sequence[datetime]) -> int:
    deadline = (last or runs[0]) + timedelta(days=days) + TOLERANCE
    return sum(1 for run in runs[1:] if run < deadline)


def _share(turns: Iterable[tuple[int, float]]) -> tuple[float, int]:
    """Of (runs left, cost): the least load of each run with which all are done in time, and the last run that demands it."""
    by_left: dict[int, float] = {}
    for left, cost in turns:
        by_left[left] = by_left.get(left, 0.0) + cost
    most, until, work = 0.0, 0, 0.0
    for left in sorted(by_left):
        work += by_left[left]
        if work / (left + 1) >= most:
            most, until = work / (left + 1), left
    return most, until


def _order(turn: _Turn) -> tuple[int, float, bytes]:
    return turn.left, -turn.one.cost, blake2b(turn.one.machine.encode(), digest_size=8).digest()
