"""Which rules of retention a restore point follows."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from appliance.config import Settings, parse
from appliance.jobs.retention import has_rules, rules_of
from catalog.jobs.policy import CopyTo, Keep
from catalog.jobs.policy import Policy as JobPolicy
from catalog.jobs.values import PastJob
from proxy.model import Consistency, Level, MachineConfiguration, Reason, ReasonCode, RestorePoint
from proxy.repository.collection.retention import Policy

OURS, THEIRS = "1" * 32, "2" * 32

NIGHTLY = JobPolicy(
    zone="Europe/Berlin",
    retention=Keep(daily=7),
    copy_to=(CopyTo(name="vault", retention=Keep(monthly=12)), CopyTo(name="attic")),
)


def configured(text: str = "[retention]\nlast = 3") -> Settings:
    vault = '[[copy_to]]\nname = "vault"\npath = "/v"\n[copy_to.retention]\nlast = 5\n'
    attic = '[[copy_to]]\nname = "attic"\npath = "/a"\n'
    return parse(f"{vault}{attic}{text}", Path("lanfree.toml"))


def point(identity: str, job: str = "", *more: Reason, job_id: str = "") -> RestorePoint:
    made = (Reason(ReasonCode.MADE_BY_JOB, job),) if job else ()
    made = (*made, Reason(ReasonCode.MADE_BY_JOB_ID, job_id)) if job_id else made
    moment = datetime(2026, 11, 1, tzinfo=UTC)
    facts = (identity, "m1", "web", "h1", "r", moment, Level.FULL, Consistency.CRASH, ())
    return RestorePoint(*facts, configuration=MachineConfiguration("libvirt-xml", ""), reasons=(*made, *more))


def copied(repository: str) -> Reason:
    return Reason(ReasonCode.COPIED, f"repository {repository}, sealed there 2026-11-01 00:00:00 UTC")


def job(identity: str, policy: JobPolicy, *names: str) -> PastJob:
    return PastJob(identity, names, policy)


JUST_NIGHTLY = (job("1", NIGHTLY, "nightly"),)


def applied(
    one: RestorePoint, settings: Settings, jobs: Sequence[PastJob], where: str = ""
) -> tuple[str, Policy | None]:
    """The rules' name, and the policy, ``None`` if nobody knows it."""
    if where and not any(reason.code is ReasonCode.COPIED for reason in one.reasons):
        one = replace(one, reasons=(*one.reasons, copied(OURS)))
    return as_it_is(one, settings, jobs, where)


def as_it_is(
    one: RestorePoint, settings: Settings, jobs: Sequence[PastJob], where: str = ""
) -> tuple[str, Policy | None]:
    """The same, of a point to which no copy is added."""
    rules = rules_of([one], settings, jobs, own=OURS, repository=where)
    name = rules.names[one.id]
    return name, rules.policies.of(name)


def test_a_point_of_a_job_follows_the_jobs_rules_in_its_time_zone() -> None:
    assert applied(point("a", "nightly"), configured(), JUST_NIGHTLY) == (
        "job nightly",
        Policy(daily=7, zone="Europe/Berlin"),
    )


def test_a_point_of_no_job_follows_the_configuration() -> None:
    assert applied(point("a"), configured(), JUST_NIGHTLY) == ("", Policy(last=3))


def test_points_of_a_job_without_rules_follow_the_configuration_and_are_counted_by_themselves() -> None:
    assert applied(point("a", "plain"), configured(), [job("1", JobPolicy(), "plain")]) == ("job plain", Policy(last=3))


def test_points_of_a_renamed_job_are_counted_with_those_of_its_new_name() -> None:
    jobs = [job("1", NIGHTLY, "night", "nightly"), job("2", JobPolicy(), "weekly")]
    points = [point("a", "night"), point("b", "nightly"), point("c", "weekly")]
    rules = rules_of(points, configured(), jobs, own=OURS)
    assert rules.names["a"] == rules.names["b"] != rules.names["c"]


def test_points_of_a_job_that_nobody_knows_are_kept_unless_they_shall_follow_the_configuration() -> None:
    assert applied(point("a", "gone"), configured(), ()) == ("job gone", None)
    follow = configured('[retention]\nlast = 3\nforgotten_jobs = "follow"')
    assert applied(point("a", "gone"), follow, ()) == ("job gone", Policy(last=3))


def test_copies_follow_what_the_job_says_of_that_repository_else_what_the_repository_says() -> None:
    jobs = [*JUST_NIGHTLY, job("2", JobPolicy(retention=Keep(last=1)), "plain")]
    monthly = Policy(monthly=12, zone="Europe/Berlin")
    assert applied(point("a", "nightly"), configured(), jobs, "vault") == ("job nightly", monthly)
    assert applied(point("a", "plain"), configured(), jobs, "vault") == ("job plain", Policy(last=5))
    assert applied(point("a"), configured(), jobs, "vault") == ("", Policy(last=5))


def test_the_first_repositorys_rules_are_never_applied_to_copies() -> None:
    jobs = JUST_NIGHTLY
    assert applied(point("a", "nightly"), configured(), jobs, "attic") == ("job nightly", Policy())
    assert applied(point("a"), configured(), jobs, "attic") == ("", Policy())


