"""Backups that a person begins beside those of jobs: they hold their machine, and are counted."""

import signal

import pytest

from catalog.jobs.values import JobRunState, TaskState
from tests.integration.serving.fleet import Fleet, until

pytestmark = [pytest.mark.tools, pytest.mark.timeout(240)]


def test_a_machine_that_a_person_backs_up_is_left_alone_by_jobs_until_that_is_done(fleet: Fleet) -> None:
    fleet.machines(2)
    go_on = fleet.base / "go on"
    by_hand = fleet.start("--backup", "m000", "--until", str(go_on))
    until(fleet.running, "it is known to run")
    fleet.job()
    fleet.start()
    until(lambda: fleet.points() == ["m001"], "the other machine is not held up")
    go_on.touch()
    said, _ = by_hand.communicate(timeout=60)
    assert said.split() == ["m000"]
    until(fleet.ended, "then the job gets its turn")
    assert fleet.runs()[0].state is JobRunState.DONE
    assert fleet.points() == ["m000", "m000", "m001"]
    assert max(fleet.site.ledger.most().values()) <= 2
    assert all(task.error is None and task.attempt == 1 for task in fleet.tasks()), "nobody failed for it"


def test_a_second_backup_by_hand_is_told_who_holds_the_machine(fleet: Fleet) -> None:
    fleet.machines(1)
    go_on = fleet.base / "go on"
    first = fleet.start("--backup", "m000", "--until", str(go_on))
    until(fleet.running, "it is known to run")
    second, _ = fleet.start("--backup", "m000").communicate(timeout=60)
    assert second.startswith("machine-busy machine m000 is held by run b"), second
    go_on.touch()
    assert first.communicate(timeout=60)[0].split() == ["m000"]
    assert fleet.running() == []


def test_a_backup_by_hand_that_was_killed_holds_nothing_for_ever(fleet: Fleet) -> None:
    fleet.machines(1)
    killed = fleet.start("--backup", "m000", "--delay", "4")
    until(lambda: fleet.site.leftovers, "it is in the middle")
    killed.send_signal(signal.SIGKILL)
    killed.wait(30)
    (left,) = fleet.running()
    said, _ = fleet.start("--backup", "m000").communicate(timeout=60)
    assert said.split() == ["m000"]
    assert fleet.points() == ["m000", "m000"], "the killed run was gone on with first"
    assert fleet.running() == []
    with fleet.services.jobs.transaction(write=False) as unit:
        ended = unit.tasks.get(left.id)
    assert ended is not None
    assert ended.state is TaskState.STOPPED
    assert fleet.site.leftovers == ()
