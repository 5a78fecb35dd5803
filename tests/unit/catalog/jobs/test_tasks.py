from dataclasses import replace
from datetime import timedelta

import pytest

from catalog.jobs.limits import Limits
from catalog.jobs.values import Task, TaskKind, TaskState
from proxy.errors import MachineBusy
from proxy.model import Reason, ReasonCode
from tests.unit.catalog.jobs.conftest import START, Site

pytestmark = pytest.mark.slow

LATER = START + timedelta(hours=1)
FREE = Limits()


def claimed(site: Site, **facts: object) -> Task:
    """The one task of a new run, claimed by p1."""
    run = site.run(site.job())
    site.add(site.task(run, 1, "host:h1", **facts))
    proxy = site.proxy()
    with site.store.transaction() as unit:
        task = unit.tasks.claim(proxy, START, FREE)
    assert task is not None
    return task


def test_a_task_comes_back_as_it_was_added(site: Site) -> None:
    run = site.run(site.job())
    task = site.task(
        run,
        1,
        "host:h1",
        "place:a b",
        paths=frozenset({"iqn.b", "iqn.a"}),
        exclude=frozenset({"vdc"}),
        full=True,
        deadline=LATER,
        expected_seconds=12.5,
        reasons=(Reason(ReasonCode.FULL_REQUESTED),),
        problems=("one",),
        measures={"bytes_read": 5, "deep": {"a": [1, 2]}},
    )
    other = site.task(run, 2, machine="", keys=("repository:r",), kind=TaskKind.COPY, target="second", order=None)
    site.add(task, other)
    with site.store.transaction(write=False) as unit:
        assert list(unit.tasks.of_run(run.id)) == [other, task]
        assert unit.tasks.get(task.id) == task
        assert unit.tasks.get("unknown") is None
        assert unit.tasks.counts([run.id, "unknown"]) == {run.id: {TaskState.WAITING: 2}}


def test_a_claimed_task_ends_once_with_all_that_is_known_of_it(site: Site) -> None:
    task = claimed(site)
    assert (task.state, task.proxy, task.claimed_at, task.attempt) == (TaskState.RUNNING, "p1", START, 1)
    why = Reason(ReasonCode.FULL_REQUESTED)
    with site.store.transaction() as unit:
        assert unit.tasks.by_run(task.run) == task
        assert not unit.tasks.end(task.id, TaskState.FAILED, LATER, proxy="another")
        assert unit.tasks.end(
            task.id,
            TaskState.DONE,
            LATER,
            proxy="p1",
            point="point",
            reasons=[why],
            problems=["one"],
            measures={"bytes_read": 5},
        )
        assert not unit.tasks.end(task.id, TaskState.FAILED, LATER)
        assert not unit.tasks.again(task.id, None)
        assert not unit.tasks.moved(task.id, "p2")
        assert unit.tasks.get(task.id) == replace(
            task,
            state=TaskState.DONE,
            ended_at=LATER,
            point="point",
            reasons=(why,),
            problems=("one",),
            measures={"bytes_read": 5},
        )
        assert unit.tasks.unfinished(task.job_run) == 0


def test_another_attempt_waits_for_its_time_and_is_a_new_run(site: Site) -> None:
    task = claimed(site)
    with site.store.transaction() as unit:
        assert unit.tasks.again(task.id, LATER, "device-busy", "words", reasons=[Reason(ReasonCode.RESUMED)])
        waiting = unit.tasks.get(task.id)
        assert waiting is not None
        assert (waiting.state, waiting.attempt, waiting.run, waiting.proxy) == (TaskState.WAITING, 2, "", "")
        assert (waiting.error, waiting.message, waiting.claimed_at) == ("device-busy", "words", None)
    proxy = site.proxy()
    with site.store.transaction() as unit:
        assert unit.tasks.claim(proxy, LATER - timedelta(seconds=1), FREE) is None
        second = unit.tasks.claim(proxy, LATER, FREE)
        assert second is not None
        assert second.run not in {"", task.run}
        assert unit.tasks.again(task.id, None, count=False)
        uncounted = unit.tasks.get(task.id)
        assert uncounted is not None
        assert uncounted.attempt == 2


def test_a_run_that_was_taken_over_is_not_ended_by_the_proxy_that_lost_it(site: Site) -> None:
    task = claimed(site)
    with site.store.transaction() as unit:
        assert [orphan.id for orphan in unit.tasks.orphans(["p2"])] == [task.id]
        assert unit.tasks.moved(task.id, "p2")
        assert not unit.tasks.end(task.id, TaskState.FAILED, LATER, proxy="p1")
        assert not unit.tasks.again(task.id, None, proxy="p1")
        assert not unit.tasks.orphans(["p2"])
        assert [running.proxy for running in unit.tasks.running()] == ["p2"]
        assert unit.tasks.end(task.id, TaskState.DONE, LATER, proxy="p2")


