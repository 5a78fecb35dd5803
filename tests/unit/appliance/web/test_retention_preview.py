"""What rules would keep of a history that looks like what a schedule makes."""

from datetime import UTC, datetime, timedelta
from time import perf_counter

import pytest

from appliance.config import Retention
from appliance.web.retention_preview import retention_preview
from catalog.jobs.policy import Policy

pytestmark = pytest.mark.slow

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def policy(**said: object) -> Policy:
    return Policy.model_validate(said)


def test_a_nightly_job_keeps_the_newest_of_each_period() -> None:
    said = policy(schedule={"at": ["22:00"]}, retention={"daily": 7, "weekly": 4})
    found = retention_preview(said, Retention(), NOW)
    assert (found.of, found.rules, found.kept_count) == ("job", "daily 7, weekly 4", 10)
    assert found.kept[0].at == datetime(2026, 11, 22, 22, tzinfo=UTC)
    assert found.kept[0].by[0] == "last good point"
    assert [kept.at for kept in found.kept] == sorted((kept.at for kept in found.kept), reverse=True)


def test_a_weekly_job_is_looked_at_with_its_own_runs() -> None:
    said = policy(schedule={"at": ["08:00"], "days": ["sat"]}, retention={"daily": 3})
    found = retention_preview(said, Retention(), NOW)
    assert [kept.at.day for kept in found.kept] == [21, 14, 7]


def test_without_rules_of_its_own_a_job_follows_the_configuration() -> None:
    said = policy(schedule={"at": ["22:00"]})
    assert retention_preview(said, Retention(daily=5), NOW).of == "configuration"
    nothing = retention_preview(said, Retention(), NOW)
    assert (nothing.of, nothing.kept_count) == ("none", nothing.runs)


@pytest.mark.parametrize(
    "said",
    [
        {"schedule": {"cron": "* * * * *"}, "retention": {"hourly": 48, "yearly": 10}},
        {"schedule": {"cron": "0 3 * * *"}, "retention": {"yearly": 100000}},
        {"retention": {"days": 100000, "last": 100000}},
        {"schedule": {"at": ["22:00"]}, "zone": "America/Sao_Paulo", "retention": {"monthly": 600}},
    ],
    ids=["each minute", "for ever", "all of it", "another zone"],
)
def test_no_policy_takes_long_to_look_at(said: dict[str, object]) -> None:
    begin = perf_counter()
    found = retention_preview(policy(**said), Retention(), NOW)
    assert 0 < found.kept_count <= found.runs
    assert len(found.kept) <= 400
    assert NOW - found.since < timedelta(days=3700)
    assert perf_counter() - begin < 5.0
