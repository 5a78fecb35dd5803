"""Retention: which rule keeps which point, whatever the calendar does; and what must hold for every policy."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ConfigurationError
from proxy.repository.collection.retention import Decision, Keep, PointFacts, Policies, Policy, Rule, decide
from proxy.repository.records import Health

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def facts(*moments: str, machine: str = "m", **more: object) -> list[PointFacts]:
    """Points named after their moments, in UTC unless they say otherwise."""
    points = []
    for moment in moments:
        created = datetime.fromisoformat(moment)
        created = created if created.tzinfo else created.replace(tzinfo=UTC)
        points.append(PointFacts(moment, machine, created, **more))  # type: ignore[arg-type]  # facts by name
    return points


def kept(points: list[PointFacts], policy: Policy | Policies, now: datetime = NOW) -> list[str]:
    return [d.point.id for d in decide(points, policy, now) if d.keep]


def by_rule(points: list[PointFacts], policy: Policy, rule: Rule) -> dict[str, str]:
    """Point -> text of the rule that keeps it."""
    return {d.point.id: str(keep) for d in decide(points, policy, NOW) for keep in d.kept_by if keep.rule is rule}


def test_the_last_are_kept_and_numbered_from_the_newest() -> None:
    points = facts("2026-11-01", "2026-11-02", "2026-11-03")
    assert by_rule(points, Policy(last=2), Rule.LAST) == {"2026-11-03": "last 1 of 2", "2026-11-02": "last 2 of 2"}


def test_days_are_counted_back_from_the_newest_point() -> None:
    points = facts("2026-11-01", "2026-11-18T23:59", "2026-11-19T00:00", "2026-11-21")
    assert kept(points, Policy(days=2)) == ["2026-11-19T00:00", "2026-11-21"]


def test_days_are_never_counted_back_from_later_than_now() -> None:
    ahead = facts("2026-11-21T12:00", "2026-11-22T12:30")  # a clock that is half an hour ahead
    assert kept(ahead, Policy(days=1)) == ["2026-11-21T12:00", "2026-11-22T12:30"]


def test_a_clock_that_jumps_ahead_and_a_machine_that_was_off_cost_nothing() -> None:
    points = facts(*(f"2026-11-{day:02}" for day in range(10, 22)))
    wrong = NOW + timedelta(days=3650)
    assert kept(points, Policy(days=14), wrong) == [point.id for point in points]


def test_days_are_not_counted_back_from_a_damaged_point() -> None:
    points = [*facts("2026-11-01", "2026-11-02"), *facts("2026-11-20", health=Health.DAMAGED)]
    assert kept(points, Policy(days=2)) == ["2026-11-01", "2026-11-02", "2026-11-20"]


@pytest.mark.parametrize("policy", [Policy(last=2), Policy(daily=2), Policy(days=1), Policy(yearly=1)], ids=str)
@pytest.mark.parametrize("health", [Health.UNKNOWN, Health.GOOD])
def test_points_of_the_future_are_kept_and_take_nobody_s_place(policy: Policy, health: Health) -> None:
    real = facts("2026-11-18", "2026-11-19", "2026-11-20", "2026-11-22T11")
    future = facts("2027-01-01", "2031-05-05", "2036-01-01", health=health)
    decided = {decision.point.id: decision for decision in decide([*real, *future], policy, NOW)}
    assert [str(decided[point.id]) for point in future] == ["dated in the future"] * 3
    assert [decided[point.id] for point in real] == decide(real, policy, NOW)


def test_a_clock_that_is_minutes_ahead_makes_no_future() -> None:
    (decision,) = decide(facts("2026-11-22T13:00"), Policy(last=1), NOW)
    assert str(decision) == "last good point, last 1 of 1"
    (decision,) = decide(facts("2026-11-22T13:01"), Policy(last=1), NOW)
    assert str(decision) == "dated in the future"


def test_the_newest_of_each_period_is_kept_and_says_which() -> None:
    points = facts("2026-11-18T01", "2026-11-18T23", "2026-11-20T01", "2026-11-20T02", "2026-11-21T05")
    assert by_rule(points, Policy(daily=2), Rule.DAILY) == {
        "2026-11-21T05": "daily 1 of 2 (2026-11-21)",
        "2026-11-20T02": "daily 2 of 2 (2026-11-20)",
    }


def test_periods_without_points_do_not_count() -> None:
    points = facts("2025-01-05", "2025-03-05", "2026-11-01")
    assert kept(points, Policy(daily=3)) == kept(points, Policy(monthly=3)) == [p.id for p in points]


def test_grandfather_father_son() -> None:
    start = datetime(2024, 1, 1, 3, tzinfo=UTC)
    points = [
        PointFacts(f"{start + timedelta(days=n):%Y-%m-%d}", "m", start + timedelta(days=n))
        for n in range((NOW - start).days + 1)
    ]
    policy = Policy(daily=7, weekly=4, monthly=12, yearly=3)
    assert sorted(by_rule(points, policy, Rule.DAILY)) == [f"2026-11-{n}" for n in range(16, 23)]
    assert sorted(by_rule(points, policy, Rule.WEEKLY)) == ["2026-11-01", "2026-11-08", "2026-11-15", "2026-11-22"]
    assert len(by_rule(points, policy, Rule.MONTHLY)) == 12
    assert "2026-02-28" in by_rule(points, policy, Rule.MONTHLY)
    assert sorted(by_rule(points, policy, Rule.YEARLY)) == ["2024-12-31", "2025-12-31", "2026-11-22"]
    newest = decide(points, policy, NOW)[-1]
    assert str(newest) == (
        "last good point, daily 1 of 7 (2026-11-22), weekly 1 of 4 (2026-W47), "
        "monthly 1 of 12 (2026-11), yearly 1 of 3 (2026)"
    )


def test_weeks_belong_to_the_year_of_their_thursday() -> None:
    points = facts("2020-12-31", "2021-01-03", "2021-01-04")
    assert by_rule(points, Policy(weekly=2), Rule.WEEKLY) == {
        "2021-01-04": "weekly 1 of 2 (2021-W01)",
        "2021-01-03": "weekly 2 of 2 (2020-W53)",
    }


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("UTC", ["2026-11-20T23:30", "2026-11-21T22:30", "2026-11-22T00:30"]),
        ("Europe/Berlin", ["2026-11-21T22:30", "2026-11-22T00:30"]),
        ("America/New_York", ["2026-11-20T23:30", "2026-11-22T00:30"]),
        ("Pacific/Kiritimati", ["2026-11-20T23:30", "2026-11-22T00:30"]),
    ],
)
def test_days_begin_at_midnight_of_the_policy_s_zone(zone: str, expected: list[str]) -> None:
    points = facts("2026-11-20T23:30", "2026-11-21T22:30", "2026-11-22T00:30")
    assert kept(points, Policy(daily=9, zone=zone)) == expected


def test_the_hour_that_comes_twice_is_two_hours_and_the_missing_one_is_none() -> None:
    twice = facts("2026-10-25T00:30", "2026-10-25T01:30")  # both 02:30 in Berlin
    texts = by_rule(twice, Policy(hourly=5, zone="Europe/Berlin"), Rule.HOURLY)
    assert texts == {
        "2026-10-25T01:30": "hourly 1 of 5 (2026-10-25 02:00+0100)",
        "2026-10-25T00:30": "hourly 2 of 5 (2026-10-25 02:00+0200)",
    }
    spring = facts("2026-03-29T00:59", "2026-03-29T01:00")  # 01:59 and 03:00 in Berlin
    assert len(by_rule(spring, Policy(hourly=5, zone="Europe/Berlin"), Rule.HOURLY)) == 2


def test_a_day_of_25_hours_is_one_day() -> None:
    points = facts("2026-10-24T22:00", "2026-10-25T22:59")  # 00:00 and 23:59 in Berlin
    assert kept(points, Policy(daily=5, zone="Europe/Berlin")) == ["2026-10-25T22:59"]


def test_times_are_compared_as_moments_whatever_their_offsets() -> None:
    east = timezone(timedelta(hours=9))
    points = [
        PointFacts("later", "m", datetime(2026, 11, 20, 8, tzinfo=east)),
        PointFacts("earlier", "m", datetime(2026, 11, 19, 22, 30, tzinfo=UTC)),
    ]
    assert kept(points, Policy(last=1)) == ["later"]


def test_what_is_held_or_in_use_is_kept_and_fills_no_place_of_others() -> None:
    points = [
        *facts("2026-11-01", held=True),
        *facts("2026-11-02", in_use=True),
        *facts("2026-11-03", "2026-11-04", "2026-11-05"),
    ]
    assert kept(points, Policy(last=2)) == ["2026-11-01", "2026-11-02", "2026-11-04", "2026-11-05"]


def test_an_empty_policy_removes_nothing() -> None:
    decisions = decide(facts("2020-01-01", "2021-01-01"), Policy(), NOW)
    assert [d.kept_by[-1].rule for d in decisions] == [Rule.NO_POLICY, Rule.NO_POLICY]


def test_nothing_of_a_machine_goes_whose_points_cannot_all_be_read() -> None:
    points = [*facts("2026-11-01", "2026-11-02"), *facts("2026-11-03", listed_whole=False)]
    whole = facts("2026-10-01", "2026-10-02", machine="other")
    assert kept([*points, *whole], Policy(last=1)) == ["2026-11-01", "2026-11-02", "2026-11-03", "2026-10-02"]


def test_machines_are_decided_one_by_one() -> None:
    points = [*facts("2026-11-01", "2026-11-02"), *facts("2025-01-01", "2025-01-02", machine="old")]
    assert kept(points, Policy(last=1)) == ["2026-11-02", "2025-01-02"]


def test_each_job_counts_its_own_points_only() -> None:
    points = [
        *facts("2026-11-18T22", "2026-11-19T22", "2026-11-20T22", rules="job nightly"),
        *facts(*(f"2026-11-21T{hour:02}" for hour in range(1, 20)), rules="job hourly"),
        *facts("2026-11-10", "2026-11-11"),
    ]
    policies = Policies(Policy(last=1), {"job nightly": Policy(daily=2), "job hourly": Policy(last=2)})
    assert kept(points, policies) == [
        *("2026-11-11", "2026-11-19T22", "2026-11-20T22"),
        *("2026-11-21T18", "2026-11-21T19"),
    ]


def test_the_last_good_point_is_the_machine_s_and_not_each_job_s() -> None:
    points = [*facts("2026-01-01", rules="job a"), *facts("2026-01-02", rules="job b"), *facts("2026-01-03")]
    policies = Policies(Policy(last=1), {"job a": Policy(last=1), "job b": Policy(last=1)})
    assert [d.point.id for d in decide(points, policies, NOW) if Keep(Rule.LAST_GOOD) in d.kept_by] == ["2026-01-03"]


def test_an_unreadable_manifest_keeps_the_points_of_every_job() -> None:
    points = [*facts("2026-01-01", rules="job a"), *facts("2026-01-02", "2026-01-03", listed_whole=False)]
    assert len(kept(points, Policies(Policy(days=1), {"job a": Policy(days=1)}))) == 3


def test_points_whose_rules_nobody_knows_are_kept() -> None:
    points = [*facts("2020-01-01", "2021-01-01", rules="job gone"), *facts("2026-01-02", "2026-11-21")]
    policies = Policies(Policy(last=1), {"job other": Policy(last=1)})
    assert kept(points, policies) == ["2020-01-01", "2021-01-01", "2026-11-21"]
    assert str(decide(points, policies, NOW)[0]) == "nobody knows the rules that it follows"


def test_a_victim_is_told_which_rules_did_not_keep_it() -> None:
    points = [*facts("2026-11-01", "2026-11-19", rules="job a"), *facts("2026-11-20", "2026-11-21")]
    policies = Policies(Policy(last=1), {"job a": Policy(days=2, weekly=0)})
    first, _, second, _ = decide(points, policies, NOW)
    assert (str(first), str(second)) == ("no rule of job a keeps it: days 2", "no rule keeps it: last 1")


def test_the_last_point_stays_however_old_it_is() -> None:
    (decision,) = decide(facts("2020-01-01"), Policy(days=1), NOW)
    assert str(decision) == "last good point, within days (1)"


def test_a_damaged_point_is_not_the_last_good_one() -> None:
    points = [
        *facts("2026-01-01", "2026-01-02"),
        *facts("2026-01-03", "2026-01-04", health=Health.DAMAGED),
    ]
    assert by_rule(points, Policy(days=1), Rule.LAST_GOOD) == {"2026-01-02": "last good point"}


def test_the_newest_proven_good_stays_beside_the_newest_that_nobody_checked() -> None:
    points = [
        *facts("2026-01-01"),
        *facts("2026-01-02", health=Health.GOOD),
        *facts("2026-01-03", "2026-01-04"),
        *facts("2026-01-05", health=Health.DAMAGED),
    ]
    assert by_rule(points, Policy(days=1), Rule.LAST_GOOD) == {
        "2026-01-02": "last good point",
        "2026-01-04": "last good point",
    }


def test_a_machine_with_damaged_points_only_keeps_the_newest() -> None:
    points = facts("2026-01-01", "2026-01-04", health=Health.DAMAGED)
    assert kept(points, Policy(days=1)) == ["2026-01-04"]


def test_older_points_stand_in_for_damaged_ones_which_stay_their_time() -> None:
    points = [
        *facts("2026-11-01", "2026-11-02", "2026-11-03"),
        *facts("2026-11-04", "2026-11-05", health=Health.DAMAGED),
        *facts("2026-11-06"),
    ]
    assert kept(points, Policy(last=3)) == ["2026-11-02", "2026-11-03", "2026-11-04", "2026-11-05", "2026-11-06"]


def test_a_false_alarm_on_every_point_removes_nothing_early() -> None:
    moments = [f"2026-11-{n:02}" for n in range(1, 21)]
    policy = Policy(last=2, daily=7, weekly=3)
    before = kept(facts(*moments), policy)
    assert kept(facts(*moments, health=Health.DAMAGED), policy) == before


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../etc/passwd", "Europe"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(ConfigurationError):
        Policy(daily=1, zone=zone)


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        Policy(weekly=-1)


def test_a_time_without_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="offset"):
        PointFacts("p", "m", datetime(2026, 1, 1))


policy_of_one = st.builds(
    Policy,
    *(st.integers(0, 5) for _ in range(7)),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"]),
)
# No "job gone" among them, though points name it.
policies = st.builds(
    Policies, policy_of_one, st.dictionaries(st.sampled_from(["job a", "job b"]), policy_of_one, max_size=2)
)
moments = st.datetimes(datetime(2024, 1, 1), NOW.replace(tzinfo=None), timezones=st.just(UTC))
wrong_moments = st.datetimes(datetime(2026, 11, 22, 12), datetime(2028, 1, 1), timezones=st.just(UTC))
points_of = st.lists(
    st.builds(
        PointFacts,
        id=st.uuids().map(str),
        machine=st.sampled_from(["a", "b"]),
        created_at=st.one_of(moments, moments, moments, wrong_moments),
        held=st.booleans(),
        in_use=st.sampled_from([False, False, True]),
        health=st.sampled_from(Health),
        listed_whole=st.sampled_from([True] * 9 + [False]),
        rules=st.sampled_from(["", "job a", "job b", "job gone"]),
    ),
    max_size=40,
    unique_by=lambda p: p.id,
)


def survivors(decisions: list[Decision]) -> list[PointFacts]:
    return [d.point for d in decisions if d.keep]


@pytest.mark.slow
@given(points_of, policies)
def test_every_point_is_decided_once_and_always_alike(points: list[PointFacts], policy: Policies) -> None:
    decisions = decide(points, policy, NOW)
    assert sorted(d.point.id for d in decisions) == sorted(p.id for p in points)
    assert decide(list(reversed(points)), policy, NOW) == decisions


@pytest.mark.slow
@given(points_of, policies)
def test_applying_it_twice_removes_nothing_more(points: list[PointFacts], policy: Policies) -> None:
    left = survivors(decide(points, policy, NOW))
    assert survivors(decide(left, policy, NOW)) == left


@pytest.mark.slow
@given(points_of, policies, moments, st.sampled_from(Health), st.sampled_from(["", "job a"]))
def test_a_new_point_never_makes_one_needed_that_was_not(
    points: list[PointFacts], policy: Policies, moment: datetime, health: Health, rules: str
) -> None:
    newest = max([moment, *(p.created_at for p in points)]) + timedelta(seconds=1)
    before = {p.id for p in survivors(decide(points, policy, NOW))}
    after = decide([*points, PointFacts("new", "a", newest, health=health, rules=rules)], policy, NOW)
    assert {p.id for p in survivors(after)} <= before | {"new"}


@pytest.mark.slow
@given(points_of, policies)
def test_what_must_stay_stays(points: list[PointFacts], policy: Policies) -> None:
    left = survivors(decide(points, policy, NOW))
    for machine in {p.machine for p in points}:
        mine = [p for p in points if p.machine == machine]
        stayed = [p for p in left if p.machine == machine]
        assert stayed
        assert {p.id for p in mine if p.held or p.in_use} <= {p.id for p in stayed}
        for health in ({Health.GOOD}, {Health.GOOD, Health.UNKNOWN}):
            if any(p.health in health for p in mine):
                newest = max(p.created_at for p in mine if p.health in health)
                assert any(p.health in health and p.created_at == newest for p in stayed)
        if not all(p.listed_whole for p in mine):
            assert len(stayed) == len(mine)
        silent = {rules for rules in {p.rules for p in mine} if (known := policy.of(rules)) is None or known.is_empty}
        assert {p.id for p in mine if p.rules in silent} <= {p.id for p in stayed}


@pytest.mark.slow
@given(points_of, policies)
def test_what_one_job_s_policy_keeps_does_not_depend_on_the_points_of_others(
    points: list[PointFacts], policy: Policies
) -> None:
    counted = {rule for rule in Rule if rule.value in Policy.__dataclass_fields__}

    def places(some: list[PointFacts]) -> dict[str, list[str]]:
        return {
            d.point.id: [str(keep) for keep in d.kept_by if keep.rule in counted] for d in decide(some, policy, NOW)
        }

    together = places(points)
    for rules in {p.rules for p in points}:
        alone = places([p for p in points if p.rules == rules])
        assert alone == {point: together[point] for point in alone}


@pytest.mark.slow
@given(points_of, policies, st.integers(0, 400))
def test_as_time_passes_nothing_becomes_needed_again(points: list[PointFacts], policy: Policies, days: int) -> None:
    before = {p.id for p in survivors(decide(points, policy, NOW))}
    later = survivors(decide(points, policy, NOW + timedelta(days=days)))
    assert {p.id for p in later} <= before


def test_the_zones_of_these_tests_are_known() -> None:
    assert ZoneInfo("Australia/Lord_Howe").utcoffset(datetime(2026, 1, 1)) == timedelta(hours=11)