def test_what_waits_beyond_its_deadline_is_stopped(site: Site) -> None:
    run = site.run(site.job())
    site.add(
        site.task(run, 1, deadline=LATER), site.task(run, 2, deadline=LATER + timedelta(seconds=1)), site.task(run, 3)
    )
    why = Reason(ReasonCode.RESUMED, "too late")
    with site.store.transaction() as unit:
        assert unit.tasks.expire(LATER, [why]) == 1
        assert unit.tasks.expire(LATER, [why]) == 0
        (stopped,) = unit.tasks.of_run(run.id, TaskState.STOPPED)
        assert (stopped.machine, stopped.ended_at, stopped.reasons) == ("m1", LATER, (why,))
        assert unit.tasks.stop(run.id, LATER) == 2


def test_a_person_holds_a_machine_that_nobody_else_works_on(site: Site) -> None:
    task = claimed(site)
    with pytest.raises(MachineBusy, match=task.run), site.store.transaction() as unit:
        unit.tasks.hold("mine", task.machine, "db", LATER, proxy="here")
    with site.store.transaction() as unit:
        held = unit.tasks.hold("mine", "m9", "db", LATER, proxy="here", keys=["host:h1"])
        assert unit.tasks.hold("mine", "m9", "db", LATER, proxy="here") == held
        assert (held.run, held.state, held.keys, held.job_run) == (
            "mine",
            TaskState.RUNNING,
            ("machine:m9", "host:h1"),
            "",
        )
        assert unit.tasks.end("mine", TaskState.DONE, LATER)


def test_what_a_person_holds_is_not_claimed_beside_it(site: Site) -> None:
    run = site.run(site.job())
    site.add(site.task(run, 1, "host:h1"), site.task(run, 2, "host:h1"))
    proxy = site.proxy()
    with site.store.transaction() as unit:
        unit.tasks.hold("mine", "m1", "db", START, proxy="here", keys=["host:h1"])
        assert unit.tasks.claim(proxy, START, Limits({"host": 1})) is None
        second = unit.tasks.claim(proxy, START, Limits({"host": 2}))
        assert second is not None
        assert second.machine == "m2"


def test_progress_is_kept_of_running_tasks(site: Site) -> None:
    task = claimed(site)
    with site.store.transaction() as unit:
        unit.tasks.progress({task.id: (10, 100), "unknown": (1, 2)})
    with site.store.transaction(write=False) as unit:
        (running,) = unit.tasks.running()
        assert (running.done_bytes, running.total_bytes) == (10, 100)


def test_the_newest_durations_of_each_machine_are_kept_by_kind(site: Site) -> None:
    job = site.job()
    proxy = site.proxy()
    for night in range(9):
        run = site.run(job, night)
        site.add(site.task(run, 1, full=night == 0), site.task(run, 2))
        with site.store.transaction() as unit:
            for end, state in ((START + timedelta(seconds=night + 1), TaskState.DONE), (LATER, TaskState.FAILED)):
                task = unit.tasks.claim(proxy, START, FREE)
                assert task is not None
                unit.tasks.end(task.id, state, end)
    with site.store.transaction(write=False) as unit:
        assert unit.tasks.durations() == {
            ("m1", TaskKind.BACKUP, True): (1.0,),
            ("m1", TaskKind.BACKUP, False): (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0),
        }
        assert unit.tasks.last_success() == {"m1": ("name of m1", START + timedelta(seconds=9))}


def test_tasks_of_a_machine_are_listed_newest_end_first(site: Site) -> None:
    job = site.job()
    proxy = site.proxy()
    for night in range(3):
        run = site.run(job, night)
        site.add(site.task(run, 1))
        with site.store.transaction() as unit:
            task = unit.tasks.claim(proxy, START, FREE)
            assert task is not None
            unit.tasks.end(task.id, TaskState.DONE, START + timedelta(minutes=night))
    site.add(site.task(site.run(job, 3), 1))
    with site.store.transaction(write=False) as unit:
        listed = [task.job_run for task in unit.tasks.list("m1", limit=3)]
        assert listed == ["nightly-3", "nightly-2", "nightly-1"]
        assert [task.job_run for task in unit.tasks.list(state=TaskState.WAITING)] == ["nightly-3"]


def test_the_machines_whose_newest_backup_fell_short_are_told_with_it(site: Site) -> None:
    job, proxy = site.job(), site.proxy()
    ends = {
        "m1": [TaskState.FAILED, TaskState.DONE],
        "m2": [TaskState.DONE, TaskState.STOPPED],
        "m3": [TaskState.FAILED, TaskState.FAILED],
    }
    for night in range(2):
        run = site.run(job, night)
        for number, (machine, states) in enumerate(ends.items()):
            site.add(site.task(run, number, machine=machine, keys=(f"machine:{machine}",)))
            with site.store.transaction() as unit:
                claimed_now = unit.tasks.claim(proxy, START, FREE)
                assert claimed_now is not None
                unit.tasks.end(claimed_now.id, states[night], START + timedelta(days=night), message=f"night {night}")
    with site.store.transaction(write=False) as unit:
        assert {m: (t.state, t.message) for m, t in unit.tasks.fell_short(START).items()} == {
            "m2": (TaskState.STOPPED, "night 1"),
            "m3": (TaskState.FAILED, "night 1"),
        }
        assert unit.tasks.fell_short(START + timedelta(days=2)) == {}
