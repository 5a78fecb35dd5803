"""Backup windows and blackout days."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.jobs.window import Span, closes_at, is_open, next_open, stretches, why_closed
from catalog.jobs.policy import EVERY_DAY, Blackout, Policy, Weekday, Window
from proxy.model import ReasonCode

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = BERLIN) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def window(text: str, *days: Weekday) -> Window:
    start, end = text.split("-")
    return Window(start=time.fromisoformat(start), end=time.fromisoformat(end), days=days or EVERY_DAY)


def policy(*windows: str | Window, blackout: tuple[Blackout, ...] = (), zone: str = BERLIN) -> Policy:
    made = tuple(window(w) if isinstance(w, str) else w for w in windows)
    return Policy(zone=zone, window=made, blackout=blackout)


NIGHT = policy("22:00-06:00")
CHRISTMAS = Blackout(first=date(2026, 12, 24), last=date(2026, 12, 26), why="stock-taking")


def test_without_a_window_it_is_always_open_and_nothing_closes() -> None:
    moment = at("2026-11-20T12:00")
    assert is_open(Policy(), moment)
    assert next_open(Policy(), moment) == moment
    assert closes_at(Policy(), moment) is None


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    weekend = policy(window("22:00-06:00", Weekday.SAT))  # the 21st of November 2026 is a Saturday
    assert is_open(weekend, at("2026-11-21T22:00"))
    assert is_open(weekend, at("2026-11-22T05:59"))
    assert not is_open(weekend, at("2026-11-22T06:00"))
    assert not is_open(weekend, at("2026-11-21T05:00"))
    assert not is_open(weekend, at("2026-11-22T23:00"))
    assert next_open(weekend, at("2026-11-22T06:00")) == at("2026-11-28T22:00")


def test_the_deadline_is_the_end_of_this_window_or_of_the_next() -> None:
    assert closes_at(NIGHT, at("2026-11-20T23:00")) == at("2026-11-21T06:00")
    assert closes_at(NIGHT, at("2026-11-21T03:00")) == at("2026-11-21T06:00")
    assert closes_at(NIGHT, at("2026-11-21T12:00")) == at("2026-11-22T06:00")


def test_windows_that_touch_or_overlap_are_one() -> None:
    both = policy("22:00-02:00", "02:00-05:00", "04:00-06:00", "13:00-14:00")
    assert closes_at(both, at("2026-11-20T23:00")) == at("2026-11-21T06:00")
    assert closes_at(both, at("2026-11-21T06:00")) == at("2026-11-21T14:00")
    assert not is_open(both, at("2026-11-21T06:00"))


def test_a_window_around_the_clock_has_no_deadline() -> None:
    assert closes_at(policy("00:00-00:00"), at("2026-11-20T12:00")) is None
    assert closes_at(policy("06:00-06:00"), at("2026-11-20T12:00")) is None
    three_days = policy(window("00:00-00:00", Weekday.FRI, Weekday.SAT, Weekday.SUN))
    assert closes_at(three_days, at("2026-11-20T12:00")) == at("2026-11-23T00:00")


def test_a_blackout_closes_whole_days_of_the_zone_and_says_why() -> None:
    only_blackout = policy(blackout=(CHRISTMAS,))
    for moment in ("2026-12-24T00:00", "2026-12-26T23:59"):
        reason = why_closed(only_blackout, at(moment))
        assert reason is not None
        assert reason.code is ReasonCode.BLACKOUT
        assert "stock-taking" in reason.detail
    assert is_open(only_blackout, at("2026-12-23T23:59"))
    assert is_open(only_blackout, at("2026-12-27T00:00"))
    assert next_open(only_blackout, at("2026-12-25T12:00")) == at("2026-12-27T00:00")
    assert closes_at(only_blackout, at("2026-11-01T12:00")) == at("2026-12-24T00:00")
    assert closes_at(only_blackout, at("2026-12-25T12:00")) is None


def test_a_blackout_cuts_a_window_that_reaches_into_it() -> None:
    both = NIGHT.model_copy(update={"blackout": (CHRISTMAS,)})
    assert closes_at(both, at("2026-12-23T23:00")) == at("2026-12-24T00:00")
    assert next_open(both, at("2026-12-24T00:00")) == at("2026-12-27T00:00")  # the rest of that night's window
    assert closes_at(both, at("2026-12-24T00:00")) == at("2026-12-27T06:00")
    reason = why_closed(both, at("2026-12-23T12:00"))
    assert reason is not None
    assert reason.code is ReasonCode.WINDOW_CLOSED


@pytest.mark.parametrize(
    ("text", "inside", "begin", "end"),
    [
        ("22:00-06:00", "2026-03-29T00:00", "2026-03-28T21:00", "2026-03-29T04:00"),  # an hour shorter
        ("22:00-06:00", "2026-10-25T00:00", "2026-10-24T20:00", "2026-10-25T05:00"),  # an hour longer
        ("02:30-04:00", "2026-03-29T01:00", "2026-03-29T01:00", "2026-03-29T02:00"),  # begins in the gap
        ("01:00-02:30", "2026-10-25T00:00", "2026-10-24T23:00", "2026-10-25T00:30"),  # ends when 02:30 comes first
    ],
)
def test_daylight_saving_moves_windows_as_the_clock_on_the_wall(text: str, inside: str, begin: str, end: str) -> None:
    night, moment = policy(text), at(inside, "UTC")
    assert stretches(night, moment - timedelta(hours=12), moment + timedelta(hours=12)) == [
        Span(at(begin, "UTC"), at(end, "UTC"))
    ]
    assert is_open(night, moment)


def test_a_window_inside_the_gap_is_not_there_that_day() -> None:
    gap = policy("02:10-02:50")
    assert next_open(gap, at("2026-03-29T00:00")) == at("2026-03-30T02:10")


def test_a_window_that_blackouts_cover_for_ever_so_long_is_found_behind_them() -> None:
    years = policy("22:00-06:00", blackout=(Blackout(first=date(2026, 1, 1), last=date(2029, 12, 31)),))
    assert next_open(years, at("2026-06-01T12:00")) == at("2030-01-01T00:00")
    assert why_closed(years, at("2026-06-01T23:00")) is not None


windows = st.builds(
    Window,
    start=st.times().map(lambda t: t.replace(second=0, microsecond=0)),
    end=st.times().map(lambda t: t.replace(second=0, microsecond=0)),
    days=st.sets(st.sampled_from(EVERY_DAY), min_size=1).map(tuple),
)
blackouts = st.tuples(st.dates(date(2026, 3, 20), date(2026, 4, 5)), st.integers(0, 4)).map(
    lambda pair: Blackout(first=pair[0], last=pair[0] + timedelta(days=pair[1]))
)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    st.lists(windows, max_size=3),
    st.lists(blackouts, max_size=2),
    st.sampled_from([BERLIN, "America/New_York", "UTC", "Australia/Lord_Howe"]),
    st.integers(0, 14 * 24 * 60),
)
def test_all_questions_agree_with_looking_at_every_quarter_of_an_hour(
    opened: list[Window], closed: list[Blackout], zone: str, minutes: int
) -> None:
    found = policy(*opened, blackout=tuple(closed), zone=zone)
    begin = datetime(2026, 3, 21, tzinfo=UTC) + timedelta(minutes=minutes)
    end = begin + timedelta(days=4)
    spans = stretches(found, begin, end)
    for one, other in pairwise(spans):
        assert one.end is not None
        assert one.end < other.begin
    moment = begin
    while moment < end:
        inside = [span for span in spans if moment in span]
        assert bool(inside) == is_open(found, moment)
        assert (why_closed(found, moment) is None) == bool(inside)
        moment += timedelta(minutes=15)
    first = next((max(span.begin, begin) for span in spans), None)
    assert first is None or next_open(found, begin) == first
    closing = closes_at(found, begin)
    if spans and spans[0].end is not None and spans[0].end < end:
        assert closing == spans[0].end
