"""A policy as a form, and back."""

import re
from html import unescape

import pytest

from api.ui.pages.job_form import form, policy_of
from api.ui.pages.job_more import beside, retries_said
from api.ui.parts.part import Act, act_of
from catalog.jobs.policy import Policy, Retries, RetryOn
from proxy.errors import ConfigurationError

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
    """What a browser would send of the form as it is. It leaves out ends of lines in inputs, and the first one in an area."""
    form_: dict[str, list[str]] = {}
    for control in re.findall(r"<input [^>]*>", drawn):
        name = re.search(r' name="([^"]*)"', control)
        value = re.search(r' value="([^"]*)"', control)
        if name and value and ('type="checkbox"' not in control or " checked" in control):
            form_.setdefault(name[1], []).append(re.sub(r"[\r\n]", "", unescape(value[1])))
    for name_, text in re.findall(r'<textarea [^>]*name="([^"]*)"[^>]*>(.*?)</textarea>', drawn, re.DOTALL):
        form_.setdefault(name_, []).append(unescape(text).removeprefix("\n"))
    for name_, options in re.findall(r'<select [^>]*name="([^"]*)"[^>]*>(.*?)</select>', drawn, re.DOTALL):
        chosen = re.search(r'<option value="([^"]*)" selected>', options)
        assert chosen, name_
        form_.setdefault(name_, []).append(unescape(chosen[1]))
    return act_of({"act": "save", "form": form_})


def drawn(policy: Policy, *, hooks: bool = True) -> str:
    return form("nightly", policy, do="Save", leave="/console/jobs", hooks=hooks)


def saved(policy: Policy, *, hooks: bool = True, **typed: str | tuple[str, ...]) -> Policy:
    """What becomes of a policy when somebody types this into its form. Raises ``ValidationError``, ``ConfigurationError``."""
    act = filled_in(drawn(policy, hooks=hooks))
    assert set(typed) <= set(act.form), "no such field"
    new = {name: (said,) if isinstance(said, str) else said for name, said in typed.items()}
    return Policy.model_validate(policy_of(Act("save", form={**act.form, **new}), policy))


@pytest.mark.parametrize("hooks", [True, False])
@pytest.mark.parametrize("policy", [POLICY, Policy()])
def test_a_policy_that_nobody_touched_stays_as_it_is(policy: Policy, hooks: bool) -> None:
    assert saved(policy, hooks=hooks) == policy


ODD = Policy.model_validate(
    {
        "description": "two\nlines",
        "select": {"include": ["name=a*,\n tag=x", "*"], "exclude": [""], "exclude_disks": [" db-*:vdc "]},
        "schedule": {"at": ["22:00:30", "03:30:00+02:00"], "days": ["sun", "mon"]},
        "window": [{"start": "22:00:15", "end": "06:00:00-05:00", "days": "sun,mon"}],
        "blackout": [
            {"first": "2026-12-24", "last": "2026-12-24", "why": " a: b\nc"},
            {"first": "2026-12-25", "last": "2027-01-01", "why": ""},
        ],
        "before": [
            {"command": ["sh", "-c", "echo 'it is'\nsleep 1"], "timeout": 0.123456789, "required": False},
            {"command": [""], "timeout": 86400},
        ],
        "after": [{"command": ["/opt/tell me", "a b", "$HOME", "ü"], "required": False}, {"command": ["/bin/true"]}],
        "transports": [],
        "retries": {"attempts": 20, "wait": 0.1, "on": ["stop-all", "transport"]},
        "verify": {"days": 30},
        "retention": {"days": 3},
        "copy_to": [{"name": "a, b", "newest": 2}, {"name": "a,\nb", "retention": {"last": 1}}],
        "index": False,
        "objective": 26.123456789,
        "priority": -5,
    }
)
"""What the form can only show shorter than it is."""


@pytest.mark.parametrize("hooks", [True, False])
def test_what_is_shown_shorter_than_it_is_stays_whole(hooks: bool) -> None:
    assert saved(ODD, hooks=hooks) == ODD


def test_times_are_shown_with_the_seconds_that_they_have() -> None:
    shown = filled_in(drawn(ODD))
    assert shown.one("at") == "22:00:30, 03:30:00+02:00"
    assert shown.one("window") == "sun,mon 22:00:15-06:00:00-05:00"
    assert filled_in(drawn(POLICY)).one("window") == "22:00-06:00\nsat,sun 08:00-20:00"


def test_one_change_leaves_all_else_as_it_was() -> None:
    assert saved(ODD, priority="7") == ODD.model_copy(update={"priority": 7})
    first = filled_in(drawn(ODD)).one("blackout")
    more = saved(ODD, blackout=f"{first}\r\n2027-05-01: Labour Day\r\n")
    assert more.blackout[:2] == ODD.blackout
    assert (str(more.blackout[2].first), str(more.blackout[2].last), more.blackout[2].why) == (
        "2027-05-01",
        "2027-05-01",
        "Labour Day",
    )
    assert more.model_copy(update={"blackout": ODD.blackout}) == ODD


