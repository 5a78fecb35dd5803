"""What a policy may be written as."""

from datetime import time

import pytest
from pydantic import ValidationError

from catalog.jobs.policy import EVERY_DAY, Policy, Schedule, Weekday, Window


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("mon-wed, sat", "mon tue wed sat"),
        ("Fri-Mon", "fri sat sun mon"),
        ("sun", "sun"),
        ("mon,mon-tue", "mon tue"),
        ("tue-mon", "tue wed thu fri sat sun mon"),
    ],
)
def test_days_are_named_alone_or_from_to_also_over_the_end_of_the_week(text: str, days: str) -> None:
    schedule = Schedule.model_validate({"at": ["22:00"], "days": text})
    assert schedule.days == tuple(Weekday(day) for day in days.split())


@pytest.mark.parametrize("text", ["mon-fry", "monday", "", "-", "mon-"])
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Schedule.model_validate({"at": ["22:00"], "days": text})


def test_a_window_is_read_from_a_text() -> None:
    policy = Policy.model_validate({"window": ["22:00-06:00", "sat,sun 08:00-20:00"]})
    weekend = (Weekday.SAT, Weekday.SUN)
    assert policy.window == (
        Window(start=time(22), end=time(6), days=EVERY_DAY),
        Window(start=time(8), end=time(20), days=weekend),
    )
    assert Policy.model_validate(policy.model_dump(mode="json")) == policy


@pytest.mark.parametrize("text", ["22:00", "22:00-", "22:00-25:00", "someday 22:00-06:00", ""])
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Policy.model_validate({"window": [text]})


def test_a_schedule_has_one_way_and_at_least_one_day() -> None:
    for wrong in ({}, {"cron": "0 3 * * *", "at": ["22:00"]}, {"at": ["22:00"], "days": []}):
        with pytest.raises(ValidationError):
            Schedule.model_validate(wrong)
