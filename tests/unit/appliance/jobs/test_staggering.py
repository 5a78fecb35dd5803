"""Active fulls and verifications, night by night over simulated years."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.jobs.staggering import Candidate, due_tonight

FIRST = datetime(2026, 1, 1, 22, tzinfo=UTC)
DAY = timedelta(days=1)


class Year:
    """``cost`` and ``host`` by machine; all had their first full in the first night, unless told otherwise."""

    def __init__(self, machines: int, hosts: int, spread: float, seed: int = 1) -> None:
        self.random = Random(seed)
        self.cost = {f"m{n}": self.random.lognormvariate(0, spread) for n in range(machines)}
        self.host = {machine: f"h{self.random.randrange(hosts)}" for machine in self.cost}
        self.last: dict[str, datetime | None] = dict.fromkeys(self.cost, FIRST)
        self.gaps: list[float] = []
        self.loads: list[float] = []
        self.nights: list[Counter[str]] = []

    def candidates(self) -> list[Candidate]:
        return [Candidate(m, self.host[m], self.last[m], self.cost[m]) for m in self.cost]

    def night(self, now: datetime, days: int, following: list[datetime] | None = None) -> None:
        chosen = due_tonight(self.candidates(), days, now, following or ())
        hosts: Counter[str] = Counter()
        for machine in chosen:
            done = now + timedelta(hours=self.random.uniform(0, 8))
            last = self.last[machine]
            assert last is not None
            self.gaps.append((done - last) / DAY)
            self.last[machine] = done
            hosts[self.host[machine]] += self.cost[machine]  # type: ignore[assignment]
        self.loads.append(sum(self.cost[m] for m in chosen))
        self.nights.append(hosts)

    def run(self, days: int, nights: int = 365) -> None:
        for number in range(1, nights):
            self.night(FIRST + number * DAY, days)

    def mean(self, days: int) -> float:
        return sum(self.cost.values()) / days


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hosts", "days", "spread", "nights"),
    [
        (20, 30, 1.0, 100),
        (20, 7, 1.0, 40),
        pytest.param(20, 30, 1.0, 730, marks=pytest.mark.slow),
        pytest.param(100, 30, 0.5, 365, marks=pytest.mark.slow),
        pytest.param(20, 7, 1.0, 365, marks=pytest.mark.slow),
    ],
)
def test_night_after_night_no_machine_is_late_and_no_night_carries_more_than_its_share(
    hosts: int, days: int, spread: float, nights: int
) -> None:
    year = Year(1000, hosts, spread)
    year.run(days, nights)
    assert max(year.gaps) <= days + 1
    assert all(
        last is not None and FIRST + (nights - 1) * DAY - last <= (days + 1) * DAY for last in year.last.values()
    )
    mean = year.mean(days)
    assert max(year.loads) <= 1.5 * mean
    # It is not done more often than asked for either.
    assert sum(year.loads) / len(year.loads) <= 1.05 * mean
    for host in set(year.host.values()):
        largest = max(cost for machine, cost in year.cost.items() if year.host[machine] == host)
        own = sum(cost for machine, cost in year.cost.items() if year.host[machine] == host) / days
        assert max(night[host] for night in year.nights) <= 1.5 * (own + largest)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 40), st.integers(0, 1 << 20), st.booleans())
def test_whatever_the_fleet_nobody_is_late_and_nobody_is_due_twice_in_a_night(
    machines: int, hosts: int, days: int, seed: int, scattered: bool
) -> None:
    year = Year(machines, hosts, 1.5, seed)
    if scattered:
        year.last = {machine: FIRST - year.random.randrange(days) * DAY for machine in year.cost}
    year.run(days, nights=120)
    assert all(gap <= days + 1 for gap in year.gaps)
    assert all(gap >= 0.5 for gap in year.gaps)
    assert all(last is not None and FIRST + 119 * DAY - last <= (days + 1) * DAY for last in year.last.values())
    chosen = due_tonight(year.candidates(), days, FIRST + 119 * DAY + timedelta(hours=9))
    again = [m for m in chosen if (year.last[m] or FIRST) >= (FIRST + 119 * DAY)]
    assert again == []


def test_a_job_that_runs_on_sundays_only_does_not_wait_until_it_is_too_late() -> None:
    year = Year(200, 5, 0.5)
    sundays = [FIRST + 7 * n * DAY for n in range(1, 60)]
    for number, sunday in enumerate(sundays[:50]):
        year.night(sunday, 30, [later for later in sundays[number + 1 :] if later - sunday <= 30 * DAY])
    # The last Sunday within thirty days is the 28th.
    assert max(year.gaps) <= 28.5
    assert max(year.loads) <= 1.5 * sum(year.cost.values()) / 4


@pytest.mark.slow
def test_a_job_that_runs_every_hour_does_not_do_a_night_s_share_each_hour() -> None:
    year = Year(100, 5, 0.5)
    hours = [FIRST + timedelta(hours=n) for n in range(1, 25 * 24)]
    for number, hour in enumerate(hours[: 15 * 24]):
        year.night(hour, 10, hours[number + 1 : number + 1 + 240])
    assert sum(year.loads) <= 1.2 * 1.5 * sum(year.cost.values())
    assert max(year.gaps) <= 11


def test_without_a_cadence_or_a_first_point_nothing_is_due() -> None:
    old = Candidate("m", "h", FIRST, 1.0)
    assert due_tonight([old], 0, FIRST + 400 * DAY) == frozenset()
    assert due_tonight([Candidate("m", "h", None, 1.0)], 1, FIRST + 400 * DAY) == frozenset()
    assert due_tonight([old], 30, FIRST + 400 * DAY) == {"m"}


def test_the_answer_depends_on_nothing_but_the_question() -> None:
    year = Year(300, 7, 0.2)
    candidates = year.candidates()
    one = due_tonight(candidates, 30, FIRST + DAY)
    assert due_tonight(list(reversed(candidates)), 30, FIRST + DAY) == one
    hosts: Mapping[str, int] = Counter(year.host[machine] for machine in one)
    assert len(hosts) >= 5  # not all from one host