def test_what_was_pulled_follows_its_sources_rules_whatever_our_own_jobs_are_called() -> None:
    pulled = point("a", "nightly", copied(THEIRS), Reason(ReasonCode.PULLED, "north"))
    jobs = JUST_NIGHTLY
    north = configured('[[copy_from]]\nname = "north"\npath = "/n"\n[copy_from.retention]\nweekly = 4')
    assert applied(pulled, north, jobs) == ("copies from north, job nightly", Policy(weekly=4))
    assert applied(pulled, configured(), jobs) == ("copies from north, job nightly", None)
    pulled = replace(pulled, reasons=(*pulled.reasons, copied(OURS)))
    assert applied(pulled, north, jobs, "vault") == ("copies from north, job nightly", Policy(last=5))


def test_a_job_that_took_anothers_name_over_does_not_get_its_points() -> None:
    strict = JobPolicy(retention=Keep(last=1))
    jobs = [job("old", NIGHTLY, "archive", "nightly"), job("new", strict, "nightly")]
    points = [point("a", "nightly", job_id="old"), point("b", "nightly", job_id="new"), point("c", "nightly")]
    rules = rules_of(points, configured(), jobs, own=OURS)
    assert rules.names == {"a": "job archive", "b": "job nightly", "c": "job nightly, one of 2 of this name"}
    followed = [rules.policies.of(rules.names[each.id]) for each in points]
    assert followed == [Policy(daily=7, zone="Europe/Berlin"), Policy(last=1), None]


def test_two_jobs_of_one_name_are_told_apart_and_so_is_one_that_nobody_knows() -> None:
    jobs = [job("a" * 32, NIGHTLY, "nightly"), job("b" * 32, JobPolicy(), "nightly")]
    assert applied(point("p", "nightly", job_id="b" * 32), configured(), jobs) == (
        "job nightly (bbbbbbbbbbbb)",
        Policy(last=3),
    )
    lost = point("p", "nightly", job_id="c" * 32)
    assert applied(lost, configured(), JUST_NIGHTLY) == ("job nightly (cccccccccccc)", None)
    follow = configured('[retention]\nlast = 3\nforgotten_jobs = "follow"')
    assert applied(lost, follow, JUST_NIGHTLY) == ("job nightly (cccccccccccc)", Policy(last=3))


def test_what_another_site_brought_follows_no_job_of_ours_and_is_kept() -> None:
    theirs = point("a", "nightly", copied(THEIRS))
    follow = configured('[retention]\nlast = 3\nforgotten_jobs = "follow"')
    label = "another site's, repository 222222222222, job nightly"
    assert as_it_is(theirs, configured(), JUST_NIGHTLY) == (label, None)
    assert as_it_is(theirs, follow, JUST_NIGHTLY) == (label, Policy(last=3)), "a person said so"
    for settings in (configured(), follow):
        assert as_it_is(theirs, settings, JUST_NIGHTLY, "vault") == (label, None)
    by_hand = point("a", "", copied(THEIRS))
    assert as_it_is(by_hand, configured(), JUST_NIGHTLY, "vault") == ("another site's, repository 222222222222", None)


def test_who_put_a_copy_into_a_second_repository_decides_whose_it_is() -> None:
    made_there = point("a", "nightly")
    assert as_it_is(made_there, configured(), JUST_NIGHTLY, "vault") == ("another site's, job nightly", None)
    ours_by_another = point("a", "nightly", copied(OURS), Reason(ReasonCode.PULLED, "us"), copied(THEIRS))
    whose, policy = as_it_is(ours_by_another, configured(), JUST_NIGHTLY, "vault")
    assert (whose.startswith("another site's"), policy) == (True, None)


def test_a_point_of_ours_that_was_brought_back_is_ours_and_what_another_site_pulled_is_not() -> None:
    back = point("a", "nightly", copied(OURS), copied(THEIRS), job_id="1")
    assert as_it_is(back, configured(), JUST_NIGHTLY) == ("job nightly", Policy(daily=7, zone="Europe/Berlin"))
    north = configured('[[copy_from]]\nname = "north"\npath = "/n"\n[copy_from.retention]\nweekly = 4')
    pushed = point("a", "nightly", copied(THEIRS), Reason(ReasonCode.PULLED, "north"), copied("3" * 32))
    assert as_it_is(pushed, north, JUST_NIGHTLY) == ("another site's, repository 222222222222, job nightly", None)


def test_a_job_prunes_where_it_or_the_configuration_has_a_rule() -> None:
    silent = configured("")
    assert has_rules(silent, NIGHTLY)
    assert not has_rules(silent, JobPolicy())
    assert not has_rules(silent, JobPolicy(retention=Keep()))
    assert has_rules(configured(), JobPolicy())
    assert has_rules(silent, NIGHTLY, "vault")
    assert has_rules(silent, JobPolicy(copy_to=(CopyTo(name="vault"),)), "vault"), "[copy_to.retention] has one"
    assert not has_rules(silent, NIGHTLY, "attic")
