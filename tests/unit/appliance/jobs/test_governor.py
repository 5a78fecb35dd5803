"""Latency control against simulated arrays: latency as a function of load, noise, and guests that come and go."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from appliance.jobs.governor import Governor, Thresholds, Verdict
from proxy.model import ReasonCode
from proxy.ports import Load, PlaceLoad
from proxy.units import MiB

pytestmark = pytest.mark.slow

HOLD, SLOW = 0.020, 0.030
STEP = 20.0
PLACE = "vc1/gold"
KEY = f"place:{PLACE}"


@dataclass(frozen=True)
class Array:
    """``latency``: seconds, of all that is asked of it in bytes/s."""

    latency: Callable[[float], float]

    def best(self, guests: float, demand: float) -> float:
        """What somebody who knows the array would take: the most that keeps the latency below the threshold."""
        rates = [demand * n / 400 for n in range(401)]
        return max((rate for rate in rates if self.latency(guests + rate) <= SLOW), default=0.0)


def queue(capacity: float, base: float = 0.003) -> Array:
    """One server: hardly slower until it is nearly full, then without limit (0.5 s here)."""
    return Array(lambda load: min(0.5, base / max(1e-9, 1 - load / capacity)) if load < capacity else 0.5)


def linear(per_second: float, base: float = 0.004) -> Array:
    return Array(lambda load: base + load / per_second * 0.020)


def knee(at: float, base: float = 0.002) -> Array:
    """A cache that hides everything, until it is full."""
    return Array(lambda load: base if load < at else base + (load / at - 1) * 0.4)


@dataclass
class Night:
    """What was seen: true latencies (without the noise of the measurement), rates, and what the governor changed."""

    latencies: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    paces: list[float | None] = field(default_factory=list)

    @property
    def changes(self) -> int:
        return sum(before != after for before, after in zip(self.paces, self.paces[1:], strict=False))


def simulate(
    array: Array, *, guests: Callable[[int], float], demand: float, noise: float, steps: int, seed: int
) -> Night:
    """One copy that would read ``demand`` bytes/s for ever."""
    governor, luck, night = Governor(lambda _: Thresholds(HOLD, SLOW), slowest=1 * MiB), random.Random(seed), Night()
    pace, rate = None, demand
    for n in range(steps):
        true = array.latency(guests(n) + rate)
        night.latencies.append(true)
        night.rates.append(rate)
        night.best.append(array.best(guests(n), demand))
        measured = true * luck.lognormvariate(0, noise)
        verdict = governor.observe(n * STEP, seen(measured), {PLACE: int(rate * STEP)})
        pace = verdict.pace.get(PLACE)
        night.paces.append(pace)
        rate = demand if pace is None else min(demand, pace)
    return night


def seen(latency: float, requests: float = 200.0) -> Load:
    return Load(datetime.now(UTC), STEP, places={PLACE: PlaceLoad(reads=requests, read_latency=latency)})


def longest_run(marks: Iterable[bool]) -> int:
    longest = current = 0
    for mark in marks:
        current = current + 1 if mark else 0
        longest = max(longest, current)
    return longest


ARRAYS = [
    pytest.param(queue(800 * MiB), id="queue"),
    pytest.param(queue(800 * MiB, base=0.010), id="queue that starts at 10 ms"),
    pytest.param(linear(400 * MiB), id="linear"),
    pytest.param(knee(500 * MiB), id="knee"),
]


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_copy_that_overloads_the_array_settles_below_the_threshold_at_nearly_what_it_bears(array, noise, seed):
    steps = 540  # three hours
    night = simulate(array, guests=lambda _: 100 * MiB, demand=2000 * MiB, noise=noise, steps=steps, seed=seed)

    settled = slice(45, None)  # a quarter of an hour
    too_slow = sum(latency > SLOW for latency in night.latencies[settled])
    assert too_slow <= 0.05 * steps
    assert sum(night.rates[settled]) >= 0.7 * sum(night.best[settled])
    assert longest_run(latency > SLOW for latency in night.latencies[settled]) <= 8  # under three minutes
    assert night.changes <= 36


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("seed", [1, 2])
def test_when_the_guests_load_jumps_the_copies_yield_soon_and_come_back_later(array, seed):
    def guests(n: int) -> float:
        return (300 if 180 <= n < 360 else 50) * MiB

    night = simulate(array, guests=guests, demand=2000 * MiB, noise=0.1, steps=720, seed=seed)

    for begin in (0, 180, 360):
        later = slice(begin + 45, begin + 180)
        assert sum(latency > SLOW for latency in night.latencies[later]) <= 0.1 * 135, begin
    assert sum(night.rates[540:]) >= 0.7 * sum(night.best[540:])
    assert night.changes <= 45


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("joins", [[0, 0, 0], [0, 100, 250]], ids=["together", "one after the other"])
def test_several_proxies_that_know_nothing_of_each_other_share_an_array_all_the_same(array, noise, joins):
    luck, steps, demand = random.Random(1), 540, 700 * MiB
    governors = [Governor(lambda _: Thresholds(HOLD, SLOW), slowest=1 * MiB) for _ in joins]
    paces: list[float | None] = [None] * len(joins)
    latencies, taken, best, changes = [], 0.0, 0.0, 0
    for n in range(steps):
        rates = [min(demand, pace or demand) if n >= join else 0.0 for pace, join in zip(paces, joins, strict=True)]
        true = array.latency(100 * MiB + sum(rates))
        for number, governor in enumerate(governors):
            measured = true * luck.lognormvariate(0, noise)
            verdict = governor.observe(n * STEP, seen(measured), {PLACE: int(rates[number] * STEP)})
            changes += verdict.pace.get(PLACE) != paces[number]
            paces[number] = verdict.pace.get(PLACE)
        if n >= 45:
            latencies.append(true)
            taken += sum(rates)
            best += array.best(100 * MiB, demand * sum(n >= join for join in joins))

    assert sum(latency > SLOW for latency in latencies) <= 0.1 * steps
    assert taken >= 0.7 * best
    assert changes <= 40 * len(joins)


def test_an_array_that_bears_all_is_never_paced_nor_closed():
    night = simulate(queue(8000 * MiB), guests=lambda _: 0.0, demand=1000 * MiB, noise=0.3, steps=500, seed=5)

    assert night.changes == 0
    assert night.paces[-1] is None


def observe(governor: Governor, latencies: list[float], taken: int = 0, start: int = 0) -> list[Verdict]:
    return [governor.observe((start + n) * STEP, seen(latency), {PLACE: taken}) for n, latency in enumerate(latencies)]


def test_above_the_first_threshold_nothing_begins_and_what_runs_goes_on_unpaced():
    verdicts = observe(Governor(lambda _: Thresholds(HOLD, SLOW)), [0.025] * 5, taken=1 << 30)

    assert verdicts[-1].closed[KEY].code is ReasonCode.LATENCY_HOLD
    assert "25.0 ms" in verdicts[-1].closed[KEY].detail
    assert not verdicts[-1].pace


def test_a_single_slow_answer_closes_nothing():
    verdicts = observe(Governor(lambda _: Thresholds(HOLD, SLOW)), [0.005, 0.005, 0.4, 0.005, 0.005])

    assert not any(verdict.closed for verdict in verdicts)


def test_a_place_opens_again_only_after_it_was_calm_for_a_while():
    governor = Governor(lambda _: Thresholds(HOLD, SLOW))
    observe(governor, [0.050] * 3)

    closed = [bool(verdict.closed) for verdict in observe(governor, [0.005] * 8, start=3)]

    assert closed == [True] * 4 + [False] * 4  # one more sample for the median, then 60 s


def test_a_place_that_has_to_be_closed_again_and_again_stays_closed_longer_each_time():
    """As when the tasks that begin when it opens are what makes it slow."""
    governor = Governor(lambda _: Thresholds(HOLD, SLOW))
    changes, closed, latency = 0, False, 0.050
    for n in range(540):  # three hours
        verdict = governor.observe(n * STEP, seen(latency), {})
        changes += bool(verdict.closed) != closed
        closed = bool(verdict.closed)
        latency = 0.005 if closed else 0.050
    assert changes <= 40


def test_a_place_whose_guests_hardly_ask_is_calm_whatever_one_request_took():
    governor = Governor(lambda _: Thresholds(HOLD, SLOW))

    verdicts = [governor.observe(n * STEP, seen(0.3, requests=0.1), {}) for n in range(6)]

    assert not any(verdict.closed for verdict in verdicts)


def test_a_place_that_nobody_measures_any_more_is_let_go():
    governor = Governor(lambda _: Thresholds(HOLD, SLOW))
    observe(governor, [0.050] * 3)

    kept = governor.observe(200.0, Load(datetime.now(UTC)), {})
    gone = governor.observe(400.0, Load(datetime.now(UTC)), {})

    assert KEY in kept.closed
    assert KEY not in gone.closed


def test_a_pace_is_never_slower_than_the_slowest_and_goes_when_nothing_reads_there():
    governor = Governor(lambda _: Thresholds(HOLD, SLOW), slowest=8 * MiB)
    slowed = [governor.observe(n * STEP, seen(0.5), {PLACE: 50 * MiB * 20}) for n in range(30)]
    assert slowed[-1].pace[PLACE] == 8 * MiB

    idle = observe(governor, [0.5] * 6, start=30)

    assert PLACE not in idle[-1].pace


def test_places_without_thresholds_are_left_alone():
    verdicts = observe(Governor(lambda _: None), [0.5] * 5, taken=1 << 30)

    assert not verdicts[-1].closed
    assert not verdicts[-1].pace
