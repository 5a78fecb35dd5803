"""What the scheduler begins while the clock is changed, by law or by mistake: the whole way, through the job store."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import update

from appliance.serving.scheduler import begin_due
from appliance.wiring import Services
from catalog.jobs.policy import Policy, Schedule
from catalog.jobs.tables import JobRow
from catalog.jobs.values import Cause, JobRun, JobRunState
from proxy.model import ReasonCode
from tests.unit.appliance.keeping.sealed_points import settings

pytestmark = pytest.mark.slow

BERLIN = ZoneInfo("Europe/Berlin")
HALF_PAST_TWO = Policy(zone="Europe/Berlin", schedule=Schedule(at=(time(2, 30),)))
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with Services(settings(tmp_path)) as made:
        yield made


def add(services: Services, policy: Policy, now: datetime) -> None:
    with services.jobs.transaction() as unit:
        unit.jobs.add("nightly", policy, now)


def look(services: Services, now: datetime) -> list[JobRun]:
    """What one look begins; it is done at once."""
    begun = [one.run for one in begin_due(services, now)]
    with services.jobs.transaction() as unit:
        for run in begun:
            if run.state is JobRunState.RUNNING:
                assert unit.runs.end(run.id, JobRunState.DONE, now)
    return begun


@pytest.mark.parametrize(
    ("sunday", "local"),
    [(datetime(2026, 3, 29, tzinfo=UTC), "03:00"), (datetime(2026, 10, 25, tzinfo=UTC), "02:30")],
    ids=["the-hour-is-skipped", "the-hour-comes-twice"],
)
def test_a_nightly_job_runs_once_in_the_night_in_which_the_clock_changes(
    services: Services, sunday: datetime, local: str
) -> None:
    begun: list[JobRun] = []
    add(services, HALF_PAST_TWO, sunday - DAY)
    for midnight in (sunday - DAY, sunday, sunday + DAY):
        for minutes in range(0, 180, 4):
            begun += look(services, midnight + minutes * MINUTE)
    assert [f"{run.scheduled_for.astimezone(BERLIN):%H:%M}" for run in begun] == ["02:30", local, "02:30"]
    assert {run.cause for run in begun} == {Cause.SCHEDULE}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_clock_that_jumps_to_and_fro_begins_each_night_at_most_once(services: Services, seed: int) -> None:
    random, now = Random(seed), datetime(2026, 11, 20, tzinfo=UTC)
    add(services, HALF_PAST_TWO, now)
    begun: list[JobRun] = []
    for _ in range(120):
        now += random.choice((3, 3, 3, 20, 60, 300, -90, -45)) * MINUTE
        begun += look(services, now)
    moments = [run.scheduled_for for run in begun]
    assert len(moments) >= 2
    assert moments == sorted(set(moments))
    assert all(moment <= now + 300 * MINUTE for moment in moments)


def test_a_clock_that_was_years_ahead_costs_no_night_once_it_is_right_again(services: Services) -> None:
    now = datetime(2026, 11, 20, tzinfo=UTC)
    add(services, HALF_PAST_TWO, now)
    (wrong,) = look(services, datetime(2036, 5, 5, tzinfo=UTC))
    assert wrong.cause is Cause.MISSED
    begun: list[JobRun] = []
    for night in range(3):
        for minutes in range(0, 180, 4):
            begun += look(services, now + night * DAY + minutes * MINUTE)
    assert [run.scheduled_for.day for run in begun] == [20, 21, 22]


def test_nights_that_nobody_saw_are_made_up_for_by_one_run_that_says_so(services: Services) -> None:
    now = datetime(2026, 11, 20, tzinfo=UTC)
    add(services, HALF_PAST_TWO, now)
    (run,) = look(services, now + 4 * DAY)
    assert (run.cause, run.scheduled_for.day) == (Cause.MISSED, 23)
    (reason,) = [reason for reason in run.reasons if reason.code is ReasonCode.SCHEDULE_MISSED]
    assert reason.detail.startswith("3 ")
    assert look(services, now + 4 * DAY + MINUTE) == []


def test_a_job_whose_stored_policy_makes_no_sense_is_told_once_and_the_others_begin(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    now, told = datetime(2026, 11, 20, tzinfo=UTC), set[str]()
    add(services, HALF_PAST_TWO, now)
    with services.jobs.transaction() as unit:
        broken = unit.jobs.add("broken", HALF_PAST_TWO, now)
        unit.session.execute(update(JobRow).where(JobRow.id == broken.id).values(policy={"parallel": "many"}))
    begun = [one.run for _ in range(3) for one in begin_due(services, now + DAY, told)]
    assert [run.job_name for run in begun] == ["nightly"]
    (said,) = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert "broken" in said
    assert "parallel" in said
    with services.jobs.transaction() as unit:
        unit.session.execute(update(JobRow).where(JobRow.id == broken.id).values(policy={}))
    begin_due(services, now + DAY, told)
    assert told == set(), "and is told again if it breaks again"
