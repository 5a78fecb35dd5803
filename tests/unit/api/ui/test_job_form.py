"""A policy as a form, and back."""

import re
from html import unescape

from api.ui.pages.job_form import form, policy_of
from api.ui.parts.part import Act, act_of
from catalog.jobs.policy import Policy

POLICY = Policy.model_validate(
    {
        "description": "all <of> it",
        "select": {"include": ["name=web-*", ""], "exclude": ["name=web-test"], "exclude_disks": ["db-*:vdc"]},
        "zone": "Europe/Berlin",
        "schedule": {"at": ["22:00", "03:30"], "days": "mon-fri", "missed": "skip"},
        "window": ["22:00-06:00", "sat,sun 08:00-20:00"],
        "blackout": [{"first": "2026-12-24", "last": "2026-12-26", "why": "holidays"}],
        "before": [{"command": ["/usr/local/bin/quiet"]}],
        "quiesce": "require",
        "transports": ["san", "lan"],
        "retries": {"attempts": 5},
        "retention": {"daily": 7, "hourly": 4},
        "copy_to": [{"name": "offsite", "newest": 1}],
        "objective": 30,
        "parallel": 3,
    }
)


def filled_in(drawn: str) -> Act:
    """What a browser would send of the form as it is."""
    form_: dict[str, list[str]] = {}
    for control in re.findall(r"<input [^>]*>", drawn):
        name = re.search(r' name="([^"]*)"', control)
        value = re.search(r' value="([^"]*)"', control)
        if name and value and ('type="checkbox"' not in control or " checked" in control):
            form_.setdefault(name[1], []).append(unescape(value[1]))
    for name_, text in re.findall(r'<textarea [^>]*name="([^"]*)"[^>]*>(.*?)</textarea>', drawn, re.DOTALL):
        form_.setdefault(name_, []).append(unescape(text))
    for name_, options in re.findall(r'<select [^>]*name="([^"]*)"[^>]*>(.*?)</select>', drawn, re.DOTALL):
        chosen = re.search(r'<option value="([^"]*)" selected>', options)
        assert chosen, name_
        form_.setdefault(name_, []).append(unescape(chosen[1]))
    return act_of({"act": "save", "form": form_})


def drawn(policy: Policy) -> str:
    return form("nightly", policy, zone="UTC", do="Save", leave="/console/jobs")


def test_a_policy_that_nobody_touched_stays_as_it_is() -> None:
    assert Policy.model_validate(policy_of(filled_in(drawn(POLICY)), POLICY)) == POLICY


def test_what_the_form_does_not_show_is_kept() -> None:
    said = policy_of(filled_in(drawn(POLICY)), POLICY)
    assert said["blackout"][0]["why"] == "holidays"
    assert said["retries"]["attempts"] == 5
    assert said["retention"]["hourly"] == 4
    assert said["copy_to"][0]["newest"] == 1


def test_a_job_by_hand_or_by_cron_comes_back_as_such() -> None:
    for schedule in (None, {"cron": "5 2 * * 1-5"}):
        policy = Policy.model_validate({"select": {"include": [""]}, "schedule": schedule})
        assert Policy.model_validate(policy_of(filled_in(drawn(policy)), policy)) == policy


def test_what_is_no_number_goes_to_the_api_as_it_was_written() -> None:
    act = filled_in(drawn(POLICY))
    said = policy_of(Act("save", form={**act.form, "objective": ("soon",)}), POLICY)
    assert said["objective"] == "soon"


def test_what_browsers_send_is_taken_for_nothing_else() -> None:
    assert act_of(None) == Act("")
    assert act_of({"act": 3, "form": "x", "value": None}) == Act("3", "", "None")
    assert act_of({"act": "a", "form": {"n": ["1", 2], "m": "no list"}}).form == {"n": ("1", "2")}
