"""How tables show spans of time."""

from datetime import UTC, datetime, timedelta

import pytest

from appliance.cli.coverage import _age, _told
from appliance.cli.plan import _minute_after, _span
from appliance.jobs.coverage import Coverage

TEN = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("age", "objective", "said"),
    [
        (3.2, 26.0, "3 of 26 h"),
        (0.5, 26.0, "30 min of 26 h"),
        (0.002, 0.01, "7 s of 36 s"),
        (2.0, 0.5, "2 h of 30 min"),
        (0.25, 0.5, "15 min of 30 min"),
    ],
)
def test_ages_under_an_hour_are_minutes(age: float, objective: float, said: str) -> None:
    assert _age(age, objective) == said


def test_no_gaps_are_no_empty_table() -> None:
    (line,) = _told(Coverage((), (), (), {}, ()), ())
    assert line == "0 machines, 0 not covered, 0 on no site any more"


@pytest.mark.parametrize(("seconds", "said"), [(45, "45 s"), (75, "75 s"), (150, "2 min"), (3700, "1 h 02 min")])
def test_short_spans_are_seconds(seconds: float, said: str) -> None:
    assert _span(seconds) == said


def test_what_takes_seconds_does_not_end_as_it_begins() -> None:
    assert f"{_minute_after(TEN + timedelta(seconds=45)):%H:%M}" == "22:01"
    assert _minute_after(TEN) == TEN
