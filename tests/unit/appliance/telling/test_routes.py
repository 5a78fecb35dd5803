from dataclasses import replace
from datetime import UTC, datetime, time

import pytest

from appliance.telling import events
from appliance.telling.kinds import EventKind
from appliance.telling.routes import held_until, wanted
from appliance.telling.settings import Notify

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
FAILED = replace(events.trial(NOON), kind=EventKind.FAILED, job="nightly")


def way(**changes: object) -> Notify:
    return Notify(name="ops", kind="webhook", url="https://example.org/", **changes)  # type: ignore[arg-type]


def test_runs_that_went_well_are_told_only_to_who_wants_them() -> None:
    done = replace(FAILED, kind=EventKind.DONE)
    assert wanted(way(), FAILED)
    assert not wanted(way(), done)
    assert wanted(way(events=["done"]), done)
    assert not wanted(way(events=["done"]), FAILED)


def test_a_way_of_some_jobs_hears_nothing_of_the_others_but_all_that_is_of_no_job() -> None:
    assert wanted(way(jobs=["night*"]), FAILED)
    assert not wanted(way(jobs=["prod-*"]), FAILED)
    assert wanted(way(jobs=["prod-*"]), events.proxy_gone("p", "host", NOON))


def test_a_test_message_goes_everywhere_at_once() -> None:
    night = way(events=["done"], jobs=["x"], quiet_from="00:00", quiet_to="23:59")
    assert wanted(night, events.trial(NOON))
    assert held_until(night, events.trial(NOON), NOON) == NOON


@pytest.mark.parametrize(
    ("begin", "end", "now", "until"),
    [
        pytest.param("22:00", "06:00", "21:59", "21:59", id="before"),
        pytest.param("22:00", "06:00", "22:00", "+06:00", id="evening"),
        pytest.param("22:00", "06:00", "05:59", "06:00", id="morning"),
        pytest.param("22:00", "06:00", "06:00", "06:00", id="over"),
        pytest.param("12:00", "13:30", "12:30", "13:30", id="noon"),
        pytest.param("12:00", "13:30", "14:00", "14:00", id="afternoon"),
        pytest.param("12:00", "12:00", "12:00", "12:00", id="none"),
    ],
)
def test_quiet_hours_end_when_they_say(begin: str, end: str, now: str, until: str) -> None:
    def at(clock: str) -> datetime:
        day = 23 if clock.startswith("+") else 22
        return datetime.combine(datetime(2026, 11, day), time.fromisoformat(clock.lstrip("+")), UTC)

    assert held_until(way(quiet_from=begin, quiet_to=end), FAILED, at(now)) == at(until)


def test_quiet_hours_are_those_of_their_zone_over_a_change_of_the_clock() -> None:
    berlin = way(quiet_from="22:00", quiet_to="06:00", zone="Europe/Berlin")
    # On 25 October 2026 clocks go back at 03:00: that night has nine hours.
    evening = datetime(2026, 10, 24, 20, 30, tzinfo=UTC)
    assert held_until(berlin, FAILED, evening) == datetime(2026, 10, 25, 5, 0, tzinfo=UTC)


def test_urgent_events_wake_people_up() -> None:
    night = way(quiet_from="00:00", quiet_to="23:59")
    assert held_until(night, FAILED, NOON) > NOON
    assert held_until(night, events.repository_trouble("/backup", "full", NOON), NOON) == NOON
    assert held_until(way(quiet_from="00:00", quiet_to="23:59", urgent=["failed"]), FAILED, NOON) == NOON
