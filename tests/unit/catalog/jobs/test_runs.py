from dataclasses import replace
from datetime import timedelta

import pytest

from catalog.jobs.values import JobRunState, TaskState
from proxy.model import Reason, ReasonCode
from tests.unit.catalog.jobs.conftest import START, Site

LATER = START + timedelta(hours=1)


def test_a_run_comes_back_as_it_began(site: Site) -> None:
    job = site.job(parallel=2, priority=5)
    run = site.run(job, selected=7, deadline=LATER, reasons=(Reason(ReasonCode.RESUMED, "why"),), notes=("a note",))
    with site.store.transaction(write=False) as unit:
        assert unit.runs.get(run.id) == run == unit.runs.active(job.id)
        assert unit.runs.get("unknown") is None


def test_a_job_has_one_run_for_each_moment(site: Site) -> None:
    job, other = site.job(), site.job("other")
    run = site.run(job)
    site.run(other)
    with site.store.transaction() as unit:
        assert not unit.runs.begin(replace(run, id="another"))
        assert not unit.runs.begin(replace(run, scheduled_for=LATER))
        assert unit.runs.begin(replace(run, id="later", scheduled_for=LATER))
        assert [known.id for known in unit.runs.under_way()] == ["later", "nightly-0", "other-0"]


def test_a_run_ends_once(site: Site) -> None:
    job = site.job()
    run = site.run(job, notes=("first",))
    why = Reason(ReasonCode.RESUMED)
    with site.store.transaction() as unit:
        unit.runs.note(run.id, "second")
        unit.runs.note(run.id, "second")
        assert unit.runs.end(run.id, JobRunState.ATTENTION, LATER, [why], ["third"])
        assert not unit.runs.end(run.id, JobRunState.FAILED, LATER)
        ended = unit.runs.get(run.id)
        assert unit.runs.active(job.id) is None
    assert ended == replace(
        run, state=JobRunState.ATTENTION, ended_at=LATER, reasons=(why,), notes=("first", "second", "third")
    )


def test_runs_are_listed_newest_first(site: Site) -> None:
    job, other = site.job(), site.job("other")
    for minute in range(3):
        site.run(job, minute)
    site.run(other, 9)
    with site.store.transaction(write=False) as unit:
        assert [run.id for run in unit.runs.list(limit=2)] == ["other-9", "nightly-2"]
        assert [run.id for run in unit.runs.list(job.id)] == ["nightly-2", "nightly-1", "nightly-0"]


def test_a_person_stops_a_run_and_what_waits_ends_at_once(site: Site) -> None:
    run = site.run(site.job())
    site.add(site.task(run, 1), site.task(run, 2, state=TaskState.RUNNING), site.task(run, 3, state=TaskState.DONE))
    why = Reason(ReasonCode.RESUMED, "by hand")
    with site.store.transaction() as unit:
        assert unit.runs.stop(run.id, LATER, [why])
        assert unit.runs.stop(run.id, LATER + timedelta(minutes=1))
        stopped = unit.runs.get(run.id)
        assert stopped is not None
        assert (stopped.state, stopped.stop_at) == (JobRunState.RUNNING, LATER)
        assert [(task.state, task.reasons) for task in unit.tasks.of_run(run.id)] == [
            (TaskState.STOPPED, (why,)),
            (TaskState.RUNNING, ()),
            (TaskState.DONE, ()),
        ]
        assert unit.tasks.unfinished(run.id) == 1
        unit.runs.end(run.id, JobRunState.STOPPED, LATER)
        assert not unit.runs.stop(run.id, LATER)


def test_facts_that_are_known_later_are_added(site: Site) -> None:
    run = site.run(site.job(), deadline=START)
    with site.store.transaction() as unit:
        unit.runs.change(run.id, selected=4)
        assert unit.runs.get(run.id) == replace(run, selected=4)
        unit.runs.change(run.id, deadline=LATER)
        assert unit.runs.get(run.id) == replace(run, selected=4, deadline=LATER)


def test_old_history_goes_with_its_tasks_and_nothing_else(site: Site) -> None:
    job = site.job()
    old, new, active = site.run(job, 0), site.run(job, 1), site.run(job, 2)
    for run in (old, new, active):
        site.add(site.task(run, 1))
    with site.store.transaction() as unit:
        unit.runs.end(old.id, JobRunState.DONE, START)
        unit.runs.end(new.id, JobRunState.DONE, LATER)
        unit.tasks.hold("by-hand", "m9", "db", START, proxy="p1")
        unit.tasks.end("by-hand", TaskState.DONE, START)
        unit.tasks.hold("still", "m9", "db", START, proxy="p1")
    assert site.store.forget(LATER) == 1
    with site.store.transaction(write=False) as unit:
        assert [run.id for run in unit.runs.list()] == [active.id, new.id]
        assert sorted(task.id for task in unit.tasks.list()) == ["nightly-1-00001", "nightly-2-00001", "still"]
        assert list(unit.tasks.last_success()) == ["m9"], "measurements stay"


def test_the_newest_end_is_that_of_a_run_that_took_place(site: Site) -> None:
    job = site.job()
    with site.store.transaction(write=False) as unit:
        assert unit.runs.newest_end() is None
    old, new, skipped, _ = (site.run(job, minute) for minute in range(4))
    with site.store.transaction() as unit:
        unit.runs.end(new.id, JobRunState.FAILED, LATER)
        unit.runs.end(old.id, JobRunState.DONE, START)
        unit.runs.end(skipped.id, JobRunState.SKIPPED, LATER + timedelta(days=400))
        assert unit.runs.newest_end() == LATER


@pytest.mark.slow
def test_much_history_goes_in_several_transactions(site: Site) -> None:
    job = site.job()
    for minute in range(120):
        run = site.run(job, minute)
        with site.store.transaction() as unit:
            unit.runs.end(run.id, JobRunState.DONE, START)
    assert site.store.forget(LATER) == 120
    with site.store.transaction(write=False) as unit:
        assert not unit.runs.list()
