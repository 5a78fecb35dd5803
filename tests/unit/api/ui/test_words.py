"""Figures and times as people read them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from api.ui.words import DASH, Clock, count, duration, plain, rate, sentence, share, size

BERLIN = Clock(ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, DASH),
        (0.44, "0.4 s"),
        (45, "45 s"),
        (61, "1 min 01 s"),
        (300, "5 min"),
        (7500, "2 h 05 min"),
        (273600, "3 d 4 h"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said


def test_sizes_are_in_binary_units_and_unknown_is_a_dash() -> None:
    assert size(1536) == "1.5 KiB"
    assert rate(2 * 1024 * 1024) == "2.0 MiB/s"
    assert (size(None), rate(None), share(None)) == (DASH, DASH, DASH)
    assert share(0.394) == "39 %"


def test_words_are_counted() -> None:
    assert (count(1, "machine"), count(2000, "machine"), count(2, "entry", "entries")) == (
        "1 machine",
        "2,000 machines",
        "2 entries",
    )
    assert plain("host-unreachable") == "Host unreachable"
    assert sentence("it is SAN only") == "It is SAN only"


def test_times_are_those_of_the_reader_with_the_zone_beside_them() -> None:
    moment = datetime(2020, 7, 1, 22, 30, tzinfo=UTC)
    assert BERLIN.time(moment) == "2 Jul 2020 00:30"
    assert BERLIN.full(moment) == "Thursday 2 July 2020, 00:30:00 CEST"
    shown = BERLIN.when(moment)
    assert 'datetime="2020-07-01T22:30:00+00:00"' in shown
    assert BERLIN.name.startswith("Europe/Berlin (UTC+0")


def test_distances_have_one_unit() -> None:
    now = BERLIN.now()
    assert BERLIN.ago(now) == "just now"
    assert BERLIN.ago(now - timedelta(minutes=5, seconds=1)) == "5 min ago"
    assert BERLIN.ago(now + timedelta(hours=3, minutes=1)) == "in 3 h"
    assert BERLIN.ago(now - timedelta(days=9, minutes=1)) == "9 days ago"
