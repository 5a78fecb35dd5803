from datetime import timedelta

import pytest
from sqlalchemy import update

from catalog.jobs.policy import Keep, Policy, Schedule
from catalog.jobs.tables import JobRow
from catalog.jobs.values import PastJob
from proxy.errors import JobBusy, JobConflict, JobNotFound, JobUnreadable, LanfreeError
from tests.unit.catalog.jobs.conftest import START, Site

LATER = START + timedelta(hours=1)


def test_a_job_comes_back_as_it_was_given(site: Site) -> None:
    policy = Policy.model_validate(
        {
            "select": {"include": ["name=web-*"], "exclude_disks": ["db-*:vdc"]},
            "zone": "Europe/Berlin",
            "schedule": {"at": ["22:00", "04:30"], "days": ["mon", "fri"]},
            "window": [{"start": "22:00", "end": "06:00"}],
            "blackout": [{"first": "2026-12-24", "last": "2026-12-26", "why": "holidays"}],
            "before": [{"command": ["/bin/true", "a b"]}],
            "retention": {"daily": 7},
            "copy_to": [{"name": "other", "retention": {"weekly": 4}}],
            "parallel": 3,
        }
    )
    with site.store.transaction() as unit:
        added = unit.jobs.add("nightly", policy, START)
    assert (added.revision, added.enabled, added.seen) == (1, True, START)
    with site.store.transaction(write=False) as unit:
        assert unit.jobs.get("nightly") == added == unit.jobs.get(added.id)
        assert list(unit.jobs.list()) == [added]
    assert added.policy == policy


def test_an_unknown_job_is_told_with_those_that_there_are(site: Site) -> None:
    site.job("nightly")
    site.job("weekly")
    with pytest.raises(JobNotFound) as caught, site.store.transaction(write=False) as unit:
        unit.jobs.get("nightyl")
    assert "nightyl" in caught.value.message
    assert "nightly, weekly" in caught.value.hint


def test_who_changes_an_old_revision_is_told_and_nothing_is_changed(site: Site) -> None:
    job = site.job(description="first")
    with site.store.transaction() as unit:
        changed = unit.jobs.change("nightly", Policy(description="second"), job.revision, LATER)
    assert (changed.revision, changed.updated_at, changed.policy.description) == (2, LATER, "second")
    with pytest.raises(JobConflict, match="revision 2"), site.store.transaction() as unit:
        unit.jobs.change("nightly", Policy(description="third"), job.revision, LATER)
    with site.store.transaction(write=False) as unit:
        assert unit.jobs.get("nightly") == changed


def test_a_name_is_given_once(site: Site) -> None:
    site.job("nightly")
    site.job("weekly")
    with pytest.raises(JobConflict), site.store.transaction() as unit:
        unit.jobs.add("nightly", Policy(), LATER)
    with pytest.raises(JobConflict), site.store.transaction() as unit:
        unit.jobs.rename("weekly", "nightly", LATER)
    with site.store.transaction() as unit:
        renamed = unit.jobs.rename("weekly", "sundays", LATER)
        assert [job.name for job in unit.jobs.list()] == ["nightly", "sundays"]
    assert renamed.revision == 2


def test_what_passed_while_a_job_was_disabled_is_not_missed(site: Site) -> None:
    site.job()
    with site.store.transaction() as unit:
        assert not unit.jobs.enable("nightly", False, START).enabled
        enabled = unit.jobs.enable("nightly", True, LATER)
    assert (enabled.enabled, enabled.seen) == (True, LATER)


def test_a_schedule_is_never_seen_to_go_back(site: Site) -> None:
    job = site.job()
    with site.store.transaction() as unit:
        unit.jobs.seen(job.id, LATER)
        unit.jobs.seen(job.id, START)
        assert unit.jobs.get(job.id).seen == LATER


def test_a_clock_that_was_far_ahead_does_not_keep_a_job_from_running(site: Site) -> None:
    job = site.job()
    with site.store.transaction() as unit:
        unit.jobs.seen(job.id, START + timedelta(days=900))
        unit.jobs.seen(job.id, LATER)
        assert unit.jobs.get(job.id).seen == LATER


def test_a_job_that_runs_is_not_removed_and_its_runs_outlive_it(site: Site) -> None:
    job = site.job()
    run = site.run(job)
    with pytest.raises(JobBusy, match=run.id), site.store.transaction() as unit:
        unit.jobs.remove("nightly")
    with site.store.transaction() as unit:
        unit.runs.end(run.id, run.state.DONE, LATER)
        unit.jobs.remove("nightly")
        assert not unit.jobs.list()
        assert [known.job_name for known in unit.runs.list(job.id)] == ["nightly"]


def test_every_name_that_a_job_had_keeps_the_policy_of_that_job(site: Site) -> None:
    job = site.job("first", retention={"daily": 1})
    gone = site.job("gone", retention={"daily": 5})
    with site.store.transaction() as unit:
        unit.jobs.rename("first", "second", LATER)
        unit.jobs.change("second", Policy(retention=Keep(daily=2)), 2, LATER)
        unit.jobs.remove("gone")
        known = {past.id: (past.names, past.policy.retention) for past in unit.jobs.past()}
    assert known == {job.id: (("second", "first"), Keep(daily=2)), gone.id: (("gone",), Keep(daily=5))}


def test_a_new_job_takes_the_name_of_another_one_over_and_both_are_known(site: Site) -> None:
    old = site.job("nightly", retention={"daily": 1})
    with site.store.transaction() as unit:
        unit.jobs.rename("nightly", "archive", LATER)
        unit.jobs.add("nightly", Policy(), LATER)
        assert sorted(past.names for past in unit.jobs.past()) == [("archive", "nightly"), ("nightly",)]
        unit.jobs.remove("nightly")
        unit.jobs.rename("archive", "nightly", LATER)
    with site.store.transaction() as unit:
        unit.jobs.remove("nightly")
        new = unit.jobs.add("nightly", Policy(schedule=Schedule(cron="0 22 * * *")), LATER)
        known = {past.id: past for past in unit.jobs.past()}
    assert len(known) == 3
    assert known[old.id].policy.retention == Keep(daily=1)
    assert known[new.id] == PastJob(new.id, ("nightly",), new.policy)


def test_a_policy_that_cannot_be_read_is_told_and_left_out_where_that_is_wanted(site: Site) -> None:
    good, bad = site.job("good"), site.job("bad")
    with site.store.transaction() as unit:
        unit.session.execute(update(JobRow).where(JobRow.id == bad.id).values(policy={"parallel": "many"}))
    told: dict[str, LanfreeError] = {}
    with site.store.transaction(write=False) as unit:
        assert unit.jobs.list(told) == [good]
        for read in (unit.jobs.list, lambda: unit.jobs.get("bad")):
            with pytest.raises(JobUnreadable, match=r"bad.*parallel"):
                read()
    assert list(told) == ["bad"]
