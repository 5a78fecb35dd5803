"""Slips in people's words."""

import pytest
from pydantic import ValidationError

from appliance.slips import keys_at, slips, time_of_day
from catalog.jobs.policy import Policy


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("9pm", "21:00"), ("12am", "00:00"), ("12:30 PM", "12:30"), ("9:00", "09:00"), ("2200", "22:00"), ("7", "07:00"),
        ("22.15", "22:15"), ("25:00", "22:00"), ("noon", "22:00"), ("", "22:00"),
    ],
)  # fmt: skip
def test_a_time_is_shown_as_it_is_to_be_written(said: str, meant: str) -> None:
    assert time_of_day(said) == meant


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"schedule": {"at": ["9pm"]}}, "9pm is no time of day; write 21:00"),
        ({"retention": {"dayly": 7}}, "there is no such key; there are: last, days, hourly"),
        ({"retention": 7}, "has keys of its own: last, days"),
        ({"retention": {"daily": -1}}, "has to be at least 0"),
        ({"copy_to": [{"name": "a", "retention": {"x": 1}}]}, "there are: last, days"),
        ({"quiesce": "perhaps"}, "perhaps is none of: require, prefer, never"),
        ({"transports": ["fibre"]}, "fibre is none of: san, raw, lan"),
        ({"blackout": [{"first": "x", "last": "2026-12-24"}]}, "x is no day; write it as 2026-12-24"),
        ({"blackout": [{"first": "2026-12-24"}]}, "is missing"),
        ({"index": "maybe"}, "is true or false, not maybe"),
        ({"before": [{"command": []}]}, "has too few entries: the least is 1"),
        ({"copy_to": "offsite"}, "is a list: write [offsite]"),
        ({"zone": "Mars"}, "unknown time zone"),
    ],
)
def test_a_slip_says_what_is_wrong_and_what_is_allowed(document: object, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Policy.model_validate(document)
    ((_, said),) = slips(caught.value, Policy)
    assert said.startswith(says) or says in said
    assert not said.startswith(("Input", "Extra", "Value error"))


def test_keys_of_a_part_that_there_is_not_are_none() -> None:
    assert keys_at(Policy, ("nothing", "below")) == []
    assert "attempts" in keys_at(Policy, ("retries",))
