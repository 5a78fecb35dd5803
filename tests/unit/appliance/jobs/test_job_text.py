"""Jobs as YAML: what is written is read back as it was, and each slip is named with its line."""

from datetime import date, time

import pytest
from hypothesis import given
from hypothesis import strategies as some

from appliance.jobs.job_text import LONGEST_TEXT, Written, check_name, policy_of, read, value, write
from catalog.jobs.policy import (
    Blackout,
    Cadence,
    CopyTo,
    Hook,
    Keep,
    Policy,
    Retries,
    RetryOn,
    Schedule,
    Selection,
    Weekday,
    Window,
)
from proxy.errors import ConfigurationError
from proxy.model import QuiescePolicy

EVERYTHING = Policy(
    description="yes: no, 'on' # not a comment",
    select=Selection(include=("folder=Prod", ""), exclude=("tag=a:b",), exclude_disks=("*:scsi0:1",)),
    zone="Europe/Berlin",
    schedule=Schedule(cron="*/5 * * * *", days=(Weekday.SUN,), missed="skip"),
    window=(Window(start=time(22), end=time(6, 0, 30)),),
    blackout=(Blackout(first=date(2026, 12, 24), last=date(2026, 12, 26), why="on"),),
    quiesce=QuiescePolicy.REQUIRE,
    transports=("san",),
    before=(Hook(command=("/bin/a", "b c", "07:00", "")),),
    retries=Retries(attempts=1, on=(RetryOn.TRANSPORT,)),
    active_full=Cadence(days=30),
    retention=Keep(daily=7),
    copy_to=(CopyTo(name="off", newest=2, retention=Keep(last=1)),),
    index=False,
    parallel=3,
    priority=-1,
)


def test_what_is_written_is_read_back() -> None:
    jobs = {"every thing": Written(EVERYTHING), "plain": Written(Policy()), "off": Written(Policy(), enabled=False)}
    text = write(jobs)
    assert read(text, "jobs.yaml") == jobs
    assert write(read(text, "jobs.yaml")) == text
    assert "plain: {}" in text, "what is a default is not written"


@pytest.mark.slow
@given(
    some.text(max_size=30),
    some.lists(some.text(max_size=20), max_size=3),
    some.lists(some.times(), min_size=1, max_size=3),
)
def test_any_text_and_time_comes_back_as_it_was(words: str, rules: list[str], at: list[time]) -> None:
    policy = Policy(description=words, select=Selection(include=tuple(rules)), schedule=Schedule(at=tuple(at)))
    assert read(write({"a": Written(policy)}), "t")["a"].policy == policy


def test_times_and_the_word_on_need_no_quotes() -> None:
    text = "jobs:\n  a:\n    schedule: {at: [22:00, 23:30]}\n    retries: {on: [transport]}\n    description: no\n"
    policy = read(text, "t")["a"].policy
    assert policy.schedule == Schedule(at=(time(22), time(23, 30)))
    assert policy.retries.on == (RetryOn.TRANSPORT,)
    assert policy.description == "no"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("jobs:\n  a:\n    selct: {}\n", 3, "a.selct: there is no such key"),
        ("jobs:\n  a:\n    retention:\n      daily: -1\n", 4, "a.retention.daily"),
        ("jobs:\n  a:\n    schedule:\n      at:\n        - 22:00\n        - 25:00\n", 6, "a.schedule.at.1"),
        ("jobs:\n  a:\n    zone: Mars/Base\n", 3, "unknown time zone"),
        ("jobs:\n  a: {}\n  a: {}\n", 3, "a is said twice"),
        ("jobs:\n  a:\n    enabled: perhaps\n", 2, "true or false"),
        ("jobs:\n  a:\n    schedule: {days: [mon]}\n", 3, "either a cron line or times"),
        ("jobs:\n  a:\n    schedule: {cron: */5}\n", 3, "alias"),
        ("jobs:\n  a: [\n", 3, "not valid YAML"),
        ("jobs:\n  -a: {}\n", 2, "a name is"),
        ("jobs:\n  a: !!python/object/apply:os.getcwd []\n", 2, "the tag"),
        ("jobs:\n  ? [a]\n  : {}\n", 2, "plain text"),
    ],
    ids=lambda one: one if isinstance(one, str) and "\n" not in one else "",
)
def test_a_slip_is_named_with_its_line(text: str, line: int, says: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        read(text, "jobs.yaml")
    assert told.value.message.startswith(f"jobs.yaml, line {line}: ")
    assert says in told.value.message


def test_all_slips_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as told:
        read("jobs:\n  a:\n    zone: Mars\n  b:\n    colour: red\n    objective: 0\n", "f")
    assert told.value.message.startswith("f, line 3: ")
    assert [note.partition(":")[0] for note in told.value.__notes__] == ["line 5", "line 6"]


@pytest.mark.parametrize(
    "text", ["", "a: 1", "jobs: []", "jobs: {}\nmore: 1", "[" * 5000, "&a [*a]", "jobs: {}" + " " * LONGEST_TEXT]
)
def test_what_is_no_list_of_jobs_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        read(text, "f")


@pytest.mark.parametrize("name", ["nightly", "Prod web 1", "ä-ö", "a", "x" * 64])
def test_a_name_is_what_people_can_type(name: str) -> None:
    check_name(name)
    assert list(read(write({name: Written(Policy())}), "t")) == [name]


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a ", "x" * 65, "a\nb", "*"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError):
        check_name(name)


def test_single_values_are_yaml() -> None:
    assert value("7") == 7
    assert value("[mon, tue]") == ["mon", "tue"]
    assert value("{start: 22:00, end: 06:00}") == {"start": "22:00", "end": "06:00"}
    assert value("null") is None
    assert value("'7'") == "7"
    assert value("* 3 * * *") == "* 3 * * *"
    assert value("a: b # c") == "a: b # c"


def test_a_wrong_policy_names_its_first_slip_and_the_keys_there_are() -> None:
    with pytest.raises(ConfigurationError, match="job a: objective: has to be more than 0") as told:
        policy_of({"selct": {}, "objective": -1}, "a")
    assert [note.partition(";")[0] for note in told.value.__notes__] == ["selct: there is no such key"]
    with pytest.raises(ConfigurationError) as told:
        policy_of({"selct": {}}, "a")
    assert "there are: description, select," in told.value.message


def test_a_single_text_is_a_list_of_one_and_a_number_no_time_of_day() -> None:
    text = "jobs:\n  a:\n    schedule: {at: 22:00}\n    select: {include: web-*}\n    window: 22:00-06:00\n"
    policy = read(text, "t")["a"].policy
    assert policy.schedule == Schedule(at=(time(22),))
    assert policy.select.include == ("web-*",)
    assert [each.start for each in policy.window] == [time(22)]
    with pytest.raises(ConfigurationError, match="2200 is no time of day"):
        policy_of({"schedule": {"at": [2200]}}, "a")
