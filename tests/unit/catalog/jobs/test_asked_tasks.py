"""Tasks that a person asks for, beside those of job runs."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from catalog import database
from catalog.jobs.limits import Limits
from catalog.jobs.store import JobStore
from catalog.jobs.values import Task, TaskKind, TaskState
from proxy.errors import MachineBusy
from proxy.model import Reason, ReasonCode
from tests.unit.catalog.jobs.conftest import START, Site

pytestmark = pytest.mark.slow

LATER = START + timedelta(hours=1)
FREE = Limits()


def wish(number: int = 1, kind: TaskKind = TaskKind.BACKUP, machine: str = "m1", **facts: object) -> Task:
    """By alice."""
    task = Task(f"t{number}", "", kind, TaskState.WAITING, machine, f"name of {machine}" if machine else "")
    keys = (f"machine:{machine}",) if machine and kind is not TaskKind.FILES else ()
    made = START + timedelta(seconds=number)
    facts = {"keys": keys, "asked_by": "alice", "created_at": made, "parameters": {"version": 1}, **facts}
    return replace(task, **facts)  # type: ignore[arg-type]


def ask(site: Site, *tasks: Task) -> None:
    with site.store.transaction() as unit:
        for task in tasks:
            unit.tasks.ask(task)


def claim(site: Site, slots: int = 10) -> Task | None:
    proxy = site.proxy(slots=slots)
    with site.store.transaction() as unit:
        return unit.tasks.claim(proxy, START, FREE)


def test_a_wish_comes_back_as_it_was_asked_for(site: Site) -> None:
    task = wish(parameters={"version": 1, "deep": {"a": [1, None]}}, deadline=LATER, target="second")
    ask(site, task)
    with site.store.transaction(write=False) as unit:
        assert unit.tasks.get("t1") == task
        assert not task.by_hand


def test_the_same_person_gets_the_same_task_for_the_same_key(site: Site) -> None:
    with site.store.transaction() as unit:
        first = unit.tasks.ask(wish(1), "k")
        assert unit.tasks.ask(wish(2), "k") == first
        assert unit.tasks.ask(wish(3, asked_by="bob"), "k").id == "t3"
        assert unit.tasks.ask(wish(4), "another").id == "t4"
        assert unit.tasks.ask(wish(5)).id == "t5"
        assert unit.tasks.ask(wish(6)).id == "t6", "without a key nothing is the same"
    with site.store.transaction(write=False) as unit:
        assert unit.tasks.get("t2") is None


def test_what_a_person_asks_for_begins_before_a_jobs_tasks(site: Site) -> None:
    run = site.run(site.job())
    site.add(site.task(run, 7, order=START - timedelta(days=1)))
    ask(site, wish())
    first, second = claim(site), claim(site)
    assert first is not None
    assert second is not None
    assert (first.id, second.id) == ("t1", f"{run.id}-00007")
    assert first.run.startswith("b")


def test_nobody_backs_up_a_machine_that_is_restored(site: Site) -> None:
    run = site.run(site.job())
    ask(site, wish(kind=TaskKind.RESTORE, machine="m7"))
    site.add(site.task(run, 7))
    restoring = claim(site)
    assert restoring is not None
    assert restoring.kind is TaskKind.RESTORE
    assert claim(site) is None
    with site.store.transaction() as unit, pytest.raises(MachineBusy):
        unit.tasks.hold("b1", "m7", "m7", START, proxy="by hand")
    with site.store.transaction() as unit:
        assert unit.tasks.end(restoring.id, TaskState.DONE, LATER, result={"machine": "m7"})
    again = claim(site)
    assert again is not None
    assert again.kind is TaskKind.BACKUP


def test_two_restores_to_one_device_do_not_begin_at_once_on_any_proxy(site: Site) -> None:
    """Each saw an empty LUN in its preview."""
    device = "target:naa.6001405"
    ask(site, wish(1, TaskKind.RESTORE, "m1", keys=("machine:m1", device, "target:iqn.a/3")))
    ask(site, wish(2, TaskKind.RESTORE, "m2", keys=("machine:m2", device, "target:iqn.b/3")))
    first = claim(site)
    assert first is not None
    other = site.proxy("other", slots=10)
    with site.store.transaction() as unit:
        assert unit.tasks.claim(other, START, Limits({"target": 9}, {device: 9})) is None
    with site.store.transaction() as unit, pytest.raises(MachineBusy):
        unit.tasks.hold("by-hand", "m3", "m3", START, proxy="p3", keys=["target:iqn.a/3"], kind=TaskKind.RESTORE)
    with site.store.transaction() as unit:
        assert unit.tasks.end(first.id, TaskState.FAILED, LATER)
        assert unit.tasks.claim(other, START, FREE) is not None


def test_a_machine_that_is_given_a_disk_is_not_backed_up_by_hand_meanwhile(site: Site) -> None:
    ask(site, wish(1, TaskKind.RESTORE, "m1", keys=("machine:m1", "machine:m2")))
    assert claim(site) is not None
    with site.store.transaction() as unit, pytest.raises(MachineBusy):
        unit.tasks.hold("b1", "m2", "m2", START, proxy="by hand")


def test_files_are_restored_while_their_machine_is_backed_up(site: Site) -> None:
    ask(site, wish(1), wish(2, TaskKind.FILES))
    assert claim(site) is not None
    files = claim(site)
    assert files is not None
    assert (files.kind, files.keys) == (TaskKind.FILES, ())


def test_what_is_urgent_waits_for_no_slot_and_takes_two_more_at_most(site: Site) -> None:
    ask(site, wish(1), wish(2, machine="m2"), *(wish(n, TaskKind.FILES, f"m{n}") for n in (3, 4, 5)))
    kinds = [task.kind.value if (task := claim(site, slots=1)) else None for _ in range(5)]
    assert kinds == ["backup", "files", "files", None, None]
    with site.store.transaction(write=False) as unit:
        assert {task.id for task in unit.tasks.newest(states=[TaskState.WAITING])} == {"t2", "t5"}


def test_a_proxy_without_slots_takes_nothing_urgent_either(site: Site) -> None:
    ask(site, wish(1, TaskKind.FILES))
    assert claim(site, slots=0) is None


def test_a_waiting_wish_is_stopped_at_once_and_a_running_one_is_told(site: Site) -> None:
    ask(site, wish(1), wish(2, machine="m2"))
    running = claim(site)
    assert running is not None
    why = Reason(ReasonCode.STOPPED_BY_PERSON, "by bob")
    with site.store.transaction() as unit:
        assert unit.tasks.stop_one("t1", LATER, (why,))
        assert unit.tasks.stop_one("t2", LATER, (why,))
        assert not unit.tasks.stop_one("unknown", LATER)
        first, second = unit.tasks.get("t1"), unit.tasks.get("t2")
        assert first is not None
        assert second is not None
        assert (first.state, first.stop_at) == (TaskState.RUNNING, LATER)
        assert (second.state, second.ended_at) == (TaskState.STOPPED, LATER)
        assert why in second.reasons
        assert not unit.tasks.stop_one("t2", LATER)


def test_the_newest_come_first_and_a_page_goes_on_where_the_one_before_ended(site: Site) -> None:
    ask(site, *(wish(n, machine=f"m{n}", created_at=START + timedelta(seconds=n // 2)) for n in range(1, 8)))
    seen: list[str] = []
    before = None
    with site.store.transaction(write=False) as unit:
        while some := unit.tasks.newest(before=before, limit=3):
            seen += [task.id for task in some]
            assert some[-1].created_at is not None
            before = (some[-1].created_at, some[-1].id)
    assert seen == ["t7", "t6", "t5", "t4", "t3", "t2", "t1"]


def test_the_list_is_narrowed(site: Site) -> None:
    run = site.run(site.job())
    site.add(replace(site.task(run, 9), created_at=START))
    ask(site, wish(1), wish(2, TaskKind.VERIFY, ""), wish(3, TaskKind.PRUNE, "", target="second"))
    with site.store.transaction(write=False) as unit:

        def ids(**wanted: object) -> list[str]:
            return [task.id for task in unit.tasks.newest(**wanted)]  # type: ignore[arg-type]

        assert ids(kinds=[TaskKind.VERIFY, TaskKind.PRUNE]) == ["t3", "t2"]
        assert ids(machine="m1") == ["t1"]
        assert ids(job_run=run.id, asked=False) == [f"{run.id}-00009"]
        assert ids(asked=True, since=START + timedelta(seconds=2)) == ["t3", "t2"]
        assert ids(target="second") == ["t3"]
        assert ids(states=[TaskState.DONE]) == []
        assert ids(like=["name of m%"], kinds=[TaskKind.BACKUP]) == ["t1", f"{run.id}-00009"]
        assert ids(like=["m9"], kinds=[TaskKind.BACKUP]) == [f"{run.id}-00009"]


def test_only_wishes_expire_that_nobody_began_in_time(site: Site) -> None:
    run = site.run(site.job())
    site.add(site.task(run, 9, deadline=START))
    ask(site, wish(1, deadline=START), wish(2, machine="m2", deadline=LATER), wish(3, machine="m3"))
    why = (Reason(ReasonCode.NOT_BEGUN_IN_TIME),)
    with site.store.transaction() as unit:
        assert unit.tasks.expire_asked(START, why) == 1
        assert [task.id for task in unit.tasks.newest(states=[TaskState.STOPPED])] == ["t1"]
        assert unit.tasks.expire(START) == 1
        assert {task.id for task in unit.tasks.newest(states=[TaskState.WAITING])} == {"t2", "t3"}


def test_a_late_wish_is_found_behind_any_number_of_newer_ones(site: Site) -> None:
    ask(site, wish(1, TaskKind.RESTORE, deadline=LATER), *(wish(n, machine=f"m{n}") for n in range(2, 150)))
    with site.store.transaction(write=False) as unit:
        assert not unit.tasks.is_late(LATER - timedelta(seconds=1))
        assert unit.tasks.is_late(LATER)
    with site.store.transaction() as unit:
        assert unit.tasks.expire_asked(LATER) == 1
        assert not unit.tasks.is_late(LATER)


def test_progress_tells_what_goes_on_and_a_new_attempt_begins_without(site: Site) -> None:
    ask(site, wish())
    assert claim(site) is not None
    with site.store.transaction() as unit:
        unit.tasks.progress({"t1": (5, 10)}, {"t1": "writing disks"})
    with site.store.transaction() as unit:
        task = unit.tasks.get("t1")
        assert task is not None
        assert (task.done_bytes, task.total_bytes, task.phase) == (5, 10, "writing disks")
        assert unit.tasks.again("t1", None)
    again = claim(site)
    assert again is not None
    assert (again.done_bytes, again.phase, again.attempt) == (0, "", 2)


def test_history_that_is_old_is_forgotten_with_the_wishes_in_it(site: Site) -> None:
    ask(site, wish(1), wish(2, machine="m2"))
    for _ in range(2):
        task = claim(site)
        assert task is not None
        ended = LATER if task.id == "t1" else LATER + timedelta(days=2)
        with site.store.transaction() as unit:
            assert unit.tasks.end(task.id, TaskState.DONE, ended, result={"found": []})
    site.store.forget(LATER + timedelta(days=1))
    with site.store.transaction(write=False) as unit:
        assert unit.tasks.get("t1") is None
        assert unit.tasks.get("t2") is not None


@pytest.mark.slow
def test_tasks_of_the_schema_before_keep_what_they_were_up_and_down(site: Site) -> None:
    run = site.run(site.job())
    site.add(site.task(run, 9))
    ask(site, wish())
    engine = site.store._engine
    database.downgrade(engine, "0001", schema=database.JOBS)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT id FROM tasks")).scalars().all() == [f"{run.id}-00009"]
    database.upgrade(engine, schema=database.JOBS)
    with site.store.transaction(write=False) as unit:
        (task,) = unit.tasks.newest()
        assert (task.id, task.created_at) == (f"{run.id}-00009", run.started_at)
        assert (task.asked_by, dict(task.parameters), dict(task.result), task.phase) == ("", {}, {}, "")


def test_a_store_opened_twice_holds_the_same_wishes(jobs_url: str, site: Site) -> None:
    ask(site, wish())
    with JobStore(jobs_url) as other, other.transaction(write=False) as unit:
        assert [task.asked_by for task in unit.tasks.newest()] == ["alice"]
