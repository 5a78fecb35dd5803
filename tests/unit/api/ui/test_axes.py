"""Time from left to right."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from api.ui.parts.axes import Bar, Mark, axis, lanes, ticks
from api.ui.words import Clock

CLOCK = Clock(ZoneInfo("UTC"))
BEGIN = datetime(2026, 11, 22, 18, tzinfo=UTC)


@pytest.mark.parametrize("hours", [0.5, 2, 14, 24, 24 * 30, 24 * 900])
def test_ticks_are_within_and_not_too_many(hours: float) -> None:
    end = BEGIN + timedelta(hours=hours)
    found = ticks(BEGIN, end)
    assert 1 <= len(found) <= 11
    assert all(BEGIN <= at <= end for at in found)
    assert found == sorted(set(found))


def test_a_bar_is_where_its_time_is_and_has_a_name() -> None:
    bar = Bar(BEGIN + timedelta(hours=1), BEGIN + timedelta(hours=2), "db-1 <failed>", "bad", "/console/runs/r")
    drawn = lanes(CLOCK, BEGIN, BEGIN + timedelta(hours=4), [("db-1", [bar])])
    assert "left:25.0%;width:25.0%" in drawn
    assert 'title="db-1 &lt;failed&gt;"' in drawn
    assert 'class="bad"' in drawn


def test_what_sticks_out_is_cut_off_at_the_edge() -> None:
    bar = Bar(BEGIN - timedelta(hours=9), BEGIN + timedelta(hours=99), "long")
    assert "left:0.0%;width:100.0%" in lanes(CLOCK, BEGIN, BEGIN + timedelta(hours=4), [("x", [bar])])


def test_an_axis_says_what_there_is_even_for_nothing() -> None:
    assert "No restore point yet" in axis(CLOCK, [], until=BEGIN)
    marks = [
        Mark(BEGIN, "first", "/console/p/1", "ok", square=True),
        Mark(BEGIN + timedelta(days=3), "last", "/console/p/2"),
    ]
    drawn = axis(CLOCK, marks, until=BEGIN + timedelta(days=4))
    assert drawn.count("<a ") == 2
    assert 'class="ok full"' in drawn
    assert "left:75.0%" in drawn
