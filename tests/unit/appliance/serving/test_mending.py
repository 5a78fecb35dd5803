"""Tasks that say they run and do not, in a process that lives: a claim that never began, an end that was not written down."""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url, update

from appliance.serving.engine import Stage
from appliance.web import asking
from appliance.wiring import Services
from appliance.workflows import Workflows, running
from catalog.jobs.tables import TaskRow
from catalog.jobs.values import Task, TaskKind, TaskState
from proxy.model import MachineId, ReasonCode
from tests.unit.appliance.keeping.sealed_points import NOW, appliance, seal
from tests.unit.appliance.serving.job_with_tasks import add_task, begun, claimed, stop, task_of

pytestmark = pytest.mark.slow  # a workflow engine each


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with appliance(tmp_path / "appliance") as made:
        yield made


@pytest.fixture
def workflows(services: Services) -> Iterator[Workflows]:
    with running(services, print, urgent=True) as made:
        yield made


def end_without_a_word(workflows: Workflows, run: str) -> None:
    """A run in the engine that ends, and leaves the task that was claimed with it as it is."""
    workflows.perform("another task", run)
    deadline = time.monotonic() + 20
    while workflows.stages([run])[run] is not Stage.ENDED:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def claimed_here(services: Services, workflows: Workflows, minutes: int) -> Task:
    add_task(services, begun(services))
    return claimed(services, workflows.name, minutes)


def test_a_task_whose_end_could_not_be_written_down_does_not_run_for_ever(
    services: Services, workflows: Workflows
) -> None:
    task = claimed_here(services, workflows, minutes=5)
    end_without_a_word(workflows, task.run)
    assert [each.id for each in workflows.mend()] == [task.id]
    assert task_of(services, task.id).state is TaskState.FAILED
    assert not workflows.mend()


def test_a_task_whose_restore_point_is_there_is_done_though_nobody_wrote_that_down(
    services: Services, workflows: Workflows
) -> None:
    point = seal(services.repository, NOW)
    task = claimed_here(services, workflows, minutes=5)
    with services.jobs.transaction() as unit:
        unit.session.execute(update(TaskRow).where(TaskRow.id == task.id).values(run=point.run))
    end_without_a_word(workflows, point.run)
    assert len(workflows.mend()) == 1
    ended = task_of(services, task.id)
    assert (ended.state, ended.point) == (TaskState.DONE, point.id)
    assert "could not be written down" in ended.problems[0]


def test_a_claim_of_this_moment_is_left_to_who_made_it(services: Services, workflows: Workflows) -> None:
    task = claimed_here(services, workflows, minutes=0)
    assert not workflows.mend()
    assert task_of(services, task.id).state is TaskState.RUNNING


def test_a_claim_that_never_began_waits_again(services: Services, workflows: Workflows) -> None:
    task = claimed_here(services, workflows, minutes=5)
    assert len(workflows.mend()) == 1
    again = task_of(services, task.id)
    assert (again.state, again.attempt) == (TaskState.WAITING, 1)


@pytest.mark.parametrize("begun_by", [None, "the-version-before"])
def test_a_restore_that_another_version_began_is_not_made_again_and_one_that_nobody_began_is(
    services: Services, workflows: Workflows, begun_by: str | None
) -> None:
    asking.ask(services, "alice", TaskKind.FILES, machine=(MachineId("m1"), "db-1"), target="/restored")
    task = claimed(services, "a proxy that is gone")
    if begun_by is not None:
        end_without_a_word(workflows, task.run)
        with sqlite3.connect(make_url(services.workflow_url).database or "", timeout=20) as database:
            database.execute("UPDATE workflow_status SET application_version = ?", (begun_by,))
        database.close()
    assert len(workflows.mend()) == 1
    ended = task_of(services, task.id)
    if begun_by is None:
        assert (ended.state, ended.attempt) == (TaskState.WAITING, 1)
    else:
        assert (ended.state, ended.error) == (TaskState.FAILED, "restore-interrupted")
        assert "/restored" in ended.message, "who asked is told where a part of it may lie"


def test_a_claim_that_never_began_of_a_run_that_was_stopped_waits_for_nothing(
    services: Services, workflows: Workflows
) -> None:
    run = begun(services)
    add_task(services, run)
    task = claimed(services, workflows.name, minutes=5)
    stop(services, run)
    assert len(workflows.mend()) == 1
    ended = task_of(services, task.id)
    assert ended.state is TaskState.STOPPED
    assert {reason.code for reason in ended.reasons} == {ReasonCode.STOPPED_BY_PERSON}
