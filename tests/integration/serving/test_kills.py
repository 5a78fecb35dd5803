"""A proxy killed at every step of a backup by schedule: the run goes on or is undone, and each task ends exactly once."""

import pytest

from catalog.jobs.values import JobRunState, TaskState
from tests.integration.serving.fleet import Fleet, until

pytestmark = pytest.mark.tools

STEPS = (
    "task",
    "note start",
    "plan",
    "snapshot",
    "copy vda",
    "confirm",
    "seal",
    "release",
    "note end",
    "record",
    "end",
)
RUN_STEPS = ("run", "before", "choose", "note", "follow", "after", "end", "tell 0", "tell 1")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("when", ["before", "in", "after"])
def test_a_kill_at_each_step_of_a_task_in_turn_costs_nothing(fleet: Fleet, when: str) -> None:
    fleet.machines(6)
    fleet.job()
    for step in STEPS:
        # What was under way is gone on with, and the next kill hits it, or another one, at the next step.
        assert fleet.start("--kill", f"{when} {step}").wait(90) == -9, fleet.said()
    fleet.start()
    until(fleet.ended, "the job run has ended")
    assert [(task.state, task.attempt) for task in fleet.tasks()] == [(TaskState.DONE, 1)] * 6, fleet.tasks()
    assert fleet.runs()[0].state is JobRunState.DONE
    assert fleet.points() == [f"m{n:03d}" for n in range(6)], "one restore point each, not two"
    assert fleet.site.leftovers == ()
    assert fleet.site.ledger.held() == []
    assert max(number for key, number in fleet.site.ledger.most().items() if key.startswith("host:")) <= 2


@pytest.mark.timeout(400)
def test_a_kill_at_each_step_of_a_job_run_in_turn_costs_nothing(fleet: Fleet) -> None:
    fleet.machines(2)
    log = fleet.base / "hooks"
    fleet.job(
        before=[{"command": ["sh", "-c", f"echo before >> {log}"]}],
        after=[{"command": ["sh", "-c", f"echo after >> {log}"]}],
        retention={"last": 5},
    )
    for step in RUN_STEPS:
        assert fleet.start("--kill", f"in {step}" if step != "end" else "before tell 0").wait(90) == -9, fleet.said()
    last = fleet.start()
    until(lambda: fleet.serves(last), "it goes on with what was cut off")
    assert fleet.end(last) == 0, "it ends when that is done"
    kinds = sorted((task.kind.value, task.state) for task in fleet.tasks())
    assert kinds == [("backup", TaskState.DONE), ("backup", TaskState.DONE), ("prune", TaskState.DONE)]
    assert [run.state for run in fleet.runs()] == [JobRunState.DONE]
    assert fleet.points() == ["m000", "m001"]
    assert log.read_text().split() == ["before", "before", "after", "after"], "twice: each was cut off itself"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("point", ["in choose", "before copy vda", "in note end"])
def test_a_run_that_an_upgrade_cut_off_is_done_by_the_new_version(fleet: Fleet, point: str) -> None:
    fleet.machines(2)
    fleet.job()
    assert fleet.start("--kill", point, "--shape", "the-one-before").wait(60) == -9, fleet.said()
    fleet.start()
    until(fleet.ended, "the job run has ended")
    assert [task.state for task in fleet.tasks()] == [TaskState.DONE] * 2, [
        (task.error, task.message, task.reasons) for task in fleet.tasks()
    ]
    assert set(fleet.points()) == {"m000", "m001"}
    assert fleet.site.leftovers == (), "what the old version's run left is swept"