def test_what_the_form_does_not_show_is_kept() -> None:
    said = policy_of(filled_in(drawn(POLICY)), POLICY)
    assert said["retention"]["hourly"] == 4
    assert said["copy_to"][0]["newest"] == 1


def test_days_off_verification_priority_and_names_of_files_are_set() -> None:
    new = saved(Policy(), blackout="2026-12-24 to 2026-12-26: holidays", verify="30", priority="-2", index="no")
    (days,) = new.blackout
    assert (days.first.day, days.last.day, days.why) == (24, 26, "holidays")
    assert (new.verify.days, new.priority, new.index) == (30, -2, False)
    assert saved(new, blackout="", verify="", priority="", index="") == Policy()


def test_retries_are_set_and_none_is_left_without_a_reason() -> None:
    new = saved(Policy(), attempts="5", retry_wait="60.5", retry_on=("transport", "stop-all"))
    assert (new.retries.attempts, new.retries.wait) == (5, 60.5)
    assert [each.value for each in new.retries.on] == ["transport", "stop-all"]
    assert saved(Policy(), retry_on=()).retries.on == ()


def test_commands_are_added_changed_and_removed() -> None:
    new = saved(
        Policy(),
        before_command="/opt/quiet 'data base' --now",
        before_timeout="60",
        before_required=(),
        after_command="/opt/loud",
    )
    (quiet,), (loud,) = new.before, new.after
    assert quiet.command == ("/opt/quiet", "data base", "--now")
    assert (quiet.timeout, quiet.required) == (60, False)
    assert (loud.command, loud.timeout, loud.required) == (("/opt/loud",), 300, True)
    more = saved(
        new,
        before_command=("/opt/quiet 'data base' --now", "/opt/more"),
        before_timeout=("90", "5"),
        before_required=("1",),
        after_command=("", " "),
    )
    assert [(hook.command[0], hook.timeout, hook.required) for hook in more.before] == [
        ("/opt/quiet", 90, False),
        ("/opt/more", 5, True),
    ]
    assert more.after == ()


def test_who_may_not_change_commands_only_reads_them() -> None:
    shown = drawn(POLICY, hooks=False)
    assert "Before a run: /usr/local/bin/quiet (at most 5 min, and has to succeed)" in shown
    assert not [name for name in filled_in(shown).form if name.startswith(("before", "after"))]
    assert "only who may configure the appliance changes them" in shown
    assert saved(POLICY, hooks=False, priority="1").before == POLICY.before


def test_a_command_whose_quote_has_no_end_is_refused_in_words() -> None:
    with pytest.raises(ConfigurationError, match="/opt/it's: a quote or a backslash in it has no end"):
        saved(Policy(), before_command="/opt/it's")


def test_what_few_jobs_need_is_folded_and_says_what_is_set() -> None:
    for policy, inside in (
        (Policy(), "days without backup, verification, retries, priority, commands"),
        (POLICY, "days without backup, retries, commands before a run"),
    ):
        assert f'<summary>More<span class="lf-dim">: {inside}</span></summary>' in drawn(policy)
    folded = re.search(r"<details([^>]*)>(.*)</details>", drawn(POLICY), re.DOTALL)
    assert folded is not None
    assert " open" not in folded[1]
    assert "required" not in re.sub(r"before_required", "", folded[2])
    assert 'type="number"' not in folded[2]


def test_the_page_of_a_job_names_what_few_jobs_have() -> None:
    assert beside(POLICY) == [
        ("Not on", "24 Dec 2026 to 26 Dec 2026 (holidays)"),
        ("Before a run", "/usr/local/bin/quiet (at most 5 min, and has to succeed)"),
    ]
    assert beside(Policy()) == []
    assert retries_said(Retries()) == "3, waiting 5 min at first"
    assert retries_said(Retries(attempts=1)) == "1"
    only = Retries(on=(RetryOn.TRANSPORT,))
    assert retries_said(only) == "3, waiting 5 min at first, only when: the way to the data failed"
    assert retries_said(Retries(on=())).startswith("1")


def test_a_job_by_hand_or_by_cron_comes_back_as_such() -> None:
    for schedule in (None, {"cron": "5 2 * * 1-5"}):
        policy = Policy.model_validate({"select": {"include": [""]}, "schedule": schedule})
        assert Policy.model_validate(policy_of(filled_in(drawn(policy)), policy)) == policy


def test_what_is_no_number_goes_to_the_api_as_it_was_written() -> None:
    act = filled_in(drawn(POLICY))
    said = policy_of(Act("save", form={**act.form, "objective": ("soon",)}), POLICY)
    assert said["objective"] == "soon"
    for endless in ("nan", "inf", "1e999"):
        assert policy_of(Act("save", form={**act.form, "priority": (endless,)}), POLICY)["priority"] == endless


def test_what_browsers_send_is_taken_for_nothing_else() -> None:
    assert act_of(None) == Act("")
    assert act_of({"act": 3, "form": "x", "value": None}) == Act("3", "", "None")
    assert act_of({"act": "a", "form": {"n": ["1", 2], "m": "no list"}}).form == {"n": ("1", "2")}
