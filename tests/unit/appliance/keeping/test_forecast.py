from datetime import date, timedelta

import pytest

from appliance.keeping.forecast import Full, Rate, full_on, rate

TODAY = date(2026, 11, 23)


def sums(*brought: int) -> dict[date, int]:
    """Of the days before today, the newest last."""
    return {TODAY - timedelta(days=len(brought) - n): each for n, each in enumerate(brought)}


def test_the_rate_is_the_mean_of_whole_days_without_the_first_fulls() -> None:
    found = rate({**sums(10_000, *[10] * 10), TODAY: 5_000}, TODAY, 90)
    assert found == Rate(10.0, 10.0, 10.0, 10)


def test_a_day_without_backups_counts_as_one() -> None:
    known = sums(100, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20)
    del known[TODAY - timedelta(days=3)]
    found = rate(known, TODAY, 90)
    assert found is not None
    assert (found.mean, found.days) == (18.0, 10)


def test_days_that_differ_make_it_less_certain_and_more_days_more_so() -> None:
    short, long = rate(sums(0, *[5, 15] * 4), TODAY, 90), rate(sums(0, *[5, 15] * 40), TODAY, 90)
    assert short is not None
    assert long is not None
    assert short.mean == long.mean == 10.0
    assert short.low < long.low < 10.0 < long.high < short.high
    assert short.high == pytest.approx(10 + 2.365 * 5.345 / 8**0.5, rel=0.01), "Student's factor for 7 degrees is 2.365"


def test_only_the_days_that_were_asked_for_count() -> None:
    found = rate(sums(*[1000] * 30, *[10] * 14), TODAY, 14)
    assert found is not None
    assert (found.mean, found.days) == (10.0, 14)


@pytest.mark.parametrize("brought", [(), (5,), (100, 1, 1, 1, 1, 1, 1)])
def test_fewer_days_than_a_week_tell_nothing(brought: tuple[int, ...]) -> None:
    assert rate(sums(*brought), TODAY, 90) is None


def test_it_is_full_when_what_is_free_is_used_up() -> None:
    assert full_on(Rate(10.0, 5.0, 20.0, 30), 1000, TODAY) == Full(
        TODAY + timedelta(days=100), TODAY + timedelta(days=50), TODAY + timedelta(days=200)
    )


def test_what_is_farther_than_ten_years_is_not_known() -> None:
    assert full_on(Rate(1.0, 0.0, 2.0, 30), 5000, TODAY) == Full(None, TODAY + timedelta(days=2500), None)
    assert full_on(Rate(0.0, 0.0, 0.0, 30), 0, TODAY) == Full(None, None, None)
